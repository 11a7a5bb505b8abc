/** The script of the SharedWorker: the broker of all tabs that have opened it by the same name. A page may load it, too. */

import type { Broker } from "./broker.js";
import { surroundings } from "./env.js";
import { hostPort, makeBroker } from "./host.js";
import { nameOf, type ToHost } from "./port.js";

export { hostSession, makeBroker } from "./host.js";
export { VERSION } from "./port.js";

interface SharedWorkerScope {
  onconnect: ((event: MessageEvent) => void) | null;
}

let broker: Promise<Broker> | undefined;

if ("SharedWorkerGlobalScope" in globalThis)
  (globalThis as unknown as SharedWorkerScope).onconnect = ({ ports: [port] }) => {
    let end: ReturnType<typeof hostPort> | undefined;
    port!.onmessage = async ({ data }: MessageEvent<ToHost>) => {
      if (data.is === "hello") {
        broker ??= locked(`${nameOf(data.party)} worker`).then(() => makeBroker(data.party, surroundings()));
        const made = await broker;
        end ??= hostPort(made, (message) => port!.postMessage(message));
      } else end?.take(data);
    };
  };

/** Hold the lock `name` until this worker ends: its tabs wait for it, and know by that. */
function locked(name: string): Promise<void> {
  return new Promise((held) => {
    if (!navigator.locks) held();
    else {
      navigator.locks
        .request(name, () => {
          held();
          return new Promise(() => {});
        })
        .catch(held);
    }
  });
}
