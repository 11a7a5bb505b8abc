/** What a network does to this browser: the page asks the backend to behave like it, and shows what comes of that. */

import { $, onPaint, paint, tell } from "./dom.js";
import { say, send } from "./forms.js";
import { line, open } from "./line.js";
import { shown } from "./store.js";
import { t } from "./words.js";

const choices = [...document.querySelectorAll("[name=network]")];

/** The backend keeps it in a cookie, so that it is the same in all tabs. */
const chosen = () => /(?:^|; )hub_demo_network=([a-z-]+)/.exec(document.cookie)?.[1] ?? "open";

for (const choice of choices) choice.addEventListener("change", () => change(choice.value));

async function change(network) {
  try {
    await send("PUT", "network", { network });
    say("network", null);
  } catch (error) {
    say("network", error);
    paint();
    return;
  }
  // It is another network: what the client has found out of the last one does not count any more.
  dispatchEvent(new Event("online"));
  if (line.state !== "away") open();
}

addEventListener("focus", paint); // another tab may have changed it

onPaint(() => {
  const network = shown.account ? chosen() : "open"; // nobody else's network is changed
  for (const choice of choices) {
    choice.checked = choice.value === network;
    choice.disabled = !shown.account;
  }
  const searching = { "no-websockets": "no.websocket", "no-streams": "no.stream" }[network] ?? "none";
  const how = line.wire || (shown.account && ["connecting", "waiting"].includes(line.state) ? searching : "none");
  tell($("room-wire"), t(`by.${how}`));
  $("room-wire").dataset.wire = line.wire;
});
