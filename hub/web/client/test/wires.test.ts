import { describe, expect, test } from "vitest";
import { type LineEvent, type LineOptions, makeLine } from "../src/line.js";
import "../src/others.js"; // loaded before, so that it takes no time
import { AVOIDED, FIRST_BYTE, Wires } from "../src/wires.js";
import { Clock, FakeHub, problem, randomOf, settled, surroundingsOf } from "./world.js";

type Told<K extends LineEvent["kind"]> = LineEvent & { kind: K };

function world(options: Partial<LineOptions> = {}, seed = 1) {
  const clock = new Clock();
  const hub = new FakeHub();
  const random = randomOf(seed);
  const { env, sign } = surroundingsOf(clock, hub, random);
  const told: LineEvent[] = [];
  const on = (event: LineEvent) => void told.push(event);
  const line = makeLine({ url: "http://hub/", topics: ["a"], wire: "auto", on, env, ...options });
  const all = <K extends LineEvent["kind"]>(kind: K) => told.filter((event) => event.kind === kind) as Told<K>[];
  const bring = async () => {
    await settled();
    hub.stream?.bring();
    hub.sockets.at(-1)?.bring();
    await settled();
  };
  return {
    clock,
    hub,
    random,
    sign,
    bring,
    told,
    line,
    all,
    ids: () => all("message").map(({ id }) => id),
    /** Return the wires that were taken, in order. */
    taken: () => hub.requests.map(({ url }) => url.pathname.split("/").at(-1)),
    /** Make the line go over a WebSocket. */
    async toSocket() {
      await expect(line.send("publish", {})).rejects.toMatchObject({ code: "no_socket" });
      await bring();
      await bring();
    },
  };
}

describe("where a proxy holds streams back", () => {
  test("the line polls after two tries, and loses nothing", async () => {
    const { clock, hub, line, all, ids, taken } = world();
    hub.holdsBack = true;
    line.open();
    await clock.pass(2 * FIRST_BYTE + 10_000);
    expect(taken().slice(0, 4)).toEqual(["subscribe", "subscribe", "poll", "poll"]);
    expect(all("open")).toEqual([{ kind: "open", id: "e1-0", connection: "", topics: ["a"], recovered: null }]);
    hub.publish(["a"], 1);
    await settled();
    hub.publish(["b"], 2);
    hub.publish(["a"], 3);
    await settled();
    expect(ids()).toEqual(["e1-1", "e1-3"]);
    expect(line.cursor).toBe("e1-3");
  });

  test("a poll of which the time is over moves the cursor", async () => {
    const { clock, hub, line } = world({ wire: "poll" });
    line.open();
    await clock.pass(0);
    hub.publish(["b"], 1);
    hub.answerPolls();
    await settled();
    expect(line.cursor).toBe("e1-1");
  });

  test("what came by a stream is not told again by a poll", async () => {
    const { clock, hub, line, ids, bring } = world();
    line.open();
    await bring();
    hub.publish(["a"], 1);
    await bring();
    hub.stream!.break();
    hub.holdsBack = true;
    hub.publish(["a"], 2);
    await clock.pass(60_000);
    expect(ids()).toEqual(["e1-1", "e1-2"]);
  });

  test("the line comes back to streams later", async () => {
    const { clock, hub, line, ids, taken, bring } = world();
    hub.holdsBack = true;
    line.open();
    await clock.pass(2 * FIRST_BYTE + 10_000);
    hub.holdsBack = false;
    hub.publish(["a"], 1);
    for (let seconds = 0; seconds < AVOIDED / 1_000; seconds++) {
      await clock.pass(1_000);
      await bring();
    }
    hub.publish(["a"], 2);
    await bring();
    expect(taken().at(-1)).toBe("subscribe");
    expect(ids()).toEqual(["e1-1", "e1-2"]);
  });

  test("the line comes back to streams when the network has changed", async () => {
    const { clock, hub, line, taken, sign } = world();
    hub.holdsBack = true;
    line.open();
    await clock.pass(2 * FIRST_BYTE + 10_000);
    expect(taken().at(-1)).toBe("poll");
    hub.holdsBack = false;
    sign("online");
    await settled();
    expect(taken().at(-1)).toBe("subscribe");
  });

  test("so it does when a page says so, whose worker does not hear of it; and says by which wire it is open", async () => {
    const { clock, hub, line, taken, all } = world();
    hub.holdsBack = true;
    line.open();
    await clock.pass(2 * FIRST_BYTE + 10_000);
    hub.holdsBack = false;
    line.wake();
    await settled();
    expect(taken().at(-1)).toBe("poll");
    line.wake(true);
    await settled();
    expect(taken().at(-1)).toBe("subscribe");
    hub.stream!.bring();
    await settled();
    const open = all("state").filter((event) => event.kind === "state" && event.state === "open");
    expect(open.map((event) => event.kind === "state" && event.wire)).toEqual(["poll", "sse"]);
  });

  test("a hub without polls is tried by streams again", async () => {
    const { clock, hub, line, ids, bring } = world();
    hub.holdsBack = true;
    const away = new Promise<never>(() => {});
    hub.instead = [() => away, () => away, () => problem(404, "")];
    line.open();
    for (let seconds = 0; hub.requests.length < 3; seconds++) {
      expect(seconds).toBeLessThan(60);
      await clock.pass(1_000);
    }
    hub.holdsBack = false;
    for (let seconds = 0; seconds < 30; seconds++) {
      await clock.pass(1_000);
      await bring();
    }
    hub.publish(["a"], 1);
    await bring();
    expect(ids()).toEqual(["e1-1"]);
  });

  test("nobody polls who asked for streams alone", async () => {
    const { clock, hub, line, taken } = world({ wire: "sse" });
    hub.holdsBack = true;
    line.open();
    await clock.pass(200_000);
    expect(taken()).not.toContain("poll");
  });

  test("a hub that is away does not make the line poll", async () => {
    const { clock, hub, line, taken } = world();
    hub.instead = Array.from({ length: 20 }, () => () => Promise.reject(new TypeError("refused")));
    line.open();
    await clock.pass(100_000);
    expect(taken()).not.toContain("poll");
  });

  test("a gap is told where a poll finds one", async () => {
    const { clock, hub, line, all, ids } = world({ wire: "poll" });
    line.open();
    await clock.pass(0);
    hub.publish(["a"], 1);
    await settled();
    hub.lose("e2");
    hub.publish(["a"], 1);
    await clock.pass(20_000);
    expect(all("gap")).toEqual([{ kind: "gap", id: "e2-0", reason: "epoch" }]);
    expect(ids()).toEqual(["e1-1", "e2-1"]);
  });

  test("topics are added to a line that polls, and removed from it", async () => {
    const { clock, hub, line, ids } = world({ wire: "poll" });
    line.open();
    await clock.pass(0);
    const adding = line.add(["b"]);
    await settled();
    await adding;
    hub.publish(["b"], 1);
    await settled();
    await line.remove(["a"]);
    hub.publish(["a"], 2);
    hub.publish(["b"], 3);
    await settled();
    expect(ids()).toEqual(["e1-1", "e1-3"]);
  });

  test("a topic that is refused is given back by a poll, too", async () => {
    const { clock, hub, line } = world({ wire: "poll" });
    line.open();
    await clock.pass(0);
    hub.instead = [() => problem(403, "forbidden", "secret")];
    await expect(line.add(["secret"])).rejects.toMatchObject({ status: 403, topic: "secret" });
    expect(line.topics).toEqual(["a"]);
  });
});

describe("where the application sends", () => {
  test("the line becomes a WebSocket with the cursor that it has", async () => {
    const { hub, line, ids, bring, toSocket } = world();
    line.open();
    await bring();
    hub.publish(["a"], 1);
    await bring();
    await toSocket();
    const sending = line.send("publish", { topic: "a", data: 2, key: "k" });
    await bring();
    expect(await sending).toMatchObject({ id: "e1-2", topics: ["a"] });
    expect(ids()).toEqual(["e1-1", "e1-2"]);
    expect(hub.stream).toBeUndefined();
  });

  test("what was not answered says so, and can be sent again", async () => {
    const { hub, line, bring, toSocket } = world();
    line.open();
    await bring();
    await toSocket();
    const sending = line.send("publish", { topic: "a", data: 2, key: "k" });
    hub.sockets.at(-1)!.break();
    await expect(sending).rejects.toMatchObject({ code: "no_socket" });
  });

  test("a WebSocket that is blocked leaves a stream", async () => {
    const { clock, hub, line, ids, bring } = world({ wire: "websocket" });
    hub.blocksSockets = true;
    line.open();
    await clock.pass(30_000);
    await bring();
    hub.publish(["a"], 1);
    await bring();
    expect(hub.sockets).toHaveLength(2);
    expect(ids()).toEqual(["e1-1"]);
  });

  test.each(["silent", "cut", "garbage"])("a WebSocket that does not last leaves a stream: %s", async (how) => {
    const { clock, hub, line, ids, bring, taken } = world({ wire: "websocket" });
    line.open();
    for (const tries of [1, 2]) {
      for (let seconds = 0; hub.sockets.length < tries; seconds++) {
        expect(seconds).toBeLessThan(120);
        await clock.pass(1_000);
      }
      await bring();
      const socket = hub.sockets.at(-1)!;
      if (how === "cut") socket.break();
      else if (how === "garbage") socket.onmessage!({ data: "<html>" });
    }
    for (let seconds = 0; !hub.stream; seconds++) {
      expect(seconds).toBeLessThan(120);
      await clock.pass(1_000);
    }
    await bring();
    hub.publish(["a"], 1);
    await bring();
    expect(hub.sockets).toHaveLength(2);
    expect(taken()).toEqual(["subscribe"]);
    expect(ids()).toEqual(["e1-1"]);
  });

  test("a WebSocket that the hub has closed, or that lasted, is opened again", async () => {
    const { clock, hub, line, bring, taken } = world({ wire: "websocket" });
    line.open();
    for (const tries of [1, 2, 3, 4]) {
      for (let seconds = 0; hub.sockets.length < tries; seconds++) {
        expect(seconds).toBeLessThan(60);
        await clock.pass(1_000);
      }
      await bring();
      const socket = hub.sockets.at(-1)!;
      if (tries % 2) socket.say({ op: "hub.close", reason: "draining", retry: 1_000 });
      else {
        await clock.pass(20_000);
        socket.say({ op: "hub.heartbeat", id: "e1-0" });
      }
      await bring();
      socket.break();
    }
    await clock.pass(10_000);
    expect(hub.sockets).toHaveLength(5);
    expect(taken()).toEqual([]);
  });

  test("the wire that is taken instead is taken at once, unless there is none", async () => {
    const { clock, hub, line, taken } = world({ wire: "websocket" });
    hub.blocksSockets = hub.holdsBack = true;
    line.open();
    for (let steps = 0; hub.sockets.length < 2; steps++) {
      expect(steps).toBeLessThan(300);
      expect(taken()).toEqual([]);
      await clock.pass(10);
    }
    await settled();
    expect(taken()).toEqual(["subscribe"]);
    // The hub is away: nothing is found out of the streams, and the line waits longer and longer.
    hub.instead = Array.from({ length: 100 }, () => () => Promise.reject(new TypeError("refused")));
    const before = taken().length + hub.sockets.length;
    await clock.pass(300_000);
    expect(taken().length + hub.sockets.length - before).toBeLessThan(40);
  });

  test("where both are blocked the line polls", async () => {
    const { clock, hub, line, ids } = world({ wire: "websocket" });
    hub.blocksSockets = hub.holdsBack = true;
    line.open();
    await clock.pass(60_000);
    hub.publish(["a"], 1);
    await settled();
    expect(ids()).toEqual(["e1-1"]);
  });

  test("the newest of each topic come over a WebSocket, too", async () => {
    const { hub, line, told } = world({ wire: "websocket", cursor: "latest" });
    line.open();
    await settled();
    const socket = hub.sockets[0]!;
    socket.open = true;
    socket.onopen!();
    expect(socket.heard).toMatchObject([{ op: "subscribe", topics: ["a"], lastEventId: "latest" }]);
    socket.heard.length = 0;
    socket.say({ op: "hub.open", connection: "c", topics: [], recovered: null, retry: 3000 });
    socket.say({ op: "hub.topics", topics: ["a"], from: "e1-3" });
    socket.bring();
    expect(line.cursor).toBe("e1-3");
    socket.say({ op: "notification", id: "e1-4", topics: ["a"], data: 4 });
    socket.bring();
    expect(told.map(({ kind }) => kind)).toEqual(["state", "state", "open", "message"]);
    expect(line.cursor).toBe("e1-4");
  });

  test("what comes of the rooms before the topics have begun comes behind the opening, and moves no cursor", async () => {
    const { hub, line, told } = world({ wire: "websocket", rooms: true, presence: true, cursor: "e1-3" });
    line.open();
    await settled();
    const socket = hub.sockets[0]!;
    expect(socket.url.search).toBe("?rooms=1&lastEventId=e1-3&presence=1");
    socket.open = true;
    socket.onopen!();
    const open = { connection: "c", topics: ["room/x"], id: "e1-3", recovered: true, retry: 3000 };
    socket.say({ op: "hub.open", ...open });
    socket.say({ op: "hub.presence", topic: "room/x", count: 1 });
    socket.say({ op: "notification", id: "e1-5", topics: ["room/x"], data: 5 });
    socket.heard.length = 0;
    socket.bring();
    expect(told.map(({ kind }) => kind)).toEqual(["state"]);
    socket.say({ op: "hub.topics", topics: ["a", "room/x"], from: "e1-3" });
    socket.bring();
    expect(told.map(({ kind }) => kind)).toEqual(["state", "state", "open", "presence", "message"]);
    expect(line.cursor).toBe("e1-3");
    socket.say({ op: "notification", earlier: "e1-4", topics: ["a"], data: 4 });
    socket.say({ op: "notification", id: "e1-6", topics: ["a"], data: 6 });
    socket.bring();
    expect(told.flatMap((event) => (event.kind === "message" ? [event.id] : []))).toEqual(["e1-5", "e1-4", "e1-6"]);
    expect(line.cursor).toBe("e1-6");
  });

  test("a token is the first message, and never in the URL", async () => {
    const { hub, line } = world({ wire: "websocket", token: () => Promise.resolve("secret") });
    line.open();
    await settled();
    const socket = hub.sockets[0]!;
    expect(socket.url.href).toBe("ws://hub/notifications/ws");
    socket.onopen!();
    expect(socket.heard[0]).toEqual({ op: "auth", ref: "auth", token: "secret" });
  });
});

test("what was found out is remembered, for each hub by itself", () => {
  const kept = new Map<string, string>();
  const memory = {
    get: (key: string) => kept.get(key),
    set: (key: string, value: string) => void kept.set(key, value),
  };
  const wires = new Wires("auto", "https://one/", memory, true);
  wires.fails("sse", 0);
  wires.fails("sse", 10);
  expect(new Wires("auto", "https://one/", memory, true).next(20)).toBe("poll");
  expect(new Wires("auto", "https://other/", memory, true).next(20)).toBe("sse");
  expect(new Wires("auto", "https://one/", memory, true).next(10 + AVOIDED)).toBe("sse");
});

test.each(Array.from({ length: 150 }, (_, seed) => seed))(
  "each notification comes once, in order, with true gaps, whatever wires are cut: schedule %i",
  async (seed) => {
    const { clock, hub, line, told, random, sign } = world({ wire: seed % 3 ? "auto" : "websocket" }, seed);
    const below = (count: number) => Math.floor(random() * count);
    const sent: string[] = [];
    line.open();
    await settled();
    const cut = () => {
      hub.stream?.break();
      for (const socket of hub.sockets) socket.break();
      for (const { done } of hub.polls.splice(0)) done(problem(502, ""));
    };
    for (let step = 0; step < 120; step++) {
      const what = below(16);
      if (what < 5) {
        const topics = [["a"], ["b"], ["a", "b"]][below(3)]!;
        const id = hub.publish(topics, step);
        if (topics.includes("a")) sent.push(id);
      } else if (what < 7) hub.stream?.bring(below(hub.stream.bytes.length + 1));
      else if (what < 9) hub.sockets.at(-1)?.bring(below(4));
      else if (what === 9) cut();
      else if (what === 10) hub.holdsBack = !hub.holdsBack;
      else if (what === 11) hub.blocksSockets = !hub.blocksSockets;
      else if (what === 12) line.send("publish", { topic: "b", data: step, key: `${step}` }).catch(() => {});
      else if (what === 13) hub.answerPolls();
      else if (what === 14) sign("online");
      else if (random() < 0.3) hub.trim(below(hub.newest + 1));
      await clock.pass(below(4) ? below(2_000) : below(40_000));
    }
    hub.holdsBack = hub.blocksSockets = false;
    sign("online");
    for (let round = 0; round < 20; round++) {
      await clock.pass(10_000);
      hub.stream?.bring();
      hub.sockets.at(-1)?.bring();
      await settled();
    }
    // What is missing lies before a gap that was told, and behind what came before it.
    let last = 0;
    let gap: number | undefined;
    let began: number | undefined;
    for (const event of told) {
      const offset = "id" in event ? Number(event.id.split("-")[1]) : 0;
      if (event.kind === "open") began ??= last = offset;
      else if (event.kind === "gap") gap = offset;
      else if (event.kind === "message") {
        expect(offset).toBeGreaterThan(last);
        const missing = sent.filter((id) => {
          const each = Number(id.split("-")[1]);
          return each > Math.max(last, gap ?? 0) && each < offset;
        });
        expect(missing).toEqual([]);
        last = offset;
      }
    }
    const newest = Number(sent.at(-1)?.split("-")[1] ?? 0);
    expect(Math.max(last, gap ?? 0)).toBeGreaterThanOrEqual(Math.max(newest, 0) > (began ?? 0) ? newest : 0);
  },
);
