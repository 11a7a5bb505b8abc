/** What a reload must not lose: everything shown, and the cursor that says where it ends. */

const NAME = "hub-demo-2";

const fresh = () => ({
  orders: [], news: [], stocks: {}, mail: [], letters: [], talk: [],
  user: "42", refused: "", account: null, cursor: "", left: 0,
});

export const shown = restore();

function restore() {
  try {
    return { ...fresh(), ...JSON.parse(sessionStorage.getItem(NAME)) };
  } catch {
    return fresh();
  }
}

/** Keep it, in one entry: cursor and lists never disagree. */
export function save(cursor) {
  if (cursor !== undefined) shown.cursor = cursor;
  try {
    sessionStorage.setItem(NAME, JSON.stringify(shown));
  } catch {
    // No storage: then a reload begins anew.
  }
}
