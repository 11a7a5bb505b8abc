import { describe, expect, test } from "vitest";

import { foldPresence } from "../src/presence.js";
import { chance, turn, World } from "./crowd.js";
import type { TabEvent } from "../src/port.js";
import { Tab } from "../src/tab.js";

/** Do what can be done until nothing can. */
async function quiet(world: World): Promise<void> {
  for (let steps = 0; steps < 10_000; steps += 1) {
    await turn();
    const next = world.possible()[0];
    if (!next) return;
    next();
  }
  throw new Error("it never comes to rest");
}

describe("lines", () => {
  test("tabs with different topics have one line, which has them all", async () => {
    const world = new World();
    const one = world.open(["a"]);
    await quiet(world);
    const other = world.open(["b", "d/*"]);
    await quiet(world);
    world.hub.publish(["a"]);
    world.hub.publish(["b"]);
    world.hub.publish(["a", "d/1"]);
    await quiet(world);
    expect([one.got, other.got]).toEqual([
      [1, 3],
      [2, 3],
    ]);
    expect(world.hub.most).toBe(1);
    expect([...world.lines][0]!.topics).toEqual(["a", "b", "d/*"]);
  });

  test("a topic stays on the line for a while after its last tab has left, so that a reload comes back to it", async () => {
    const world = new World({ linger: 10_000, sweep: 1_000 });
    world.open(["a"]);
    const page = world.open(["b"]);
    await quiet(world);
    page.leave();
    await quiet(world);
    world.pass(5_000);
    await quiet(world);
    const line = [...world.lines][0]!;
    expect(line.topics).toEqual(["a", "b"]);
    for (let second = 0; second < 10; second += 1) world.pass(1_000);
    await quiet(world);
    expect(line.topics).toEqual(["a"]);
  });

  test("the line ends with the last tab", async () => {
    const world = new World();
    const page = world.open(["a"]);
    await quiet(world);
    page.leave();
    expect([world.lines.size, world.timers.size]).toEqual([0, 0]);
  });

  test("a tab that sleeps is let go, and goes on where it was", async () => {
    const world = new World({ unackedEvents: 10, ringMessages: 10 });
    const [page, other] = [world.open(["a"]), world.open(["a"])];
    await quiet(world);
    page.frozen = true;
    for (let each = 0; each < 100; each += 1) {
      world.hub.publish(["a"]);
      await quiet(world);
    }
    expect(world.broker.tabs).toBe(1);
    expect(page.toTab.length).toBeLessThan(30);
    page.frozen = false;
    await world.settle();
    expect(page.got).toEqual(other.got);
    expect(page.got).toHaveLength(100);
    expect(world.hub.most).toBe(2);
    expect(world.lines.size).toBe(1);
  });

  test("a tab that says nothing for a minute is let go", async () => {
    const world = new World();
    world.open(["a"]);
    const silent = world.open(["b"]);
    await quiet(world);
    silent.frozen = true;
    for (let second = 0; second < 70; second += 5) {
      world.pass(5_000);
      await quiet(world);
    }
    expect(world.broker.tabs).toBe(1);
  });

  test("a refused user is not tried again before another tab joins", async () => {
    const world = new World();
    const page = world.open(["a"]);
    await quiet(world);
    [...world.lines][0]!.options.on({ kind: "state", state: "refused", reason: "revoked" });
    for (let minute = 0; minute < 10; minute += 1) {
      world.pass(60_000);
      await quiet(world);
    }
    expect(page.states.at(-1)).toBe("refused");
    expect(world.lines.size).toBe(0);
    const other = world.open(["b"]);
    await quiet(world);
    expect([page.states.at(-1), other.states.at(-1)]).toEqual(["open", "open"]);
  });

  test("a forbidden topic is refused to the tabs that want it, and the others go on", async () => {
    const world = new World();
    world.hub.forbidden.add("c");
    const [one, other] = [world.open(["c", "a"]), world.open(["c"])];
    const third = world.open(["b"]);
    await quiet(world);
    world.hub.publish(["a"]);
    world.hub.publish(["b"]);
    await quiet(world);
    expect([one.refused, other.refused, third.refused]).toEqual([["c"], ["c"], []]);
    expect([one.got, third.got]).toEqual([[1], [2]]);
    expect(other.states.at(-1)).toBe("refused");
  });
});

describe("changes", () => {
  test("an added topic brings what is new", async () => {
    const world = new World();
    const page = world.open(["a"]);
    await quiet(world);
    world.hub.publish(["b"]);
    const change = page.tab.change(["b"], []);
    await quiet(world);
    await change;
    world.hub.publish(["b"]);
    await quiet(world);
    expect(page.got).toEqual([2]);
    expect(page.tab.topics).toEqual(["a", "b"]);
  });

  test("one that is refused is said to whoever added it, and changes nothing", async () => {
    const world = new World();
    world.hub.forbidden.add("c");
    const page = world.open(["a"]);
    await quiet(world);
    const refused = page.tab.change(["b", "c"], []).catch((error: unknown) => error);
    await quiet(world);
    expect(await refused).toMatchObject({ status: 403, code: "forbidden", topic: "c" });
    expect([page.tab.topics, page.refused]).toEqual([["a"], []]);
  });

  test("one that a lost broker did not answer is made by the next", async () => {
    const world = new World();
    const page = world.open(["a"]);
    await quiet(world);
    const change = page.tab.change(["b"], []);
    world.loseBroker();
    await quiet(world);
    await change;
    world.hub.publish(["b"]);
    await quiet(world);
    expect(page.got).toEqual([1]);
  });
});

test("a tab that a handler ends is told nothing more, and says nothing more", () => {
  const got: string[] = [];
  const said: string[] = [];
  const tab = new Tab({
    topics: ["a"],
    visible: () => true,
    onFull: () => {},
    on: (event) => {
      if (event.kind !== "message") return;
      got.push(event.id);
      tab.end();
    },
  });
  tab.join(({ is }) => said.push(is));
  const message = (id: string): TabEvent => ({ kind: "message", id, type: "message", topics: ["a"], data: 1 });
  tab.take({ is: "events", number: 1, events: [message("e-1"), message("e-2")] });
  expect([got, said]).toEqual([["e-1"], ["join", "leave"]]);
});

test("a tab that is asked for a token answers only the broker that asked", async () => {
  let give = (_: string) => {};
  const token = () =>
    new Promise<string>((done) => {
      give = done;
    });
  const tab = new Tab({ topics: ["a"], token, visible: () => true, onFull: () => {}, on: () => {} });
  let closed = false;
  tab.join(() => {
    if (closed) throw new DOMException("the channel is closed", "InvalidStateError");
  });
  tab.take({ is: "token", ref: 1 });
  tab.part();
  closed = true;
  give("late");
  await turn(); // vitest fails if a rejection is not handled
});

describe("tokens", () => {
  test("are asked of a tab that is looked at, and of the next one if that has none now", async () => {
    const world = new World();
    const asked: string[] = [];
    const join = (name: string, visible: boolean, answer: { token?: string; failed?: boolean } | undefined) => {
      const port = world.broker.connect((message) => {
        if (message.is !== "token") return;
        asked.push(name);
        if (answer) port.take({ is: "token", ref: message.ref, ...answer });
      });
      port.take({ is: "join", topics: ["a"], token: true, visible });
    };
    join("hidden", false, { token: "good" });
    join("fails", true, { failed: true });
    join("hangs", true, undefined);
    const { token } = [...world.lines][0]!.options as unknown as { token: () => Promise<string> };
    const got = token();
    await turn();
    world.pass(10_000);
    await turn();
    world.pass(10_000);
    await turn();
    expect(await got).toBe("good");
    expect([...asked].sort()).toEqual(["fails", "hangs", "hidden"]);
    expect(asked.at(-1)).toBe("hidden");
  });
});

describe("too many topics", () => {
  test("for one line: the tab takes one of its own", async () => {
    const world = new World();
    const topics = (from: number, number: number) => Array.from({ length: number }, (_, each) => `t/${from + each}`);
    world.open(topics(0, 100));
    await quiet(world);
    const said: string[] = [];
    const port = world.broker.connect((message) => said.push(message.is));
    port.take({ is: "join", topics: topics(50, 79), token: false, visible: true });
    expect(said).toEqual(["full"]);
    port.take({ is: "join", topics: topics(50, 78), token: false, visible: true });
    expect(world.broker.tabs).toBe(2);
  });
});

describe("presence", () => {
  test("is kept up to date", () => {
    const said = { topic: "a", count: 1, users: [{ id: "ann", info: {} }] };
    const two = foldPresence(foldPresence(undefined, "presence", said), "join", { topic: "a", count: 0, user: "bob" });
    expect(two).toEqual({ topic: "a", count: 2, users: [...said.users, { id: "bob", info: {} }] });
    const one = foldPresence(two, "leave", { topic: "a", count: 0, user: "ann" });
    expect(one).toEqual({ topic: "a", count: 1, users: [{ id: "bob", info: {} }] });
  });

  test("a tab that joins an open line hears who is there", async () => {
    const world = new World();
    world.open(["a"]);
    await quiet(world);
    const facts = { topic: "a", count: 1, users: [{ id: "ann", info: {} }] };
    [...world.lines][0]!.options.on({ kind: "presence", facts });
    const page = world.open(["a"]);
    const seen: TabEvent[] = [];
    const see = page.see.bind(page);
    page.see = (event, tab) => {
      seen.push(event);
      see(event, tab);
    };
    await quiet(world);
    expect(seen.filter((event) => event.kind === "presence")).toEqual([{ kind: "presence", facts }]);
  });
});

test("the same seed gives the same schedule", () => {
  const [one, other] = [chance(7), chance(7)];
  expect([one(), one(), one()]).toEqual([other(), other(), other()]);
});
