/** What the page asks of the hub, with the token of whoever looks. */

import { surroundings } from "../src/env.js";
import { baseOf, openAt, RequestFailed, send } from "../src/wire.js";

export const env = surroundings();
/** Where the hub is mounted: this script is in `/dashboard/`. */
export const base = baseOf(new URL("..", import.meta.url).href);

// Only in the memory of this tab: what is stored, any page of this origin could read.
let token: string | undefined;

export function useToken(said: string | undefined): void {
  token = said;
}

export const currentToken = (): string | undefined => token;

export interface Facts {
  user: string | null;
  guarded: boolean;
  tail: boolean;
  publish: boolean;
  presence: boolean;
  rooms: boolean;
  connections: boolean;
  settings: { slow: string; buffer_bytes: number; heartbeat: number };
}

export const get = <T>(path: string): Promise<T> => send(env, base, path, "GET", undefined, token) as Promise<T>;
export const post = <T>(path: string, body: unknown): Promise<T> =>
  send(env, base, path, "POST", body, token) as Promise<T>;
export const remove = (path: string): Promise<unknown> => send(env, base, path, "DELETE", undefined, token);

/** Return a query of what is not empty. */
export function query(pairs: Record<string, string | number>): string {
  const kept = Object.entries(pairs).filter(([, value]) => value !== "");
  return new URLSearchParams(kept.map(([name, value]) => [name, String(value)])).toString();
}

/** Return what went wrong, as a sentence. */
export function why(error: unknown): string {
  if (!(error instanceof RequestFailed)) return String(error);
  const { status, detail } = error.problem;
  return status === 0 ? "the hub does not answer" : detail || `the hub answers ${status}`;
}

export const refused = (error: unknown): boolean =>
  error instanceof RequestFailed && [401, 403].includes(error.problem.status);

/** What an event carries: JSON, or what was in it. */
const read = (data: string | object): unknown => (typeof data === "string" ? JSON.parse(data) : data);

export type FeedState = "connecting" | "open" | "polling" | "waiting" | "refused";

const RETRY = 2_000;
const POLL = 2_000;

/** The feed of figures: a stream, or a request now and then while the hub has no room for one. */
export class Feed {
  #end: (() => void) | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    readonly samples: (samples: unknown[], all: boolean) => void,
    readonly state: (state: FeedState, why?: string) => void,
  ) {}

  start(): void {
    this.stop();
    this.state("connecting");
    let closed = "";
    const again = (reason: string) => {
      this.#end = undefined;
      if (reason === "capacity") this.#poll();
      else this.#later(() => this.start(), RETRY, reason);
    };
    this.#end = openAt(env, `${base}dashboard/feed`, token, {
      opened: () => undefined,
      bytes: () => undefined,
      heartbeat: () => undefined,
      retry: () => undefined,
      id: () => undefined,
      event: ({ type, data }) => {
        if (type === "hub.close") closed = (read(data) as { reason: string }).reason;
        if (type !== "sample" && type !== "samples") return;
        this.state("open");
        const said = read(data);
        this.samples(type === "samples" ? (said as unknown[]) : [said], type === "samples");
      },
      ended: () => again(closed),
      failed: ({ status, detail }) => {
        if (status === 401 || status === 403) this.state("refused", detail);
        else again(detail);
      },
    });
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#end?.();
    this.#end = undefined;
  }

  #later(then: () => void, ms: number, reason = ""): void {
    this.state("waiting", reason);
    this.#timer = setTimeout(then, ms);
  }

  #poll(turn = 0): void {
    get<unknown>("dashboard/figures").then(
      (sample) => {
        this.samples([sample], false);
        this.state("polling");
        this.#timer = setTimeout(() => (turn < 15 ? this.#poll(turn + 1) : this.start()), POLL);
      },
      (error: unknown) =>
        refused(error) ? this.state("refused", why(error)) : this.#later(() => this.start(), RETRY, why(error)),
    );
  }
}
