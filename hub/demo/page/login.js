/** Ann and Bo: who of them is logged in in this browser. */

import { $, onPaint, paint, tell } from "./dom.js";
import { say, send } from "./forms.js";
import { readHistory } from "./history.js";
import { line, open } from "./line.js";
import { letters, tellEmpty } from "./lists.js";
import { settle } from "./members.js";
import { shown } from "./store.js";
import { NAMES, nameOf, t } from "./words.js";

const AGAIN = 2_000; // a stream that was ended for no reason that can be seen: milliseconds until it is asked for again

let questions = 0; // an answer to an earlier one than the last is out of date
let logging = false; // then the answer says who is logged in

/** Show that `account` is logged in, null: nobody. */
async function become(account) {
  if (account === shown.account || (account !== null && !(account in NAMES))) return;
  shown.account = account;
  letters.clear();
  settle(false);
  if (line.state !== "away") open();
  $("letter-to").value = account === "ann" ? "bo" : "ann";
  paint();
  if (account) await readLetters(account);
}

/** Show what came for `account` before this page did; the stream brings what follows. */
function readLetters(account) {
  return readHistory(`user/${account}`, () => shown.account === account, (id, data, at) => letters.receive(id, data, at));
}

/** Ask who is logged in: another tab may have changed that. */
export async function recognize() {
  if (logging) return;
  const question = ++questions;
  try {
    const answer = await fetch("login", { cache: "no-store", signal: AbortSignal.timeout(10_000) });
    if (!answer.ok) return;
    const { user = null } = await answer.json();
    if (question === questions) await become(user);
  } catch {
    // The hub cannot be reached: the state of the line says so.
  }
}

/** The hub refuses this user: because of a login that has ended, perhaps in another tab. */
export async function refused(reason) {
  const { hub } = line;
  await recognize();
  if (line.hub !== hub || reason === "replaced") return;
  setTimeout(() => line.hub === hub && line.state === "refused" && open(), AGAIN * (1 + Math.random()));
}

async function log(method, body) {
  if (logging) return;
  questions += 1;
  logging = true;
  try {
    const { user } = await send(method, "login", body);
    say("login", null);
    void become(user);
  } catch (error) {
    say("login", error);
  } finally {
    logging = false;
  }
}

for (const button of document.querySelectorAll("[data-login]")) {
  button.addEventListener("click", () => button.dataset.login !== shown.account && log("POST", { user: button.dataset.login }));
}
$("log-out").addEventListener("click", () => log("DELETE", {}));

onPaint(() => {
  const name = shown.account && nameOf(shown.account);
  for (const button of document.querySelectorAll("[data-login]")) {
    const own = button.dataset.login === shown.account;
    button.setAttribute("aria-pressed", String(own));
    tell(button.querySelector(".does"), t(own ? "you" : "log.in"));
  }
  tell($("login-said"), name ? t("login.you", name) : t("login.nobody"));
  $("log-out").hidden = !name;
  $("letter-to").disabled = $("letter-text").disabled = $("letter-send").disabled = !name;
  tellEmpty("letters-empty", name ? "letters.none" : "letters.login", name);
});
