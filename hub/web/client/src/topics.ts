/** Which topics a pattern stands for, and which of two ids is the later one: the hub's rules, as far as tabs need them. */

const RESERVED = new Set(["user", "room", "ai"]);

/** Whether `pattern`, which may be a plain topic, stands for `topic`. */
export function matches(pattern: string, topic: string): boolean {
  if (!pattern.includes("*")) return pattern === topic;
  const wanted = pattern.split("/");
  const has = topic.split("/");
  // A wildcard in the first segment does not reach reserved topics: those have to be named.
  if (wanted[0]!.startsWith("*") && RESERVED.has(has[0]!)) return false;
  return reaches(wanted, has);
}

/** Compare segment by segment; go back only to the newest `**`, so that no pattern takes more than w × h steps. */
function reaches(wanted: string[], has: string[]): boolean {
  let w = 0;
  let h = 0;
  let star = -1;
  let taken = 0;
  while (h < has.length) {
    if (wanted[w] === "**") {
      star = w++;
      taken = h;
    } else if (w < wanted.length && (wanted[w] === "*" || wanted[w] === has[h])) {
      w++;
      h++;
    } else if (star >= 0) {
      w = star + 1;
      h = ++taken;
    } else return false;
  }
  while (wanted[w] === "**") w++;
  return w === wanted.length;
}

/** Return the epoch of an id (`epoch-offset`); of anything else the whole text. */
export function epochOf(id: string): string {
  const dash = id.lastIndexOf("-");
  return dash < 0 ? id : id.slice(0, dash);
}

/** Whether `id` stands after `other`, an id of the same epoch. Offsets have no leading zeros, and may be beyond 2**53. */
export function isAfter(id: string, other: string): boolean {
  return id.length === other.length ? id > other : id.length > other.length;
}

/** Whether everything up to `id` is before `bound` or at it: both are of one epoch, and `id` is not the later one. */
export function isWithin(id: string, bound: string): boolean {
  return epochOf(id) === epochOf(bound) && !isAfter(id, bound);
}
