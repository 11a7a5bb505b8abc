/** Topics and patterns: who wants them, and what is published to them. */

import { get, query, why } from "./api.js";
import { $, count, make, rate, settled, Table, tell } from "./dom.js";

interface Topic {
  topic: string;
  pattern: boolean;
  subscribers: number;
  users: number | null;
  rate: number | null;
}

interface Page {
  topics: Topic[];
  total: number;
  sampled: boolean;
  missing: boolean;
}

const PAGE = 50;
const EVERY = 2_000;

export class Topics {
  #offset = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #asked = 0;
  readonly #form = $<HTMLFormElement>("topics-form");
  readonly #table = new Table<Topic>(
    $("topics"),
    [
      { title: "Topic", cell: ({ topic }) => make("code", { title: topic }, topic) },
      { title: "Subscribers", number: true, cell: ({ subscribers }) => count(subscribers) },
      { title: "Users", number: true, cell: ({ users }) => (users === null ? "–" : count(users)) },
      { title: "Per second", number: true, cell: (row) => (row.rate === null ? "–" : rate(row.rate)) },
      { title: "", cell: ({ topic, pattern }) => links(topic, pattern) },
    ],
    ({ topic }) => topic,
  );

  constructor() {
    const changed = settled(() => this.#begin());
    this.#form.addEventListener("input", changed);
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#begin();
    });
    $("topics-next").addEventListener("click", () => this.#leaf(PAGE));
    $("topics-back").addEventListener("click", () => this.#leaf(-PAGE));
  }

  enter(asked: URLSearchParams): void {
    const wanted = asked.get("q");
    if (wanted !== null) (this.#form.elements.namedItem("q") as HTMLInputElement).value = wanted;
    this.#begin();
  }

  leave(): void {
    clearTimeout(this.#timer);
    this.#asked += 1;
  }

  #begin(): void {
    this.#offset = 0;
    void this.#read();
  }

  #leaf(by: number): void {
    this.#offset = Math.max(this.#offset + by, 0);
    void this.#read();
  }

  async #read(): Promise<void> {
    clearTimeout(this.#timer);
    const asked = (this.#asked += 1);
    const wanted = Object.fromEntries(new FormData(this.#form)) as Record<string, string>;
    try {
      const page = await get<Page>(`dashboard/topics?${query({ ...wanted, offset: this.#offset, limit: PAGE })}`);
      if (asked !== this.#asked) return;
      this.#show(page, wanted.q ?? "");
    } catch (error) {
      if (asked !== this.#asked) return;
      tell($("topics-said"), why(error));
    }
    this.#timer = setTimeout(() => void this.#read(), EVERY);
  }

  #show({ topics, total, sampled, missing }: Page, containing: string): void {
    this.#table.show(topics);
    const empty = $("topics-empty");
    empty.hidden = topics.length > 0;
    tell(empty, containing ? `Nobody follows a topic with “${containing}” in its name.` : empty.dataset.all!);
    const last = this.#offset + topics.length;
    tell($("topics-page"), topics.length ? `${count(this.#offset + 1)} to ${count(last)} of ${count(total)}` : "");
    const said = [
      sampled && "Each process tells of the 2,000 topics with the most subscribers.",
      missing && "Not all processes answered.",
    ];
    tell($("topics-said"), said.filter(Boolean).join(" "));
    $<HTMLButtonElement>("topics-next").disabled = last >= total;
    $<HTMLButtonElement>("topics-back").disabled = this.#offset === 0;
  }
}

function links(topic: string, pattern: boolean): Node[] {
  const name = encodeURIComponent(topic);
  const link = (tab: string, text: string, what: string) =>
    make("a", { href: `#${tab}?topic=${name}`, "aria-label": `${what} ${topic}` }, text);
  const found = [link("streams", "Streams", "Streams of"), link("live", "Tail", "Tail")];
  return pattern ? found : [...found, link("people", "People", "People on")];
}
