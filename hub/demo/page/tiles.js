/** The tiles of the stocks: the price, how it has changed, and how it got there. */

import { $, calm, make, onPaint, paint, tell } from "./dom.js";
import { shown } from "./store.js";
import { money } from "./words.js";

const SYMBOLS = ["AAPL", "GOOG", "MSFT", "NVDA", "TSLA"];
const MOST_TILES = 10;
const MOST_PRICES = 40;
const SVG = "http://www.w3.org/2000/svg";

export function drawTrade(id, data) {
  const { symbol, price, change } = data ?? {};
  if (typeof symbol !== "string" || typeof price !== "number") return;
  if (!(symbol in shown.stocks) && Object.keys(shown.stocks).length >= MOST_TILES) return;
  const prices = [...(shown.stocks[symbol]?.prices ?? []), price].slice(-MOST_PRICES);
  shown.stocks[symbol] = { prices, change: typeof change === "number" ? change : 0, id };
  paint();
}

function tile(symbol) {
  const chart = document.createElementNS(SVG, "svg");
  chart.setAttribute("viewBox", "0 0 100 30");
  chart.setAttribute("preserveAspectRatio", "none");
  chart.setAttribute("aria-hidden", "true");
  chart.append(document.createElementNS(SVG, "polyline"));
  const change = make("span", { class: "change" }, make("span"), make("span", { class: "percent" }));
  const parts = [make("b", {}, symbol), change, make("span", { class: "price" }, "–"), chart];
  return make("div", { class: "tile", "data-testid": `stock-${symbol}`, "data-symbol": symbol }, ...parts);
}

onPaint(() => {
  const tiles = new Map([...$("stocks").children].map((element) => [element.dataset.symbol, element]));
  for (const symbol of new Set([...SYMBOLS, ...Object.keys(shown.stocks)])) {
    const element = tiles.get(symbol) ?? $("stocks").appendChild(tile(symbol));
    const stock = shown.stocks[symbol];
    if (!stock || element.dataset.id === stock.id) continue;
    element.dataset.id = stock.id;
    draw(element, stock);
  }
});

function draw(element, { prices, change }) {
  const price = prices.at(-1);
  const opening = price - change;
  element.dataset.trend = change > 0 ? "up" : change < 0 ? "down" : "flat";
  tell(element.querySelector(".price"), money(price));
  const arrow = change > 0 ? "▲" : change < 0 ? "▼" : "■";
  const [by, part] = element.querySelector(".change").children;
  tell(by, `${arrow} ${money(Math.abs(change))}`);
  tell(part, opening > 0 ? ` (${money(Math.abs(change / opening) * 100)} %)` : "");
  const [low, high] = [Math.min(...prices), Math.max(...prices)];
  const points = prices.map((each, place) => {
    const across = prices.length > 1 ? (place / (prices.length - 1)) * 100 : 100;
    return `${across.toFixed(1)},${(28 - ((each - low) / (high - low || 1)) * 26).toFixed(1)}`;
  });
  element.querySelector("polyline").setAttribute("points", points.join(" "));
  if (!calm.matches) element.animate([{ borderColor: "var(--accent)" }, {}], { duration: 700, easing: "ease-out" });
}
