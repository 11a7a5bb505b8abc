/** The answer that this page shows: its own, or one that was begun before a reload, or in another tab. */

import { ask, watch } from "./answer.js";
import { $, onPaint, paint, tell } from "./dom.js";
import { said, t } from "./words.js";

const STORED = "hub-demo-chat";

let answer = null;
let question = "";
let resting = false; // this tab is away: the answer goes on in the hub
let trouble = null;
let stopping = false;

/** idle, asking, connecting, streaming, resting, and the ends: done, failed, cancelled, gone. */
function phase() {
  if (!answer) return "idle";
  switch (answer.phase) {
    case "waiting": return resting ? "resting" : answer.sessionId ? "connecting" : "asking";
    case "growing": return resting ? "resting" : "streaming";
    case "failed": return trouble?.status === 404 || ["lost", "not_found"].includes(answer.reason) ? "gone" : "failed";
    default: return answer.phase;
  }
}

const isOver = () => ["idle", "done", "failed", "cancelled", "gone"].includes(phase());

function show(changed) {
  if (answer && changed !== answer) return;
  answer = changed;
  if (changed.sessionId && named() !== changed.sessionId && question) {
    remember(changed.sessionId);
    history.replaceState(null, "", `#ai=${changed.sessionId}`); // a reload finds it, and so does who gets the link
  }
  paint();
}

/** Show `begun` from now on, whatever was shown before. */
function begin(begun, asked) {
  answer?.close();
  [answer, question, trouble, stopping, resting] = [begun, asked, null, false, false];
  begun.whole.catch((error) => {
    if (answer === begun) trouble = error;
    paint();
  });
  show(begun);
}

export function rest() {
  if (isOver() || !answer.sessionId || resting) return;
  answer.close();
  resting = true;
  paint();
}

export function wake() {
  if (resting) begin(watch(answer.sessionId, show), question);
}

/** Show the answer that the address names. */
export function watchNamed() {
  const id = named();
  if (id && id !== answer?.sessionId) begin(watch(id, show), questionOf(id));
}

const named = () => new URLSearchParams(location.hash.slice(1)).get("ai") ?? "";

function remember(id) {
  try {
    localStorage.setItem(STORED, JSON.stringify({ id, question }));
  } catch {
    // No storage: then a second tab does not know the question.
  }
}

function questionOf(id) {
  try {
    const last = JSON.parse(localStorage.getItem(STORED));
    return last?.id === id ? last.question : "";
  } catch {
    return "";
  }
}

addEventListener("hashchange", watchNamed);
addEventListener("pagehide", rest);
addEventListener("pageshow", wake);

$("chat-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("chat-question").value;
  if (isOver()) begin(ask(text, show), text);
});

$("chat-stop").addEventListener("click", async () => {
  stopping = true;
  paint();
  await answer.stop().catch((error) => {
    trouble = error;
  });
  stopping = false;
  paint();
});

onPaint(() => {
  const now = phase();
  const broken = now === "failed" || now === "gone";
  $("chat-state").dataset.state = now;
  tell($("chat-state").firstElementChild, t(`chat.${now}`));
  const why = trouble?.message && trouble.status !== 0 || broken ? trouble?.message : "";
  tell($("chat-said"), t(`chat.said.${now}`) + (why ? ` ${said(why)}` : ""));
  $("chat-said").dataset.tone = broken ? "bad" : "";
  $("chat-ask").disabled = !isOver();
  $("chat-stop").disabled = isOver() || now === "asking" || now === "resting" || stopping;
  tell($("chat-stop"), t(stopping ? "stopping" : "stop"));
  const id = answer?.sessionId ?? "";
  if (id) $("chat-tab").href = `#ai=${id}`;
  $("chat-answer").dataset.session = id;
  tell($("chat-asked"), question);
  const element = $("chat-answer");
  const atEnd = element.scrollHeight - element.scrollTop - element.clientHeight < 40;
  element.dataset.phase = now;
  element.setAttribute("aria-busy", String(!isOver())); // spoken when it is complete, not word by word
  tell(element, answer?.text ?? "");
  if (atEnd) element.scrollTop = element.scrollHeight;
});
