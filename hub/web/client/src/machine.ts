/**
 * When a line connects, waits, renews its token and gives up. Pure: inputs and the time come in, commands go out.
 *
 * After a failure it waits at least as long as the hub said (`retry:` of the stream, `Retry-After` of an answer), and up
 * to a limit that doubles with each further failure, at random in between ("full jitter"): where a thousand clients lose
 * their streams at the same moment, equal waits would bring them back at the same moment, again and again, and a
 * doubled wait with only a little chance in it nearly so.
 */

import type { Sign } from "./env.js";
import type { LineState } from "./line.js";

export type Input =
  | { on: "start" | "stop" }
  /** The answer has begun, and is a stream; deaf: its heartbeats can't be heard, so its silence says nothing. */
  | { on: "opened"; deaf?: boolean }
  /** Something came, whatever it is. */
  | { on: "bytes" }
  /** `hub.open` came. */
  | { on: "begun" }
  /** A heartbeat: the stream was idle until now. */
  | { on: "heartbeat" }
  | { on: "retry"; ms: number }
  /** `hub.close`: the stream is about to end. */
  | { on: "close"; reason: string; topic?: string }
  | { on: "ended" }
  | { on: "failed"; status: number; code: string; topic?: string; retryAfter?: number }
  | { on: Sign }
  | { on: "time" }
  /** Look whether the stream is alive. */
  | { on: "wake" }
  /** Connect anew, with other topics: at once, unless it waits anyway. */
  | { on: "again" };

export type Command =
  | { do: "connect"; renew: boolean }
  | { do: "disconnect" }
  /** Send `time` after `ms`; it replaces the timer that there is. */
  | { do: "timer"; ms: number }
  | { do: "say"; state: LineState; reason?: string; topic?: string; retryIn?: number };

export const HEARTBEAT = 15_000;
export const MISSED_HEARTBEATS = 2.5;
export const CONNECTING = 30_000;
const FIRST_WAIT = 1_000;
/** What an `EventSource`, which does not tell it, takes for the `retry:` of a hub that has no room, at least. */
const DEAF_WAIT = 5_000;
const LONGEST_WAIT = 30_000;
/** The longest that the hub lets anybody say; a longer timer would be over at once. */
const LONGEST_RETRY = 86_400_000;
const LONGEST_HEARTBEAT = 60_000;
const MEASURED = 3;
/** As long as a timer can be. */
const FOREVER = 2 ** 31 - 1;
/** A timer that is later than this was held back with everything else: what has arrived has not been read yet. */
const LATE = 1_000;
/** What a page that was held back gets to read what has arrived. */
const GRACE = 2_000;
/** A token that is refused sooner than this after it was renewed will not get better. */
const TOO_SOON = 10_000;

const RENEW = new Set(["unauthorized", "token_invalid", "token_expired"]);
const HOPELESS = new Set(["revoked", "forbidden", "replaced"]);
/** Statuses of an intermediary that does not reach the hub now, or of a hub that has no room. */
const PASSING = new Set([404, 408, 425, 429]);

type Phase = "idle" | "connecting" | "opened" | "waiting" | "refused";

export class Machine {
  #phase: Phase = "idle";
  #random: () => number;
  #hasToken: boolean;
  #online: () => boolean;
  /** How long the stream was idle before the last heartbeats. */
  #idle: number[] = [];
  #retry: number | undefined;
  #failures = 0;
  #lastByte = 0;
  #silence = 0;
  #deaf = false;
  #since = 0;
  #due = Infinity;
  #checking = false;
  #begun = false;
  #renewed = false;
  #renewing = false;
  #closing: { reason: string; topic?: string } | undefined;

  /**
   * @param random returns a number from 0 up to, but not including, 1.
   * @param hasToken whether tokens can be renewed.
   * @param online false only if there is surely no network.
   */
  constructor(random: () => number, hasToken: boolean, online: () => boolean) {
    this.#random = random;
    this.#hasToken = hasToken;
    this.#online = online;
  }

  /** Return what has to be done because of `input` at `now`, in milliseconds. */
  take(input: Input, now: number): Command[] {
    switch (input.on) {
      case "start":
        if (this.#phase !== "idle" && this.#phase !== "refused") return [];
        this.#failures = 0;
        this.#renewed = false;
        this.#renewing = this.#phase === "refused";
        return this.#connect(now);
      case "stop":
        return this.#stop();
      case "again":
        if (this.#phase !== "connecting" && this.#phase !== "opened") return [];
        this.#settle(now);
        return [...this.#disconnect(), ...this.#connect(now)];
      case "opened":
        this.#lastByte = this.#since = now;
        this.#phase = "opened";
        this.#deaf = input.deaf === true;
        return this.#watch(now);
      case "bytes":
        this.#silence = now - this.#lastByte;
        this.#lastByte = now;
        this.#checking = false;
        return [];
      case "begun":
        this.#begun = true;
        this.#failures = 0;
        this.#since = now;
        return [{ do: "say", state: "open" }];
      case "heartbeat":
        this.#heard(this.#silence);
        return [];
      case "retry":
        this.#retry = Math.min(input.ms, LONGEST_RETRY);
        return [];
      case "close":
        this.#closing = input;
        return [];
      case "ended":
        return this.#lost(now);
      case "failed":
        return this.#failed(input, now);
      case "online":
        return this.#phase === "waiting" && !this.#told ? this.#connect(now) : this.#look(now);
      case "visible":
      case "resumed":
      case "wake":
        return this.#phase === "waiting" ? this.#sooner(now) : this.#look(now);
      case "time":
        return this.#time(now);
      default:
        return []; // offline, hidden, frozen: the stream may go on all the same
    }
  }

  #connect(now: number): Command[] {
    this.#phase = "connecting";
    this.#begun = this.#checking = false;
    this.#closing = undefined;
    const renew = this.#renewing;
    this.#renewing = false;
    return [{ do: "say", state: "connecting" }, { do: "connect", renew }, this.#timer(now, CONNECTING)];
  }

  #stop(): Command[] {
    const commands = this.#phase === "idle" ? [] : this.#disconnect();
    this.#phase = "idle";
    this.#due = Infinity;
    return [...commands, { do: "say", state: "closed" }];
  }

  #disconnect(): Command[] {
    return this.#phase === "connecting" || this.#phase === "opened" ? [{ do: "disconnect" }] : [];
  }

  #timer(now: number, ms: number): Command {
    this.#due = now + ms;
    return { do: "timer", ms };
  }

  // ---- the watchdog ----

  get #heartbeat(): number {
    return Math.max(...this.#idle, this.#idle.length < MEASURED ? HEARTBEAT : 0);
  }

  get #patience(): number {
    return this.#deaf ? FOREVER : MISSED_HEARTBEATS * this.#heartbeat;
  }

  /** The hub's interval is what was measured: the longest of a few, for a network may bring two at once. */
  #heard(idle: number): void {
    this.#idle = [...this.#idle, Math.min(Math.max(idle, LATE), LONGEST_HEARTBEAT)].slice(-MEASURED);
  }

  #watch(now: number): Command[] {
    return [this.#timer(now, Math.max(this.#lastByte + this.#patience - now, LATE))];
  }

  #time(now: number): Command[] {
    const late = now - this.#due > LATE;
    switch (this.#phase) {
      case "waiting":
        return this.#connect(now);
      case "connecting":
        // The machine may have slept: then the request has not had its time.
        if (late && !this.#checking) return this.#check(now);
        return [{ do: "disconnect" }, ...this.#wait(now, "timeout")];
      case "opened":
        if (now - this.#lastByte < this.#patience) return this.#watch(now);
        if (late && !this.#checking) return this.#check(now);
        // Were it the interval that is longer than was thought, the next stream is given more time.
        this.#heard(this.#heartbeat * 2);
        return [{ do: "disconnect" }, ...this.#wait(now, "silent")];
      default:
        return [];
    }
  }

  /** Look at the time stamps now: timers of a page that was hidden are late. */
  #look(now: number): Command[] {
    if (this.#phase !== "opened" || this.#checking || now - this.#lastByte < this.#patience) return [];
    return this.#check(now);
  }

  #check(now: number): Command[] {
    this.#checking = true;
    return [this.#timer(now, GRACE)];
  }

  /** Somebody looks: a wait that has grown long begins anew, but never ends before the hub's time. */
  #sooner(now: number): Command[] {
    const first = Math.min(this.#begins + Math.max(this.#floor, FIRST_WAIT), this.#due);
    if (first <= now) return this.#connect(now);
    return [this.#timer(now, first - now)];
  }

  // ---- failures ----

  #begins = 0;
  #floor = 0;
  #told = false;

  /** A stream that lasted shows that the token was good. */
  #settle(now: number): void {
    if (this.#begun && now - this.#since >= TOO_SOON) this.#renewed = false;
  }

  #lost(now: number): Command[] {
    if (this.#phase !== "opened" && this.#phase !== "connecting") return [];
    this.#settle(now);
    const closing = this.#closing;
    if (!closing) return this.#wait(now, "lost");
    if (HOPELESS.has(closing.reason)) return this.#refuse(closing.reason, closing.topic);
    if (RENEW.has(closing.reason)) return this.#renew(now, closing.reason, true);
    if (this.#deaf && this.#retry === undefined) return this.#wait(now, closing.reason, DEAF_WAIT, 2 * DEAF_WAIT);
    return this.#wait(now, closing.reason, this.#retry);
  }

  #failed(input: Input & { on: "failed" }, now: number): Command[] {
    if (this.#phase !== "opened" && this.#phase !== "connecting") return [];
    const { status, code, topic, retryAfter } = input;
    if (status === 401) return this.#renew(now, code || "unauthorized", false);
    if (status >= 400 && status < 500 && !PASSING.has(status)) return this.#refuse(code || `status_${status}`, topic);
    if (status === 204) return this.#refuse("no_content");
    if (retryAfter !== undefined) return this.#wait(now, code || `status_${status}`, retryAfter, retryAfter / 2);
    return this.#wait(now, code || (status ? `status_${status}` : "network"));
  }

  /** The token has ended: get another one, once. */
  #renew(now: number, reason: string, told: boolean): Command[] {
    // Without a token it is a cookie, which the application may have renewed, that has expired.
    if (this.#renewed || (!this.#hasToken && reason !== "token_expired")) return this.#refuse(reason);
    this.#renewing = this.#renewed = true;
    // Streams that end by the clock come back when the hub says, so that they do not all come at once.
    return told && this.#begun ? this.#wait(now, reason) : this.#connect(now);
  }

  #refuse(reason: string, topic?: string): Command[] {
    this.#phase = "refused";
    this.#due = Infinity;
    return [{ do: "say", state: "refused", reason, ...(topic === undefined ? {} : { topic }) }];
  }

  #wait(now: number, reason: string, told?: number, spread = 0): Command[] {
    const floor = told ?? this.#retry ?? 0;
    // `retry: 0` means at once, but not again and again: whoever publishes may say it.
    const first = Math.max(this.#retry ?? 0, FIRST_WAIT);
    const limit = Math.min(LONGEST_WAIT, first * 2 ** Math.min(this.#failures, 16));
    const ceiling = Math.max(floor + spread, limit);
    const ms = Math.round(floor + this.#random() * (ceiling - floor));
    this.#failures += 1;
    this.#phase = "waiting";
    this.#begins = now;
    this.#floor = floor;
    this.#told = told !== undefined;
    const state = this.#online() ? "waiting" : "offline";
    return [{ do: "say", state, reason, retryIn: ms }, this.#timer(now, ms)];
  }
}
