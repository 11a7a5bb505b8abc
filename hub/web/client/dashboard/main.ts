/** The dashboard. Each tab is a module; this one says which of them is shown, and to whom. */

import { type Facts, Feed, get, refused, useToken, why } from "./api.js";
import { $, tell } from "./dom.js";
import { History, type Sample } from "./figures.js";
import { Live } from "./live.js";
import { nameOf, Overview } from "./overview.js";
import { People } from "./people.js";
import { Rights } from "./rights.js";
import { Streams } from "./streams.js";
import { Topics } from "./topics.js";

const TABS = ["overview", "streams", "topics", "people", "live", "rights"] as const;
type Name = (typeof TABS)[number];

interface Tab {
  enter(asked: URLSearchParams): void;
  leave(): void;
}

const STATES = {
  connecting: "Connecting",
  open: "Connected",
  polling: "Every 2 s",
  waiting: "Lost, trying again",
  refused: "No access",
};

// ---- light and dark ----

const THEME = "hub-dashboard-theme";
const system = matchMedia("(prefers-color-scheme: dark)");
const history = new History();
let overview: Overview | undefined;

function setTheme(theme: string): void {
  document.documentElement.dataset.theme = theme === "auto" ? (system.matches ? "dark" : "light") : theme;
  for (const button of document.querySelectorAll<HTMLElement>("[data-choose]")) {
    button.setAttribute("aria-pressed", String(button.dataset.choose === theme));
  }
  overview?.restyle();
}

const storedTheme = (): string => {
  try {
    return localStorage.getItem(THEME) ?? "auto";
  } catch {
    return "auto"; // storage is forbidden here
  }
};

for (const button of document.querySelectorAll<HTMLElement>("[data-choose]")) {
  button.addEventListener("click", () => {
    const theme = button.dataset.choose!;
    try {
      localStorage.setItem(THEME, theme);
    } catch {
      // It lasts until the page is closed.
    }
    setTheme(theme);
  });
}
system.addEventListener("change", () => setTheme(storedTheme()));
setTheme(storedTheme());

// ---- tabs ----

let tabs: Partial<Record<Name, Tab>> = {};
let current: Name | undefined;

function place(): { name: Name; asked: URLSearchParams } {
  const [said = "", asked = ""] = location.hash.slice(1).split("?");
  return { name: TABS.find((each) => each === said) ?? "overview", asked: new URLSearchParams(asked) };
}

function go(): void {
  const { name, asked } = place();
  if (current && current !== name) tabs[current]?.leave();
  const turned = current !== name;
  current = name;
  for (const each of TABS) {
    $(`tab-${each}`).hidden = each !== name;
    const link = document.querySelector(`nav a[href="#${each}"]`);
    if (each === name) {
      link?.setAttribute("aria-current", "page");
      link?.scrollIntoView({ block: "nearest", inline: "nearest" });
    } else link?.removeAttribute("aria-current");
  }
  document.title = `${document.querySelector(`nav a[href="#${name}"]`)?.textContent ?? ""} · Broadcast hub`;
  if (turned) scrollTo(0, 0);
  tabs[name]?.enter(asked);
  if (name === "overview") overview?.show();
}

addEventListener("hashchange", () => tabs.overview && go());

// ---- whoever looks ----

const feed = new Feed(
  (samples, all) => {
    history.add(samples as Sample[], all);
    offerKinds(Object.keys(history.last?.total.streams ?? {}));
    if (current === "overview" && !document.hidden) overview?.show();
  },
  (state, reason = "") => {
    const shown = $("state");
    shown.dataset.state = state;
    tell(shown.firstElementChild!, STATES[state]);
    shown.title = reason;
    if (state === "refused") ask(reason);
  },
);

document.addEventListener("visibilitychange", () => current === "overview" && !document.hidden && overview?.show());

/** Offer the kinds of streams that this hub has. */
function offerKinds(kinds: string[]): void {
  const select = $<HTMLSelectElement>("streams-kind");
  for (const kind of kinds.slice(select.options.length - 1)) select.add(new Option(nameOf(kind), kind));
}

function ask(reason: string): void {
  feed.stop();
  const shown = $("state");
  shown.dataset.state = "refused";
  tell(shown.firstElementChild!, STATES.refused);
  if (current) tabs[current]?.leave();
  document.body.dataset.asks = "";
  $("login").hidden = false;
  $("main").hidden = true;
  tell($("login-said"), reason);
  $("login-token").focus();
}

$("login-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const field = $<HTMLInputElement>("login-token");
  useToken(field.value.trim() || undefined);
  field.value = "";
  void begin();
});

async function begin(): Promise<void> {
  let facts: Facts;
  try {
    facts = await get<Facts>("dashboard/facts");
  } catch (error) {
    if (refused(error)) return ask(why(error));
    tell($("state").firstElementChild!, "Lost, trying again");
    setTimeout(() => void begin(), 2_000);
    return;
  }
  $("login").hidden = true;
  $("main").hidden = false;
  delete document.body.dataset.asks;
  const who = facts.user ?? (facts.guarded ? "" : "no login here");
  tell($("who"), who ? `Dashboard · ${who}` : "Dashboard");
  $("who").title = who;
  $("streams-panel").hidden = !facts.connections;
  if (!overview) {
    overview = new Overview(history);
    tabs = {
      overview: { enter: () => undefined, leave: () => undefined },
      streams: new Streams(),
      topics: new Topics(),
      people: new People(facts),
      live: new Live(facts),
      rights: new Rights(),
    };
  }
  feed.start();
  go();
}

void begin();
