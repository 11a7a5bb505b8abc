/** Who is there, who belongs to which room, and whose rights were taken back. */

import { type Facts, get, query, remove, why } from "./api.js";
import { $, clock, count, make, Table, tell, twice } from "./dom.js";

interface Present {
  id: string;
  info?: Record<string, unknown>;
  since: string;
}

interface Member {
  id: string;
  publish: boolean;
  since: string;
  from: string;
}

interface Revocation {
  kind: "user" | "token";
  id: string;
  at: string;
}

const MOST = 200;

export class People {
  #timer: ReturnType<typeof setTimeout> | undefined;
  readonly #present = new Table<Present>(
    $("present"),
    [
      { title: "User", cell: ({ id }) => make("a", { href: `#streams?user=${encodeURIComponent(id)}` }, id) },
      {
        title: "Info",
        cell: ({ info }) => (info && Object.keys(info).length ? make("code", {}, JSON.stringify(info)) : "–"),
      },
      { title: "Since", number: true, cell: ({ since }) => clock(since) },
    ],
    ({ id }) => id,
  );
  readonly #members = new Table<Member>(
    $("members"),
    [
      { title: "Member", cell: ({ id }) => make("a", { href: `#streams?user=${encodeURIComponent(id)}` }, id) },
      { title: "May send", cell: ({ publish }) => (publish ? "yes" : "no") },
      { title: "Reads after", cell: ({ from }) => make("code", {}, from) },
      { title: "Since", number: true, cell: ({ since }) => new Date(since).toLocaleString("en-GB") },
    ],
    ({ id }) => id,
  );
  readonly #revocations = new Table<Revocation>(
    $("revocations"),
    [
      { title: "When", cell: ({ at }) => clock(at) },
      { title: "What", cell: ({ kind }) => kind },
      { title: "Id", cell: ({ id }) => make("code", {}, id) },
    ],
    ({ kind, id, at }) => `${kind} ${id} ${at}`,
  );

  constructor(facts: Facts) {
    $("presence-panel").hidden = !facts.presence;
    $("rooms-panel").hidden = !facts.rooms || !facts.guarded;
    $("revocations-panel").hidden = !facts.guarded;
    submitted("presence-form", () => void this.#readPresence());
    submitted("rooms-form", () => void this.#readMembers());
    const form = $<HTMLFormElement>("revoke-form");
    form.addEventListener("submit", (event) => event.preventDefault());
    twice($<HTMLButtonElement>("revoke"), "Really revoke?", () => form.reportValidity() && void this.#revoke(form));
  }

  enter(asked: URLSearchParams): void {
    const topic = asked.get("topic");
    if (topic?.startsWith("room/") && !$("rooms-panel").hidden) {
      $<HTMLInputElement>("room-name").value = roomOf(topic) ?? "";
      void this.#readMembers();
    }
    if (topic !== null) $<HTMLInputElement>("presence-topic").value = topic;
    this.#again();
  }

  leave(): void {
    clearTimeout(this.#timer);
  }

  #again(): void {
    clearTimeout(this.#timer);
    void this.#readPresence();
    void this.#readRevocations();
    void this.#readRooms();
    this.#timer = setTimeout(() => this.#again(), 4_000);
  }

  async #readPresence(): Promise<void> {
    const topic = $<HTMLInputElement>("presence-topic").value.trim();
    if (!topic || $("presence-panel").hidden) return;
    const said = $("presence-said");
    try {
      const { count: number, users = [] } = await get<{ count: number; users?: Present[] }>(
        `notifications/presence?${query({ topic, limit: MOST })}`,
      );
      this.#present.show(users);
      $("present").hidden = users.length === 0;
      tell(
        said,
        number
          ? `${count(number)} on ${topic}${number > users.length ? `; here are ${users.length}` : ""}.`
          : `No known user is on ${topic} now.`,
      );
    } catch (error) {
      tell(said, why(error));
    }
  }

  async #readMembers(): Promise<void> {
    const room = $<HTMLInputElement>("room-name").value.trim();
    if (!room) return;
    const said = $("rooms-said");
    try {
      const path = `notifications/rooms/${encodeURIComponent(room)}/members?limit=${MOST}`;
      const { members, next } = await get<{ members: Member[]; next: string | null }>(path);
      this.#members.show(members);
      $("members").hidden = members.length === 0;
      tell(
        said,
        members.length
          ? `${count(members.length)}${next ? " and more" : ""} in ${room}.`
          : `Nobody belongs to ${room}.`,
      );
    } catch (error) {
      tell(said, why(error));
    }
  }

  /** Rooms that somebody reads now, so that nobody has to know their names. */
  async #readRooms(): Promise<void> {
    if ($("rooms-panel").hidden) return;
    const { topics } = await get<{ topics: { topic: string }[] }>(
      `dashboard/topics?${query({ q: "room/", limit: 12 })}`,
    ).catch(() => ({ topics: [] }));
    const rooms = topics.flatMap(({ topic }) => roomOf(topic) ?? []);
    const list = $("rooms");
    if (list.dataset.now === rooms.join("\n")) return;
    list.dataset.now = rooms.join("\n");
    list.replaceChildren(
      ...rooms.map((room) => {
        const button = make("button", { type: "button", class: "chip" }, room);
        button.addEventListener("click", () => {
          $<HTMLInputElement>("room-name").value = room;
          void this.#readMembers();
        });
        return button;
      }),
    );
  }

  async #readRevocations(): Promise<void> {
    if ($("revocations-panel").hidden) return;
    try {
      const { revocations } = await get<{ revocations: Revocation[] }>("dashboard/revocations");
      this.#revocations.show(revocations);
      $("revocations").hidden = revocations.length === 0;
      $("revocations-empty").hidden = revocations.length > 0;
    } catch (error) {
      tell($("revoke-said"), why(error));
    }
  }

  async #revoke(form: HTMLFormElement): Promise<void> {
    const { kind, id } = Object.fromEntries(new FormData(form)) as { kind: string; id: string };
    const name = encodeURIComponent(id.trim());
    const said = $("revoke-said");
    try {
      await remove(kind === "user" ? `notifications/users/${name}/connections` : `notifications/tokens/${name}`);
      tell(said, `Revoked: ${kind} ${id.trim()}.`);
      form.reset();
    } catch (error) {
      tell(said, why(error));
    }
    void this.#readRevocations();
  }
}

/** The room that a topic belongs to; none, if its name is not one: a reader may follow any topic with `%`. */
function roomOf(topic: string): string | undefined {
  const name = /^room\/([^*/]+)$/.exec(topic)?.[1];
  try {
    return name && decodeURIComponent(name);
  } catch {
    return undefined;
  }
}

function submitted(form: string, then: () => void): void {
  $(form).addEventListener("submit", (event) => {
    event.preventDefault();
    then();
  });
}
