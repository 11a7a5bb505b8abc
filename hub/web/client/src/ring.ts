/** The newest messages of a line: a tab that is a little behind gets them without the hub being asked. */

import type { LineEvent } from "./line.js";

export type Message = Extract<LineEvent, { kind: "message" }>;

export interface RingLimits {
  /** Messages in the ring, and their size in characters. */
  ringMessages: number;
  ringSize: number;
}

export interface Ring {
  /** The oldest first. */
  kept: { message: Message; size: number }[];
  size: number;
  /** All that came on the line after here is kept. */
  floor: string;
}

/** Return a ring with nothing in it; what comes next follows `floor`. */
export function ringAfter(floor: string): Ring {
  return { kept: [], size: 0, floor };
}

/** Keep `message`, and the others as far as there is room; a single one is kept, however large it is. */
export function keep(ring: Ring, message: Message, size: number, { ringMessages, ringSize }: RingLimits): void {
  const { kept } = ring;
  kept.push({ message, size });
  ring.size += size;
  while (kept.length > ringMessages || (ring.size > ringSize && kept.length > 1)) {
    const oldest = kept.shift()!;
    ring.size -= oldest.size;
    ring.floor = oldest.message.id;
  }
}
