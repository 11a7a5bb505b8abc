/** A stream over a WebSocket, by which the application can send, too. */

import type { Env } from "./env.js";
import { NO_SOCKET } from "./line.js";
import { ANSWERING, type Heard, noAnswer, type Problem, RequestFailed, type Send, type StreamRequest } from "./wire.js";

const PROTOCOL = "hub.v1.json";
/** What the answers to these two repeat; those of the application have numbers. */
const AUTH = "auth";
const SUBSCRIBE = "subscribe";
/** A topic that no socket has. */
const NONE = "none";

type Facts = Record<string, unknown>;

/** Open a stream; return what ends it, after which nothing is heard. */
export function openSocket(env: Env, request: StreamRequest, heard: Heard): () => void {
  return new Socket(env, request, heard).end;
}

class Socket {
  readonly #env: Env;
  readonly #request: StreamRequest;
  readonly #heard: Heard;
  readonly #socket: WebSocket;
  readonly #asked = new Map<number, { done: (facts: Facts) => void; fail: (problem: Problem) => void }>();
  #refs = 0;
  #over = false;
  /** What the hub said of the connection, as long as its topics have not begun. */
  #opened: Facts | undefined;
  #begun = false;
  /** What came of the rooms before the topics had begun, and who is there. */
  #early: [op: string, facts: Facts][] = [];
  #closed = false;

  constructor(env: Env, request: StreamRequest, heard: Heard) {
    this.#env = env;
    this.#request = request;
    this.#heard = heard;
    this.#socket = new env.WebSocket!(addressOf(request), PROTOCOL);
    this.#socket.onopen = () => this.#introduce();
    this.#socket.onmessage = ({ data }: MessageEvent<string>) => this.#take(data);
    this.#socket.onclose = () => this.#lost();
  }

  /** End it: nothing more is heard. */
  readonly end = (): void => {
    if (this.#over) return;
    this.#over = true;
    this.#socket.close();
    this.#failAll();
  };

  /** Ask for something; what is not answered in time, or not before the end, fails with `NO_SOCKET`. */
  readonly #send: Send = (op, facts) =>
    new Promise((resolve, reject) => {
      const ref = ++this.#refs;
      const fail = (problem: Problem) => {
        stop();
        this.#asked.delete(ref);
        reject(new RequestFailed(problem));
      };
      const stop = this.#env.after(ANSWERING, () => fail(unanswered("no answer came in time")));
      if (this.#over || this.#closed) return fail(unanswered("the socket is closed"));
      const done = (answer: Facts) => {
        stop();
        this.#asked.delete(ref);
        resolve(answer);
      };
      this.#asked.set(ref, { done, fail });
      this.#socket.send(JSON.stringify({ ...facts, op, ref }));
    });

  /** Say who speaks, and what is wanted: the hub answers in order, so that nothing has to be waited for. */
  #introduce(): void {
    const { token, topics, cursor } = this.#request;
    if (this.#over) return;
    if (token !== undefined) this.#say({ op: "auth", ref: AUTH, token });
    if (topics.length) {
      this.#say({ op: "subscribe", ref: SUBSCRIBE, topics, ...(cursor ? { lastEventId: cursor } : {}) });
    } else if (token === undefined) this.#say({ op: "ping" }); // the first message of nobody in particular
  }

  #say(message: Facts): void {
    this.#socket.send(JSON.stringify(message));
  }

  #take(text: string): void {
    if (this.#over) return;
    this.#heard.bytes();
    let said: unknown;
    try {
      said = JSON.parse(text);
    } catch (error) {
      return this.#fail(noAnswer(error)); // no hub says that
    }
    const { op, ...facts } = (said ?? {}) as Facts & { op: string };
    switch (op) {
      case "ok":
      case "error":
        this.#answered(op === "ok", facts);
        return;
      case "hub.open":
        this.#heard.opened(false, this.#send);
        if (this.#over) return;
        this.#heard.retry(facts.retry as number);
        this.#opened = facts;
        if (this.#request.topics.length) return;
        if (facts.id !== undefined) this.#begin(undefined);
        // A user without rooms has no position yet: the answer to any change of topics has one.
        else this.#say({ op: "unsubscribe", ref: SUBSCRIBE, topics: [NONE] });
        return;
      case "hub.close":
        this.#closed = true;
        if (!this.#opened) this.#heard.opened(false);
        if (facts.retry !== undefined) this.#heard.retry(facts.retry as number);
        break;
      case "hub.topics":
        if (!this.#begun && this.#hasAll(facts.topics as string[])) {
          this.#begin(facts);
          return;
        }
        break;
      case "hub.heartbeat":
        this.#heard.heartbeat();
        if (this.#begun) this.#heard.id(facts.id as string);
        return;
      case "notification":
        if (this.#begun) this.#tell(facts);
        else this.#early.push([op, facts]);
        return;
      case "hub.presence":
      case "hub.join":
      case "hub.leave":
        if (this.#begun) break;
        this.#early.push([op, facts]);
        return;
    }
    if (this.#over || (!this.#begun && op !== "hub.close")) return; // the opening says it
    this.#heard.event({ id: undefined, type: op, data: facts });
  }

  #hasAll(topics: string[]): boolean {
    return this.#request.topics.every((topic) => topics.includes(topic));
  }

  /** Tell of the opening, of the rooms of the user and of the topics, as if it were one. */
  #begin(added: Facts | undefined): void {
    const { cursor } = this.#request;
    const { connection, id, ...rooms } = this.#opened!;
    const gap = [added, rooms].find((facts) => facts?.recovered === false);
    const position = cursor === "earliest" || cursor === "latest" ? "" : cursor;
    const begins = (rooms.recovered === false || !added ? id : undefined) ?? added?.from ?? id;
    const facts = {
      connection,
      topics: added?.topics ?? rooms.topics,
      ...(gap ? { reason: gap.reason, oldest: gap.oldest } : {}),
      recovered: gap ? false : cursor ? true : null,
    };
    this.#begun = true;
    this.#heard.event({ id: (!gap && position) || (begins as string), type: "hub.open", data: facts });
    // That of the rooms has come before, that of the topics is still to come.
    if (gap && gap !== added && !this.#over) this.#heard.event({ id: undefined, type: "hub.gap", data: gap });
    for (const [op, { id: late, earlier = late, ...told }] of this.#early.splice(0)) {
      if (op === "notification") this.#tell({ earlier, ...told });
      else if (!this.#over) this.#heard.event({ id: undefined, type: op, data: told });
    }
  }

  #tell({ id, earlier, retry, ...told }: Facts): void {
    if (this.#over) return;
    if (retry !== undefined) this.#heard.retry(retry as number);
    const data = earlier === undefined ? told : { id: earlier, ...told };
    this.#heard.event({ id: id as string | undefined, type: "", data });
  }

  #answered(isGood: boolean, { ref, ...facts }: Facts): void {
    if (ref === AUTH) return; // a refusal is followed by `hub.close`
    if (ref === SUBSCRIBE) {
      if (!isGood && !this.#closed) this.#fail(problemIn(facts));
      // What the socket has already, as a room of the user, is not told again.
      else if (isGood && !this.#begun) this.#begin(facts);
      return;
    }
    const asked = this.#asked.get(ref as number);
    if (isGood) asked?.done(facts);
    else asked?.fail(problemIn(facts));
  }

  #fail(problem: Problem): void {
    if (this.#over) return;
    this.end();
    this.#heard.failed(problem);
  }

  #lost(): void {
    if (this.#over) return;
    if (!this.#opened && !this.#closed) return this.#fail(noAnswer("the WebSocket could not connect"));
    this.end();
    this.#heard.ended();
  }

  #failAll(): void {
    for (const { fail } of [...this.#asked.values()]) fail(unanswered("the socket was closed"));
  }
}

function addressOf({ base, rooms, presence, cursor }: StreamRequest): string {
  const address = new URL(`${base}notifications/ws`);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  if (rooms) address.searchParams.set("rooms", "1");
  if (rooms && cursor) address.searchParams.set("lastEventId", cursor);
  if (presence) address.searchParams.set("presence", "1");
  return address.href;
}

function unanswered(detail: string): Problem {
  return { status: 0, code: NO_SOCKET, detail };
}

function problemIn({ status, code, detail, topic, retryAfter }: Facts): Problem {
  return {
    status: Number(status),
    code: String(code),
    detail: String(detail),
    ...(typeof topic === "string" ? { topic } : {}),
    ...(typeof retryAfter === "number" ? { retryAfter: retryAfter * 1_000 } : {}),
  };
}
