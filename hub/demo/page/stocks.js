import { drawTrade } from "./tiles.js";

export const topics = ["stock/*"]; // every stock there is

export function listen(hub) {
  hub.on("stock.traded", ({ id, data }) => drawTrade(id, data));
}
