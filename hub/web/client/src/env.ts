/** What the client uses of its surroundings: clock, timers, chance, network. Tests bring their own. */

import type { Memory } from "./wires.js";

/** What the surroundings say by themselves. */
export type Sign = "online" | "offline" | "hidden" | "visible" | "frozen" | "resumed";

/** The surroundings of a line: a page, a worker, or a test. */
export interface Env {
  /** Milliseconds of a clock that goes on while the machine sleeps, and never goes back. */
  now(): number;
  /** Call `then` once after `ms` milliseconds or later; return what stops it. */
  after(ms: number, then: () => void): () => void;
  /** A number from 0 up to, but not including, 1. */
  random(): number;
  /** Sends requests. */
  fetch: typeof fetch;
  /** The native class, for browsers in which `fetch` can't be read while it goes on; undefined if there is none. */
  EventSource: typeof EventSource | undefined;
  /** The native class; undefined if there is none. */
  WebSocket: typeof WebSocket | undefined;
  /** Keeps what was found out of the network, for as long as the session. */
  memory: Memory;
  /** Whether the body of an answer can be read while it arrives. */
  streams: boolean;
  /** False only if there is surely no network. */
  online(): boolean;
  /** Call `on` with each sign from now on; return what ends that. */
  watch(on: (sign: Sign) => void): () => void;
}

/** Return the surroundings of this page or worker. */
export function surroundings(): Env {
  return {
    now: steady(Date.now),
    after(ms, then) {
      const timer = setTimeout(then, ms);
      return () => clearTimeout(timer);
    },
    random: () => Math.random(),
    fetch: (...request) => fetch(...request),
    EventSource: typeof EventSource === "undefined" ? undefined : EventSource,
    WebSocket: typeof WebSocket === "undefined" ? undefined : WebSocket,
    memory: memory(),
    streams: typeof ReadableStream !== "undefined" && "body" in Response.prototype,
    online: () => typeof navigator === "undefined" || navigator.onLine !== false,
    watch,
  };
}

/** Return `clock` without its steps back: when somebody sets it, a watchdog must not wait until it is as late again. */
export function steady(clock: () => number): () => number {
  let last = -Infinity;
  let ahead = 0;
  return () => {
    const now = clock();
    if (now < last) ahead += last - now;
    last = now;
    return now + ahead;
  };
}

function watch(on: (sign: Sign) => void): () => void {
  const ends: (() => void)[] = [];
  const hear = (target: EventTarget, type: string, sign: () => Sign) => {
    const listener = () => on(sign());
    target.addEventListener(type, listener);
    ends.push(() => target.removeEventListener(type, listener));
  };
  if (typeof globalThis.addEventListener === "function") {
    hear(globalThis, "online", () => "online");
    hear(globalThis, "offline", () => "offline");
  }
  if (typeof document !== "undefined") {
    hear(document, "visibilitychange", () => (document.visibilityState === "hidden" ? "hidden" : "visible"));
    hear(document, "freeze", () => "frozen");
    hear(document, "resume", () => "resumed");
  }
  return () => {
    for (const end of ends) end();
  };
}

/** What a worker, or a page without a storage, remembers: as long as it lives. */
const remembered = new Map<string, string>();

function memory(): Memory {
  try {
    const { sessionStorage } = globalThis;
    if (sessionStorage) {
      return {
        get: (key) => sessionStorage.getItem(key) ?? undefined,
        set: (key, value) => {
          try {
            sessionStorage.setItem(key, value);
          } catch {
            // It is full: then it is found out again.
          }
        },
      };
    }
  } catch {
    // The page may have none.
  }
  return { get: (key) => remembered.get(key), set: (key, value) => void remembered.set(key, value) };
}
