/** Every open stream: who holds it, what waits for it, and a button that ends it. */

import { get, query, remove, why } from "./api.js";
import { $, bytes, count, make, settled, span, Table, tell, twice } from "./dom.js";
import { oneOf } from "./overview.js";

interface Stream {
  id: string;
  kind: string;
  user: string | null;
  address: string;
  topics: string[];
  opened: string;
  delivered: number;
  dropped: number;
  buffered: number;
  lag: number;
  worker: string;
}

const PAGE = 50;
const EVERY = 2_000;

export class Streams {
  #after: string[] = [];
  #next: string | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #asked = 0;
  #buttons = new Map<string, HTMLButtonElement>();
  readonly #table: Table<Stream>;
  readonly #form = $<HTMLFormElement>("streams-form");

  constructor() {
    this.#table = new Table<Stream>(
      $("streams"),
      [
        { title: "Stream", cell: ({ id }) => make("code", {}, id) },
        { title: "Kind", cell: ({ kind }) => oneOf(kind) },
        { title: "User", cell: ({ user }) => (user === null ? make("i", {}, "unknown") : user) },
        { title: "Address", cell: ({ address }) => address || "–" },
        { title: "Topics", cell: ({ topics }) => this.#topics(topics) },
        { title: "Age", number: true, cell: ({ opened }) => span((Date.now() - Date.parse(opened)) / 1_000) },
        { title: "Behind", number: true, cell: ({ lag }) => marked(count(lag), lag > 0) },
        { title: "Waiting", number: true, cell: ({ buffered }) => marked(bytes(buffered), buffered > 0) },
        { title: "Dropped", number: true, cell: ({ dropped }) => marked(count(dropped), dropped > 0) },
        { title: "Delivered", number: true, cell: ({ delivered }) => count(delivered) },
        { title: "Worker", cell: ({ worker }) => worker },
        { title: "", cell: ({ id }) => this.#button(id) },
      ],
      ({ id }) => id,
    );
    const changed = settled(() => this.#begin());
    this.#form.addEventListener("input", changed);
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#begin();
    });
    $("streams-next").addEventListener("click", () => {
      if (this.#next !== null) this.#after.push(this.#next);
      void this.#read();
    });
    $("streams-back").addEventListener("click", () => {
      this.#after.pop();
      void this.#read();
    });
  }

  /** Show them from now on, narrowed by what the address of the page says. */
  enter(asked: URLSearchParams): void {
    for (const [name, value] of asked) {
      const field = this.#form.elements.namedItem(name);
      if (field instanceof HTMLInputElement || field instanceof HTMLSelectElement) field.value = value;
    }
    this.#begin();
  }

  leave(): void {
    clearTimeout(this.#timer);
    this.#asked += 1;
  }

  #topics(topics: string[]): Node | string {
    const first = topics.slice(0, 2).join(", ");
    if (topics.length <= 2) return make("span", { class: "topics", title: first }, first || "–");
    return make("span", { class: "topics", title: topics.join("\n") }, `${first} +${topics.length - 2}`);
  }

  #button(id: string): HTMLButtonElement {
    let button = this.#buttons.get(id);
    if (!button) {
      button = make("button", { type: "button", class: "end", "aria-label": `End the stream ${id}` }, "End");
      twice(button, "Really?", () => void this.#end(id, button!));
      this.#buttons.set(id, button);
    }
    return button;
  }

  async #end(id: string, button: HTMLButtonElement): Promise<void> {
    button.disabled = true;
    try {
      await remove(`notifications/connections/${id}`);
      this.#say(`${id} has ended. Its client may come back.`);
    } catch (error) {
      this.#say(`${id} was not ended: ${why(error)}`, true);
    }
    await this.#read();
    if (document.activeElement === document.body) this.#form.querySelector("input")?.focus();
  }

  #begin(): void {
    this.#after = [];
    void this.#read();
  }

  async #read(): Promise<void> {
    clearTimeout(this.#timer);
    const asked = (this.#asked += 1);
    const wanted = Object.fromEntries(new FormData(this.#form)) as Record<string, string>;
    try {
      const said = await get<{ connections: Stream[]; next: string | null }>(
        `notifications/connections?${query({ ...wanted, limit: PAGE, after: this.#after.at(-1) ?? "" })}`,
      );
      if (asked !== this.#asked) return;
      this.#show(said.connections, said.next, wanted);
    } catch (error) {
      if (asked !== this.#asked) return;
      this.#say(why(error), true);
    }
    this.#timer = setTimeout(() => void this.#read(), EVERY);
  }

  #show(streams: Stream[], next: string | null, wanted: Record<string, string>): void {
    this.#next = next;
    const there = new Set(streams.map(({ id }) => id));
    for (const id of [...this.#buttons.keys()]) if (!there.has(id)) this.#buttons.delete(id);
    this.#table.show(streams);
    $("streams").classList.toggle("alone", new Set(streams.map(({ worker }) => worker)).size < 2);
    const empty = $("streams-empty");
    empty.hidden = streams.length > 0;
    const narrowed = ["user", "topic", "address", "kind"].some((name) => wanted[name]);
    tell(empty, narrowed ? "No open stream is like that. Empty the fields to see all." : empty.dataset.all!);
    const first = this.#after.length * PAGE;
    const slowest = wanted.order === "slowest";
    const which = slowest ? `the ${streams.length} slowest` : `${count(first + 1)} to ${count(first + streams.length)}`;
    tell($("streams-page"), streams.length ? which : "");
    $<HTMLButtonElement>("streams-next").disabled = next === null;
    $<HTMLButtonElement>("streams-back").disabled = this.#after.length === 0;
  }

  #say(text: string, bad = false): void {
    const said = $("streams-said");
    said.dataset.tone = bad ? "bad" : "good";
    tell(said, text);
  }
}

const marked = (text: string, is: boolean): Node => make("span", { class: is ? "mark" : "calm" }, text);
