/** The wires beside Server-Sent Events, in a file of their own: a line loads it when it needs one of them. */

export { openPoll } from "./poll.js";
export { VERSION } from "./port.js";
export { openSocket } from "./socket.js";
