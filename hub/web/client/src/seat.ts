/** One tab that has joined a broker: its topics, how far it has come, and what it has not taken yet. */

import type { Start } from "./line.js";
import type { FromTab, TabEvent, ToTab } from "./port.js";
import { matches } from "./topics.js";

export interface SeatLimits {
  /** Events that a tab has not taken yet, and their size, beyond which it is let go. */
  unackedEvents: number;
  unackedSize: number;
}

/** Where a tab gets its notifications. */
export enum Place {
  /** From nowhere yet. */
  WAITING,
  /** From the main line. */
  MAIN,
  /** From the extra line. */
  EXTRA,
}

export interface Seat {
  readonly post: (message: ToTab) => void;
  readonly topics: Set<string>;
  /** Whether the rooms of the user come too. */
  readonly rooms: boolean;
  /** Everything up to here was given to it; undefined: it has not begun. */
  cursor: string | undefined;
  readonly start: Start | undefined;
  place: Place;
  /** On the main line, which has still to come to the tab's cursor. */
  ahead: boolean;
  /** It was told where it begins. */
  opened?: boolean;
  /** It has to be brought up without others: a gap may be one of theirs. */
  alone?: boolean;
  readonly hasToken: boolean;
  visible: boolean;
  heard: number;
  /** Its last word is older than `quiet`, and it was asked. */
  asked?: boolean;
  /** The last id that it was told, or is about to be. */
  told: string | undefined;
  readonly changes: { ref: number; topics: string[] }[];
  outbox: TabEvent[];
  outboxSize: number;
  sent: number;
  readonly unacked: Map<number, [events: number, size: number]>;
  unackedEvents: number;
  unackedSize: number;
}

/** Return the seat of a tab that joins now. */
export function seatOf(
  join: Extract<FromTab, { is: "join" }>,
  post: (message: ToTab) => void,
  { rooms, now }: { rooms: boolean; now: () => number },
): Seat {
  return {
    post,
    rooms,
    topics: new Set(join.topics),
    cursor: join.cursor,
    start: join.start,
    place: Place.WAITING,
    ahead: false,
    hasToken: join.token,
    visible: join.visible,
    heard: now(),
    told: join.cursor,
    changes: [],
    outbox: [],
    outboxSize: 0,
    sent: 0,
    unacked: new Map(),
    unackedEvents: 0,
    unackedSize: 0,
  };
}

/** Whether what is sent to `topic` is for this tab. */
export function has({ topics, rooms }: Seat, topic: string): boolean {
  if (topics.has(topic)) return true;
  // Which rooms are the user's only the hub knows. What comes of one is for all tabs that follow them.
  if (rooms && topic.startsWith("room/")) return true;
  for (const pattern of topics) if (matches(pattern, topic)) return true;
  return false;
}

/** Post what there is to tell; return false if the tab has not taken so much that it has to be let go. */
export function flush(seat: Seat, { unackedEvents, unackedSize }: SeatLimits): boolean {
  const { outbox, outboxSize } = seat;
  if (!outbox.length) return true;
  seat.outbox = [];
  seat.outboxSize = 0;
  if (seat.unackedEvents && (seat.unackedEvents > unackedEvents || seat.unackedSize > unackedSize)) return false;
  const number = ++seat.sent;
  seat.unacked.set(number, [outbox.length, outboxSize]);
  seat.unackedEvents += outbox.length;
  seat.unackedSize += outboxSize;
  seat.post({ is: "events", number, events: outbox });
  return true;
}

/** Note that the tab has taken what was posted as `upto`. They come in order: it is for all before it, too. */
export function taken(seat: Seat, upto: number): void {
  for (const [number, [events, size]] of seat.unacked) {
    if (number > upto) break;
    seat.unacked.delete(number);
    seat.unackedEvents -= events;
    seat.unackedSize -= size;
  }
}
