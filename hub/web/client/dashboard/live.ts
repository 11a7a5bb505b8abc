/** Notifications as they come, of the topics that whoever looks may read, and a box to send one. */

import { connect, type Hub, type Notification } from "../src/index.js";
import { base, currentToken, type Facts, why } from "./api.js";
import { $, clock, count, make, tell } from "./dom.js";

const KEPT = 200;
const EVERYTHING = ["**", "user/**", "room/**", "ai/**"];

export class Live {
  #hub: Hub | undefined;
  #sender: Hub | undefined;
  #waiting: { at: number; notification: Notification }[] = [];
  #came = 0;
  #painting = false;
  readonly #list = $<HTMLOListElement>("tail");
  readonly #facts: Facts;

  constructor(facts: Facts) {
    this.#facts = facts;
    $("tail-panel").hidden = !facts.tail;
    $("publish-panel").hidden = !facts.publish;
    $("live-nothing").hidden = facts.tail || facts.publish;
    $("tail-form").addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#hub) this.#stop("Stopped.");
      else this.#start();
    });
    $("tail-clear").addEventListener("click", () => {
      this.#list.replaceChildren();
      this.#waiting = [];
      this.#came = 0;
      this.#count();
    });
    $("publish-form").addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#publish();
    });
  }

  enter(asked: URLSearchParams): void {
    const topic = asked.get("topic");
    if (topic === null) return;
    $<HTMLInputElement>("tail-topics").value = topic;
    if (!topic.includes("*")) $<HTMLInputElement>("publish-topic").value = topic;
    if (!this.#facts.tail) return;
    this.#stop();
    this.#start();
  }

  leave(): void {
    this.#stop("Stopped: you looked at something else.");
  }

  #start(): void {
    const asked = $<HTMLInputElement>("tail-topics")
      .value.split(/[\s,]+/)
      .filter(Boolean);
    const topics = asked.length ? asked : EVERYTHING;
    const hub = connect({
      url: base,
      topics,
      share: "none",
      persist: "none",
      user: "",
      ...(currentToken() === undefined ? {} : { token: currentToken }),
      onState: ({ state, reason, topic }) => {
        if (this.#hub !== hub && this.#hub) return;
        if (state === "refused") this.#stop(`Refused: ${reason ?? ""} ${topic ?? ""}`.trim());
        else if (this.#hub)
          this.#say(state === "open" ? `Listening to ${topics.join(", ")}.` : `The stream is ${state}.`, state);
      },
      onGap: ({ reason }) => this.#say(`Something is missing here: ${reason}.`, "waiting"),
    });
    this.#hub = hub;
    hub.onAny((notification) => this.#take(notification));
    tell($("tail-start"), "Stop");
    this.#hint();
    this.#say("Connecting.", "connecting");
  }

  #stop(said = ""): void {
    if (!this.#hub) return;
    const hub = this.#hub;
    this.#hub = undefined;
    hub.close({ forget: true });
    tell($("tail-start"), "Start");
    this.#hint();
    this.#say(said, "idle");
  }

  #say(text: string, state: string): void {
    const said = $("tail-said");
    said.dataset.state = state;
    tell(said, text);
  }

  #take(notification: Notification): void {
    this.#came += 1;
    this.#waiting.push({ at: Date.now(), notification });
    if (this.#waiting.length > KEPT) this.#waiting.shift(); // nobody reads so fast: the newest are shown
    if (this.#painting) return;
    this.#painting = true;
    setTimeout(() => {
      this.#painting = false;
      this.#paint();
    }, 100);
  }

  #paint(): void {
    this.#list.prepend(...this.#waiting.splice(0).reverse().map(row));
    while (this.#list.children.length > KEPT) this.#list.lastElementChild!.remove();
    this.#count();
  }

  #count(): void {
    tell($("tail-count"), this.#came ? `${count(this.#came)} received` : "");
    this.#hint();
  }

  #hint(): void {
    const hint = $("tail-empty");
    hint.hidden = this.#list.children.length > 0;
    tell(hint, this.#hub ? "Nothing has come yet. Publish something, here or from a terminal." : hint.dataset.idle!);
  }

  async #publish(): Promise<void> {
    const field = (name: string) => $<HTMLInputElement>(`publish-${name}`);
    const said = $("publish-said");
    const text = field("data").value;
    let data: unknown = text;
    try {
      data = JSON.parse(text);
    } catch {
      // A text that is no JSON is sent as it is.
    }
    const type = field("type").value.trim();
    this.#sender ??= connect({
      url: base,
      topics: [],
      rooms: false,
      share: "none",
      persist: "none",
      user: "",
      ...(currentToken() === undefined ? {} : { token: currentToken }),
    });
    try {
      const draft = { topic: field("topic").value.trim(), data, private: field("private").checked };
      const { id } = await this.#sender.publish(type ? { ...draft, type } : draft);
      said.dataset.tone = "good";
      tell(said, `Sent: ${id}`);
    } catch (error) {
      said.dataset.tone = "bad";
      tell(said, `Not sent: ${error instanceof Error ? error.message : why(error)}`);
    } finally {
      this.#sender.close({ forget: true });
      this.#sender = undefined;
    }
  }
}

function row({
  at,
  notification: { id, type, topics, data },
}: {
  at: number;
  notification: Notification;
}): HTMLLIElement {
  const text = typeof data === "string" ? data : JSON.stringify(data);
  return make(
    "li",
    {},
    make("time", {}, clock(at / 1_000)),
    make("span", { class: "tail-topics" }, topics.join(", ")),
    ...(type && type !== "message" ? [make("span", { class: "tag" }, type)] : []),
    make("code", { class: "id" }, id),
    make(
      "span",
      { class: "data", title: text.length > 300 ? text.slice(0, 2_000) : "" },
      text.length > 600 ? `${text.slice(0, 600)}…` : text,
    ),
  );
}
