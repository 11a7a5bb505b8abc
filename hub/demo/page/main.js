/** The demo page. Each panel is a module of a few lines; the page shows them. */

import * as chat from "./chat.js";
import { $, onPaint, paint } from "./dom.js";
import { post, say } from "./forms.js";
import { keep, leave, line, open, start, tick } from "./line.js";
import { recognize, refused } from "./login.js";
import * as members from "./members.js";
import "./network.js";
import * as news from "./news.js";
import * as orders from "./orders.js";
import * as privately from "./private.js";
import * as room from "./room.js";
import { shown } from "./store.js";
import * as stocks from "./stocks.js";
import * as user from "./user.js";
import "./terminal.js";
import "./unfolded.js";
import { language, setLanguage, translate } from "./words.js";

const AWAY = 10; // seconds

$("leave").addEventListener("click", async () => {
  if (line.state === "away") {
    open();
    chat.wake();
    return;
  }
  leave(AWAY);
  chat.rest();
  // There is always something to miss: the backend takes an order while this page does not listen.
  await post("orders", { amount: Math.round(500 + Math.random() * 20_000) / 100 }).catch((error) => say("order-form", error));
});

for (const button of document.querySelectorAll("[data-language]")) {
  button.addEventListener("click", () => {
    setLanguage(button.dataset.language);
    translate();
    paint();
  });
}

onPaint(() => {
  for (const button of document.querySelectorAll("[data-language]")) {
    button.setAttribute("aria-pressed", String(button.dataset.language === language()));
  }
  keep();
});

for (const id of ["order-amount", "mail-to", "mail-text", "chat-question"]) $(id).addEventListener("input", paint);
addEventListener("pagehide", () => {
  if (line.state === "open") shown.left = Date.now();
  keep();
});
document.addEventListener("visibilitychange", () => (document.hidden ? keep() : recognize()));

setInterval(() => {
  const was = line.state;
  tick(Date.now());
  if (was === "away" && line.state !== "away") chat.wake();
}, 250);

/** What differs from one hub to the next. */
async function learn() {
  const answer = await fetch(new URL("facts.json", import.meta.url)).catch(() => null);
  const { simulated = false, metrics = false } = answer?.ok ? await answer.json() : {};
  $("chat-simulated").hidden = !simulated;
  for (const link of document.querySelectorAll("[data-admin]")) link.hidden = !metrics;
}

translate();
$("user-id").value = $("mail-to").value = shown.user;
void learn();
paint();
await recognize(); // before the stream is opened: tabs of different users share nothing
start([stocks, orders, news, user, privately, room, members], refused);
chat.watchNamed();
