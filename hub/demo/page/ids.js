/** Ids, `epoch-offset`: one order for the whole hub. And topics. */

export const offsetOf = (id) => Number(id.slice(id.lastIndexOf("-") + 1));
export const epochOf = (id) => id.slice(0, id.lastIndexOf("-"));

/** What would end a segment of a topic, or be a pattern, is written as %XX. */
export function topicOf(kind, name) {
  const written = name.replace(/[%/*\u0000-\u001f\u007f]/g, (each) => `%${each.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`);
  return `${kind}/${written}`;
}
