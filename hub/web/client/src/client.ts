/** What a page uses: `connect` opens a line that it shares with the other tabs, and `on` hears what comes. */

import { type Answer, openAnswer } from "./ai.js";
import { type Env, surroundings } from "./env.js";
import { LineError, type LineState, NO_SOCKET, type Start } from "./line.js";
import type { TabEvent } from "./port.js";
import { foldPresence, type Presence, type PresenceFacts } from "./presence.js";
import { Share, type ShareMode } from "./share.js";
import { Stored } from "./stored.js";
import { Tab } from "./tab.js";
import { baseOf, RequestFailed, send } from "./wire.js";
import type { Wire, WireMode } from "./wires.js";

export interface Notification<T = unknown> {
  id: string;
  type: string;
  /** Those of its topics that this tab has. */
  topics: string[];
  data: T;
}

export interface Gap {
  /** Something before this id is missing. */
  id: string;
  /** `trimmed`, `epoch` or `unknown`. */
  reason: string;
  /** The oldest id that is still kept. */
  oldest?: string;
}

export interface Drop {
  dropped: number;
  after: string;
  before: string;
}

export interface HubState {
  state: LineState;
  /** Why, if it is not open. */
  reason?: string;
  /** The topic that is refused. */
  topic?: string;
  /** Milliseconds until it tries again. */
  retryIn?: number;
  /** How notifications come, if it is open. Over a WebSocket, what the page sends goes, too. */
  wire?: Wire;
}

export interface Draft {
  data: unknown;
  topic?: string;
  topics?: string[];
  type?: string;
  key?: string;
  private?: boolean;
  retry?: number;
  tags?: Record<string, string | number | boolean | null>;
}

export interface ConnectOptions {
  /** Where the hub is mounted; default: `/`. */
  url?: string;
  /** Topics and patterns; none: `notifications`, or with `rooms` the rooms of the user alone. */
  topics?: string[];
  /** Returns a token; is asked again when the last one has ended. */
  token?: () => Promise<string | undefined> | string | undefined;
  /** Who the user is: tabs of different users share nothing. Default: the `sub` of the token. */
  user?: string;
  /** Where the line is that the tabs share; default: `auto`. */
  share?: ShareMode;
  /**
   * How notifications come; default: `auto`, over Server-Sent Events, by polls where a proxy holds those back, and over a
   * WebSocket once the page sends something. `websocket`: over that from the start, if it is not blocked.
   */
  wire?: WireMode;
  /** Where to begin: after an id, such as the position at which the page was rendered; default: with what is new. */
  start?: Start;
  /** Whether a reload goes on where the handlers had got to; default: `tab`. */
  persist?: "tab" | "none";
  /** The name under which the cursor is kept for that, where the topics change; default: the topics. */
  persistAs?: string;
  /** Have the rooms of the user, too. */
  rooms?: boolean;
  /** Have it said who is on the topics. */
  presence?: boolean;
  onGap?: (gap: Gap) => void;
  onDrop?: (drop: Drop) => void;
  onState?: (state: HubState) => void;
  /** With `rooms`: what the line of the tabs follows now; the rooms of the user are among it. */
  onTopics?: (topics: string[]) => void;
  /** The hub refuses some of the topics; the others go on. */
  onRefused?: (refused: { topics: string[]; reason: string }) => void;
  /** Where the script of the worker is; default: beside this one. */
  worker?: string | URL;
}

export interface IterateOptions {
  /** Notifications that wait for the loop; default: 1,000. */
  buffer?: number;
  /** What happens when more would wait: the loop ends with an error, or the oldest are dropped, and `onDrop` called. */
  whenFull?: "fail" | "drop_oldest";
}

export interface AskOptions {
  /** Is called whenever the answer has changed. */
  on?: (answer: Answer) => void;
}

type Handler<T = unknown> = (notification: Notification<T>) => void;
type Off = () => void;

interface Observer {
  next?: (notification: Notification) => void;
  complete?: () => void;
}

interface Subscription {
  unsubscribe(): void;
  readonly closed: boolean;
}

const BUFFER = 1_000;
/** Requests of a page that may wait for their answers. */
const MOST_SAID = 1_000;
const TOKEN_WAIT = 2_000;
const LONGEST_TOKEN_WAIT = 30_000;
/** Milliseconds for which a token that was not used yet is taken for a new one. */
const FRESH = 5_000;

/** Open a line to the hub. It stays open until `close`. */
export function connect(options: ConnectOptions = {}): Hub {
  return new Hub(options);
}

export class Hub {
  readonly #options: ConnectOptions;
  readonly #env: Env;
  readonly #base: string;
  readonly #handlers = new Map<string, Set<Handler>>();
  readonly #any = new Set<Handler>();
  readonly #loops = new Set<Loop>();
  readonly #ends: Off[] = [];
  readonly #present = new Map<string, Presence>();
  readonly #presenceHandlers = new Set<(presence: Presence) => void>();
  readonly #stored: Stored;
  /** Topics that were added before there was a tab. */
  readonly #early: (() => void)[] = [];
  #state: HubState = { state: "connecting" };
  #tab: Tab | undefined;
  #share: Share | undefined;
  #token: string | undefined;
  #unused: string | undefined;
  #made = 0;
  readonly #topics: string[];
  /** Who the tabs are that it shares with; empty: nobody who is known to the hub; undefined: that can't be said. */
  #user: string | undefined;
  #closed = false;
  #asleep = false;

  constructor(options: ConnectOptions) {
    this.#options = options;
    this.#env = surroundings();
    this.#base = baseOf(options.url ?? "/");
    const topics = options.topics?.length ? options.topics : options.rooms ? [] : ["notifications"];
    this.#stored = new Stored(options.persist !== "none");
    for (const name of ["observable", "@@observable"]) {
      const symbol = (Symbol as unknown as Record<string, symbol | undefined>)[name];
      Object.defineProperty(this, symbol ?? "@@observable", { value: () => this.observable(), configurable: true });
    }
    this.#watch();
    this.#topics = [...new Set(topics)];
    void this.#begin();
  }

  /** How the line is. */
  get state(): HubState {
    return this.#state;
  }

  /** The id up to which all handlers and loops are done; undefined: there was none yet. */
  get cursor(): string | undefined {
    let first: Waiting | undefined;
    for (const loop of this.#loops) {
      const waiting = loop.first;
      if (waiting && (!first || waiting.place < first.place)) first = waiting;
    }
    return first ? first.before : this.#tab?.cursor;
  }

  /** The topics of this tab. */
  get topics(): string[] {
    return this.#tab?.topics ?? [];
  }

  /** Where the line of this tab is: in a worker, in a leading tab, in this page; undefined: nowhere now. */
  get sharing(): "worker" | "leader" | "none" | undefined {
    return this.#share?.how;
  }

  // ---- notifications ----

  /** Call `handler` with each notification of `type`; those without a type have the type `message`. */
  on<T = unknown>(type: string, handler: Handler<T>): Off {
    const handlers = this.#handlers.get(type) ?? new Set();
    this.#handlers.set(type, handlers);
    return added(handlers, handler as Handler);
  }

  /** Call `handler` with each notification. */
  onAny(handler: Handler): Off {
    return added(this.#any, handler);
  }

  /** Return what to loop over. It has a buffer for what comes while the loop is busy. */
  notifications(options: IterateOptions = {}): AsyncIterableIterator<Notification> {
    const loop: Loop = new Loop(options, {
      drop: (drop) => this.#call(this.#options.onDrop, drop),
      done: () => this.#save(),
      end: () => this.#loops.delete(loop),
    });
    if (this.#closed) loop.close();
    else this.#loops.add(loop);
    return loop;
  }

  [Symbol.asyncIterator](): AsyncIterableIterator<Notification> {
    return this.notifications();
  }

  /** What libraries of observables take: `from(hub)` of RxJS. It has no buffer: `next` is called at once. */
  observable(): { subscribe(observer: Observer | ((notification: Notification) => void)): Subscription } {
    return {
      subscribe: (observer) => {
        const { next, complete } = typeof observer === "function" ? { next: observer, complete: undefined } : observer;
        let closed = this.#closed;
        const off = this.onAny((notification) => next?.call(observer, notification));
        const end = () => {
          if (closed) return;
          closed = true;
          complete?.call(observer);
        };
        if (closed) complete?.call(observer);
        this.#ends.push(end);
        return {
          unsubscribe: () => {
            closed = true;
            off();
            const place = this.#ends.indexOf(end);
            if (place >= 0) this.#ends.splice(place, 1);
          },
          get closed() {
            return closed;
          },
        };
      },
    };
  }

  // ---- topics ----

  /**
   * Add topics: what is sent to them from now on comes, too.
   *
   * @throws {LineError} the hub refuses one of them; then none is added.
   */
  add(...topics: string[]): Promise<void> {
    return this.#change(topics, []);
  }

  /** Remove topics. */
  remove(...topics: string[]): Promise<void> {
    return this.#change([], topics);
  }

  // ---- who is there ----

  /** Who is on the topics, with the option `presence`. */
  readonly presence = {
    /** Return who is on `topic`; undefined: the hub has not said it yet. */
    get: (topic: string): Presence | undefined => this.#present.get(topic),
    /** Call `handler` with each change, and with what is known now. */
    on: (handler: (presence: Presence) => void): Off => {
      for (const presence of this.#present.values()) handler(presence);
      return added(this.#presenceHandlers, handler);
    },
  };

  // ---- requests ----

  /**
   * Send a notification; return its id and its topics. The draft gets a `key`, so that a repetition sends no second one.
   *
   * It goes over the line if that is a WebSocket, else as a request.
   *
   * @param draft the whole of it, or with `options` its data.
   */
  async publish(draft: Draft): Promise<{ id: string; topics: string[] }>;
  async publish(data: unknown, options: Omit<Draft, "data">): Promise<{ id: string; topics: string[] }>;
  async publish(draft: unknown, options?: Omit<Draft, "data">): Promise<{ id: string; topics: string[] }> {
    const key = crypto.randomUUID?.() ?? `${Math.random()}${Date.now()}`;
    const fields = options ? { ...options, data: draft } : (draft as Draft);
    // As it is now, and as JSON has it on every way: a worker is given copies, without methods such as `toJSON`.
    const body = JSON.parse(JSON.stringify({ ...fields, key: fields.key ?? key })) as Draft;
    const answer = await this.#say("publish", body, () => this.#request("notifications/publish", "POST", body));
    const { id, topics } = (answer ?? {}) as { id: string; topics: string[] };
    if (typeof id !== "string") throw new LineError(0, "not_a_hub", "what has answered is not the hub");
    return { id, topics };
  }

  /** Join a room, in which `publish` is to send, too, if that is true; only where the application allows it. */
  async join(room: string, { publish = false }: { publish?: boolean } = {}): Promise<void> {
    const more = publish ? { publish } : {};
    await this.#say("join", { room, ...more }, () => this.#request(this.#member(room), "PUT", more));
  }

  /** Leave a room. */
  async leave(room: string): Promise<void> {
    await this.#say("leave", { room }, () => this.#request(this.#member(room), "DELETE", undefined));
  }

  #member(room: string): string {
    if (!this.#user) throw new LineError(0, "unknown_user", "who the user is has to be said: with `token` or `user`");
    return `notifications/rooms/${encodeURIComponent(room)}/members/${encodeURIComponent(this.#user)}`;
  }

  readonly #requests = new Set<Promise<unknown>>();
  #saying = 0;

  /** Ask for `op` over the line, or by `request` where that does not go both ways. */
  async #say(op: string, facts: object, request: () => Promise<unknown>): Promise<unknown> {
    if (this.#closed) throw new LineError(0, "closed", "the client is closed");
    if (this.#saying >= MOST_SAID) {
      throw new LineError(0, "too_many_requests", `${MOST_SAID} requests wait for their answers`);
    }
    this.#saying++;
    try {
      return await this.#ask(op, facts, request);
    } finally {
      this.#saying--;
    }
  }

  async #ask(op: string, facts: object, request: () => Promise<unknown>): Promise<unknown> {
    const { wire = "auto" } = this.#options;
    if (wire === "auto" || wire === "websocket") {
      // What was sent in the other way comes first.
      while (this.#requests.size) await Promise.allSettled(this.#requests);
      try {
        if (this.#tab) return await this.#tab.send(op, facts);
      } catch (error) {
        // Whoever speaks over a socket that has outlived its token has to show a new one.
        const { code, status } = error as LineError;
        if (code !== NO_SOCKET && status !== 401) throw error;
      }
    }
    const requested = request();
    this.#requests.add(requested);
    const done = () => void this.#requests.delete(requested);
    requested.then(done, done);
    return requested;
  }

  /** Ask an AI; the answer grows. `prompt` is the question, or a body as `POST /ai/chat/stream/init` takes it. */
  ask(prompt: string | Record<string, unknown>, options: AskOptions = {}): Answer {
    return this.#answer({ prompt, ...options });
  }

  /** Watch an answer that has begun: before a reload, or in another tab. */
  attach(sessionId: string, options: AskOptions = {}): Answer {
    return this.#answer({ sessionId, ...options });
  }

  #answer(what: AskOptions & { prompt?: string | Record<string, unknown>; sessionId?: string }): Answer {
    const token = this.#options.token ? { token: () => this.#newToken() } : {};
    return openAnswer({ ...what, ...token, url: this.#base, env: this.#env });
  }

  /**
   * End it. Other tabs go on, and so do answers of an AI until they are closed.
   *
   * A later `connect` of this tab goes on from here, unless `forget` is true.
   */
  close({ forget = false }: { forget?: boolean } = {}): void {
    if (this.#closed) return;
    if (forget) this.#stored.forget();
    else this.#save();
    this.#closed = true;
    this.#tab?.end();
    this.#share?.stop();
    for (const loop of [...this.#loops]) loop.close();
    for (const end of this.#ends.splice(0)) end();
    for (const early of this.#early.splice(0)) early();
    this.#setState({ state: "closed" });
  }

  // ---- inside ----

  /** Find out who the user is, and get to a broker. */
  async #begin(): Promise<void> {
    const { token, user, start } = this.#options;
    const first = token && user === undefined ? await this.#firstToken() : undefined;
    if (this.#closed) return;
    this.#user = user ?? userOf(first);
    this.#keep();
    // A page that was rendered at a position shows all that was before; else what was shown before the reload counts.
    const isId = start !== undefined && start !== "earliest" && start !== "latest";
    const cursor = isId ? start : this.#stored.cursor;
    this.#tab = new Tab({
      topics: this.#topics,
      ...(cursor === undefined ? {} : { cursor }),
      ...(start === undefined || isId ? {} : { start }),
      ...(token ? { token: () => this.#unusedToken() } : {}),
      visible: isVisible,
      on: (event) => this.#see(event),
      onFull: () => this.#share?.goAlone(),
    });
    this.#share = this.#newShare();
    for (const early of this.#early.splice(0)) early();
    if (!this.#asleep) this.#share.start();
  }

  #keep(): void {
    const { persistAs } = this.#options;
    this.#stored.begin(this.#base, this.#user ?? "", persistAs === undefined ? this.#topics : [`as ${persistAs}`]);
  }

  #newShare(): Share {
    const { presence = false, rooms = false, share = "auto", wire = "auto", worker } = this.#options;
    return new Share({
      mode: this.#user === undefined ? "none" : share,
      party: { url: this.#base, user: this.#user ?? "", rooms, presence, wire },
      tab: this.#tab!,
      env: this.#env,
      visible: isVisible,
      ...(worker === undefined ? {} : { worker }),
    });
  }

  async #firstToken(): Promise<string | undefined> {
    for (let wait = TOKEN_WAIT; !this.#closed; wait = Math.min(wait * 2, LONGEST_TOKEN_WAIT)) {
      try {
        this.#unused = await this.#newToken();
        return this.#unused;
      } catch (error) {
        reportError(error);
        this.#setState({ state: "waiting", reason: "token", retryIn: wait });
        await new Promise<void>((done) => this.#ends.push(this.#env.after(wait * this.#env.random(), done), done));
      }
    }
    return undefined;
  }

  /** Return the token that said who the user is, once; then a new one each time, of the same user. */
  async #unusedToken(): Promise<string | undefined> {
    // A tab may have to wait long before it is asked: then the token that it began with has ended, and the hub, which has
    // just said so of another one, would refuse them all.
    const isFresh = this.#env.now() - this.#made < FRESH;
    const unused = isFresh ? this.#unused : undefined;
    this.#unused = undefined;
    const token = unused ?? (await this.#newToken());
    if (token === undefined || this.#options.user !== undefined || userOf(token) === this.#user) return token;
    // Somebody else has logged in: the others on this line must not be given what is theirs.
    if (!this.#closed) {
      this.#user = userOf(token);
      this.#unused = token;
      this.#present.clear();
      this.#keep();
      this.#share?.stop();
      this.#share = this.#newShare();
      if (!this.#asleep) this.#share.start();
    }
    throw new LineError(0, "other_user", "the token is of another user");
  }

  async #newToken(): Promise<string | undefined> {
    this.#token = await this.#options.token?.();
    this.#made = this.#env.now();
    return this.#token;
  }

  /** Let go of everything while the page sleeps, or lies in the cache of the browser; come back when it wakes. */
  #watch(): void {
    const sleep = () => {
      this.#asleep = true;
      this.#save();
      this.#share?.stop();
    };
    const wake = () => {
      this.#asleep = false;
      if (!this.#closed) this.#share?.start();
    };
    const look = () => {
      this.#tab?.say({ is: "visible", visible: isVisible() });
      if (isVisible()) this.#tab?.say({ is: "wake" });
    };
    const listen = (target: EventTarget, type: string, listener: () => void) => {
      target.addEventListener(type, listener);
      this.#ends.push(() => target.removeEventListener(type, listener));
    };
    if (typeof document === "undefined") return;
    listen(globalThis, "pagehide", sleep);
    listen(globalThis, "pageshow", wake);
    listen(document, "freeze", sleep);
    listen(document, "resume", wake);
    listen(document, "visibilitychange", look);
    // Not every worker hears of it by itself.
    listen(globalThis, "online", () => this.#tab?.say({ is: "wake", online: true }));
  }

  #see(event: TabEvent): void {
    switch (event.kind) {
      case "message":
        this.#hear(event);
        break;
      case "state": {
        const { kind: _, ...state } = event;
        this.#setState(state);
        break;
      }
      case "gap": {
        const { kind: _, ...gap } = event;
        this.#call(this.#options.onGap, gap);
        break;
      }
      case "dropped": {
        const { kind: _, ...drop } = event;
        this.#call(this.#options.onDrop, drop);
        break;
      }
      case "topics":
        this.#call(this.#options.onTopics, event.topics);
        break;
      case "refused":
        this.#call(this.#options.onRefused, { topics: event.topics, reason: event.reason });
        break;
      case "presence":
      case "join":
      case "leave":
        this.#seePresence(event.kind, event.facts as PresenceFacts);
        break;
    }
    // When this has returned the cursor moves: what it was before is kept for a reload in the middle of a handler.
    this.#saveSoon();
  }

  #hear({ id, type, topics, data }: Extract<TabEvent, { kind: "message" }>): void {
    const notification = { id, type, topics, data };
    for (const loop of this.#loops) loop.push(notification, this.#tab?.cursor);
    for (const handler of [...(this.#handlers.get(type) ?? [])]) this.#call(handler, notification);
    for (const handler of [...this.#any]) this.#call(handler, notification);
  }

  #seePresence(kind: "presence" | "join" | "leave", facts: PresenceFacts): void {
    const presence = foldPresence(this.#present.get(facts.topic), kind, facts);
    if (!presence) return;
    this.#present.set(facts.topic, presence);
    for (const handler of [...this.#presenceHandlers]) this.#call(handler, presence);
  }

  /** Call a handler of the page: if it fails, that is reported as any error of the page, and the others go on. */
  #call<T>(handler: ((argument: T) => void) | undefined, argument: T): void {
    try {
      handler?.(argument);
    } catch (error) {
      reportError(error);
    }
  }

  #setState(state: HubState): void {
    this.#state = state;
    this.#call(this.#options.onState, state);
  }

  #change(add: string[], remove: string[]): Promise<void> {
    if (this.#closed) return Promise.reject(new LineError(0, "closed", "the client is closed"));
    if (this.#tab) return this.#tab.change(add, remove);
    return new Promise<void>((done) => this.#early.push(done)).then(() => this.#change(add, remove));
  }

  #saving = false;

  #saveSoon(): void {
    if (this.#saving) return;
    this.#saving = true;
    queueMicrotask(() => {
      this.#saving = false;
      this.#save();
    });
  }

  #save(): void {
    const { cursor } = this;
    if (cursor !== undefined && !this.#closed) this.#stored.save(cursor);
  }

  /** Send a request; a token that is not taken any more is renewed once. */
  async #request(path: string, method: string, body: unknown): Promise<unknown> {
    const ask = () => send(this.#env, this.#base, path, method, body, this.#token);
    try {
      if (this.#options.token && this.#token === undefined) await this.#newToken();
      try {
        return await ask();
      } catch (error) {
        if (!this.#options.token || (error as RequestFailed).problem?.status !== 401) throw error;
        await this.#newToken();
        return await ask();
      }
    } catch (error) {
      if (!(error instanceof RequestFailed)) throw error;
      const { status, code, detail, topic } = error.problem;
      throw new LineError(status, code, detail, topic);
    }
  }
}

interface Waiting {
  notification: Notification;
  /** Where the tab was before. */
  before: string | undefined;
  place: number;
}

let places = 0;

/** A loop over notifications: what comes waits until the loop takes it. */
class Loop implements AsyncIterableIterator<Notification> {
  readonly #bound: number;
  readonly #whenFull: "fail" | "drop_oldest";
  readonly #hooks: { drop: (drop: Drop) => void; done: () => void; end: () => void };
  #buffer: Waiting[] = [];
  /** What the body of the loop has now. */
  #taken: Waiting | undefined;
  #asking: { resolve: (result: IteratorResult<Notification>) => void; reject: (error: Error) => void } | undefined;
  #error: Error | undefined;
  #closed = false;

  constructor(
    { buffer = BUFFER, whenFull = "fail" }: IterateOptions,
    hooks: { drop: (drop: Drop) => void; done: () => void; end: () => void },
  ) {
    this.#bound = buffer;
    this.#whenFull = whenFull;
    this.#hooks = hooks;
  }

  /** The oldest that the loop is not done with. */
  get first(): Waiting | undefined {
    return this.#taken ?? this.#buffer[0];
  }

  push(notification: Notification, before: string | undefined): void {
    if (this.#closed) return;
    const waiting = { notification, before, place: places++ };
    if (this.#asking) {
      this.#taken = waiting;
      const { resolve } = this.#asking;
      this.#asking = undefined;
      resolve({ value: notification, done: false });
      return;
    }
    if (this.#buffer.length >= this.#bound) {
      if (this.#whenFull === "fail") {
        this.#error = new LineError(0, "buffer_full", `more than ${this.#bound} notifications wait for the loop`);
        this.close();
        this.#hooks.end(); // what it has not taken does not hold the cursor back any more
        return;
      }
      const { before: after = "" } = this.#buffer.shift()!;
      this.#hooks.drop({ dropped: 1, after, before: this.#buffer[0]?.notification.id ?? notification.id });
    }
    this.#buffer.push(waiting);
  }

  /** No more comes; what waits is still taken. */
  close(): void {
    this.#closed = true;
    this.#asking?.resolve({ value: undefined, done: true });
    this.#asking = undefined;
    if (!this.#buffer.length) this.#hooks.end();
  }

  next(): Promise<IteratorResult<Notification>> {
    // Whoever asks for the next one is done with the one before.
    this.#taken = this.#buffer.shift();
    this.#hooks.done();
    if (this.#taken) return Promise.resolve({ value: this.#taken.notification, done: false });
    if (this.#closed) {
      this.#hooks.end();
      const error = this.#error;
      this.#error = undefined;
      return error ? Promise.reject(error) : Promise.resolve({ value: undefined, done: true });
    }
    return new Promise((resolve, reject) => {
      this.#asking = { resolve, reject };
    });
  }

  return(): Promise<IteratorResult<Notification>> {
    this.#buffer = [];
    this.#taken = undefined;
    this.#error = undefined;
    this.close();
    this.#hooks.done();
    return Promise.resolve({ value: undefined, done: true });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}

function added<T>(set: Set<T>, item: T): Off {
  set.add(item);
  return () => set.delete(item);
}

function isVisible(): boolean {
  return typeof document === "undefined" || document.visibilityState !== "hidden";
}

/** Return the user that a token names, if it does. It is not checked: it only says which tabs may share a line. */
export function userOf(token: string | undefined): string | undefined {
  if (token === undefined) return "";
  try {
    const claims = token.split(".")[1]!.replace(/-/g, "+").replace(/_/g, "/");
    const bytes = Uint8Array.from(atob(claims), (each) => each.charCodeAt(0));
    const { sub } = JSON.parse(new TextDecoder().decode(bytes)) as { sub?: unknown };
    return typeof sub === "string" && sub ? sub : undefined;
  } catch {
    return undefined;
  }
}
