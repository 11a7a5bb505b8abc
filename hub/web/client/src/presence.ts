/** Who is on a topic, kept up to date with what the hub tells. */

export interface PresentUser {
  id: string;
  info: unknown;
  /** When the user came, if that is known. */
  since?: string;
}

export interface Presence {
  topic: string;
  count: number;
  /** Not there without the right to know names, or if they are too many. */
  users?: PresentUser[];
}

export interface PresenceFacts extends Presence {
  user?: string;
  info?: unknown;
}

/** Return who is there now; `known` is not changed. */
export function foldPresence(
  known: Presence | undefined,
  kind: "presence" | "join" | "leave",
  { topic, count, users, user, info }: PresenceFacts,
): Presence | undefined {
  if (kind === "presence") return { topic, count, ...(users ? { users } : {}) };
  if (!known?.users || user === undefined) return known;
  const others = known.users.filter((each) => each.id !== user);
  if (kind === "join") others.push({ id: user, info: info ?? {} });
  return { topic, count: others.length, users: others };
}
