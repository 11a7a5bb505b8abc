/** Answers of an AI: text as it grows, resumed after a lost connection, a reload, or on another page. */

import type { Env } from "./env.js";
import { LineError } from "./line.js";
import { type Command, type Input, Machine } from "./machine.js";
import { baseOf, openAt, type Problem, RequestFailed, send } from "./wire.js";

export type AnswerPhase = "waiting" | "growing" | "done" | "failed" | "cancelled";

export interface AnswerOptions {
  /** Where the hub is mounted. */
  url: string;
  /** The question: its text, or a body as `POST /ai/chat/stream/init` takes it. */
  prompt?: string | Record<string, unknown>;
  /** An answer that has begun, here or elsewhere. */
  sessionId?: string;
  token?: () => Promise<string | undefined>;
  /** Is called whenever the answer has changed. */
  on?: (answer: Answer) => void;
  env: Env;
}

export interface Answer {
  /** With it the answer can be attached to; empty until it has begun. */
  readonly sessionId: string;
  /** What there is of it. */
  readonly text: string;
  readonly phase: AnswerPhase;
  /** Why it has failed. */
  readonly reason: string;
  /** The whole text, of a stopped answer what there was; rejected with a `LineError` if it failed. */
  readonly whole: Promise<string>;
  /** Stop it, and what makes it. */
  stop(): Promise<void>;
  /** Watch it no longer; it goes on. */
  close(): void;
}

/** Ask, or attach to an answer that has begun. */
export function openAnswer(options: AnswerOptions): Answer {
  return new HubAnswer(options);
}

const PATH = "ai/chat/stream";
const STOPPING = 5_000;

class HubAnswer implements Answer {
  sessionId: string;
  text = "";
  phase: AnswerPhase = "waiting";
  reason = "";
  readonly whole: Promise<string>;
  #options: AnswerOptions;
  #base: string;
  #machine: Machine;
  /** The same for each attempt to ask, so that none begins a second answer. */
  #key: string;
  #last = "";
  #token: string | undefined;
  #needsToken = true;
  #attempt = 0;
  #over = false;
  /** It was stopped while it was being asked. */
  #stopped = false;
  #stopTimer: (() => void) | undefined;
  #endStream: (() => void) | undefined;
  #unwatch: () => void;
  #done!: (text: string) => void;
  #fail!: (error: LineError) => void;

  constructor(options: AnswerOptions) {
    const { env, url, token, sessionId } = options;
    this.#options = options;
    this.#base = baseOf(url);
    this.sessionId = sessionId ?? "";
    this.#key = Array.from({ length: 4 }, () => env.random().toString(36).slice(2)).join("");
    this.#machine = new Machine(env.random, token !== undefined, env.online);
    this.whole = new Promise((done, fail) => {
      this.#done = done;
      this.#fail = fail;
    });
    this.whole.catch(() => {}); // `phase` and `reason` say it too
    this.#unwatch = env.watch((sign) => this.#take({ on: sign }));
    this.#take({ on: "start" });
  }

  async stop(): Promise<void> {
    if (this.#over) return;
    if (this.sessionId) {
      await this.#cancel();
      // What was made before it stopped is still on its way.
      if (this.#endStream) await this.#endsWithin(STOPPING);
    } else {
      this.#stopped = true;
    }
    this.#end("cancelled");
  }

  #endsWithin(ms: number): Promise<void> {
    return new Promise((done) => {
      const stop = this.#options.env.after(ms, done);
      const ended = () => {
        stop();
        done();
      };
      this.whole.then(ended, ended);
    });
  }

  /** Have the hub stop it; it may have ended by itself. */
  async #cancel(): Promise<void> {
    const ask = () => this.#send(`${PATH}/${encodeURIComponent(this.sessionId)}`, "DELETE", undefined);
    const { token } = this.#options;
    try {
      await ask().catch(async (error: RequestFailed) => {
        if (!token || error.problem.status !== 401) throw error;
        this.#token = await token();
        await ask();
      });
    } catch (error) {
      if (!(error instanceof RequestFailed)) throw error;
      const { status, code, detail } = error.problem;
      if (status !== 404 && status !== 410) throw new LineError(status, code, detail);
    }
  }

  close(): void {
    this.#over = true;
    this.#letGo();
    this.#stopTimer?.();
    this.#unwatch();
  }

  #end(phase: AnswerPhase, reason = "", detail = ""): void {
    if (this.#over) return;
    this.close();
    this.phase = phase;
    this.reason = reason;
    if (phase === "failed") this.#fail(new LineError(0, reason, detail));
    else this.#done(this.text);
    this.#changed();
  }

  #changed(): void {
    try {
      this.#options.on?.(this);
    } catch (error) {
      console.error("hub-client: a handler failed:", error);
    }
  }

  #take(input: Input): void {
    if (this.#over) return;
    for (const command of this.#machine.take(input, this.#options.env.now())) {
      this.#do(command);
      if (this.#over) return;
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
        this.#stopTimer = this.#options.env.after(command.ms, () => this.#take({ on: "time" }));
        break;
      case "say":
        if (command.state !== "connecting" && command.state !== "open") this.#letGo();
        if (command.state === "refused") this.#end("failed", command.reason);
    }
  }

  #letGo(): void {
    this.#attempt += 1;
    this.#endStream?.();
    this.#endStream = undefined;
  }

  async #send(path: string, method: string, body: unknown, more: Record<string, string> = {}): Promise<unknown> {
    return send(this.#options.env, this.#base, path, method, body, this.#token, more);
  }

  async #connect(): Promise<void> {
    this.#letGo();
    const attempt = this.#attempt;
    const { prompt, token, env } = this.#options;
    try {
      if (this.#needsToken && token) this.#token = await token();
      this.#needsToken = false;
      if (!this.sessionId && attempt === this.#attempt) {
        const body = typeof prompt === "string" ? { message: prompt } : prompt;
        const begun = await this.#send(`${PATH}/init`, "POST", body, { "Idempotency-Key": this.#key });
        this.sessionId = (begun as { sessionId: string }).sessionId;
        if (this.#stopped) await this.#cancel();
      }
    } catch (error) {
      if (attempt !== this.#attempt) return;
      if (error instanceof RequestFailed) this.#failed(error.problem);
      else this.#take({ on: "failed", status: 0, code: "token" });
      return;
    }
    if (attempt !== this.#attempt) return;
    const query = this.#last ? `?lastEventId=${encodeURIComponent(this.#last)}` : "";
    const url = `${this.#base}${PATH}/${encodeURIComponent(this.sessionId)}${query}`;
    this.#endStream = openAt(env, url, this.#token, {
      opened: (deaf) => this.#take({ on: "opened", deaf }),
      bytes: () => this.#take({ on: "bytes" }),
      heartbeat: () => this.#take({ on: "heartbeat" }),
      retry: (ms) => this.#take({ on: "retry", ms }),
      id: () => {},
      event: ({ id, type, data }) => this.#heard(id, type, data as string),
      ended: () => this.#take({ on: "ended" }),
      failed: (problem) => this.#failed(problem),
    });
  }

  #failed({ status, code, detail, retryAfter }: Problem): void {
    // An answer that is not there will not be there later, and one that can't be asked for so will not be, either.
    if (status === 404 || status === 410 || status === 422) this.#end("failed", code || "lost", detail);
    else this.#take({ on: "failed", status, code, ...(retryAfter === undefined ? {} : { retryAfter }) });
  }

  #heard(id: string | undefined, type: string, data: string): void {
    if (data === "[DONE]") return;
    const facts = JSON.parse(data || "{}") as Record<string, string>;
    switch (type) {
      case "start":
        // The stream begins somewhere else than where this one was: with the whole answer.
        if (id !== undefined && id !== this.#last) this.text = "";
        this.phase = "growing";
        this.#take({ on: "begun" });
        break;
      case "":
        this.text += facts.content ?? "";
        break;
      case "failed":
        this.#end("failed", facts.reason, facts.message);
        return;
      case "done":
      case "cancelled":
        this.#end(type);
        return;
      case "hub.close":
        this.#take({ on: "close", reason: facts.reason ?? "" });
        return;
      default:
        return;
    }
    if (id !== undefined) this.#last = id;
    this.#changed();
  }
}
