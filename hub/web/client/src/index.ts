export { type Answer, type AnswerOptions, type AnswerPhase, openAnswer } from "./ai.js";
export { type Env, type Sign, surroundings } from "./env.js";
export {
  type Line,
  LineError,
  type LineEvent,
  type LineOptions,
  type LineState,
  type MakeLine,
  makeLine,
  type Start,
} from "./line.js";
export { matches } from "./topics.js";
