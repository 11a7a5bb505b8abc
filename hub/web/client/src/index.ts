export { type Answer, type AnswerPhase, openAnswer } from "./ai.js";
export {
  type AskOptions,
  connect,
  type ConnectOptions,
  type Draft,
  type Drop,
  type Gap,
  Hub,
  type HubState,
  type IterateOptions,
  type Notification,
} from "./client.js";
export { surroundings } from "./env.js";
export { LineError, type LineState, type Start } from "./line.js";
export type { Presence, PresentUser } from "./presence.js";
export type { ShareMode } from "./share.js";
export { matches } from "./topics.js";
export type { Wire, WireMode } from "./wires.js";
