import { describe, expect, test } from "vitest";
import { steady } from "../src/env.js";
import { type LineEvent, type LineOptions, makeLine } from "../src/line.js";
import { Machine } from "../src/machine.js";
import { matches } from "../src/topics.js";
import { Clock, closing, FakeHub, problem, randomOf, settled, surroundingsOf } from "./world.js";

type Told<K extends LineEvent["kind"]> = LineEvent & { kind: K };

function world(options: Partial<LineOptions> = {}, seed = 1) {
  const clock = new Clock();
  const hub = new FakeHub();
  const random = randomOf(seed);
  const { env, sign, watchers } = surroundingsOf(clock, hub, random);
  const told: LineEvent[] = [];
  const line = makeLine({ url: "http://hub/", topics: ["a"], on: (event) => told.push(event), env, ...options });
  const all = <K extends LineEvent["kind"]>(kind: K) => told.filter((event) => event.kind === kind) as Told<K>[];
  return {
    clock,
    hub,
    random,
    sign,
    watchers,
    told,
    line,
    all,
    ids: () => all("message").map(({ id }) => id),
    states: () => all("state").map(({ state, reason }) => (reason ? `${state}: ${reason}` : state)),
    /** Bring everything that is on its way. */
    async bring() {
      await settled();
      hub.stream?.bring();
      await settled();
    },
  };
}

describe("a line", () => {
  test("tells what comes, with its topics, and where the stream stands", async () => {
    const { hub, line, told, bring } = world();
    line.open();
    await bring();
    hub.publish(["a", "b"], { n: 1 });
    hub.publish(["b"], 2);
    hub.beat();
    await bring();
    expect(told).toEqual([
      { kind: "state", state: "connecting" },
      { kind: "state", state: "open", wire: "sse" },
      { kind: "open", id: "e1-0", connection: "c_1", topics: ["a"], recovered: null },
      { kind: "message", id: "e1-1", type: "made", topics: ["a"], data: { n: 1 } },
      { kind: "cursor", id: "e1-2" },
    ]);
    expect(line.cursor).toBe("e1-2");
  });

  test("goes on after a lost stream from where it was, no sooner than the hub said", async () => {
    const { clock, hub, line, ids, states, bring } = world();
    line.open();
    await bring();
    hub.publish(["a"], 1);
    await bring();
    hub.stream!.break();
    hub.publish(["a"], 2);
    await clock.pass(hub.retry - 1);
    expect(hub.requests).toHaveLength(1);
    await clock.pass(1);
    await bring();
    expect(hub.requests[1]!.url.searchParams.get("lastEventId")).toBe("e1-1");
    expect(ids()).toEqual(["e1-1", "e1-2"]);
    expect(states()).toEqual(["connecting", "open", "waiting: network", "connecting", "open"]);
  });

  test("tells a gap", async () => {
    const { clock, hub, line, all, bring } = world();
    line.open();
    await bring();
    hub.publish(["a"], 1);
    await bring();
    hub.lose("e2");
    hub.publish(["a"], 1);
    await clock.pass(10_000);
    await bring();
    expect(all("gap")).toEqual([{ kind: "gap", id: "e2-0", reason: "epoch", oldest: "e2-1" }]);
    expect(all("message").map(({ id }) => id)).toEqual(["e1-1", "e2-1"]);
  });

  test("sends a long list of topics in a body", async () => {
    const topics = Array.from({ length: 128 }, (_, n) => `a/long/topic/of/number/${n}`);
    const { hub, line, bring } = world({ topics });
    line.open();
    await bring();
    expect(hub.requests[0]!.init.method).toBe("POST");
    expect([...hub.stream!.topics]).toEqual(topics);
  });

  test("says nothing more when it is closed, whoever closes it", async () => {
    const { clock, hub, line, told, watchers, bring } = world({
      on: (event) => {
        told.push(event);
        if (event.kind === "message") line.close();
      },
    });
    line.open();
    await bring();
    hub.publish(["a"], 1);
    hub.publish(["a"], 2);
    await bring();
    await clock.pass(600_000);
    expect(told.at(-1)).toEqual({ kind: "state", state: "closed" });
    expect(told.filter(({ kind }) => kind === "message")).toHaveLength(1);
    expect([hub.requests.length, hub.stream, watchers.size]).toEqual([1, undefined, 0]);
  });

  test("gives a topic that is refused back to whoever asked for it, and goes on", async () => {
    const { hub, line, bring, ids } = world();
    hub.forbidden.add("secret");
    line.open();
    await bring();
    await expect(line.add(["b", "secret"])).rejects.toMatchObject({ status: 403, topic: "secret" });
    expect(line.topics).toEqual(["a"]);
    hub.publish(["a"], 1);
    await bring();
    expect(ids()).toEqual(["e1-1"]);
  });

  test("tries a topic that is added while it connects, and drops it if it is refused", async () => {
    const { hub, line, bring } = world();
    hub.forbidden.add("secret");
    line.open();
    const added = line.add(["secret"]);
    await expect(added).rejects.toMatchObject({ status: 403, topic: "secret" });
    await bring();
    expect([...hub.stream!.topics]).toEqual(["a"]);
  });
});

describe("without a login", () => {
  test("a line gets more topics with a new stream, and loses nothing", async () => {
    const { hub, line, bring, ids } = world();
    hub.guarded = new Set(["secret"]);
    line.open();
    await bring();
    const added = line.add(["b"]);
    hub.publish(["a"], 1);
    await bring();
    await added;
    hub.publish(["b"], 2);
    await bring();
    expect([ids(), line.topics, hub.streams.length]).toEqual([["e1-1", "e1-2"], ["a", "b"], 1]);
  });

  test("a topic that needs one is refused, and the others go on", async () => {
    const { hub, line, bring, ids } = world();
    hub.guarded = new Set(["secret"]);
    line.open();
    await bring();
    await expect(line.add(["secret"])).rejects.toMatchObject({ status: 401, code: "unauthorized" });
    await bring();
    hub.publish(["a"], 1);
    await bring();
    expect([ids(), line.topics]).toEqual([["e1-1"], ["a"]]);
  });
});

describe("a hub or a proxy that", () => {
  test("says to come back at once is not stormed", async () => {
    const { clock, hub, line, bring } = world();
    hub.retry = 0;
    line.open();
    await bring();
    hub.instead = Array.from({ length: 5_000 }, () => () => Promise.reject(new TypeError("no network")));
    hub.stream!.break();
    await clock.pass(60_000);
    expect(hub.requests.length).toBeLessThan(20);
  });

  test("names a time that no timer can wait is not stormed", async () => {
    const { clock, hub, line } = world();
    hub.instead = [() => closing("capacity", 2 ** 40)];
    line.open();
    await clock.pass(86_399_000);
    expect(hub.requests).toHaveLength(1);
    expect(clock.longest).toBeLessThan(2 ** 31);
    line.close();
  });

  test.each([405, 501, 403])("takes no PATCH (%i) gets the topics with a new stream", async (status) => {
    const { hub, line, bring, ids } = world();
    line.open();
    await bring();
    hub.instead = [() => new Response("<h1>No</h1>", { status })];
    const added = line.add(["b"]);
    await bring();
    await added;
    hub.publish(["b"], 1);
    await bring();
    expect(ids()).toEqual(["e1-1"]);
  });
});

test("a full hub is not stormed by those who can't hear when to come back", () => {
  for (const [random, wait] of [
    [0, 5_000],
    [0.5, 10_000],
  ] as const) {
    const machine = new Machine(
      () => random,
      false,
      () => true,
    );
    machine.take({ on: "start" }, 0);
    machine.take({ on: "opened", deaf: true }, 0);
    machine.take({ on: "close", reason: "capacity" }, 0);
    expect(machine.take({ on: "ended" }, 0)).toContainEqual({ do: "timer", ms: wait });
  }
});

test("a clock that is set back goes on from where it was", () => {
  const told = [1_000, 1_500, 200, 300, 10, 2_000];
  const clock = steady(() => told.shift()!);
  expect(Array.from({ length: 6 }, clock)).toEqual([1_000, 1_500, 1_500, 1_600, 1_600, 3_590]);
});

describe("a token", () => {
  test("is renewed once when it is refused, and the line goes on", async () => {
    let made = 0;
    const { hub, line, states, bring } = world({ token: async () => `t${++made}` });
    hub.tokens = new Set(["t2"]);
    line.open();
    await bring();
    expect(made).toBe(2);
    expect(states()).toEqual(["connecting", "connecting", "open"]);
  });

  test("that is refused again ends it: there is no storm", async () => {
    let made = 0;
    const { clock, hub, line, states } = world({ token: async () => `t${++made}` });
    hub.tokens = new Set();
    line.open();
    await clock.pass(600_000);
    expect([made, hub.requests.length]).toEqual([2, 2]);
    expect(states().at(-1)).toBe("refused: token_expired");
  });

  test("is renewed each time that the hub ends a stream because of it", async () => {
    let made = 0;
    const { clock, hub, line, states, bring } = world({ token: async () => `t${++made}` });
    line.open();
    for (let round = 1; round <= 3; round++) {
      await bring();
      expect(made).toBe(round);
      await clock.pass(20_000);
      hub.stream!.say('retry: 2000\nevent: hub.close\ndata: {"reason":"token_expired"}\n\n');
      await bring();
      hub.stream!.end();
      await clock.pass(2_000);
    }
    expect(states().filter((state) => state === "waiting: token_expired")).toHaveLength(3);
  });

  test("that does not come is waited for, within bounds", async () => {
    const { clock, hub, line, states } = world({ token: () => new Promise(() => {}) });
    line.open();
    await clock.pass(40_000);
    expect(hub.requests).toHaveLength(0);
    expect(states()).toContain("waiting: token");
    line.close();
  });
});

describe("a refusal", () => {
  test.each(["unauthorized", "token_invalid", "revoked", "forbidden", "replaced"])(
    "that can't get better ends it: %s",
    async (reason) => {
      const { clock, hub, line, states } = world();
      hub.instead = [() => closing(reason, 100)];
      line.open();
      await clock.pass(600_000);
      expect(states()).toEqual(["connecting", `refused: ${reason}`]);
      expect(hub.requests).toHaveLength(1);
    },
  );

  test.each(["capacity", "draining", "log_unavailable", "auth_unavailable", "shutdown"])(
    "that passes is waited out, as long as the hub says: %s",
    async (reason) => {
      const { clock, hub, line, states, sign, bring } = world();
      hub.instead = [() => closing(reason, 45_000)];
      line.open();
      await clock.pass(44_000);
      sign("online");
      sign("visible");
      line.wake();
      expect(hub.requests).toHaveLength(1);
      await clock.pass(30_000);
      await bring();
      expect(states()).toEqual(["connecting", `waiting: ${reason}`, "connecting", "open"]);
    },
  );

  test("with Retry-After is waited out", async () => {
    const { clock, hub, line } = world();
    hub.instead = [() => problem(503, "draining", undefined, { "Retry-After": "20" })];
    line.open();
    await clock.pass(19_999);
    expect(hub.requests).toHaveLength(1);
    await clock.pass(10_001);
    expect(hub.requests).toHaveLength(2);
  });

  test("can be overcome by opening it again, with another token", async () => {
    let token = "old";
    const { hub, line, states, bring } = world({ token: async () => token });
    hub.tokens = new Set(["new"]);
    line.open();
    await settled();
    expect(states().at(-1)).toBe("refused: token_expired");
    token = "new";
    line.open();
    await bring();
    expect(states().at(-1)).toBe("open");
  });
});

describe("the watchdog", () => {
  test("opens anew after two and a half heartbeats without a byte", async () => {
    const { clock, hub, line, states, bring } = world();
    line.open();
    await bring();
    await clock.pass(37_000);
    expect(states().at(-1)).toBe("open");
    await clock.pass(1_000);
    expect(states().at(-1)).toBe("waiting: silent");
    expect(hub.stream).toBeUndefined();
  });

  test("leaves a stream alone that has heartbeats", async () => {
    const { clock, hub, line, states, bring } = world();
    line.open();
    await bring();
    for (let beat = 0; beat < 40; beat++) {
      await clock.pass(15_000);
      hub.beat();
      await bring();
    }
    expect(states()).toEqual(["connecting", "open"]);
  });

  test("learns the interval of the hub: a longer one is alarming once, a shorter one is noticed sooner", async () => {
    for (const [interval, alarms] of [
      [50_000, 1],
      [4_000, 0],
    ] as const) {
      const { clock, hub, line, states, bring } = world();
      line.open();
      await bring();
      for (let beat = 0; beat < 20; beat++) {
        await clock.pass(interval);
        hub.beat();
        await bring();
      }
      expect(states().filter((state) => state === "waiting: silent")).toHaveLength(alarms);
      if (interval === 4_000) {
        await clock.pass(11_000);
        expect(states().at(-1)).toBe("waiting: silent");
      }
    }
  });

  test("is not alarmed by timers that were held back: what arrived meanwhile is read first", async () => {
    const { clock, hub, line, states, sign, bring } = world();
    line.open();
    await bring();
    sign("hidden");
    clock.sleep(60_000);
    hub.beat();
    const passing = clock.pass(100);
    await settled();
    hub.stream!.bring();
    await passing;
    sign("visible");
    await clock.pass(10_000);
    expect(states()).toEqual(["connecting", "open"]);
  });

  test("looks at once when the page is visible again", async () => {
    const { clock, line, states, sign, bring } = world();
    line.open();
    await bring();
    clock.sleep(600_000);
    sign("visible");
    await clock.pass(2_100);
    expect(states().at(-1)).toBe("waiting: silent");
  });

  test("bounds an answer that does not come", async () => {
    const { clock, hub, line, states } = world();
    hub.instead = [() => new Promise(() => {})];
    line.open();
    await clock.pass(30_000);
    expect(states().at(-1)).toBe("waiting: timeout");
  });
});

test("a network that is back is used at once", async () => {
  const { clock, hub, line, states, sign, bring } = world();
  hub.instead = Array.from({ length: 8 }, () => () => Promise.reject(new TypeError("no network")));
  sign("offline");
  line.open();
  await clock.pass(20_000);
  expect(states().at(-1)).toBe("offline: network");
  hub.instead = [];
  sign("online");
  await bring();
  expect(states().at(-1)).toBe("open");
});

test("waits double up to a limit, and differ", async () => {
  const { clock, hub, line, all } = world();
  hub.instead = Array.from({ length: 40 }, () => () => Promise.reject(new TypeError("no network")));
  line.open();
  await clock.pass(600_000);
  const waits = all("state").flatMap(({ retryIn }) => retryIn ?? []);
  for (const [n, wait] of waits.entries()) expect(wait).toBeLessThanOrEqual(Math.min(1_000 * 2 ** n, 30_000));
  expect(new Set(waits).size).toBe(waits.length);
  expect(Math.max(...waits)).toBeGreaterThan(15_000);
});

/** What a network and a hub may do to a line. */
async function anything({ clock, hub, random, sign, line }: ReturnType<typeof world>): Promise<void> {
  const chance = random();
  const stream = hub.stream;
  if (chance < 0.35) stream?.bring(Math.floor(random() * (stream.bytes.length + 1)));
  else if (chance < 0.5) stream?.bring();
  else if (chance < 0.58) stream?.break();
  else if (chance < 0.62) stream?.end();
  else if (chance < 0.66) hub.instead.push(() => Promise.reject(new TypeError("no network")));
  else if (chance < 0.68)
    hub.instead.push(() => problem(random() < 0.5 ? 502 : 503, "", undefined, { "Retry-After": "3" }));
  else if (chance < 0.7) hub.instead.push(() => closing(random() < 0.5 ? "draining" : "capacity", 5_000));
  else if (chance < 0.71) hub.instead.push(() => new Promise(() => {}));
  else if (chance < 0.73) hub.instead.push(() => new Response("<html>", { headers: { "Content-Type": "text/html" } }));
  else if (chance < 0.76)
    sign((["online", "offline", "hidden", "visible", "frozen", "resumed"] as const)[Math.floor(random() * 6)]!);
  else if (chance < 0.77) clock.sleep(random() * 120_000);
  else if (chance < 0.8) line.wake();
  else if (chance < 0.84) hub.beat();
  else await clock.pass(random() * 20_000);
  await settled();
}

/** Let everything get better, and come. */
async function better({ clock, hub, sign }: ReturnType<typeof world>): Promise<void> {
  hub.instead = [];
  sign("online");
  for (let turn = 0; turn < 30; turn++) {
    await settled();
    hub.stream?.bring();
    await settled();
    if (turn > 20) hub.beat();
    await clock.pass(5_000);
  }
}

const SEEDS = Array.from({ length: 300 }, (_, seed) => seed + 1);

describe("whatever happens", () => {
  test.each(SEEDS)("each notification comes once, in order, or a gap is told (%i)", async (seed) => {
    const at = world({ start: "earliest" }, seed);
    const { hub, line, random, told } = at;
    const sent: string[] = [];
    line.open();
    for (let step = 0; step < 80; step++) {
      if (random() < 0.4) sent.push(hub.publish(random() < 0.7 ? ["a"] : ["a", "b"], sent.length));
      else if (random() < 0.02) hub.trim(Math.floor(hub.newest * random()));
      else if (random() < 0.005) hub.lose(`lost${step}`);
      else await anything(at);
    }
    await better(at);
    let expected = 0;
    let missing = true; // what was trimmed or lost before the line began is no gap
    for (const event of told) {
      if (event.kind !== "message" && event.kind !== "gap") continue;
      if (event.kind === "message") {
        const place = sent.indexOf(event.id);
        expect(place).toBeGreaterThanOrEqual(expected);
        if (place > expected) expect(missing).toBe(true);
        expected = place + 1;
        missing = false;
      } else missing = true;
    }
    if (expected < sent.length) expect(missing).toBe(true);
  });
});

describe("topics that come and go", () => {
  test.each(SEEDS)("each comes from where it was asked for, once, whatever happens (%i)", async (seed) => {
    const at = world({ topics: ["a"] }, seed);
    const { hub, line, random, told } = at;
    const sent: { id: string; topics: string[] }[] = [];
    const asked: Promise<unknown>[] = [];
    const from = new Map([["a", 0]]);
    const offset = (id: string) => Number(id.split("-")[1]);
    line.open();
    await at.bring();
    for (let step = 0; step < 60; step++) {
      const chance = random();
      if (chance < 0.4) {
        const topics = ["a", "b", "c/1", "d"].filter(() => random() < 0.4);
        if (topics.length) sent.push({ id: hub.publish(topics, step), topics });
      } else if (chance < 0.5) {
        const topic = ["b", "c/*", "d"][Math.floor(random() * 3)]!;
        if (line.topics.includes(topic) || from.has(topic)) continue;
        const after = random() < 0.6 && line.cursor ? hub.id(Math.floor(random() * (hub.newest + 1))) : undefined;
        from.set(topic, Infinity);
        const adding = line.add([topic], after).then((answer) => {
          from.set(topic, offset(answer.from));
          if (after) expect(answer.from).toBe(after);
        });
        asked.push(adding);
        if (random() < 0.5) await settled();
      } else await anything(at);
    }
    await better(at);
    await Promise.all(asked);
    const ids = told.flatMap((event) => (event.kind === "message" ? event.id : []));
    expect(new Set(ids).size).toBe(ids.length);
    for (const { id, topics } of sent) {
      const due = topics.some((topic) => [...from].some(([each, begin]) => matches(each, topic) && offset(id) > begin));
      if (due) expect(ids).toContain(id);
    }
    expect(told.filter(({ kind }) => kind === "gap")).toEqual([]);
    expect(line.cursor).toBe(hub.id(hub.newest));
  });

  test("what is removed does not come any more, and does not come back with the next stream", async () => {
    const { clock, hub, line, ids, bring } = world({ topics: ["a", "b"] });
    line.open();
    await bring();
    await line.remove(["b"]);
    await bring();
    hub.publish(["b"], 1);
    hub.publish(["a"], 2);
    await bring();
    hub.stream!.break();
    hub.publish(["b"], 3);
    hub.publish(["a"], 4);
    await clock.pass(5_000);
    await bring();
    expect(ids()).toEqual(["e1-2", "e1-4"]);
    await expect(line.remove(["a"])).rejects.toMatchObject({ status: 400 });
  });
});
