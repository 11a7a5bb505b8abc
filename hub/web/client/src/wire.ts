/** The bytes of a stream, and the other requests of a line: `fetch`, or a native `EventSource` where it has to be. */

import { createParser } from "eventsource-parser";
import type { Env } from "./env.js";

/** What of a stream is heard, in order; nothing more after `ended` or `failed`. */
export interface Heard {
  /**
   * @param deaf heartbeats can't be heard.
   * @param send asks the hub for something over the same wire, where it goes both ways.
   */
  opened(deaf: boolean, send?: Send): void;
  bytes(): void;
  heartbeat(): void;
  retry(ms: number): void;
  /** The cursor moves, without anything that is told. */
  id(id: string): void;
  /** `data` is JSON, or what was in it. */
  event(event: { id: string | undefined; type: string; data: string | object }): void;
  ended(): void;
  failed(problem: Problem): void;
}

/** Ask for `op`; return the answer of the hub, or raise `RequestFailed`. */
export type Send = (op: string, facts: object) => Promise<Record<string, unknown>>;

/** Why a request has no good answer; status 0: there was none. */
export interface Problem {
  status: number;
  code: string;
  detail: string;
  topic?: string;
  /** Milliseconds. */
  retryAfter?: number;
}

export interface StreamRequest {
  /** Where the hub is mounted; ends with `/`. */
  base: string;
  topics: string[];
  cursor: string;
  token: string | undefined;
  rooms: boolean;
  presence: boolean;
}

const LONGEST_URL = 2_000;
const LONGEST_EVENT = 16 * 1024 * 1024;
export const ANSWERING = 15_000;
const OWN = ["open", "gap", "topics", "dropped", "close", "presence", "join", "leave"].map((name) => `hub.${name}`);

/** Return where a hub is mounted, as a whole URL that ends with `/`. */
export function baseOf(url: string): string {
  const base = new URL(url, globalThis.location?.href);
  base.hash = base.search = "";
  if (!base.pathname.endsWith("/")) base.pathname += "/";
  return base.href;
}

/** Open a stream; return what ends it, after which nothing is heard. */
export function openStream(env: Env, request: StreamRequest, heard: Heard): () => void {
  return env.streams || !env.EventSource ? byFetch(env, request, heard) : byEventSource(env, request, heard);
}

function query(request: StreamRequest, envelope: string, rest: [string, string][]): string {
  const pairs = [["envelope", envelope], ...rest];
  if (request.rooms) pairs.push(["rooms", "1"]);
  if (request.presence) pairs.push(["presence", "1"]);
  return pairs.map(([name, value]) => `${name}=${encodeURIComponent(value!)}`).join("&");
}

export function asked({ topics, cursor }: StreamRequest): [string, string][] {
  const pairs = topics.map((topic): [string, string] => ["topic", topic]);
  return cursor ? [...pairs, ["lastEventId", cursor]] : pairs;
}

function byFetch(env: Env, request: StreamRequest, heard: Heard): () => void {
  const aborter = new AbortController();
  const path = `${request.base}notifications/subscribe?`;
  const headers: Record<string, string> = { Accept: "text/event-stream", ...bearer(request.token) };
  const init: RequestInit = { headers, signal: aborter.signal, cache: "no-store", credentials: "include" };
  let url = path + query(request, "topics", asked(request));
  if (url.length > LONGEST_URL) {
    url = path + query(request, "topics", []);
    headers["Content-Type"] = "application/json";
    init.method = "POST";
    init.body = JSON.stringify({
      topics: request.topics,
      ...(request.cursor ? { lastEventId: request.cursor } : {}),
    });
  }
  return listen(env, url, init, aborter, heard);
}

/** Open the stream at `url`, which is one of another kind; return what ends it. */
export function openAt(env: Env, url: string, token: string | undefined, heard: Heard): () => void {
  const aborter = new AbortController();
  const headers = { Accept: "text/event-stream", ...bearer(token) };
  return listen(
    env,
    url,
    { headers, signal: aborter.signal, cache: "no-store", credentials: "include" },
    aborter,
    heard,
  );
}

function listen(env: Env, url: string, init: RequestInit, aborter: AbortController, heard: Heard): () => void {
  let over = false;
  read(
    env,
    url,
    init,
    guarded(heard, () => over),
  ).then(
    (problem) => {
      if (over) return;
      over = true;
      if (problem) heard.failed(problem);
      else heard.ended();
    },
    (error: unknown) => {
      if (over) return;
      over = true;
      // Whatever it is: the connection is gone, and the next one goes on where this one was.
      aborter.abort();
      heard.failed({ status: 0, code: "", detail: String(error) });
    },
  );
  return () => {
    over = true;
    aborter.abort();
  };
}

/** What is heard until it is over: chunks may still come from a stream that was ended while one was being read. */
function guarded(heard: Heard, over: () => boolean): Heard {
  const unless =
    <A extends unknown[]>(tell: (...facts: A) => void) =>
    (...facts: A) => {
      if (!over()) tell(...facts);
    };
  return {
    opened: unless((deaf: boolean) => heard.opened(deaf)),
    bytes: unless(() => heard.bytes()),
    heartbeat: unless(() => heard.heartbeat()),
    retry: unless((ms: number) => heard.retry(ms)),
    id: unless((id: string) => heard.id(id)),
    event: unless((event: Parameters<Heard["event"]>[0]) => heard.event(event)),
    ended: () => {},
    failed: () => {},
  };
}

/** Tell what comes until the stream ends; return why there is none. */
async function read(env: Env, url: string, init: RequestInit, heard: Heard): Promise<Problem | undefined> {
  const answer = await env.fetch(url, init);
  if (!answer.ok || answer.status === 204) return problemOf(answer);
  const type = answer.headers.get("Content-Type") ?? "";
  if (!type.startsWith("text/event-stream") || !answer.body) {
    await answer.body?.cancel();
    const detail = `the answer is ${type || "of no type"}`;
    // Not a failure of the network, so the browser says nothing: often a development server that is no proxy for the hub.
    console.warn(`hub-client: no stream of a hub at ${url.split("?")[0]}: ${detail}`);
    return { status: 0, code: "not_a_stream", detail };
  }
  heard.opened(false);
  let id: string | undefined;
  const moved = () => {
    if (id !== undefined) heard.id(id);
    id = undefined;
  };
  const parser = createParser({
    maxBufferSize: LONGEST_EVENT,
    // The id of a block is known right before the block, and alone if the block has nothing else.
    onId(found) {
      moved();
      id = found;
    },
    onEvent(event) {
      if (event.id === undefined) moved();
      id = undefined;
      heard.event({ id: event.id, type: event.event ?? "", data: event.data });
    },
    onRetry: (ms) => heard.retry(ms),
    onComment: () => heard.heartbeat(),
    onError(error) {
      if (error.type === "max-buffer-size-exceeded") throw error;
    },
  });
  const reader = answer.body.getReader();
  const decoder = new TextDecoder();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return undefined;
    heard.bytes();
    parser.feed(decoder.decode(value, { stream: true }));
    moved();
  }
}

function byEventSource(env: Env, request: StreamRequest, heard: Heard): () => void {
  let source: EventSource | undefined;
  let over = false;
  const fail = (problem: Problem) => {
    if (over) return;
    over = true;
    source?.close();
    heard.failed(problem);
  };
  const open = async () => {
    const rest = asked(request);
    if (request.token !== undefined) {
      // For all that the token may read: topics may be added to the open stream.
      const answer = await send(env, request.base, "notifications/tickets", "POST", {}, request.token);
      rest.push(["ticket", (answer as { ticket: string }).ticket]);
    }
    if (over) return;
    source = new env.EventSource!(`${request.base}notifications/subscribe?${query(request, "all", rest)}`, {
      withCredentials: true,
    });
    let last = "";
    const tell = (event: MessageEvent<string>) => {
      heard.bytes();
      const id = event.lastEventId === last ? undefined : event.lastEventId;
      last = event.lastEventId;
      heard.event({ id, type: event.type === "message" ? "" : event.type, data: event.data });
    };
    let opened = false;
    source.onopen = () => {
      opened = true;
      heard.opened(true);
    };
    source.onmessage = tell;
    for (const type of OWN) source.addEventListener(type, tell as (event: Event) => void);
    // It would come back by itself, with the topics and the ticket of its URL: a new one is opened instead.
    source.onerror = () => {
      if (!opened) return fail(noAnswer("the EventSource could not connect"));
      if (over) return;
      over = true;
      source!.close();
      heard.ended();
    };
  };
  open().catch((error: unknown) => fail(error instanceof RequestFailed ? error.problem : noAnswer(error)));
  return () => {
    over = true;
    source?.close();
  };
}

export function noAnswer(error: unknown): Problem {
  return { status: 0, code: "", detail: String(error) };
}

export class RequestFailed extends Error {
  constructor(readonly problem: Problem) {
    super(problem.detail);
  }
}

/** Send a request with JSON in both directions; raise `RequestFailed` unless the answer is a good one, in time. */
export async function send(
  env: Env,
  base: string,
  path: string,
  method: string,
  body: unknown,
  token: string | undefined,
  more: Record<string, string> = {},
): Promise<unknown> {
  const aborter = new AbortController();
  const stop = env.after(ANSWERING, () => aborter.abort());
  try {
    const answer = await env.fetch(base + path, {
      method,
      headers: { "Content-Type": "application/json", ...bearer(token), ...more },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: aborter.signal,
      credentials: "include",
    });
    if (!answer.ok) throw new RequestFailed(await problemOf(answer));
    const text = await answer.text();
    return text ? JSON.parse(text) : undefined;
  } catch (error) {
    throw error instanceof RequestFailed ? error : new RequestFailed(noAnswer(error));
  } finally {
    stop();
  }
}

export function bearer(token: string | undefined): Record<string, string> {
  return token === undefined ? {} : { Authorization: `Bearer ${token}` };
}

export async function problemOf(answer: Response): Promise<Problem> {
  const problem: Problem = { status: answer.status, code: "", detail: "" };
  const after = Number(answer.headers.get("Retry-After") ?? "");
  if (after > 0) problem.retryAfter = Math.min(after, 3_600) * 1_000;
  try {
    const told = JSON.parse(await answer.text()) as Record<string, unknown>;
    if (typeof told.code === "string") problem.code = told.code;
    if (typeof told.detail === "string") problem.detail = told.detail;
    if (typeof told.topic === "string") problem.topic = told.topic;
  } catch {
    // Not the hub's own words: the status says enough.
  }
  return problem;
}
