/** Topics and patterns, by the rules of the hub. */

const RESERVED = new Set(["user", "room", "ai"]);

/** Return whether `pattern`, which may be a topic, matches `topic`. A wildcard never reaches a reserved first segment. */
export function matches(pattern: string, topic: string): boolean {
  if (pattern === topic) return !pattern.includes("*");
  if (!pattern.includes("*")) return false;
  const segments = topic.split("/");
  const wanted = pattern.split("/");
  if (wanted[0]!.startsWith("*") && isWildcard(wanted[0]!) && RESERVED.has(segments[0]!)) return false;
  return fits(wanted, 0, segments, 0);
}

function isWildcard(segment: string): boolean {
  return segment === "*" || segment === "**";
}

function fits(wanted: string[], w: number, segments: string[], s: number): boolean {
  if (w === wanted.length) return s === segments.length;
  if (wanted[w] === "**") {
    for (let end = s; end <= segments.length; end++) if (fits(wanted, w + 1, segments, end)) return true;
    return false;
  }
  if (s === segments.length) return false;
  return (wanted[w] === "*" || wanted[w] === segments[s]) && fits(wanted, w + 1, segments, s + 1);
}
