/** A stream of polls: each answer has what is new, and the next request goes on behind it. */

import type { Env } from "./env.js";
import { ANSWERING, asked, bearer, type Heard, noAnswer, problemOf, type Problem, type StreamRequest } from "./wire.js";

/** Seconds for which the hub holds a request back until there is something. */
const WAIT = 25;

interface Answer {
  notifications: { id?: string; earlier?: string; topics: string[]; retry?: number }[];
  cursor: string | null;
  gap?: { reason: string; oldest?: string };
  close?: { reason: string; retry?: number };
}

/** Poll until something ends it; return what ends it, after which nothing is heard. */
export function openPoll(env: Env, request: StreamRequest, heard: Heard): () => void {
  const aborter = new AbortController();
  const over = () => aborter.signal.aborted;
  follow(env, request, heard, aborter.signal).then(
    (problem) => {
      if (over()) return;
      if (problem) heard.failed(problem);
      else heard.ended();
    },
    (error: unknown) => {
      if (!over()) heard.failed(noAnswer(error));
    },
  );
  return () => aborter.abort();
}

async function follow(
  env: Env,
  request: StreamRequest,
  heard: Heard,
  signal: AbortSignal,
): Promise<Problem | undefined> {
  let { cursor } = request;
  // The first one is answered at once: it says where the stream begins.
  for (let wait = 0, first = true; ; wait = WAIT, first = false) {
    const answer = await ask(env, { ...request, cursor }, wait, signal);
    if (signal.aborted) return undefined;
    if (!("notifications" in answer)) return answer;
    const { notifications, gap, close } = answer;
    if (first) heard.opened(true);
    heard.bytes();
    if (close) {
      if (close.retry !== undefined) heard.retry(close.retry);
      heard.event({ id: undefined, type: "hub.close", data: close });
      return undefined;
    }
    if (first || gap) {
      const recovered = gap ? false : request.cursor ? true : null;
      const facts = { connection: "", topics: request.topics, ...gap, recovered };
      const id = recovered && isPosition(cursor) ? cursor : before(answer);
      heard.event({ id, type: "hub.open", data: facts });
      // The line knows of the gap by now, and expects it once more.
      if (gap && !signal.aborted) heard.event({ id: undefined, type: "hub.gap", data: gap });
    }
    for (const { id, earlier, retry, ...told } of notifications) {
      if (signal.aborted) return undefined;
      if (retry !== undefined) heard.retry(retry);
      heard.event({ id, type: "", data: earlier === undefined ? told : { id: earlier, ...told } });
    }
    if (signal.aborted) return undefined;
    if (answer.cursor !== null) {
      cursor = answer.cursor;
      heard.id(cursor);
    }
  }
}

/** Return the answer to one poll, or why there is none. */
async function ask(env: Env, request: StreamRequest, wait: number, signal: AbortSignal): Promise<Answer | Problem> {
  const aborter = new AbortController();
  const abort = () => aborter.abort();
  signal.addEventListener("abort", abort);
  const stop = env.after(wait * 1_000 + ANSWERING, abort);
  const pairs = [["wait", String(wait)], ...asked(request)];
  if (request.rooms) pairs.push(["rooms", "1"]);
  const query = pairs.map(([name, value]) => `${name}=${encodeURIComponent(value!)}`).join("&");
  try {
    const answer = await env.fetch(`${request.base}notifications/poll?${query}`, {
      headers: { Accept: "application/json", ...bearer(request.token) },
      signal: aborter.signal,
      cache: "no-store",
      credentials: "include",
    });
    if (!answer.ok || answer.status === 204) return await problemOf(answer);
    const told = (await answer.json()) as Answer;
    if (Array.isArray(told.notifications)) return told;
    return { status: 0, code: "not_a_poll", detail: "the answer is none of a hub" };
  } finally {
    stop();
    signal.removeEventListener("abort", abort);
  }
}

function isPosition(id: string): boolean {
  return /-\d+$/.test(id);
}

/** Return the position just before what `answer` has. */
function before({ notifications, cursor }: Answer): string {
  const first = notifications.find(({ id }) => id !== undefined)?.id;
  const found = /^(.+)-(\d+)$/.exec(first ?? "");
  return found ? `${found[1]}-${Number(found[2]) - 1}` : (cursor ?? "");
}
