/** A world for brokers: a hub with a log, lines that fail, tabs that freeze, all of it in steps that chance decides. */

import { Broker, type Limits } from "../src/broker.js";
import { LineError, type Line, type LineEvent, type LineOptions } from "../src/line.js";
import type { FromTab, TabEvent, ToTab } from "../src/port.js";
import { Tab } from "../src/tab.js";
import { matches } from "../src/topics.js";

/** Return numbers from 0 to 1, the same ones for the same seed (mulberry32). */
export function chance(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

export interface Sent {
  /** Its place in all epochs. */
  at: number;
  id: string;
  topics: string[];
  kept: boolean;
}

type Opening = Extract<LineEvent, { kind: "open" }>;

export class Hub {
  sent: Sent[] = [];
  epoch = 0;
  /** How many were sent in earlier epochs. */
  base = 0;
  forbidden = new Set<string>();
  streams = new Set<FakeLine>();
  most = 0;

  get newest(): string {
    return `e${this.epoch}-${this.sent.length - this.base}`;
  }

  /** Return how many were sent up to `id`. */
  place(id: string): number {
    const [epoch, offset] = id.slice(1).split("-").map(Number);
    const before = this.sent.findIndex((each) => each.id.startsWith(`e${epoch}-`));
    return (epoch === this.epoch ? this.base : before < 0 ? 0 : before) + offset!;
  }

  publish(topics: string[]): void {
    const at = this.sent.length + 1;
    const message = { at, id: `e${this.epoch}-${at - this.base}`, topics, kept: true };
    this.sent.push(message);
    for (const line of this.streams) line.bring(message);
  }

  /** Keep no more than the newest `number`. */
  trim(number: number): void {
    for (const each of this.sent.slice(0, -number)) each.kept = false;
  }

  /** Lose the log. */
  restart(): void {
    for (const each of this.sent) each.kept = false;
    this.base = this.sent.length;
    this.epoch += 1;
    for (const line of [...this.streams]) line.cut();
  }

  /** Return how a stream begins, and what follows. */
  begin(topics: string[], cursor: string | undefined, start: string | undefined): [Opening, LineEvent[]] {
    const opening: Opening = { kind: "open", id: this.newest, connection: "c", topics, recovered: null };
    if (cursor === undefined && start === undefined) return [opening, []];
    const wanted = this.sent.filter((each) => wants(topics, each));
    const kept = (after: number) => wanted.filter((each) => each.kept && each.at > after);
    const before = (first: Sent | undefined) => (first ? `e${this.epoch}-${first.at - this.base - 1}` : this.newest);
    if (cursor === undefined) {
      const rest = kept(0);
      return [{ ...opening, id: before(rest[0]), recovered: true }, rest.map((each) => message(each, topics))];
    }
    const after = this.place(cursor);
    const other = !cursor.startsWith(`e${this.epoch}-`);
    const lost = other || wanted.some((each) => !each.kept && each.at > after);
    const rest = kept(other ? 0 : after);
    const events = rest.map((each) => message(each, topics));
    if (!lost) return [{ ...opening, id: cursor, recovered: true }, events];
    const reason = other ? "epoch" : "trimmed";
    const id = before(rest[0]);
    return [{ ...opening, id, recovered: false, reason }, [{ kind: "gap", id, reason }, ...events]];
  }
}

const wants = (patterns: string[], sent: Sent) =>
  sent.topics.some((topic) => patterns.some((pattern) => matches(pattern, topic)));

const message = (sent: Sent, patterns: string[]): LineEvent => ({
  kind: "message",
  id: sent.id,
  type: "message",
  topics: sent.topics.filter((topic) => patterns.some((pattern) => matches(pattern, topic))),
  data: sent.at,
});

/** A line whose bytes arrive when somebody says so. */
export class FakeLine implements Line {
  topics: string[];
  cursor: string;
  /** What is on its way. */
  wire: LineEvent[] = [];
  /** What the hub has still to do: connections, changes. */
  todo: (() => void)[] = [];
  live = false;
  closed = false;

  constructor(
    readonly options: Pick<LineOptions, "topics" | "cursor" | "start" | "on">,
    readonly hub: Hub,
    readonly lines: Set<FakeLine>,
  ) {
    this.topics = [...options.topics];
    this.cursor = options.cursor ?? "";
  }

  open(): void {
    this.lines.add(this);
    this.hub.most = Math.max(this.hub.most, this.lines.size);
    this.todo.push(() => this.connect());
    this.options.on({ kind: "state", state: "connecting" });
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.options.on({ kind: "state", state: "closed" });
    this.lines.delete(this);
    this.hub.streams.delete(this);
  }

  connect(): void {
    const topic = this.topics.find((each) => this.hub.forbidden.has(each));
    if (topic !== undefined) {
      this.hub.streams.delete(this);
      this.options.on({ kind: "state", state: "refused", reason: "forbidden", topic });
      return;
    }
    this.live = true;
    this.hub.streams.add(this);
    const cursor = this.cursor === "" ? undefined : this.cursor;
    const [opening, rest] = this.hub.begin(this.topics, cursor, cursor === undefined ? this.options.start : undefined);
    this.wire = [opening, ...rest];
  }

  send(): Promise<never> {
    return Promise.reject(new LineError(0, "no_socket", "this line goes one way"));
  }

  cut(): void {
    if (!this.live) return;
    this.live = false;
    this.wire = [];
    this.hub.streams.delete(this);
    this.options.on({ kind: "state", state: "waiting", retryIn: 1 });
    this.todo.push(() => this.connect());
  }

  bring(sent: Sent): void {
    if (wants(this.topics, sent)) this.wire.push(message(sent, this.topics));
  }

  /** Let the next thing arrive. */
  arrive(): void {
    const event = this.wire.shift();
    if (!event) return;
    if (event.kind === "open") this.options.on({ kind: "state", state: "open" });
    if ("id" in event && event.kind !== "topics") this.cursor = event.id;
    this.options.on(event);
  }

  add(topics: string[]): Promise<{ from: string }> {
    return new Promise((resolve, reject) => {
      this.todo.push(() => {
        const topic = topics.find((each) => this.hub.forbidden.has(each));
        if (topic !== undefined) {
          reject(new LineError(403, "forbidden", "no", topic));
          return;
        }
        this.topics = [...new Set([...this.topics, ...topics])];
        const from = this.live ? this.hub.newest : this.cursor;
        this.todo.push(() => resolve({ from }));
      });
    });
  }

  remove(topics: string[]): Promise<void> {
    return new Promise((resolve) => {
      this.todo.push(() => {
        this.topics = this.topics.filter((each) => !topics.includes(each));
        resolve();
      });
    });
  }

  wake(): void {}
}

/** One tab, and the way between it and its broker. */
export class Page {
  tab!: Tab;
  toTab: ToTab[] = [];
  toBroker: FromTab[] = [];
  close: (() => void) | undefined;
  frozen = false;
  gone = false;
  /** What its handlers have had, in all its lives. */
  got: number[] = [];
  gaps: { after: string; id: string; reason: string; topics: string[] }[] = [];
  began: string | undefined;
  refused: string[] = [];
  states: string[] = [];
  #cursor: string | undefined;
  take: ((message: FromTab) => void) | undefined;

  constructor(
    readonly world: World,
    readonly topics: string[],
    readonly start?: string,
  ) {
    this.load();
  }

  /** Load the page: again, if it was there before. */
  load(): void {
    this.#cursor = this.tab?.cursor ?? this.#cursor;
    const tab: Tab = new Tab({
      topics: this.topics.filter((topic) => !this.refused.includes(topic)),
      ...(this.#cursor === undefined ? {} : { cursor: this.#cursor }),
      ...(this.start === undefined ? {} : { start: this.start }),
      visible: () => true,
      on: (event) => this.see(event, tab),
      onFull: () => {
        throw new Error("never full here");
      },
    });
    this.tab = tab;
    this.join();
  }

  join(): void {
    this.close?.();
    this.toTab = [];
    this.toBroker = [];
    const port = this.world.broker.connect((message) => {
      if (this.take === take) this.toTab.push(message);
    });
    const take = (message: FromTab) => port.take(message);
    this.take = take;
    this.close = () => port.close();
    this.tab.join((message) => this.toBroker.push(message));
  }

  see(event: TabEvent, tab: Tab): void {
    if (event.kind === "open") this.began ??= event.id;
    else if (event.kind === "message") this.got.push(event.data as number);
    else if (event.kind === "gap") {
      this.gaps.push({ after: tab.cursor!, id: event.id, reason: event.reason, topics: tab.topics });
    } else if (event.kind === "refused") this.refused.push(...event.topics);
    else if (event.kind === "state") this.states.push(event.state);
  }

  leave(): void {
    this.gone = true;
    this.close?.();
    this.toTab = [];
    this.toBroker = [];
  }
}

export class World {
  hub = new Hub();
  lines = new Set<FakeLine>();
  pages: Page[] = [];
  time = 0;
  timers = new Set<{ at: number; then: () => void }>();
  due: (() => void)[] = [];
  broker!: Broker;

  constructor(readonly limits: Partial<Limits> = {}) {
    this.newBroker();
  }

  newBroker(): void {
    this.broker = new Broker({
      rooms: false,
      presence: false,
      makeLine: (options) => new FakeLine(options, this.hub, this.lines),
      now: () => this.time,
      after: (ms, then) => {
        const timer = { at: this.time + ms, then };
        this.timers.add(timer);
        return () => this.timers.delete(timer);
      },
      soon: (then) => this.due.push(then),
      limits: this.limits,
    });
  }

  /** The page or the worker in which the broker runs is gone; nobody was told. */
  loseBroker(): void {
    this.broker.close();
    this.newBroker();
    for (const page of this.pages) {
      page.close = undefined;
      if (!page.gone) page.join();
    }
  }

  open(topics: string[], start?: string): Page {
    const page = new Page(this, topics, start);
    this.pages.push(page);
    return page;
  }

  pass(ms: number): void {
    this.time += ms;
    for (const timer of [...this.timers].sort((one, other) => one.at - other.at)) {
      if (timer.at <= this.time && this.timers.delete(timer)) timer.then();
    }
  }

  /** What could happen next. */
  possible(): (() => void)[] {
    const can: (() => void)[] = [];
    for (const line of this.lines) {
      if (line.wire.length) can.push(() => line.arrive());
      if (line.todo.length) can.push(() => line.todo.shift()!());
    }
    if (this.due.length) can.push(() => this.due.shift()!());
    for (const page of this.pages) {
      if (page.frozen || page.gone) continue;
      if (page.toTab.length) can.push(() => page.tab.take(page.toTab.shift()!));
      if (page.toBroker.length) can.push(() => page.take!(page.toBroker.shift()!));
    }
    return can;
  }

  /** Let all that is under way come to its end, with heartbeats. */
  async settle(): Promise<void> {
    for (const page of this.pages) page.frozen = false;
    for (let round = 0; round < 8; round += 1) {
      for (let steps = 0; ; steps += 1) {
        if (steps > 200_000) throw new Error("it never comes to rest");
        await turn();
        const next = this.possible()[0];
        if (!next) break;
        next();
      }
      for (const line of this.lines) {
        if (line.live) line.wire.push({ kind: "cursor", id: this.hub.newest });
      }
      this.pass(3_000);
    }
  }
}

/** Let what waits for promises go on. */
export async function turn(): Promise<void> {
  for (let each = 0; each < 6; each += 1) await null;
}

/** Say what is wrong with what a page has had; an empty list: nothing. */
export function faults(page: Page, hub: Hub): string[] {
  const found: string[] = [];
  if (page.began === undefined) return page.tab.topics.length ? ["it never began"] : [];
  const topics = page.tab.topics;
  const told = page.gaps.map(({ after, id }) => [hub.place(after), hub.place(id)] as const);
  const wanted = hub.sent.filter((each) => each.at > hub.place(page.began!) && wants(topics, each));
  const missing = wanted.filter(
    ({ at }) => !page.got.includes(at) && !told.some(([after, until]) => at > after && at <= until),
  );
  if (missing.length) found.push(`lost ${missing.map(({ id }) => id)}`);
  page.got.forEach((at, index) => {
    if (index && at <= page.got[index - 1]!) found.push(`${at} came after ${page.got[index - 1]}`);
  });
  for (const gap of page.gaps) {
    if (gap.reason !== "trimmed") continue;
    const [after, until] = [hub.place(gap.after), hub.place(gap.id)];
    const lost = hub.sent.some(
      (each) =>
        each.at > after && each.at <= until && !each.kept && wants(gap.topics, each) && !page.got.includes(each.at),
    );
    if (!lost) found.push(`no gap after ${gap.after} up to ${gap.id}`);
  }
  return found;
}
