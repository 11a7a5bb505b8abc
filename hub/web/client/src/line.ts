/** One stream to the hub: it stays open through failures, and tells each notification once, in order. */

import type { Env } from "./env.js";

export type LineState = "connecting" | "open" | "waiting" | "offline" | "refused" | "closed";

/** What a line tells. */
export type LineEvent =
  | { kind: "state"; state: LineState; reason?: string; topic?: string; retryIn?: number }
  | {
      kind: "open";
      id: string;
      connection: string;
      topics: string[];
      recovered: boolean | null;
      reason?: string;
      oldest?: string;
    }
  | { kind: "message"; id: string; type: string; topics: string[]; data: unknown }
  /** A heartbeat moved the cursor. */
  | { kind: "cursor"; id: string }
  /** Something is missing here. It comes after an `open` or `topics` that has one, too. */
  | { kind: "gap"; id: string; reason: string; oldest?: string }
  | { kind: "dropped"; dropped: number; after: string; before: string }
  /** The topics of the open stream have changed: those that were added count after `id`. */
  | { kind: "topics"; id: string; topics: string[] }
  | { kind: "presence" | "join" | "leave"; facts: unknown };

/** Where a line without a cursor begins. */
export type Start = "earliest" | "latest" | (string & {});

export interface LineOptions {
  /** Where the hub is mounted, such as `/` or `https://hub.example.com/live/`. */
  url: string;
  /** Topics and patterns. */
  topics: string[];
  /** The id after which the line begins. */
  cursor?: string;
  /** Where it begins if there is no cursor; without it, with what is new. */
  start?: Start;
  /** Returns a token, asked before the first request and whenever the last one has ended. */
  token?: () => Promise<string | undefined>;
  /** Whether the rooms of the user come too. */
  rooms?: boolean;
  /** Whether the line tells who is on its topics. */
  presence?: boolean;
  /** Is called with each event, in order. */
  on: (event: LineEvent) => void;
  env: Env;
}

export interface Line {
  /** Connect, and stay connected until `close`. */
  open(): void;
  /** End the stream; nothing is told after `{kind: "state", state: "closed"}`. */
  close(): void;
  /** The id up to which everything was told; empty: nothing was. */
  readonly cursor: string;
  readonly topics: string[];
  /**
   * Add topics to the stream, open or not.
   *
   * @param after the id after which they count; without it, what is new.
   * @returns the id after which they count.
   * @throws {LineError} the hub refuses one of them: the topics are as they were.
   */
  add(topics: string[], after?: string): Promise<{ from: string }>;
  /** Remove topics from the stream, open or not. */
  remove(topics: string[]): Promise<void>;
  /** Look now whether the stream is alive. */
  wake(): void;
}

export type MakeLine = (options: LineOptions) => Line;

/** The hub refused something. */
export class LineError extends Error {
  /** The status of the answer; 0: there was none. */
  readonly status: number;
  /** The code of the problem, such as `forbidden`. */
  readonly code: string;
  /** The topic that is refused. */
  readonly topic: string | undefined;

  constructor(status: number, code: string, detail: string, topic?: string) {
    super(detail || code || `the hub answered ${status}`);
    this.name = "LineError";
    this.status = status;
    this.code = code;
    this.topic = topic;
  }
}
