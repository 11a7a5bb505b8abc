/** What is read only when somebody unfolds it: the code behind a panel, and what the wire says. */

import { $, tell } from "./dom.js";
import { streamPath } from "./terminal.js";

const LONGEST = 20_000; // characters

for (const details of document.querySelectorAll("details[data-code]")) {
  details.addEventListener("toggle", async () => {
    const code = details.querySelector("code");
    if (!details.open || code.textContent) return;
    const answer = await fetch(new URL(`${details.dataset.code}.js`, import.meta.url)).catch(() => null);
    if (answer?.ok) tell(code, (await answer.text()).trimEnd());
  });
}

let aborter = null;

/** Read a stream of its own as text, as long as it is looked at: the page's own is in a worker, and has been parsed. */
async function readWire() {
  aborter?.abort();
  const mine = (aborter = new AbortController());
  const text = $("wire-text");
  tell(text, "");
  try {
    const answer = await fetch(streamPath(), { headers: { Accept: "text/event-stream" }, signal: mine.signal });
    for await (const chunk of chunksOf(answer.body.pipeThrough(new TextDecoderStream()))) {
      const atEnd = text.scrollHeight - text.scrollTop - text.clientHeight < 40;
      tell(text, (text.textContent + chunk).slice(-LONGEST));
      if (atEnd) text.scrollTop = text.scrollHeight;
    }
  } catch {
    // It was folded, or the connection is lost; unfolding it reads again.
  }
}

async function* chunksOf(stream) {
  const reader = stream.getReader();
  for (let read = await reader.read(); !read.done; read = await reader.read()) yield read.value;
}

function look() {
  if ($("wire").open && !document.hidden) void readWire();
  else aborter?.abort();
}

$("wire").addEventListener("toggle", look);
document.addEventListener("visibilitychange", look);
