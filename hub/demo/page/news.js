import { news } from "./lists.js";

export const topics = ["news"];

export function listen(hub) {
  hub.onAny(({ id, topics, data }) => topics.includes("news") && news.add(id, data));
}
