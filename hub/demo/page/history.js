/** What was sent before this page came. */

/** Give `take` what the history has of `topic`, page by page, as long as it is `wanted`; return whether that is all. */
export async function readHistory(topic, wanted, take) {
  let after = "earliest";
  for (let page = 0; after && page < 20; page += 1) {
    const query = new URLSearchParams({ topic, after, limit: 1000 });
    let answer;
    try {
      answer = await fetch(`notifications/history?${query}`, { signal: AbortSignal.timeout(10_000) });
      if (!answer.ok) return false;
      answer = await answer.json();
    } catch {
      return false;
    }
    if (!wanted()) return false;
    for (const { id, data, at } of answer.notifications) take(id, data, Date.parse(at));
    after = answer.next;
  }
  return !after;
}
