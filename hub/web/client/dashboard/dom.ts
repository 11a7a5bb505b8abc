/** The page itself: elements, texts, numbers as people read them. */

export function $<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found as T;
}

type Child = Node | string;

/** Return an element; strings become text, never markup. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Record<string, string | undefined> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== undefined) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Set a text only where it differs: what did not change is neither painted nor read out again. */
export function tell(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

const whole = new Intl.NumberFormat("en");
const some = new Intl.NumberFormat("en", { maximumFractionDigits: 1, minimumFractionDigits: 1 });
const few = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export const count = (value: number): string => whole.format(value);
export const short = (value: number): string => (Math.abs(value) < 10_000 ? whole.format(value) : few.format(value));

export function rate(value: number): string {
  if (value > 0 && value < 0.05) return "< 0.1";
  return value < 100 && !Number.isInteger(value) ? some.format(value) : short(Math.round(value));
}

const UNITS = ["B", "kB", "MB", "GB", "TB"];

export function bytes(value: number): string {
  let unit = 0;
  for (; value >= 1000 && unit < UNITS.length - 1; unit += 1) value /= 1000;
  return `${unit && value < 100 ? some.format(value) : whole.format(Math.round(value))} ${UNITS[unit]!}`;
}

/** A time of so many seconds, in its two largest units. */
export function span(seconds: number): string {
  const s = Math.max(Math.floor(seconds), 0);
  if (s < 60) return `${s} s`;
  if (s < 3_600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86_400) return `${Math.floor(s / 3_600)} h ${Math.floor((s % 3_600) / 60)} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3_600)} h`;
}

/** A duration of a computer, from microseconds to seconds. */
export function duration(seconds: number): string {
  if (!seconds) return "0";
  if (seconds >= 10) return `${Math.round(seconds)} s`;
  if (seconds >= 1) return `${seconds.toFixed(1)} s`;
  if (seconds >= 0.1) return `${Math.round(seconds * 1e3)} ms`;
  return `${(seconds * 1e3).toFixed(seconds >= 0.01 ? 1 : 2)} ms`;
}

export const clock = (at: number | string): string =>
  new Date(typeof at === "number" ? at * 1_000 : at).toLocaleTimeString("en-GB");

/** Call `then` a moment after the last call of what is returned. */
export function settled(then: () => void, ms = 250): () => void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(then, ms);
  };
}

/** Have `button` do something that can't be taken back: the first press asks, the second one within 4 seconds does it. */
export function twice(button: HTMLButtonElement, question: string, then: () => void): void {
  const label = button.textContent ?? "";
  let timer: ReturnType<typeof setTimeout> | undefined;
  const calm = () => {
    clearTimeout(timer);
    timer = undefined;
    button.textContent = label;
    button.classList.remove("sure");
  };
  button.addEventListener("click", () => {
    if (timer !== undefined) {
      calm();
      then();
      return;
    }
    button.textContent = question;
    button.classList.add("sure");
    timer = setTimeout(calm, 4_000);
  });
  button.addEventListener("blur", () => timer !== undefined && calm());
}

export interface Column<Row> {
  title: string;
  /** Numbers stand at the right. */
  number?: boolean;
  cell: (row: Row) => Child | Child[];
}

const textOf = (part: Child): string => (typeof part === "string" ? part : (part.textContent ?? ""));

/** A table whose rows stay the same elements while they are the same things, so that focus and selection stay, too. */
export class Table<Row> {
  readonly #body: HTMLTableSectionElement;
  readonly #columns: Column<Row>[];
  readonly #key: (row: Row) => string;
  readonly #rows = new Map<string, HTMLTableRowElement>();

  constructor(table: HTMLElement, columns: Column<Row>[], key: (row: Row) => string) {
    this.#columns = columns;
    this.#key = key;
    const heads = columns.map(({ title, number }) =>
      title ? make("th", { scope: "col", class: number ? "n" : undefined }, title) : make("td", {}),
    );
    this.#body = make("tbody");
    table.append(make("thead", {}, make("tr", {}, ...heads)), this.#body);
  }

  show(rows: Row[]): void {
    const gone = new Set(this.#rows.keys());
    rows.forEach((row, place) => {
      const key = this.#key(row);
      gone.delete(key);
      let line = this.#rows.get(key);
      if (!line) {
        line = make("tr", { "data-key": key });
        for (const { title, number } of this.#columns) {
          line.append(make("td", { "data-title": title, class: number ? "n" : undefined }));
        }
        this.#rows.set(key, line);
      }
      this.#fill(line, row);
      if (this.#body.children[place] !== line) this.#body.insertBefore(line, this.#body.children[place] ?? null);
    });
    for (const key of gone) {
      this.#rows.get(key)!.remove();
      this.#rows.delete(key);
    }
  }

  #fill(line: HTMLTableRowElement, row: Row): void {
    this.#columns.forEach(({ cell }, place) => {
      const said = cell(row);
      const td = line.children[place]!;
      if (typeof said === "string") {
        td.removeAttribute("data-now");
        tell(td, said);
      } else if (!td.hasChildNodes() || !(said instanceof HTMLButtonElement)) {
        const parts = Array.isArray(said) ? said : [said];
        const now = parts.map((part) => (part instanceof Element ? part.outerHTML : textOf(part))).join("");
        if (td.getAttribute("data-now") === now) return;
        td.replaceChildren(...parts);
        td.setAttribute("data-now", now);
      }
    });
  }
}
