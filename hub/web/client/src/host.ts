/** A broker where it runs: in a worker, or in a page that has none. Pages load this only then. */

import { Broker } from "./broker.js";
import type { Env } from "./env.js";
import { makeLine } from "./line.js";
import { type FromHost, type Party, type ToHost, VERSION } from "./port.js";

export function makeBroker(party: Party, env: Env): Broker {
  return new Broker({
    rooms: party.rooms,
    presence: party.presence,
    makeLine: (options) => makeLine({ ...options, url: party.url, wire: party.wire, env }),
    now: env.now,
    after: env.after,
    soon: (then) => queueMicrotask(then),
  });
}

/** Serve a tab that is reached by the channel `name`. */
export function hostSession(broker: Broker, name: string): () => void {
  const channel = new BroadcastChannel(name);
  const end = hostPort(broker, (message) => channel.postMessage(message));
  channel.onmessage = ({ data }: MessageEvent<ToHost>) => {
    end.take(data);
    if (data.is === "leave") channel.close();
  };
  return () => channel.close();
}

/** Serve a tab: say that the broker is here, and take what the tab says. */
export function hostPort(broker: Broker, post: (message: FromHost) => void): { take: (message: ToHost) => void } {
  const port = broker.connect(post);
  const here: FromHost = { is: "here", version: VERSION };
  post(here);
  return {
    take: (message) => {
      if (message.is === "probe") post({ is: "alive" });
      else if (message.is === "hello") post(here);
      else port.take(message);
    },
  };
}
