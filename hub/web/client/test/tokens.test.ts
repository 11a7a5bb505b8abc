import { beforeEach, describe, expect, it, vi } from "vitest";
import type { Answer, openAnswer } from "../src/index.js";
import { TokenStream, type TokenStreamOptions } from "../src/tokens.js";

type Options = Parameters<typeof openAnswer>[0];

class FakeAnswer {
  readonly options: Options;
  sessionId: string;
  text = "";
  phase: Answer["phase"] = "waiting";
  reason = "";
  whole = Promise.resolve("");
  stopped = false;
  closed = false;

  constructor(options: Options) {
    this.options = options;
    this.sessionId = options.sessionId ?? "";
  }

  async stop(): Promise<void> {
    this.stopped = true;
  }

  close(): void {
    this.closed = true;
  }

  is(facts: Partial<Pick<Answer, "sessionId" | "text" | "phase" | "reason">>): void {
    Object.assign(this, facts);
    this.options.on?.(this);
  }
}

let answers: FakeAnswer[];
let stored: Map<string, string>;

beforeEach(() => {
  answers = [];
  stored = new Map();
  vi.stubGlobal("sessionStorage", {
    getItem: (key: string) => stored.get(key) ?? null,
    setItem: (key: string, value: string) => stored.set(key, value),
    removeItem: (key: string) => stored.delete(key),
  });
});

function streamOf(options: TokenStreamOptions = {}): TokenStream {
  return new TokenStream(
    () => ({ url: "/live" }),
    options,
    (what) => {
      answers.push(new FakeAnswer(what));
      return answers.at(-1)!;
    },
  );
}

describe("a token stream", () => {
  it("shows an answer as it grows", () => {
    const stream = streamOf();
    let changes = 0;
    stream.subscribe(() => changes++);
    expect([stream.snapshot().phase, answers.length]).toEqual(["idle", 0]);
    void stream.ask("Why?");
    expect(answers[0]!.options).toMatchObject({ url: "/live", prompt: "Why?" });
    answers[0]!.is({ sessionId: "s", phase: "growing", text: "Be" });
    answers[0]!.is({ text: "Because", phase: "done" });
    expect(stream.snapshot()).toEqual({ text: "Because", phase: "done", reason: "", sessionId: "s" });
    expect([changes, stored.size]).toEqual([3, 0]);
  });

  it("stops the answer that grows when the next one is asked for, and shows nothing more of it", () => {
    const stream = streamOf();
    stream.subscribe(() => {});
    void stream.ask("One?");
    answers[0]!.is({ sessionId: "1", phase: "growing", text: "o" });
    void stream.ask("Two?");
    expect(answers[0]!.stopped).toBe(true);
    answers[0]!.is({ phase: "cancelled" });
    expect(stream.snapshot()).toMatchObject({ text: "", phase: "waiting" });
  });

  it("finds its answer again after a reload", () => {
    const stream = streamOf({ name: "chat" });
    void stream.ask("Why?");
    answers[0]!.is({ sessionId: "s", phase: "growing", text: "Be" });
    const again = streamOf({ name: "chat" });
    expect(answers).toHaveLength(1);
    again.subscribe(() => {});
    expect(answers[1]!.options.sessionId).toBe("s");
    streamOf({ name: "other" }).subscribe(() => {});
    expect(answers).toHaveLength(2);
    again.clear();
    expect([again.snapshot().phase, answers[1]!.closed]).toEqual(["idle", true]);
    streamOf({ name: "chat" }).subscribe(() => {});
    expect(answers).toHaveLength(2);
  });

  it("shows nothing if the answer that it found has gone meanwhile", () => {
    stored.set("hub-client answer chat", "s");
    const stream = streamOf({ name: "chat" });
    stream.subscribe(() => {});
    answers[0]!.is({ phase: "failed", reason: "lost" });
    expect([stream.snapshot().phase, stored.size]).toEqual(["idle", 0]);
    // One that the page names is said to have failed.
    const named = streamOf({ sessionId: "t" });
    named.subscribe(() => {});
    answers[1]!.is({ phase: "failed", reason: "lost" });
    expect(named.snapshot()).toMatchObject({ phase: "failed", reason: "lost" });
  });

  it("watches an answer on as one component goes and another comes, and lets go of one that nobody shows", () => {
    vi.useFakeTimers();
    try {
      const stream = streamOf({ sessionId: "s" });
      stream.subscribe(() => {})();
      const end = stream.subscribe(() => {});
      vi.runAllTimers();
      expect([answers.length, answers[0]!.closed]).toEqual([1, false]);
      answers[0]!.is({ phase: "growing", text: "Be" });
      end();
      vi.runAllTimers();
      expect([answers[0]!.closed, answers[0]!.stopped]).toEqual([true, false]);
      stream.subscribe(() => {});
      expect(answers[1]!.options.sessionId).toBe("s");
      answers[1]!.is({ phase: "done", text: "Because" });
      // What is whole needs nobody to watch it.
      stream.subscribe(() => {})();
      expect(answers).toHaveLength(2);
    } finally {
      vi.useRealTimers();
    }
  });
});
