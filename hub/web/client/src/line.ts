/** One stream to the hub: it stays open through failures, and tells each notification once, in order. */

import type { Env, Sign } from "./env.js";
import { type Command, type Input, Machine } from "./machine.js";
import { Places, positionOf } from "./places.js";
import { VERSION } from "./port.js";
import {
  baseOf,
  type Heard,
  openStream,
  type Problem,
  RequestFailed,
  type Send,
  send,
  type StreamRequest,
} from "./wire.js";
import { FIRST_BYTE, LASTING, type Wire, type WireMode, Wires } from "./wires.js";

export type LineState = "connecting" | "open" | "waiting" | "offline" | "refused" | "closed";

/** What a line tells. */
export type LineEvent =
  /** With the wire, if it is open. */
  | { kind: "state"; state: LineState; reason?: string; topic?: string; retryIn?: number; wire?: Wire }
  | {
      kind: "open";
      id: string;
      connection: string;
      topics: string[];
      recovered: boolean | null;
      reason?: string;
      oldest?: string;
    }
  | { kind: "message"; id: string; type: string; topics: string[]; data: unknown }
  /** A heartbeat moved the cursor. */
  | { kind: "cursor"; id: string }
  /** Something is missing here. It comes after an `open` or `topics` that has one, too. */
  | { kind: "gap"; id: string; reason: string; oldest?: string }
  | { kind: "dropped"; dropped: number; after: string; before: string }
  /** The topics of the open stream have changed: those that were added count after `id`. */
  | { kind: "topics"; id: string; topics: string[] }
  | { kind: "presence" | "join" | "leave"; facts: unknown };

/** Where a line without a cursor begins. */
export type Start = "earliest" | "latest" | (string & {});

export interface LineOptions {
  /** Where the hub is mounted, such as `/` or `https://hub.example.com/live/`. */
  url: string;
  /** Topics and patterns. */
  topics: string[];
  /** The id after which the line begins. */
  cursor?: string;
  /** Where it begins if there is no cursor; without it, with what is new. */
  start?: Start;
  /** Returns a token, asked before the first request and whenever the last one has ended. */
  token?: () => Promise<string | undefined>;
  /** Whether the rooms of the user come too. */
  rooms?: boolean;
  /** Whether the line tells who is on its topics. */
  presence?: boolean;
  /** How notifications come; default: `sse`, with no other way. */
  wire?: WireMode;
  /** Is called with each event, in order. */
  on: (event: LineEvent) => void;
  env: Env;
}

export interface Line {
  /** Connect, and stay connected until `close`. */
  open(): void;
  /** End the stream; nothing is told after `{kind: "state", state: "closed"}`. */
  close(): void;
  /** The id up to which everything was told; empty: nothing was. */
  readonly cursor: string;
  readonly topics: string[];
  /**
   * Add topics to the stream, open or not.
   *
   * @param after the id after which they count; without it, what is new.
   * @returns the id after which they count.
   * @throws {LineError} the hub refuses one of them: the topics are as they were.
   */
  add(topics: string[], after?: string): Promise<{ from: string }>;
  /** Remove topics from the stream, open or not. */
  remove(topics: string[]): Promise<void>;
  /**
   * Look now whether the stream is alive.
   *
   * @param online there is a network again, perhaps another one: what was found out of the wires is forgotten.
   */
  wake(online?: boolean): void;
  /**
   * Ask the hub for `op` (`publish`, `join`, `leave`) over the stream, and have a wire from now on that can do so.
   *
   * @throws {LineError} the hub refuses it; or `no_socket`: it has to be sent in another way, for there is no such wire
   *   now, or nobody knows whether the hub has got it.
   */
  send(op: string, facts: object): Promise<Record<string, unknown>>;
}

export type MakeLine = (options: LineOptions) => Line;

/** The hub refused something. */
export class LineError extends Error {
  /** The status of the answer; 0: there was none. */
  readonly status: number;
  /** The code of the problem, such as `forbidden`. */
  readonly code: string;
  /** The topic that is refused. */
  readonly topic: string | undefined;

  constructor(status: number, code: string, detail: string, topic?: string) {
    super(detail || code || `the hub answered ${status}`);
    this.name = "LineError";
    this.status = status;
    this.code = code;
    this.topic = topic;
  }
}

interface Waiting {
  topics: string[];
  after: string | undefined;
  done: (answer: { from: string }) => void;
  fail: (error: LineError) => void;
}

/** Why `send` could not: there is no wire for it now, or it has ended without an answer. */
export const NO_SOCKET = "no_socket";
const TOKEN = 30_000;
const DEFAULT_TOPIC = "notifications";

/** Return a line, which is not open yet. */
export const makeLine: MakeLine = (options) => new HubLine(options);

export class HubLine implements Line {
  #env: Env;
  #options: LineOptions;
  #base: string;
  #machine: Machine;
  #places = new Places();
  /** What is asked for, in order: the topics of the next stream. */
  #wanted: Set<string>;
  /** Until there is a first id. */
  #start: string;
  #connection = "";
  #stopTimer: (() => void) | undefined;
  #endStream: (() => void) | undefined;
  #unwatch: (() => void) | undefined;
  #token: string | undefined;
  #needsToken = true;
  #attempt = 0;
  #closed = true;
  #begun = false;
  #wires: Wires;
  /** How the hub is asked for something over the present stream. */
  #send: Send | undefined;
  /** What ends the wait for the first byte, or for the time of another wire. */
  #stopWaiting: (() => void) | undefined;
  /** Topics that the next stream has for the first time. */
  #joining: Waiting[] = [];
  #changes: Promise<unknown> = Promise.resolve();

  constructor(options: LineOptions) {
    const { url, topics, cursor, start, token, rooms, wire = "sse", env } = options;
    this.#env = env;
    this.#options = options;
    this.#base = baseOf(url);
    this.#wanted = new Set(topics.length || rooms ? topics : [DEFAULT_TOPIC]);
    this.#start = start ?? "";
    this.#machine = new Machine(env.random, token !== undefined, env.online);
    this.#wires = new Wires(wire, this.#base, env.memory, env.WebSocket !== undefined);
    if (cursor) this.#places.begin(cursor, this.#wanted);
  }

  get cursor(): string {
    return this.#places.cursor;
  }

  get topics(): string[] {
    return [...this.#wanted];
  }

  open(): void {
    this.#closed = false;
    this.#unwatch ??= this.#env.watch((sign) => this.#see(sign));
    this.#take({ on: "start" });
  }

  close(): void {
    if (this.#closed) return;
    this.#take({ on: "stop" });
    this.#closed = true;
    this.#unwatch?.();
    this.#unwatch = undefined;
    this.#letGo();
    this.#stopTimer?.();
    this.#refuseAll(new LineError(0, "closed", "the line was closed"));
  }

  wake(online = false): void {
    if (online) this.#see("online");
    this.#take({ on: "wake" });
  }

  #see(sign: Sign): void {
    if (sign === "online") this.#wires.forget();
    this.#take({ on: sign });
    if (sign === "online") this.#changeWire();
  }

  async send(op: string, facts: object): Promise<Record<string, unknown>> {
    this.#wires.sends = true;
    this.#changeWire();
    if (!this.#send) throw new LineError(0, NO_SOCKET, "there is no WebSocket now");
    try {
      return await this.#send(op, facts);
    } catch (error) {
      throw errorOf((error as RequestFailed).problem);
    }
  }

  add(topics: string[], after?: string): Promise<{ from: string }> {
    return this.#inTurn(() => this.#add(topics, after));
  }

  remove(topics: string[]): Promise<void> {
    return this.#inTurn(() => this.#remove(topics));
  }

  /** One change after the other: what the second asks for may depend on what became of the first. */
  #inTurn<T>(change: () => Promise<T>): Promise<T> {
    const made = this.#changes.then(change);
    this.#changes = made.catch(() => {});
    return made;
  }

  async #add(topics: string[], after: string | undefined): Promise<{ from: string }> {
    const added = topics.filter((topic) => !this.#wanted.has(topic));
    const from = after ?? this.cursor;
    if (!added.length) return { from };
    if (after === "earliest") await this.#begins();
    if (this.#closed || this.#refused) {
      for (const topic of added) this.#want(topic, from);
      return { from };
    }
    if (!this.#begun || !this.#connection || this.#isBeforeStream(after)) return this.#addByStream(added, after);
    const connection = this.#connection;
    try {
      const answer = (await this.#change({ add: added, ...(after ? { after } : {}) })) as { from: string };
      // The stream says so itself, before or after this answer; if it is lost before it has, the next one has to know.
      const told = this.#places.topics;
      for (const topic of added) {
        this.#wanted.add(topic);
        if (!told.includes(topic)) this.#answered.set(topic, answer.from);
      }
      if (connection !== this.#connection) this.#take({ on: "again" });
      return answer;
    } catch (error) {
      const { problem } = error as RequestFailed;
      if (this.#closed) throw new LineError(0, "closed", "the line was closed");
      if (!isPassing(problem) && !this.#isOfNobody(problem)) throw errorOf(problem);
      // The stream is gone, nobody knows what became of the change, or nobody who is known may make it: the next stream
      // has the topics from the start.
      return this.#addByStream(added, after ?? from);
    }
  }

  /** Have the next stream follow `topics` too, and have it now. */
  #addByStream(topics: string[], after: string | undefined): Promise<{ from: string }> {
    return new Promise((done, fail) => {
      this.#joining.push({ topics, after, done, fail });
      const from = after ?? this.cursor;
      for (const topic of topics) this.#want(topic, from);
      this.#take({ on: "again" });
    });
  }

  /**
   * Whether what is asked for may be known differently here and there: the hub does not know what came by the streams
   * before this one, or of what it sent again to let some topics catch up was left out here.
   */
  #isBeforeStream(after: string | undefined): boolean {
    const asked = after === undefined ? undefined : positionOf(after);
    const agreed = positionOf(this.#agreed);
    return asked !== undefined && agreed !== undefined && asked.epoch === agreed.epoch && asked.offset < agreed.offset;
  }

  #agreed = "";
  /** Topics that the hub has added to this stream, which the stream has not said yet, and after which id. */
  #answered = new Map<string, string>();
  #refused = false;
  #gapTold = false;
  #beginning: (() => void)[] = [];

  /** Return when a stream has begun, or will not. */
  #begins(): Promise<void> {
    if (this.#begun || this.#closed || this.#refused) return Promise.resolve();
    return new Promise((done) => this.#beginning.push(done));
  }

  #refuseAll(error: LineError): void {
    for (const { topics, fail } of this.#joining.splice(0)) {
      for (const topic of topics) this.#forget(topic);
      fail(error);
    }
    for (const done of this.#beginning.splice(0)) done();
  }

  /** Whether the hub asks for a login where there is none: it lets nobody change a stream without, and names no topic. */
  #isOfNobody({ code }: Problem): boolean {
    return code === "unauthorized" && !this.#options.token;
  }

  /** Refuse a topic to whoever waits for it; return whether somebody did: then the stream goes on without it. */
  #refuseTopic(problem: Problem): boolean {
    const place = this.#isOfNobody(problem)
      ? this.#joining.length - 1
      : this.#joining.findIndex(({ topics }) => topics.includes(problem.topic ?? ""));
    if (place < 0) return false;
    const [{ topics, fail }] = this.#joining.splice(place, 1) as [Waiting];
    for (const topic of topics) this.#forget(topic);
    fail(errorOf(problem));
    this.#take({ on: "again" });
    return true;
  }

  #forget(topic: string): void {
    this.#wanted.delete(topic);
    this.#answered.delete(topic);
    this.#places.remove(topic);
  }

  #want(topic: string, after: string): void {
    this.#wanted.add(topic);
    if (after) this.#places.add(topic, after);
  }

  async #remove(topics: string[]): Promise<void> {
    const removed = topics.filter((topic) => this.#wanted.has(topic));
    if (!removed.length) return;
    if (removed.length === this.#wanted.size && !this.#options.rooms) {
      throw new LineError(400, "", "no topic would be left: close the line instead");
    }
    for (const topic of removed) this.#forget(topic);
    if (!this.#begun) return;
    if (!this.#connection) {
      this.#take({ on: "again" });
      return;
    }
    try {
      await this.#change({ remove: removed });
    } catch (error) {
      const { problem } = error as RequestFailed;
      if (this.#closed || isPassing(problem)) return; // the next stream is without them
      throw errorOf(problem);
    }
  }

  async #change(body: object): Promise<unknown> {
    const path = `notifications/connections/${encodeURIComponent(this.#connection)}`;
    try {
      return await send(this.#env, this.#base, path, "PATCH", body, this.#token);
    } catch (error) {
      const { problem } = error as RequestFailed;
      if (problem.status !== 401 || !this.#options.token || this.#closed) throw error;
      this.#needsToken = true;
      await this.#renewed();
      return await send(this.#env, this.#base, path, "PATCH", body, this.#token);
    }
  }

  // ---- what the machine decides ----

  #take(input: Input): void {
    if (this.#closed) return;
    for (const command of this.#machine.take(input, this.#env.now())) {
      this.#do(command);
      if (this.#closed) return; // by whoever was told
    }
  }

  #do(command: Command): void {
    switch (command.do) {
      case "connect":
        this.#needsToken ||= command.renew;
        void this.#connect();
        break;
      case "disconnect":
        this.#letGo();
        break;
      case "timer":
        this.#stopTimer?.();
        this.#stopTimer = this.#env.after(command.ms, () => this.#take({ on: "time" }));
        break;
      case "say": {
        const { do: _, ...facts } = command;
        if (facts.reason === "silent") this.#notLasting();
        if (facts.state === "waiting" || facts.state === "offline" || facts.state === "refused") this.#letGo();
        this.#refused = facts.state === "refused";
        if (this.#refused) {
          this.#stopTimer?.();
          this.#refuseAll(new LineError(0, facts.reason ?? "", "the hub refuses the stream", facts.topic));
        }
        this.#tell({ kind: "state", ...facts, ...(facts.state === "open" ? { wire: this.#wire } : {}) });
      }
    }
  }

  #letGo(): void {
    this.#attempt += 1;
    this.#begun = false;
    this.#send = undefined;
    this.#stopWaiting?.();
    this.#stopWaiting = undefined;
    this.#endStream?.();
    this.#endStream = undefined;
    for (const [topic, from] of this.#answered) this.#places.add(topic, from);
    this.#answered.clear();
  }

  async #connect(): Promise<void> {
    this.#letGo();
    const attempt = this.#attempt;
    if (this.#needsToken) {
      try {
        await this.#renewed();
      } catch (error) {
        if (attempt === this.#attempt) this.#take({ on: "failed", status: 0, code: "token" });
        console.error("hub-client: there is no token:", error);
        return;
      }
      if (attempt !== this.#attempt || this.#closed) return;
    }
    const request = {
      base: this.#base,
      topics: this.topics,
      cursor: this.#places.cursor || this.#start,
      token: this.#token,
      rooms: this.#options.rooms === true,
      presence: this.#options.presence === true,
    };
    const wire = (this.#wire = this.#wires.next(this.#env.now()));
    const heard: Heard = {
      opened: (deaf, send) => {
        this.#send = send;
        this.#take({ on: "opened", deaf });
      },
      bytes: () => {
        this.#firstByte(wire);
        this.#take({ on: "bytes" });
      },
      heartbeat: () => this.#take({ on: "heartbeat" }),
      retry: (ms) => this.#take({ on: "retry", ms }),
      id: (id) => {
        this.#places.reached(id);
        this.#tell({ kind: "cursor", id: this.cursor });
      },
      event: (event) => this.#heard(event),
      ended: () => {
        this.#notLasting();
        this.#take({ on: "ended" });
      },
      failed: (problem) => {
        // Where the wire was at fault, there is nothing to wait for: the next one is taken at once.
        const silent = this.#silent;
        const avoided = silent && this.#noByte(wire, problem);
        if (!silent && !problem.status) this.#notLasting();
        if (avoided && this.#wires.next(this.#env.now()) !== wire) this.#take({ on: "again" });
        else this.#failed(problem);
      },
    };
    this.#silent = true;
    this.#unsure = undefined;
    if (this.#wires.canLeave(wire)) {
      const detail = `nothing came over ${wire} within ${FIRST_BYTE / 1_000} seconds`;
      this.#stopWaiting = this.#env.after(FIRST_BYTE, () => heard.failed({ status: 0, code: "held_back", detail }));
    }
    if (wire === "sse") this.#endStream = openStream(this.#env, request, heard);
    else await this.#openOther(wire, request, heard, attempt);
  }

  #silent = false;
  #wire: Wire = "sse";
  /** Until when it is not sure that the present WebSocket works; undefined: it does, or it is none. */
  #unsure: number | undefined;

  /** Note that the stream has ended, of which the hub has said nothing. */
  #notLasting(): void {
    if (this.#unsure !== undefined && this.#env.online()) this.#wires.fails("websocket", this.#env.now());
    this.#unsure = undefined;
  }

  async #openOther(wire: Wire, request: StreamRequest, heard: Heard, attempt: number): Promise<void> {
    try {
      const others = await import("./others.js");
      if (attempt !== this.#attempt || this.#closed) return;
      if (others.VERSION !== VERSION) throw new Error("the hub was updated");
      const open = wire === "poll" ? others.openPoll : others.openSocket;
      this.#endStream = open(this.#env, request, heard);
    } catch (error) {
      if (attempt === this.#attempt) heard.failed({ status: 0, code: "", detail: String(error) });
    }
  }

  /** Something has come: note what is sure of the wire by that, and when a better one may work. */
  #firstByte(wire: Wire): void {
    const now = this.#env.now();
    if (this.#unsure !== undefined && now >= this.#unsure) {
      this.#unsure = undefined;
      this.#wires.works(wire);
    }
    if (!this.#silent) return;
    this.#silent = false;
    this.#stopWaiting?.();
    // A proxy may let a WebSocket through, and then its first messages alone.
    if (wire === "websocket") this.#unsure = now + LASTING;
    else this.#wires.works(wire);
    const ms = this.#wires.better(now);
    this.#stopWaiting = ms === undefined ? undefined : this.#env.after(ms, () => this.#changeWire());
  }

  /**
   * Note that nothing has come over `wire`, which says something of the wire unless the hub has said why; return whether
   * the wire is to be avoided now.
   */
  #noByte(wire: Wire, { status, code }: Problem): boolean {
    if (!this.#env.online()) return false;
    // A hub that is embedded may have no polls: then there is nothing but the stream.
    if (wire === "poll" && (status === 404 || status === 405)) this.#wires.misses(wire);
    if (status !== 0) return false;
    // A WebSocket never says why it could not be opened.
    if (wire === "websocket" || (wire === "sse" && code === "held_back")) {
      return this.#wires.fails(wire, this.#env.now());
    }
    this.#wires.misses(wire);
    return false;
  }

  /** Take the better wire, if there is one by now. */
  #changeWire(): void {
    if (this.#wire !== this.#wires.next(this.#env.now())) this.#take({ on: "again" });
  }

  async #renewed(): Promise<void> {
    const { token } = this.#options;
    if (!token) {
      this.#needsToken = false;
      return;
    }
    let stop = () => {};
    const late = new Promise<never>((_, fail) => {
      stop = this.#env.after(TOKEN, () => fail(new LineError(0, "token", "the token did not come in time")));
    });
    try {
      this.#token = await Promise.race([token(), late]);
      this.#needsToken = false;
    } finally {
      stop();
    }
  }

  #failed(problem: Problem): void {
    const { status, code, topic, retryAfter } = problem;
    if ((status === 403 || status === 401) && this.#refuseTopic(problem)) return;
    const facts = { ...(topic === undefined ? {} : { topic }), ...(retryAfter === undefined ? {} : { retryAfter }) };
    this.#take({ on: "failed", status, code, ...facts });
  }

  // ---- what the stream says ----

  #heard({ id, type, data }: Parameters<Heard["event"]>[0]): void {
    if (type !== "hub.gap") this.#gapTold = false;
    const facts: unknown = typeof data === "string" ? JSON.parse(data) : data;
    if (type.startsWith("hub.")) {
      this.#own(type.slice(4), facts as OwnFacts, id);
      return;
    }
    const told = facts as { id?: string; topics: string[]; type?: string; data: unknown };
    // An id in the data is that of a notification that is older than what has come: the cursor stays where it is.
    const position = told.id ?? id ?? this.cursor;
    if (!this.#places.take(position, told.topics, told.id !== undefined)) return;
    this.#tell({
      kind: "message",
      id: position,
      type: type || told.type || "message",
      topics: told.topics,
      data: told.data,
    });
  }

  #own(type: string, facts: OwnFacts, id: string | undefined): void {
    switch (type) {
      case "open":
        this.#opened(facts, id ?? "");
        break;
      case "gap":
        if (this.#gapTold) {
          this.#gapTold = false;
          break;
        }
        if (facts.reason !== "trimmed") this.#places.forget();
        this.#tell({ kind: "gap", id: this.cursor, ...only(facts, "reason", "oldest") } as LineEvent);
        break;
      case "topics":
        this.#changed(facts);
        break;
      case "dropped":
        this.#tell({ kind: "dropped", ...only(facts, "dropped", "after", "before") } as LineEvent);
        break;
      case "close":
        this.#unsure = undefined;
        if (facts.reason in STATUSES) {
          const status = STATUSES[facts.reason as keyof typeof STATUSES];
          if (this.#refuseTopic({ status, code: facts.reason, detail: "", ...facts })) break;
        }
        this.#take({ on: "close", ...only(facts, "reason", "topic") } as Input);
        break;
      case "presence":
      case "join":
      case "leave":
        this.#tell({ kind: type, facts });
    }
  }

  #opened(facts: OwnFacts, id: string): void {
    const { connection, topics, recovered, reason } = facts;
    this.#connection = connection;
    this.#begun = true;
    if (recovered === null || !this.#places.cursor) this.#places.begin(id, topics);
    else if (recovered || reason === "trimmed") this.#places.resume(id, topics, !recovered);
    else this.#places.begin(id, topics);
    this.#agreed = this.#places.newestSince(id);
    this.#take({ on: "begun" });
    this.#tell({
      kind: "open",
      id,
      ...only(facts, "connection", "topics", "recovered", "reason", "oldest"),
    } as LineEvent);
    // `hub.gap` says it too, but the stream may be lost before that has come, and the next one knows nothing of it.
    this.#gapTold = recovered === false;
    if (this.#gapTold) this.#tell({ kind: "gap", id, ...only(facts, "reason", "oldest") } as LineEvent);
    for (const { done, after } of this.#joining.splice(0)) done({ from: after && recovered !== false ? after : id });
    for (const done of this.#beginning.splice(0)) done();
  }

  #changed({ topics, from }: OwnFacts): void {
    const known = this.#places.topics;
    for (const topic of topics) {
      this.#answered.delete(topic);
      if (!known.includes(topic)) this.#places.add(topic, from);
    }
    for (const topic of known) if (!topics.includes(topic)) this.#places.remove(topic);
    this.#tell({ kind: "topics", id: from, topics });
  }

  #tell(event: LineEvent): void {
    try {
      this.#options.on(event);
    } catch (error) {
      // It is the caller's; the stream goes on.
      console.error("hub-client: a handler failed:", error);
    }
  }
}

/** Reasons of the hub for which it may not give a topic, and the statuses that they stand for. */
const STATUSES = { forbidden: 403, unauthorized: 401 };

interface OwnFacts {
  connection: string;
  topics: string[];
  recovered: boolean | null;
  reason: string;
  topic?: string;
  from: string;
}

function only(facts: object, ...names: string[]): Record<string, unknown> {
  return Object.fromEntries(Object.entries(facts).filter(([name]) => names.includes(name)));
}

/** Whether another stream may be given what this one was not: the hub did not refuse it, or a proxy takes no `PATCH`. */
function isPassing({ status, code }: Problem): boolean {
  return [0, 404, 405, 429].includes(status) || status >= 500 || (status === 403 && !code);
}

function errorOf({ status, code, detail, topic }: Problem): LineError {
  return new LineError(status, code, detail, topic);
}
