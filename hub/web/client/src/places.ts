/**
 * How far a line has got, for each of its topics: what makes each notification come once.
 *
 * All topics of a line are at one place, its cursor, but for those that were added a moment ago and still catch up. A
 * stream that is lost then is resumed after the one that is least far, and what the others had already is left out.
 *
 * Ids are `epoch-offset`. Offsets go on when a log gets a new epoch without a gap, so only they are compared; a gap of
 * another reason than `trimmed` begins a new count.
 */

import { matches } from "./topics.js";

export interface Position {
  epoch: string;
  offset: number;
}

/** Return the position that `id` names, if it names one. */
export function positionOf(id: string): Position | undefined {
  const found = /^(.+)-(\d+)$/.exec(id);
  return found ? { epoch: found[1]!, offset: Number(found[2]) } : undefined;
}

interface Place {
  /** What is not beyond this offset was never asked for. */
  since: number;
  /** What is not beyond this offset was told. */
  upto: number;
}

export class Places {
  #epoch = "";
  #places = new Map<string, Place>();
  #last = "";

  /** The topics and patterns that it knows. */
  get topics(): string[] {
    return [...this.#places.keys()];
  }

  /** The id up to which everything was told, of all topics; empty: nothing was. */
  get cursor(): string {
    const least = this.#least();
    return this.#epoch && least >= 0 && least < this.#most() ? `${this.#epoch}-${least}` : this.#last;
  }

  /** Return the newest position from which one of the topics counts, or `id` if that is newer. */
  newestSince(id: string): string {
    let since = positionOf(id)?.offset ?? -1;
    for (const place of this.#places.values()) since = Math.max(since, place.since);
    return `${this.#epoch}-${since}`;
  }

  /** Begin to count: a stream with `topics` begins after `id`; whatever it had before is over. */
  begin(id: string, topics: Iterable<string>): void {
    const position = positionOf(id);
    const offset = position?.offset ?? -1;
    this.#epoch = position?.epoch ?? "";
    this.#last = id;
    this.#places = new Map([...topics].map((topic) => [topic, { since: offset, upto: offset }]));
  }

  /** A stream with `topics` begins after `id`, with everything that follows the cursor, or with what is left of it. */
  resume(id: string, topics: Iterable<string>, trimmed: boolean): void {
    const wanted = new Set(topics);
    const position = positionOf(id);
    if (position) this.#epoch = position.epoch;
    const offset = position?.offset ?? -1;
    for (const topic of this.#places.keys()) if (!wanted.has(topic)) this.#places.delete(topic);
    for (const topic of wanted) if (!this.#places.has(topic)) this.#places.set(topic, { since: offset, upto: offset });
    if (trimmed) this.#reach(offset);
    if (this.#least() >= this.#most()) this.#last = id;
  }

  /** What was known is worth nothing: the history has become another one. */
  forget(): void {
    for (const place of this.#places.values()) place.since = place.upto = -1;
  }

  /** `topic` counts after `id`. */
  add(topic: string, id: string): void {
    if (this.#places.has(topic)) return;
    const offset = positionOf(id)?.offset ?? this.#most();
    if (!this.#epoch) this.#epoch = positionOf(id)?.epoch ?? "";
    if (!this.#last) this.#last = id;
    this.#places.set(topic, { since: offset, upto: offset });
  }

  remove(topic: string): void {
    this.#places.delete(topic);
  }

  /** Everything up to `id` has come, of all topics. */
  reached(id: string): void {
    const position = positionOf(id);
    if (position) {
      this.#epoch = position.epoch;
      this.#reach(position.offset);
    }
    if (this.#least() >= (position?.offset ?? -1)) this.#last = id;
  }

  /**
   * Note that the notification `id` with `topics` has come; return whether it is new.
   *
   * @param late it comes after newer ones, for topics that catch up.
   */
  take(id: string, topics: string[], late: boolean): boolean {
    const offset = positionOf(id)?.offset;
    if (offset === undefined) return true;
    // Most of the time no topic is behind, and a newer id is all that it takes.
    if (late || offset <= this.#most()) {
      let had = false;
      let due = false;
      const reached: Place[] = [];
      for (const [pattern, place] of this.#places) {
        if (!topics.some((topic) => matches(pattern, topic))) continue;
        had ||= place.since < offset && offset <= place.upto;
        due ||= place.upto < offset;
        reached.push(place);
      }
      if (late) for (const place of reached) place.upto = Math.max(place.upto, offset);
      else this.reached(id);
      return !had && (due || !reached.length);
    }
    this.reached(id);
    return true;
  }

  #reach(offset: number): void {
    for (const place of this.#places.values()) place.upto = Math.max(place.upto, offset);
  }

  #least(): number {
    let least = Infinity;
    for (const { upto } of this.#places.values()) least = Math.min(least, upto);
    return least;
  }

  #most(): number {
    let most = -1;
    for (const { upto } of this.#places.values()) most = Math.max(most, upto);
    return most;
  }
}
