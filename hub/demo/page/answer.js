import { line } from "./line.js";

/** Have the hub ask an AI; `show` is called as the text grows. It grows in the hub, whether or not anybody watches. */
export function ask(question, show) {
  return line.hub.ask(question, { on: show });
}

/** Watch an answer that has begun: before a reload, or in another tab. */
export function watch(session, show) {
  return line.hub.attach(session, { on: show });
}
