import { connect } from "../notifications/client/hub-client.js";

const script = new URL("../notifications/client/hub-client.worker.js", import.meta.url).href;
// This page's Content-Security-Policy demands Trusted Types: a script is loaded only from where a policy says.
const policy = globalThis.trustedTypes?.createPolicy("hub-demo", { createScriptURL: () => script });
const worker = policy?.createScriptURL("") ?? script;

/**
 * Follow `topics` after the notification `start`, on the one line that all tabs of this browser share. Whoever is logged
 * in talks in the room, so the line is a WebSocket, if that goes through; else a stream, or polls.
 */
export function join(user, topics, start, handlers) {
  const url = new URL("..", import.meta.url).href;
  const known = user !== "";
  const wire = known ? "websocket" : "auto";
  return connect({ url, user, topics, start, worker, wire, rooms: known, presence: known, persist: "none", ...handlers });
}
