/** What the user sends, and what comes of it. */

import { $, onPaint, paint, tell } from "./dom.js";
import { t } from "./words.js";

const answers = new Map(); // what each output says: a key of the words with its values, or an error

/** Send a request to the backend. */
export async function send(method, path, body) {
  const headers = { "Content-Type": "application/json" };
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: JSON.stringify(body), signal: AbortSignal.timeout(10_000) });
  } catch {
    throw new Unreachable();
  }
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(said.detail ?? `status ${answer.status}`);
  return said;
}

export const post = (path, body) => send("POST", path, body);

class Unreachable extends Error {}

/** Call `act` with the fields of a form that is sent, and say what it returns: a key of the words with its values. */
export function onSubmit(form, act) {
  $(form).addEventListener("submit", async (event) => {
    event.preventDefault();
    const fields = Object.fromEntries(new FormData(event.target));
    try {
      say(form, await act(fields));
      for (const field of event.target.querySelectorAll("[data-empties]")) if (field.value === fields[field.name]) empty(field);
    } catch (error) {
      say(form, error);
    }
  });
}

function empty(field) {
  field.form.reset(); // or the empty field would be shown as a mistake
  field.value = "";
}

export function say(form, said) {
  answers.set(form, said);
  paint();
}

/** The hub can be reached again: what failed before is of no interest any more. */
export function forgetErrors() {
  for (const [form, said] of answers) if (said instanceof Error) answers.delete(form);
  paint();
}

function sentence(said) {
  if (!Array.isArray(said)) return "";
  return t(...said);
}

function complaint(error) {
  const unreachable = error instanceof Unreachable || error.status === 0;
  return t("not.done", unreachable ? t("unreachable") : error.message);
}

onPaint(() => {
  for (const output of document.querySelectorAll("output[data-of]")) {
    const said = output.dataset.of.split(" ").map((form) => answers.get(form)).find(Boolean);
    const bad = said instanceof Error;
    output.dataset.tone = bad ? "bad" : "";
    tell(output, bad ? complaint(said) : sentence(said));
  }
});
