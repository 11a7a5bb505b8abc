/** The lists of the page: what came, the newest first. */

import { $, make, onPaint, paint, tell } from "./dom.js";
import { epochOf, offsetOf } from "./ids.js";
import { shown } from "./store.js";
import { clock, language, money, nameOf, said, t } from "./words.js";

/** Return what a notification says: the demo's own have a message, anybody may publish something else. */
function read(data) {
  const told = typeof data?.message === "string";
  const text = told ? data.message : typeof data === "string" ? data : t("other.data");
  return { text: text.slice(0, 300), amount: told && typeof data.amount === "number" ? data.amount : null };
}

/** Whether a notification was sent while this page was away; set by the line. */
let isLate = () => false;
export const setLate = (rule) => (isLate = rule);

class List {
  constructor(panel, most, element = panel) {
    Object.assign(this, { panel, most, element });
    this.language = language();
    onPaint(() => this.paint());
  }

  get items() {
    return shown[this.panel];
  }

  /** Put what came at the end: the newest. */
  add(id, data) {
    this.#push({ id, at: Date.now(), ...read(data), late: isLate(id) });
  }

  /** Say that something is missing here. */
  divide(what) {
    this.#push({ id: `gap ${Date.now()} ${Math.random()}`, at: Date.now(), gap: what });
  }

  #push(item) {
    if (this.items.some(({ id }) => id === item.id)) return;
    this.items.push(item);
    this.items.splice(0, this.items.length - this.most);
    paint();
  }

  clear() {
    shown[this.panel] = [];
    paint();
  }

  /** Mark what turned out to have been sent while this page was away. */
  mark() {
    for (const item of this.items) if (!item.gap && isLate(item.id)) item.late = true;
    paint();
  }

  paint() {
    const list = $(this.element);
    if (this.language !== language()) list.replaceChildren();
    this.language = language();
    const known = new Map([...list.children].map((element) => [element.dataset.id, element]));
    for (const { id } of this.items) known.delete(id);
    for (const element of known.values()) element.remove();
    const there = new Map([...list.children].map((element) => [element.dataset.id, element]));
    let after = null; // the newest stands at the top
    for (const item of [...this.items].reverse()) {
      const element = there.get(item.id) ?? this.row(item);
      element.classList.toggle("late", Boolean(item.late));
      const place = after === null ? list.firstElementChild : after.nextElementSibling;
      if (element !== place) list.insertBefore(element, place);
      after = element;
    }
  }

  row(item) {
    if (item.gap) return make("li", { class: "gap", "data-testid": "gap", "data-id": item.id }, make("span", { class: "text" }, t(...item.gap)));
    const mark = make("span", { class: "mark", title: t("late.title") }, "↺", make("span", {}, ` ${t("late")}`));
    const text = make("span", { class: "text" }, said(item.text));
    const amount = typeof item.amount === "number" ? [make("span", { class: "amount", "data-testid": "amount" }, money(item.amount))] : [];
    return make("li", { "data-testid": "row", "data-id": item.id }, text, ...amount, mark, make("time", {}, clock(item.at)));
  }
}

/** Messages between people: each once, in the order of the ids, whether the stream or the history has brought them. */
class Letters extends List {
  receive(id, data, at = Date.now()) {
    this.#keep({ id, at, late: isLate(id), from: typeof data?.from === "string" ? data.from : "", text: read(data).text });
  }

  sent(id, to, text) {
    this.#keep({ id, at: Date.now(), to, text });
  }

  #keep(letter) {
    const before = this.items.find(({ id }) => id === letter.id);
    if (before) Object.assign(before, letter, { late: before.late || letter.late });
    else this.items.push(letter);
    this.items.sort((one, other) => offsetOf(one.id) - offsetOf(other.id));
    this.items.splice(0, this.items.length - this.most);
    paint();
  }

  /** Forget all but what `wanted` allows. */
  keepOnly(wanted) {
    shown[this.panel] = this.items.filter(({ id }) => wanted(id));
    paint();
  }

  /** Forget what is of another log than `cursor`. */
  keepEpochOf(cursor) {
    this.keepOnly((id) => epochOf(id) === epochOf(cursor));
  }

  row(item) {
    const made = super.row(item);
    const own = item.to ?? (item.from === shown.account && this.panel === "talk");
    made.classList.toggle("own", Boolean(own));
    made.prepend(make("span", { class: "way", "data-testid": "way" }, this.way(item)));
    return made;
  }

  way({ from, to }) {
    if (this.panel === "talk") return from === shown.account ? t("you") : nameOf(from);
    return to ? t("to", nameOf(to)) : t("from", nameOf(from));
  }
}

export const orders = new List("orders", 20);
export const news = new List("news", 12);
export const mail = new List("mail", 20);
export const letters = new Letters("letters", 40);
export const talk = new Letters("talk", 40);
export const all = [orders, news, mail, letters, talk];

/** Say where nothing has come yet. */
export function tellEmpty(id, key, ...values) {
  tell($(id), t(key, ...values));
}
