/**
 * One tab: its topics, and how far it has come. It outlives its brokers: when one ends, it joins the next with its cursor.
 *
 * Pure: messages come in by `take`, and go out by what `join` was given.
 */

import { LineError, NO_SOCKET, type Start } from "./line.js";
import type { FromTab, Refusal, TabEvent, ToTab } from "./port.js";
import { isWithin } from "./topics.js";

export interface TabOptions {
  topics: string[];
  /** The id after which it begins. */
  cursor?: string;
  /** Where it begins without one. */
  start?: Start;
  token?: () => Promise<string | undefined> | string | undefined;
  /** Whether somebody looks at it. */
  visible: () => boolean;
  /** Is called with each event, in order. The cursor moves when it has returned. */
  on: (event: TabEvent) => void;
  /** The broker has no room for its topics. */
  onFull: () => void;
}

interface Change {
  add: string[];
  remove: string[];
  resolve: () => void;
  reject: (error: Error) => void;
}

interface Send {
  resolve: (told: Record<string, unknown>) => void;
  reject: (error: Error) => void;
}

export class Tab {
  readonly #options: TabOptions;
  readonly #topics: Set<string>;
  readonly #changes = new Map<number, Change>();
  readonly #sends = new Map<number, Send>();
  #refs = 0;
  #cursor: string | undefined;
  #post: ((message: FromTab) => void) | undefined;

  constructor(options: TabOptions) {
    this.#options = options;
    this.#topics = new Set(options.topics);
    this.#cursor = options.cursor;
  }

  /** The id up to which `on` was called with everything; undefined: it has not begun. */
  get cursor(): string | undefined {
    return this.#cursor;
  }

  get topics(): string[] {
    return [...this.#topics];
  }

  /** Join the broker that `post` reaches. */
  join(post: (message: FromTab) => void): void {
    this.#post = post;
    const { start, token, visible } = this.#options;
    post({
      is: "join",
      topics: [...this.#topics],
      ...(this.#cursor === undefined ? {} : { cursor: this.#cursor }),
      ...(start === undefined ? {} : { start }),
      token: token !== undefined,
      visible: visible(),
    });
    for (const [ref, { add, remove }] of this.#changes) post({ is: "change", ref, add, remove });
  }

  /** Note that the broker has ended: nothing it said before counts any more but what was taken. */
  part(): void {
    this.#post = undefined;
    for (const { reject } of this.#sends.values()) reject(new LineError(0, NO_SOCKET, "the broker has ended"));
    this.#sends.clear();
  }

  /** Say something to the broker, if there is one. */
  say(message: FromTab): void {
    this.#post?.(message);
  }

  /** Take what the broker has sent. */
  take(message: ToTab): void {
    const post = this.#post;
    if (!post) return;
    switch (message.is) {
      case "events":
        for (const event of message.events) {
          this.#see(event);
          if (this.#post !== post) return; // a handler has ended it
        }
        post({ is: "ack", number: message.number });
        break;
      case "answer":
        this.#answered(message);
        break;
      case "token":
        void this.#giveToken(message.ref, post);
        break;
      case "ping":
        post({ is: "pong" });
        break;
      case "gone":
        this.part();
        this.join(post);
        break;
      case "full":
        this.part();
        this.#options.onFull();
        break;
    }
  }

  /** Add topics; resolves when what is sent to them from then on comes. */
  change(add: string[], remove: string[]): Promise<void> {
    for (const topic of remove) this.#topics.delete(topic);
    return new Promise((resolve, reject) => {
      const ref = ++this.#refs;
      this.#changes.set(ref, { add, remove, resolve, reject });
      this.#post?.({ is: "change", ref, add, remove });
    });
  }

  /**
   * Ask the hub for `op` over the line.
   *
   * @throws {LineError} the hub refuses it; or `no_socket`: it has to be sent in another way.
   */
  send(op: string, facts: object): Promise<Record<string, unknown>> {
    const post = this.#post;
    if (!post) return Promise.reject(new LineError(0, NO_SOCKET, "there is no broker now"));
    return new Promise((resolve, reject) => {
      const ref = ++this.#refs;
      this.#sends.set(ref, { resolve, reject });
      post({ is: "send", ref, op, facts });
    });
  }

  /** End it: changes that are not made yet fail. */
  end(): void {
    this.say({ is: "leave" });
    this.part();
    for (const { reject } of this.#changes.values()) reject(new LineError(0, "closed", "the client is closed"));
    this.#changes.clear();
  }

  #see(event: TabEvent): void {
    if (event.kind === "refused") for (const topic of event.topics) this.#topics.delete(topic);
    this.#options.on(event);
    // Only now: whoever reads the cursor while a handler runs comes back to what this handler was given.
    // An opening with a gap leaves it to the gap: a tab that ends between the two has to hear of it again.
    if (event.kind === "gap") this.#cursor = event.id;
    else if (event.kind === "message" || event.kind === "cursor") {
      // What is older belongs to a room that the user has just got.
      if (this.#cursor === undefined || !isWithin(event.id, this.#cursor)) this.#cursor = event.id;
    } else if (event.kind === "open" && event.recovered !== false) this.#cursor = event.id;
  }

  #answered({ ref, refusal, told }: Extract<ToTab, { is: "answer" }>): void {
    const send = this.#sends.get(ref);
    this.#sends.delete(ref);
    if (refusal) send?.reject(errorOf(refusal));
    else send?.resolve(told ?? {});
    const change = this.#changes.get(ref);
    if (!change) return;
    this.#changes.delete(ref);
    if (refusal) change.reject(errorOf(refusal));
    else {
      for (const topic of change.add) this.#topics.add(topic);
      change.resolve();
    }
  }

  async #giveToken(ref: number, post: (message: FromTab) => void): Promise<void> {
    let answer: { token?: string; failed?: boolean } = {};
    try {
      const token = await this.#options.token?.();
      if (token !== undefined) answer = { token };
    } catch {
      answer = { failed: true };
    }
    // The way to that broker may be closed by now.
    if (this.#post === post) post({ is: "token", ref, ...answer });
  }
}

function errorOf({ status, code, detail, topic }: Refusal): LineError {
  return new LineError(status, code, detail, topic);
}
