/** An answer of an AI as a component shows it: the newest that was asked for, found again after a reload. */

import type { HubOptions } from "./feed.js";
import { type Answer, type AnswerPhase, openAnswer, surroundings } from "./index.js";

export interface TokenStreamOptions {
  /** The name under which this tab keeps which answer it was, so that a reload shows it again. */
  name?: string | undefined;
  /** An answer that has begun, here or elsewhere. */
  sessionId?: string | undefined;
}

/** What there is of the answer. */
export interface Tokens {
  readonly text: string;
  /** `idle`: nothing was asked. */
  readonly phase: AnswerPhase | "idle";
  /** Why it failed. */
  readonly reason: string;
  /** With it the answer can be shown elsewhere; empty until it has begun. */
  readonly sessionId: string;
}

export const IDLE: Tokens = Object.freeze({ text: "", phase: "idle", reason: "", sessionId: "" });

/** How long an answer is watched that no component shows: it may be the same one in a moment. */
const LINGER = 1_000;

export class TokenStream {
  readonly #hub: () => HubOptions;
  readonly #options: TokenStreamOptions;
  readonly #open: typeof openAnswer;
  readonly #changed = new Set<() => void>();
  #answer: Answer | undefined;
  #seen: Tokens = IDLE;
  #stopLetting: (() => void) | undefined;

  constructor(hub: () => HubOptions, options: TokenStreamOptions, open = openAnswer) {
    this.#hub = hub;
    this.#options = options;
    this.#open = open;
  }

  /** What there is now; the same object as long as nothing changes. */
  readonly snapshot = (): Tokens => this.#seen;

  /** Call `changed` after each change; return what ends it. */
  readonly subscribe = (changed: () => void): (() => void) => {
    this.#changed.add(changed);
    this.#stopLetting?.();
    this.#stopLetting = undefined;
    if (!this.#answer) this.#resume();
    return () => {
      this.#changed.delete(changed);
      if (this.#changed.size || !this.#answer) return;
      this.#stopLetting = surroundings().after(LINGER, () => this.#let());
    };
  };

  /** Ask; return the whole text. What was there before is shown no more, and is stopped if it still grows. */
  readonly ask = (prompt: string | Record<string, unknown>): Promise<string> => {
    const before = this.#isGrowing() ? this.#answer : undefined;
    if (before) {
      this.#answer = undefined;
      // It could not be told: it ends by itself, once nobody watches it.
      before.stop().catch(() => before.close());
    }
    return this.#watch({ prompt });
  };

  /** Show an answer that has begun; return the whole text. */
  readonly attach = (sessionId: string): Promise<string> => this.#watch({ sessionId });

  /** Stop it, and what makes it. */
  readonly stop = async (): Promise<void> => {
    if (this.#isGrowing()) await this.#answer!.stop();
  };

  /** Show nothing. The answer goes on, but is not found again after a reload. */
  readonly clear = (): void => {
    this.#let();
    this.#store("");
    this.#show(IDLE);
  };

  #isGrowing(): boolean {
    return this.#seen.phase === "waiting" || this.#seen.phase === "growing";
  }

  /** Go on with the answer that was shown before the component, or the whole page, went away. */
  #resume(): void {
    if (this.#seen.phase !== "idle" && !this.#isGrowing()) return;
    const sessionId = this.#seen.sessionId || this.#options.sessionId || this.#stored();
    if (sessionId) this.#watch({ sessionId }, sessionId !== this.#options.sessionId).catch(() => {}); // `phase` says it
  }

  /** @param found nobody asked for it just now, so it may have gone, which is no failure. */
  #watch(what: { prompt?: string | Record<string, unknown>; sessionId?: string }, found = false): Promise<string> {
    this.#let();
    const { url = "/", token } = this.#hub();
    const on = (answer: Answer): void => {
      if (this.#answer !== answer) return;
      const { text, phase, reason, sessionId } = answer;
      if (found && phase === "failed" && !text) {
        this.clear();
        return;
      }
      this.#store(sessionId);
      this.#show({ text, phase, reason, sessionId });
    };
    const asked = token ? { token: async () => this.#hub().token?.() } : {};
    const answer = this.#open({ ...what, ...asked, url, env: surroundings(), on });
    this.#answer = answer;
    this.#show({ ...IDLE, phase: "waiting", sessionId: answer.sessionId });
    return answer.whole;
  }

  /** Watch it no longer; it goes on. */
  #let(): void {
    this.#answer?.close();
    this.#answer = undefined;
  }

  #show(tokens: Tokens): void {
    this.#seen = tokens;
    for (const changed of [...this.#changed]) changed();
  }

  get #key(): string {
    return `hub-client answer ${this.#options.name}`;
  }

  #stored(): string {
    return (this.#options.name !== undefined && this.#ask(() => sessionStorage.getItem(this.#key))) || "";
  }

  #store(sessionId: string): void {
    if (this.#options.name === undefined) return;
    if (sessionId) this.#ask(() => sessionStorage.setItem(this.#key, sessionId));
    else this.#ask(() => sessionStorage.removeItem(this.#key));
  }

  /** A page may have no storage: then a reload shows no answer. */
  #ask<T>(what: () => T): T | undefined {
    try {
      return what();
    } catch {
      return undefined;
    }
  }
}
