/** What a tab and its broker tell each other. Each message can be posted to a worker or another page. */

import type { LineEvent, Start } from "./line.js";
import type { WireMode } from "./wires.js";

/** What a tab is told of its topics: what a line tells, and which topics it was refused. */
export type TabEvent =
  | Exclude<LineEvent, { kind: "open" }>
  /** Its first event: the tab begins after `id`. */
  | { kind: "open"; id: string; recovered: boolean | null; reason?: string; oldest?: string }
  /** It does not have these topics any more. */
  | { kind: "refused"; topics: string[]; reason: string };

/** Why a change of topics was not made. */
export interface Refusal {
  status: number;
  code: string;
  detail: string;
  topic?: string;
}

export type ToTab =
  /** What has happened, in order; to be answered with `ack`. */
  | { is: "events"; number: number; events: TabEvent[] }
  /** To a `change` or a `send`, of which `told` is what the hub has answered. */
  | { is: "answer"; ref: number; refusal?: Refusal; told?: Record<string, unknown> }
  | { is: "token"; ref: number }
  /** Are you there? */
  | { is: "ping" }
  /** You have taken nothing for too long: join again, with your cursor. */
  | { is: "gone" }
  /** The topics of all tabs together are too many for one line: take one of your own. */
  | { is: "full" };

export type FromTab =
  | { is: "join"; topics: string[]; cursor?: string; start?: Start; token: boolean; visible: boolean }
  | { is: "change"; ref: number; add: string[]; remove: string[] }
  /** Ask the hub for `op` over the line, if that goes both ways. */
  | { is: "send"; ref: number; op: string; facts: object }
  | { is: "ack"; number: number }
  | { is: "token"; ref: number; token?: string; failed?: boolean }
  | { is: "pong" }
  | { is: "visible"; visible: boolean }
  /** Look now whether the line is alive; online: there is a network again, perhaps another one. */
  | { is: "wake"; online?: boolean }
  | { is: "leave" };

/** What all who share a line have in common. */
export interface Party {
  /** The address of the hub, in full. */
  url: string;
  /** Tabs of different users never share a line. */
  user: string;
  rooms: boolean;
  presence: boolean;
  wire: WireMode;
}

/** What goes to a broker elsewhere beside what tabs and brokers say. */
export type ToHost = FromTab | { is: "hello"; party: Party } | { is: "probe" };
export type FromHost = ToTab | { is: "here"; version: number } | { is: "alive" };

/** Both sides have to be of the same version: change it whenever what they say, or what it means, changes. */
export const VERSION = 3;

/** What those who share a line call it: the worker, the lock, the channel. */
export function nameOf({ url, user, rooms, presence, wire }: Party): string {
  return `hub-client ${VERSION} ${url} ${user} ${rooms ? "rooms" : ""} ${presence ? "presence" : ""} ${wire}`;
}
