import { describe, expect, it } from "vitest";
import { BEFORE, Feed, type FeedEnv, type HubOptions, identityOf, View, type Wanted } from "../src/feed.js";
import type { ConnectOptions, Hub, Notification, Presence } from "../src/index.js";

/** A hub as a page has it, without a network: it knows its topics, and what it was told. */
class FakeHub {
  readonly options: ConnectOptions;
  readonly topics: Set<string>;
  readonly forbidden = new Set<string>();
  cursor: string | undefined;
  state: { state: string; reason?: string } = { state: "connecting" };
  closed: { forget?: boolean } | undefined;
  changes = 0;
  #any: ((notification: Notification) => void)[] = [];
  #present: ((presence: Presence) => void)[] = [];

  constructor(options: ConnectOptions) {
    this.options = options;
    this.topics = new Set(options.topics);
  }

  readonly presence = { on: (handler: (presence: Presence) => void) => this.#present.push(handler) };

  onAny(handler: (notification: Notification) => void): void {
    this.#any.push(handler);
  }

  async add(...topics: string[]): Promise<void> {
    this.changes++;
    for (const topic of topics) {
      if (this.forbidden.has(topic)) throw Object.assign(new Error(), { code: "forbidden" });
      this.topics.add(topic);
    }
  }

  async remove(...topics: string[]): Promise<void> {
    this.changes++;
    for (const topic of topics) this.topics.delete(topic);
  }

  close(how: { forget?: boolean } = {}): void {
    this.closed = how;
    this.is("closed");
  }

  is(state: "open" | "waiting" | "closed", reason?: string): void {
    this.state = { state, ...(reason === undefined ? {} : { reason }) };
    this.options.onState?.(this.state as Parameters<NonNullable<ConnectOptions["onState"]>>[0]);
  }

  say(topic: string, data: unknown, type = "message"): void {
    for (const handler of this.#any) handler({ id: "e-1", type, topics: [topic], data });
  }

  tell(presence: Presence): void {
    for (const handler of this.#present) handler(presence);
  }
}

class World {
  readonly hubs: FakeHub[] = [];
  options: HubOptions = {};
  #timers = new Set<() => void>();

  readonly env: FeedEnv = {
    connect: (options = {}) => {
      this.hubs.push(new FakeHub(options));
      return this.hub as unknown as Hub;
    },
    after: (_, then) => {
      this.#timers.add(then);
      return () => this.#timers.delete(then);
    },
  };
  readonly feed = new Feed(() => this.options, this.env);

  /** The newest hub. */
  get hub(): FakeHub {
    return this.hubs.at(-1)!;
  }

  view(topics: string | string[], more: Partial<Wanted> = {}): View {
    return new View(this.feed, { topics: [topics].flat(), ...more });
  }

  /** Let all timers end. */
  linger(): void {
    for (const then of [...this.#timers]) {
      this.#timers.delete(then);
      then();
    }
  }
}

const settled = () => new Promise<void>((done) => setTimeout(done));
const show = (view: View) => view.subscribe(() => {});
const data = (view: View) => view.snapshot().notifications.map((each) => each.data);

describe("a feed", () => {
  it("opens one line with the topics of all components that begin together", async () => {
    const world = new World();
    world.view("a");
    show(world.view("a"));
    show(world.view(["b", "c"]));
    show(world.view([]));
    expect(world.hubs).toHaveLength(0);
    await settled();
    expect(world.hubs).toHaveLength(1);
    expect(world.hub.options.topics).toEqual(["a", "b", "c", "notifications"]);
  });

  it("opens one line for components that mount, unmount and mount again", async () => {
    const world = new World();
    const view = world.view("a");
    show(view)();
    show(view);
    await settled();
    world.linger();
    expect(world.hubs).toHaveLength(1);
    expect(world.hub.closed).toBeUndefined();
    show(world.view("b"))();
    await settled();
    expect(world.hub.changes).toBe(0);
  });

  it("adds what later components want, and removes what nobody wants any more", async () => {
    const world = new World();
    show(world.view("a"));
    await settled();
    const ends = [show(world.view("b")), show(world.view(["a", "b"]))];
    await settled();
    expect([...world.hub.topics]).toEqual(["a", "b"]);
    expect(world.hub.changes).toBe(1);
    ends[0]!();
    world.linger();
    expect([...world.hub.topics]).toEqual(["a", "b"]);
    ends[1]!();
    expect([...world.hub.topics]).toEqual(["a", "b"]);
    world.linger();
    expect([...world.hub.topics]).toEqual(["a"]);
    expect(world.hubs).toHaveLength(1);
  });

  it("keeps a topic that the next page wants again", async () => {
    const world = new World();
    show(world.view("a"));
    const end = show(world.view("b"));
    await settled();
    end();
    show(world.view("b"));
    await settled();
    world.linger();
    expect([...world.hub.topics]).toEqual(["a", "b"]);
    expect(world.hub.changes).toBe(0);
  });

  it("closes the line after the last component, and begins with what is new for the next one", async () => {
    const world = new World();
    world.options = { start: "e-7" };
    const end = show(world.view("a"));
    await settled();
    expect(world.hub.options.start).toBe("e-7");
    end();
    expect(world.hub.closed).toBeUndefined();
    world.linger();
    expect(world.hub.closed).toEqual({ forget: true });
    show(world.view("a"));
    await settled();
    expect(world.hubs).toHaveLength(2);
    expect(world.hub.options.start).toBeUndefined();
  });

  it("is closed at once by its provider, and opened again by what mounts after that", async () => {
    const world = new World();
    const view = world.view("a");
    const end = show(view);
    await settled();
    end();
    world.feed.close();
    expect(world.hub.closed).toEqual({ forget: true });
    show(view);
    await settled();
    expect(world.hubs).toHaveLength(2);
    world.linger();
    expect(world.hub.closed).toBeUndefined();
  });

  it("goes on where it was when somebody wants to know who is there", async () => {
    const world = new World();
    const changes: unknown[] = [];
    show(world.view("a"));
    await settled();
    expect(world.hub.options.presence).toBe(false);
    world.hub.cursor = "e-9";
    const people = world.view("a", { presence: true, keep: 0 });
    people.subscribe(() => changes.push(people.present()?.count));
    await settled();
    expect(world.hubs[0]!.closed).toEqual({ forget: false });
    expect(world.hub.options).toMatchObject({ topics: ["a"], presence: true, start: "e-9" });
    world.hub.tell({ topic: "a", count: 3 });
    world.hub.tell({ topic: "a", count: 2 });
    expect(changes.slice(-2)).toEqual([3, 2]);
    show(world.view("b", { presence: true }));
    await settled();
    expect(world.hubs).toHaveLength(2);
  });

  it("tells a component that its topic is refused, and no other", async () => {
    const world = new World();
    const [own, others] = [world.view("a"), world.view("b")];
    show(own);
    show(others);
    await settled();
    world.hub.options.onRefused!({ topics: ["a"], reason: "forbidden" });
    expect([own.snapshot().refused, others.snapshot().refused]).toEqual(["forbidden", undefined]);
    world.hub.forbidden.add("c");
    const late = world.view(["b", "c"]);
    const end = show(late);
    await settled();
    expect(late.snapshot().refused).toBe("forbidden");
    // It is asked for again by whoever wants it after everybody has left it.
    world.hub.forbidden.clear();
    end();
    world.linger();
    const later = world.view("c");
    show(later);
    await settled();
    expect(later.snapshot().refused).toBeUndefined();
    expect(world.hub.topics).toContain("c");
  });

  it("asks for a token with the newest function, and is another one for another user", async () => {
    const world = new World();
    world.options = { token: () => "old" };
    show(world.view("a"));
    await settled();
    world.options = { token: () => "new" };
    expect(world.hub.options.token!()).toBe("new");
    expect(identityOf({ token: () => "old" })).toBe(identityOf({ url: "/", token: () => "new" }));
    expect(identityOf({ user: "ann" })).not.toBe(identityOf({ user: "bob" }));
  });
});

describe("a view", () => {
  it("has the newest notifications of its topics and types, in order", async () => {
    const world = new World();
    const view = world.view(["orders", "stock/*"], { types: ["created"], keep: 2 });
    show(view);
    show(world.view("news"));
    await settled();
    world.hub.say("orders", 1, "created");
    expect(data(view)).toEqual([1]);
    world.hub.say("news", 2, "created");
    world.hub.say("orders", 3, "paid");
    world.hub.say("stock/X", 4, "created");
    world.hub.say("orders", 5, "created");
    expect(data(view)).toEqual([4, 5]);
    expect(view.snapshot().last!.data).toBe(5);
    view.clear();
    expect(data(view)).toEqual([]);
  });

  it("keeps a hundred", async () => {
    const world = new World();
    const view = world.view("a");
    show(view);
    await settled();
    for (let i = 0; i < 250; i++) world.hub.say("a", i);
    expect(data(view)).toEqual(Array.from({ length: 100 }, (_, i) => 150 + i));
  });

  it("has the rooms of the user, if no topics are named", async () => {
    const world = new World();
    world.options = { rooms: true };
    const view = world.view([]);
    show(view);
    await settled();
    expect(world.hub.options).toMatchObject({ topics: [], rooms: true });
    world.hub.say("room/lobby", 1);
    world.hub.say("orders", 2);
    expect(data(view)).toEqual([1]);
  });

  it("is the same object until something changes", async () => {
    const world = new World();
    const view = world.view("a", { keep: 0 });
    const heard: unknown[] = [];
    let changes = 0;
    view.handlers = { onNotification: (notification) => heard.push(notification.data) };
    expect(view.snapshot()).toBe(BEFORE);
    view.subscribe(() => changes++);
    await settled();
    const before = view.snapshot();
    world.hub.say("a", 1);
    world.hub.say("b", 2);
    expect([view.snapshot() === before, changes, heard]).toEqual([true, 0, [1]]);
    world.hub.is("open");
    world.hub.is("open");
    expect([view.snapshot().state, changes]).toEqual(["open", 1]);
    world.hub.is("waiting", "capacity");
    expect(view.snapshot()).toMatchObject({ state: "waiting", reason: "capacity" });
  });

  it("hears nothing after its component is gone", async () => {
    const world = new World();
    const [view, stays] = [world.view("a"), world.view("a")];
    const end = show(view);
    show(stays);
    await settled();
    end();
    end();
    world.hub.say("a", 1);
    expect([data(view), data(stays)]).toEqual([[], [1]]);
  });

  it("gets its notification although another component fails", async () => {
    const world = new World();
    const reported: unknown[] = [];
    globalThis.reportError = (error) => reported.push(error);
    const [fails, works] = [world.view("a", { keep: 0 }), world.view("a")];
    fails.handlers = {
      onNotification: () => {
        throw new Error("broken");
      },
    };
    show(fails);
    show(works);
    await settled();
    world.hub.say("a", 1);
    expect(data(works)).toEqual([1]);
    expect(reported).toEqual([new Error("broken")]);
  });

  it("tells gaps", async () => {
    const world = new World();
    const view = world.view("a");
    const gaps: string[] = [];
    view.handlers = { onGap: ({ reason }) => gaps.push(reason) };
    show(view);
    await settled();
    world.hub.options.onGap!({ id: "e-5", reason: "trimmed" });
    expect([view.snapshot().gap, gaps]).toEqual([{ id: "e-5", reason: "trimmed" }, ["trimmed"]]);
  });
});
