/** A clock that tests move, and a hub with a network before it that can do anything. */

import type { Env, Sign } from "../src/env.js";
import { matches } from "../src/topics.js";

declare const setImmediate: (then: () => void) => void;

/** Return numbers that look random, the same ones for the same seed. */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** Return when everything that was due has been done, as far as it takes no time. */
export async function settled(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await new Promise<void>((done) => setImmediate(done));
}

export class Clock {
  now = 1_000_000;
  /** The longest that any timer was set to. */
  longest = 0;
  #timers: { at: number; then: () => void }[] = [];

  after(ms: number, then: () => void): () => void {
    this.longest = Math.max(this.longest, ms);
    const timer = { at: this.now + ms, then };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((each) => each !== timer);
    };
  }

  /** Let `ms` go by, and do what becomes due, each at its time. */
  async pass(ms: number): Promise<void> {
    const end = this.now + ms;
    await settled();
    for (;;) {
      const next = this.#timers.filter(({ at }) => at <= end).sort((one, other) => one.at - other.at)[0];
      if (!next) break;
      this.#timers = this.#timers.filter((each) => each !== next);
      this.now = Math.max(this.now, next.at);
      next.then();
      await settled();
    }
    this.now = end;
  }

  /** Let `ms` go by without doing anything: the machine sleeps. What has become due is done in the next `pass`. */
  sleep(ms: number): void {
    this.now += ms;
  }
}

interface Kept {
  offset: number;
  topics: string[];
  data: unknown;
}

export class Stream {
  bytes = "";
  topics: Set<string>;
  /** After which offset each topic counts on this stream. */
  since = new Map<string, number>();
  cursor: number;
  open = true;
  #control!: ReadableStreamDefaultController<Uint8Array>;
  body: ReadableStream<Uint8Array>;

  constructor(
    readonly id: string,
    topics: string[],
    cursor: number,
  ) {
    this.topics = new Set(topics);
    for (const topic of topics) this.since.set(topic, cursor);
    this.cursor = cursor;
    this.body = new ReadableStream({
      start: (control) => {
        this.#control = control;
      },
    });
  }

  say(block: string): void {
    this.bytes += block;
  }

  /** Bring some of what was said, or all of it. */
  bring(count = this.bytes.length): void {
    if (!this.open || !count) return;
    this.#control.enqueue(new TextEncoder().encode(this.bytes.slice(0, count)));
    this.bytes = this.bytes.slice(count);
  }

  end(): void {
    if (!this.open) return;
    this.open = false;
    this.#control.close();
  }

  break(): void {
    if (!this.open) return;
    this.open = false;
    this.#control.error(new TypeError("network error"));
  }
}

/** A WebSocket with the hub at its other end: what either says is on its way until it is brought. */
export class FakeSocket {
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: string }) => void) | null = null;
  onclose: (() => void) | null = null;
  open = false;
  gone = false;
  topics = new Set<string>();
  /** What the client has said, and the hub has not heard yet. */
  heard: Record<string, unknown>[] = [];
  said: string[] = [];

  constructor(
    readonly hub: FakeHub,
    readonly url: URL,
  ) {
    hub.sockets.push(this);
  }

  send(text: string): void {
    this.heard.push(JSON.parse(text) as Record<string, unknown>);
  }

  close(): void {
    this.gone = true;
  }

  say(message: object): void {
    this.said.push(JSON.stringify(message));
  }

  /** Connect, let the hub hear what was said, and bring `count` of its messages, or all. */
  bring(count = Infinity): void {
    if (this.gone) return;
    if (!this.open) {
      this.open = true;
      this.say({
        op: "hub.open",
        connection: `ws_${this.hub.sockets.length}`,
        topics: [],
        recovered: null,
        retry: 3000,
      });
      this.onopen?.();
    }
    for (const asked of this.heard.splice(0)) this.hub.take(this, asked);
    for (const data of this.said.splice(0, count)) if (!this.gone) this.onmessage?.({ data });
  }

  break(): void {
    if (this.gone) return;
    this.gone = true;
    this.onclose?.();
  }
}

interface Held {
  topics: Set<string>;
  after: number;
  done: (answer: Response) => void;
}

type Answer = () => Response | Promise<Response>;

/** A hub: what its log keeps, and its open streams. */
export class FakeHub {
  epoch = "e1";
  log: Kept[] = [];
  newest = 0;
  trimmed = 0;
  streams: Stream[] = [];
  sockets: FakeSocket[] = [];
  polls: Held[] = [];
  /** What a network between does: it holds streams back until they end, or lets no WebSocket through. */
  holdsBack = false;
  blocksSockets = false;
  keys = new Map<string, string>();
  requests: { url: URL; init: RequestInit }[] = [];
  /** What the next requests get instead of an answer of the hub. */
  instead: Answer[] = [];
  /** Tokens that count; undefined: nobody is asked. */
  tokens: Set<string> | undefined;
  forbidden = new Set<string>();
  /** Where users are known: the topics that need a login. Without one, no open stream can be changed. */
  guarded: Set<string> | undefined;
  retry = 3_000;
  #count = 0;

  get stream(): Stream | undefined {
    return this.streams.findLast(({ open }) => open);
  }

  publish(topics: string[], data: unknown): string {
    this.newest += 1;
    const kept = { offset: this.newest, topics, data };
    this.log.push(kept);
    for (const stream of this.streams) {
      if (stream.open && topics.some((topic) => wants(stream.topics, topic)))
        stream.say(this.#block(kept, stream.topics));
      stream.cursor = this.newest;
    }
    for (const socket of this.sockets) {
      if (socket.gone || !topics.some((topic) => wants(socket.topics, topic))) continue;
      socket.say({ op: "notification", ...this.#told(kept, socket.topics) });
    }
    for (const held of this.polls.splice(0)) {
      if (topics.some((topic) => wants(held.topics, topic))) held.done(this.#page(held.topics, held.after));
      else this.polls.push(held);
    }
    return this.id(this.newest);
  }

  id(offset: number): string {
    return `${this.epoch}-${offset}`;
  }

  trim(upto: number): void {
    this.trimmed = Math.max(this.trimmed, upto);
    this.log = this.log.filter(({ offset }) => offset > this.trimmed);
  }

  /** The log is lost: everything ends. */
  lose(epoch: string): void {
    for (const stream of this.streams) stream.break();
    for (const socket of this.sockets) socket.break();
    for (const { done } of this.polls.splice(0)) done(problem(503, "draining"));
    this.epoch = epoch;
    this.log = [];
    this.newest = this.trimmed = 0;
  }

  beat(): void {
    for (const stream of this.streams) if (stream.open) stream.say(`:\nid: ${this.id(this.newest)}\n\n`);
  }

  #told({ offset, topics, data }: Kept, wanted: Set<string>) {
    return { id: this.id(offset), topics: topics.filter((each) => wants(wanted, each)), type: "made", data };
  }

  /** Answer all polls that wait: their time is over. */
  answerPolls(): void {
    for (const { done, topics, after } of this.polls.splice(0)) done(this.#page(topics, after));
  }

  #page(topics: Set<string>, after: number, gap?: object): Response {
    const found = this.log.filter((kept) => kept.offset > after && kept.topics.some((topic) => wants(topics, topic)));
    const notifications = found.slice(0, 3).map((kept) => this.#told(kept, topics));
    const cursor = notifications.at(-1)?.id ?? this.id(this.newest);
    return Response.json({ notifications, cursor, ...(gap ? { gap } : {}) });
  }

  #poll(url: URL): Response | Promise<Response> {
    const topics = new Set(url.searchParams.getAll("topic"));
    const asked = url.searchParams.get("lastEventId");
    const [begin, reason] = this.#begin(asked, topics);
    const page = () => this.#page(topics, begin, reason ? { recovered: false, reason } : undefined);
    const has = this.log.some((kept) => kept.offset > begin && kept.topics.some((topic) => wants(topics, topic)));
    if (has || reason || !asked || url.searchParams.get("wait") === "0") return page();
    return new Promise((done) => this.polls.push({ topics, after: begin, done }));
  }

  /** Do what a client asks for over its WebSocket. */
  take(socket: FakeSocket, { op, ref, ...asked }: Record<string, unknown>): void {
    if (op === "subscribe") {
      const topics = asked.topics as string[];
      const refused = topics.find((topic) => this.forbidden.has(topic));
      if (refused !== undefined) {
        socket.say({ op: "error", ref, status: 403, code: "forbidden", detail: "forbidden", topic: refused });
        return;
      }
      const [begin, reason] = this.#begin((asked.lastEventId as string) ?? null, new Set(topics));
      socket.topics = new Set(topics);
      const gap = reason ? { recovered: false, reason, oldest: this.id(this.log[0]?.offset ?? this.newest) } : {};
      const from =
        reason || !asked.lastEventId || asked.lastEventId === "earliest" ? this.id(begin) : asked.lastEventId;
      socket.say({ op: "hub.topics", topics, from, ...gap });
      if (reason) socket.say({ op: "hub.gap", ...gap });
      for (const kept of this.log) {
        if (kept.offset > begin && kept.topics.some((topic) => wants(socket.topics, topic)))
          socket.say({ op: "notification", ...this.#told(kept, socket.topics) });
      }
      socket.say({ op: "ok", ref, topics, from });
    } else if (op === "publish") {
      const { topic, data, key } = asked as { topic: string; data: unknown; key: string };
      const id = this.keys.get(key) ?? this.publish([topic], data);
      this.keys.set(key, id);
      socket.say({ op: "ok", ref, id, topics: [topic] });
    }
  }

  #block({ offset, topics, data }: Kept, wanted: Set<string>, late = false): string {
    const told = {
      ...(late ? { id: this.id(offset) } : {}),
      topics: topics.filter((each) => wants(wanted, each)),
      data,
    };
    return `${late ? "" : `id: ${this.id(offset)}\n`}event: made\ndata: ${JSON.stringify(told)}\n\n`;
  }

  /** Return from where `asked` goes on, and why not everything follows. */
  #begin(asked: string | null, topics: Set<string>): [number, string?] {
    if (!asked) return [this.newest];
    const [epoch, offset] = asked === "earliest" ? [this.epoch, 0] : [asked.split("-")[0], Number(asked.split("-")[1])];
    const first = this.log.find((kept) => kept.topics.some((topic) => wants(topics, topic)));
    const oldest = first ? first.offset - 1 : this.newest;
    if (asked === "earliest") return [oldest];
    if (epoch !== this.epoch) return [oldest, "epoch"];
    if (offset > this.newest) return [oldest, "unknown"];
    if (offset < this.trimmed) return [oldest, "trimmed"];
    return [offset];
  }

  fetch = async (input: RequestInfo | URL, init: RequestInit = {}): Promise<Response> => {
    const url = new URL(String(input));
    this.requests.push({ url, init });
    const instead = this.instead.shift();
    const given = new Promise<never>((_, fail) => {
      init.signal?.addEventListener("abort", () => fail(new DOMException("aborted", "AbortError")));
    });
    return Promise.race([instead ? instead() : this.#answer(url, init), given]);
  };

  #answer(url: URL, init: RequestInit): Response | Promise<Response> {
    const token = (init.headers as Record<string, string>).Authorization?.slice("Bearer ".length);
    if (this.tokens && !this.tokens.has(token ?? "")) return problem(401, token ? "token_expired" : "unauthorized");
    if (url.pathname.startsWith("/notifications/connections/")) {
      return this.guarded && !token ? problem(401, "unauthorized") : this.#patch(url, init);
    }
    if (url.pathname.endsWith("/poll")) return this.#poll(url);
    if (this.holdsBack) return new Promise<never>(() => {});
    const body = init.body ? (JSON.parse(String(init.body)) as { topics: string[]; lastEventId?: string }) : undefined;
    const topics = body?.topics ?? url.searchParams.getAll("topic");
    const asked = body?.lastEventId ?? url.searchParams.get("lastEventId");
    const refused = topics.find((topic) => this.forbidden.has(topic));
    if (refused !== undefined) return problem(403, "forbidden", refused);
    if (!token && topics.some((topic) => this.guarded?.has(topic))) return closing("unauthorized", 20_000);
    return this.#open(topics, asked, init);
  }

  #open(topics: string[], asked: string | null, init: RequestInit): Response {
    const [begin, reason] = this.#begin(asked, new Set(topics));
    this.#count += 1;
    const stream = new Stream(`c_${this.#count}`, topics, begin);
    this.streams = [...this.streams.filter(({ open }) => open), stream];
    init.signal?.addEventListener("abort", () => stream.break());
    const gap = reason ? { reason, oldest: this.id(this.log[0]?.offset ?? this.newest) } : {};
    const recovered = asked ? !reason : null;
    const facts = JSON.stringify({ connection: stream.id, topics, recovered, ...gap });
    const id = asked && recovered && asked !== "earliest" ? asked : this.id(begin);
    stream.say(`retry: ${this.retry}\nid: ${id}\nevent: hub.open\ndata: ${facts}\n\n`);
    if (reason) stream.say(`event: hub.gap\ndata: ${JSON.stringify({ recovered, ...gap })}\n\n`);
    for (const kept of this.log) {
      if (kept.offset > begin && kept.topics.some((topic) => wants(stream.topics, topic)))
        stream.say(this.#block(kept, stream.topics));
    }
    stream.cursor = this.newest;
    return new Response(stream.body, { headers: { "Content-Type": "text/event-stream" } });
  }

  #patch(url: URL, init: RequestInit): Response {
    const stream = this.streams.find(({ id, open }) => open && url.pathname.endsWith(id));
    if (!stream) return problem(404, "");
    const {
      add = [],
      remove = [],
      after,
    } = JSON.parse(String(init.body)) as Record<string, string[]> & { after?: string };
    const refused = add.find((topic) => this.forbidden.has(topic));
    if (refused !== undefined) return problem(403, "forbidden", refused);
    const fresh = add.filter((topic) => !stream.topics.has(topic));
    const had = new Map(stream.since);
    for (const topic of remove) {
      stream.topics.delete(topic);
      stream.since.delete(topic);
    }
    const [begin, reason] = after ? this.#begin(after, new Set(fresh)) : [this.newest];
    for (const topic of fresh) {
      stream.topics.add(topic);
      stream.since.set(topic, begin);
    }
    const topics = [...stream.topics].sort();
    stream.say(`event: hub.topics\ndata: ${JSON.stringify({ topics, from: this.id(begin) })}\n\n`);
    if (reason) stream.say(`event: hub.gap\ndata: ${JSON.stringify({ recovered: false, reason })}\n\n`);
    for (const kept of this.log) {
      if (kept.offset <= begin || !kept.topics.some((topic) => wants(new Set(fresh), topic))) continue;
      const known = [...had].some(([each, since]) => kept.offset > since && kept.topics.some((t) => matches(each, t)));
      if (!known) stream.say(this.#block(kept, new Set(fresh), true));
    }
    return Response.json({ topics, from: this.id(begin) });
  }
}

function wants(topics: Set<string>, topic: string): boolean {
  return [...topics].some((each) => matches(each, topic));
}

export function problem(status: number, code: string, topic?: string, headers: Record<string, string> = {}): Response {
  return Response.json({ code, detail: code, ...(topic ? { topic } : {}) }, { status, headers });
}

/** A hub that says only `hub.close`. */
export function closing(reason: string, retry: number, facts: object = {}): Response {
  const block = `retry: ${retry}\nevent: hub.close\ndata: ${JSON.stringify({ reason, ...facts })}\n\n`;
  return new Response(block, { headers: { "Content-Type": "text/event-stream" } });
}

/** Surroundings with `clock` and `hub`, and what gives signs. */
export function surroundingsOf(clock: Clock, hub: FakeHub, random: () => number) {
  const watchers = new Set<(sign: Sign) => void>();
  const kept = new Map<string, string>();
  const state = { online: true };
  const env: Env = {
    now: () => clock.now,
    after: (ms, then) => clock.after(ms, then),
    random,
    fetch: hub.fetch,
    EventSource: undefined,
    WebSocket: class {
      constructor(url: string) {
        const socket = new FakeSocket(hub, new URL(url));
        if (hub.blocksSockets) setImmediate(() => socket.break());
        return socket;
      }
    } as unknown as typeof WebSocket,
    memory: { get: (key) => kept.get(key), set: (key, value) => void kept.set(key, value) },
    streams: true,
    online: () => state.online,
    watch(on) {
      watchers.add(on);
      return () => watchers.delete(on);
    },
  };
  const sign = (what: Sign) => {
    if (what === "online" || what === "offline") state.online = what === "online";
    for (const on of watchers) on(what);
  };
  return { env, sign, watchers };
}
