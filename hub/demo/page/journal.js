/** What has happened to the line, in sentences. */

import { $, make, onPaint, paint } from "./dom.js";
import { clock, language, t } from "./words.js";

const MOST = 40;
const entries = [];
let painted = { language: "", upto: 0 };

export function note(key, tone, ...values) {
  const id = (entries.at(-1)?.id ?? 0) + 1;
  entries.push({ id, at: Date.now(), key, tone, values });
  entries.splice(0, entries.length - MOST);
  paint();
}

onPaint(() => {
  const list = $("journal");
  if (painted.language !== language()) {
    list.replaceChildren();
    painted = { language: language(), upto: 0 };
  }
  for (const { id, at, key, tone, values } of entries) {
    if (id <= painted.upto) continue;
    list.prepend(make("li", { "data-tone": tone }, make("time", {}, clock(at)), ` ${t(`journal.${key}`, ...values)}`));
    painted.upto = id;
  }
  while (list.children.length > MOST) list.lastElementChild.remove();
});
