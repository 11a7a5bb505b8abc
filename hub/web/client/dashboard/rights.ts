/** Why somebody may read a topic, or may not: the answer of the rules themselves. */

import { post, why } from "./api.js";
import { $, make, Table, tell } from "./dom.js";

interface Verdict {
  allowed: boolean;
  why: string;
  code?: string;
  private?: boolean;
}

interface Explained {
  topic: string;
  read: Verdict;
  publish: Verdict;
}

interface Answer {
  who: {
    user: string | null;
    source: "token" | "stream" | "typed" | "nobody";
    admin?: boolean;
    subscribe?: string[];
    publish?: string[];
    expires?: string | null;
  };
  topics: Explained[];
}

const SOURCES = {
  token: "The rights are those of the token.",
  stream: "The rights are those of the newest open stream of this user.",
  typed: "The rights are those that you typed, and the user's own.",
  nobody: "Somebody who is not logged in.",
};

export class Rights {
  readonly #table = new Table<Explained>(
    $("verdicts"),
    [
      { title: "Topic", cell: ({ topic }) => make("code", {}, topic) },
      { title: "Read", cell: ({ read }) => shown(read) },
      { title: "Publish", cell: ({ publish }) => shown(publish) },
    ],
    ({ topic }) => topic,
  );

  constructor() {
    $("rights-form").addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#explain();
    });
  }

  enter(asked: URLSearchParams): void {
    const user = asked.get("user");
    if (user !== null) $<HTMLInputElement>("rights-user").value = user;
  }

  leave(): void {
    $<HTMLInputElement>("rights-token").value = "";
  }

  async #explain(): Promise<void> {
    const said = $("rights-said");
    const topics = list("rights-topics");
    const subscribe = list("rights-subscribe");
    const publish = list("rights-publish");
    const token = $<HTMLInputElement>("rights-token").value.trim();
    const body = {
      user: $<HTMLInputElement>("rights-user").value.trim(),
      topics,
      ...(token ? { token } : {}),
      ...(subscribe.length || publish.length ? { subscribe, publish } : {}),
    };
    try {
      const { who, topics: verdicts } = await post<Answer>("dashboard/explain", body);
      this.#table.show(verdicts);
      $("verdicts").hidden = false;
      $("verdicts-empty").hidden = true;
      said.dataset.tone = "good";
      tell(
        said,
        [who.user, who.admin ? "administrator" : "", SOURCES[who.source], granted(who)].filter(Boolean).join(" · "),
      );
    } catch (error) {
      this.#table.show([]);
      $("verdicts").hidden = true;
      said.dataset.tone = "bad";
      tell(said, why(error));
    }
  }
}

function granted({ subscribe = [], publish = [] }: Answer["who"]): string {
  const parts = [
    subscribe.length && `reads ${subscribe.join(", ")}`,
    publish.length && `publishes to ${publish.join(", ")}`,
  ];
  return parts.filter(Boolean).join("; ");
}

function shown({ allowed, why: reason, code, private: hidden }: Verdict): Node[] {
  const badge = make("span", { class: `verdict ${allowed ? "yes" : "no"}` }, allowed ? "yes" : "no");
  const more = allowed ? (hidden === false ? " (public notifications only)" : "") : code ? ` (${code})` : "";
  return [badge, document.createTextNode(` ${reason}${more}`)];
}

const list = (id: string): string[] =>
  $<HTMLInputElement | HTMLTextAreaElement>(id)
    .value.split(/[\s,]+/)
    .filter(Boolean);
