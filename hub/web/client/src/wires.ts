/**
 * Which wire the next stream of a line takes. Pure: what happened and the time come in, a name comes out.
 *
 * Server-Sent Events first. A proxy may hold a stream back until it ends: if twice nothing comes for a while, the line
 * polls. A WebSocket is for applications that send; where it twice does not come about, or does not last, the line does
 * without. Either is tried again later, or when the network has changed. What was found out is kept per hub for as long as the session.
 */

/** `auto`: Server-Sent Events until the application sends something, then a WebSocket. */
export type WireMode = "auto" | "sse" | "websocket" | "poll";

export type Wire = "sse" | "poll" | "websocket";

/** Keeps short texts for as long as the session lasts. */
export interface Memory {
  get(key: string): string | undefined;
  set(key: string, value: string): void;
}

/** Milliseconds until the first byte, or the first message. */
export const FIRST_BYTE = 5_000;
/** Milliseconds for which a wire that does not work is not tried. */
export const AVOIDED = 600_000;
/** Milliseconds after its first message until a WebSocket that still brings something is one that works. */
export const LASTING = 10_000;
const TRIES = 2;
/** Timers may be a little early by another clock. */
const LATER = 1_000;

/** How often a wire has failed in a row, and until when it is not tried. */
interface Found {
  failures: number;
  until: number;
}

export class Wires {
  readonly #mode: WireMode;
  readonly #memory: Memory;
  readonly #key: string;
  readonly #sockets: boolean;

  /** Whether the application sends. */
  sends = false;

  /**
   * @param origin the hub's address, for which things are remembered.
   * @param sockets whether there are WebSockets here.
   */
  constructor(mode: WireMode, origin: string, memory: Memory, sockets: boolean) {
    this.#mode = mode;
    this.#memory = memory;
    this.#key = `hub-client wires ${origin}`;
    this.#sockets = sockets;
  }

  /** Return the wire that is to be taken at `now`. */
  next(now: number): Wire {
    const wantsSocket = this.#mode === "websocket" || (this.#mode === "auto" && this.sends);
    if (wantsSocket && this.#sockets && !this.#avoids("websocket", now)) return "websocket";
    if (this.#mode === "poll") return "poll";
    return this.#mode !== "sse" && this.#avoids("sse", now) ? "poll" : "sse";
  }

  /** Whether there is another wire to take, so that it matters how long `wire` is silent at first. */
  canLeave(wire: Wire): boolean {
    return wire === "websocket" || (wire === "sse" && this.#mode !== "sse");
  }

  /** Return the milliseconds until another wire may be better than that of `now`; undefined: none will be. */
  better(now: number): number | undefined {
    const until = Object.values(this.#found()).map((found) => found.until);
    const first = Math.min(...until.filter((each) => each > now));
    return first === Infinity ? undefined : first - now + LATER;
  }

  /** Note that something has come over `wire`. */
  works(wire: Wire): void {
    const found = this.#found();
    if (!found[wire]) return;
    delete found[wire];
    this.#keep(found);
  }

  /** Note that nothing has come over `wire`, in time or at all; return whether it is to be avoided now. */
  fails(wire: "sse" | "websocket", now: number): boolean {
    const found = this.#found();
    const failures = (found[wire]?.failures ?? 0) + 1;
    const isAvoided = failures >= TRIES;
    found[wire] = { failures, until: isAvoided ? now + AVOIDED : 0 };
    this.#keep(found);
    return isAvoided;
  }

  /** Note that the hub was not reached over `wire`: then it was not for the wire that those before it failed. */
  misses(wire: "sse" | "poll"): void {
    const found = this.#found();
    delete found.websocket;
    if (wire === "poll") delete found.sse;
    this.#keep(found);
  }

  /** Forget what was found out: the network is another one. */
  forget(): void {
    this.#keep({});
  }

  #avoids(wire: Wire, now: number): boolean {
    const until = this.#found()[wire]?.until ?? 0;
    // A clock that was set back must not make it last longer.
    return now < until && until - now <= AVOIDED;
  }

  #found(): Partial<Record<Wire, Found>> {
    try {
      return JSON.parse(this.#memory.get(this.#key) ?? "{}") as Partial<Record<Wire, Found>>;
    } catch {
      return {};
    }
  }

  #keep(found: Partial<Record<Wire, Found>>): void {
    this.#memory.set(this.#key, JSON.stringify(found));
  }
}
