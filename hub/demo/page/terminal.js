/** The same from a terminal: curl commands that can be copied. */

import { $, fill, onPaint, tell } from "./dom.js";
import { topicOf } from "./ids.js";
import { ROOM } from "./members.js";
import { line } from "./line.js";
import { shown } from "./store.js";
import { t } from "./words.js";

const absolute = (path) => new URL(path, document.baseURI).href.replace(/#.*/, "");
const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const listening = (path) => `curl -N ${quote(absolute(path))}`;
const posting = (path, body) => `curl ${quote(absolute(path))} -H 'Content-Type: application/json' -d ${quote(JSON.stringify(body))}`;

/** What the stream of this page asks for, from here on. */
export function streamPath() {
  const topics = (line.hub?.topics ?? []).map((topic) => `topic=${encodeURIComponent(topic).replaceAll("%2F", "/")}`);
  const from = line.hub?.cursor ? [`lastEventId=${line.hub.cursor}`] : [];
  return `notifications/subscribe?${["envelope=topics", ...topics, ...from].join("&")}`;
}

onPaint(() => {
  const chat = $("chat-answer").dataset.session;
  fill($("curl-stocks"), listening("notifications/subscribe?topic=stock/*"));
  fill($("curl-news"), listening("notifications/subscribe?topic=news"));
  fill($("curl-orders"), listening("notifications/subscribe"));
  fill($("curl-order"), posting("orders", { amount: $("order-amount").valueAsNumber }));
  fill($("curl-user"), listening(`sse/${encodeURIComponent(shown.user)}`));
  fill($("curl-mail"), posting("notifications/publish", { topic: topicOf("user", $("mail-to").value), data: { message: $("mail-text").value } }));
  fill($("curl-private"), listening(`notifications/subscribe?topic=user/${shown.account ?? "ann"}`));
  fill($("curl-room"), listening(`notifications/subscribe?topic=${ROOM}`));
  fill($("curl-chat"), listening(chat ? `ai/chat/stream/${encodeURIComponent(chat)}` : `ai/chat/stream?message=${encodeURIComponent($("chat-question").value)}`));
  if (document.activeElement !== $("curl-resume")) fill($("curl-resume"), listening(streamPath()));
});

for (const button of document.querySelectorAll("[data-copies]")) {
  const command = $(button.dataset.copies);
  command.addEventListener("focus", () => command.select());
  button.addEventListener("click", async () => {
    const copied = await copy(command);
    tell(button, t(copied ? "copied" : "selected"));
    tell($("spoken"), t(copied ? "copied" : "selected.how"));
    setTimeout(() => (tell(button, t("copy")), tell($("spoken"), "")), 2_000);
  });
}

async function copy(command) {
  try {
    await navigator.clipboard.writeText(command.value);
    return true;
  } catch {
    command.focus(); // no clipboard over plain HTTP from another machine
    return false;
  }
}
