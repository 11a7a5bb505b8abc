/**
 * Where the broker runs, and how a tab gets to it.
 *
 * In a SharedWorker where there is one; else in one of the tabs, the leader, which holds a Web Lock and is reached by
 * BroadcastChannels; else in the page itself. A broker may end at any time: with its tab, by a crash, or because it
 * hangs. Whoever notices looks for the next one, and the tab joins that with its cursor.
 */

import type { Broker } from "./broker.js";
import type { Env } from "./env.js";
import { type FromHost, nameOf, type Party, type ToHost, VERSION } from "./port.js";
import type { Tab } from "./tab.js";

/** `auto`: in a SharedWorker if that works, else in a leading tab, else alone. */
export type ShareMode = "auto" | "worker" | "leader" | "none";

/** Milliseconds after which a silent broker is asked whether it is there, in a tab that is looked at and in others. */
const SILENT = 3_000;
const SILENT_HIDDEN = 15_000;
/** Milliseconds that it has for an answer. A worker that has to be loaded first has longer. */
const ANSWER = 4_000;
const LOADING = 10_000;
/** A timer that is later than this says more of this page than of the broker. */
const LATE = 1_500;
/** Those who notice at the same time do not all act at the same time. */
const SPREAD = 400;

/** What is said to all tabs that share. */
type Call =
  | { is: "who" }
  | { is: "leader"; id: string }
  /** A tab is about to say something on a channel of its own. */
  | { is: "hello"; to: string; session: string };

/** A way to a broker that is there. */
interface Way {
  post(message: ToHost): void;
  close(): void;
}

interface ShareOptions {
  mode: ShareMode;
  party: Party;
  tab: Tab;
  env: Env;
  /** The script of the worker; by default it lies beside the one that this is. */
  worker?: string | URL;
  visible: () => boolean;
}

export class Share {
  readonly #options: ShareOptions;
  readonly #name: string;
  /** What ends the present way of sharing. */
  #end: (() => void) | undefined;
  #workerFails = 0;
  /** There was a worker once: if there is none now, the script can't be loaded for the moment. */
  #workerWorks = false;
  #alone = false;

  constructor(options: ShareOptions) {
    this.#options = options;
    this.#name = nameOf(options.party);
  }

  /** Where the broker of this tab runs now; undefined: there is none. */
  how: Exclude<ShareMode, "auto"> | undefined;

  /** Get to a broker, and to the next one when that ends, until `stop`. */
  start(): void {
    if (this.#end) return;
    const { mode } = this.#options;
    if (
      !this.#alone &&
      (mode === "auto" || mode === "worker") &&
      (this.#workerWorks || this.#workerFails < 2) &&
      hasWorkers()
    ) {
      this.how = "worker";
      this.#end = this.#shareWorker();
    } else if (!this.#alone && mode !== "none" && hasLeaders()) {
      this.how = "leader";
      this.#end = this.#shareLeader();
    } else {
      this.how = "none";
      this.#end = this.#stayAlone();
    }
  }

  /** Leave the broker; the others go on without this tab. */
  stop(): void {
    this.#end?.();
    this.#end = undefined;
    this.how = undefined;
  }

  /** Go on with a broker for this tab only: another has no room. */
  goAlone(): void {
    this.#alone = true;
    this.stop();
    this.start();
  }

  #again(): void {
    this.stop();
    this.start();
  }

  #againLater(): void {
    this.stop();
    this.#end = this.#options.env.after(ANSWER, () => this.#again());
  }

  // ---- a broker in this page ----

  #stayAlone(): () => void {
    const { party, env } = this.#options;
    let closed = false;
    let leave = () => {};
    let stop = () => {};
    void host().then(
      ({ makeBroker }) => {
        if (!closed) leave = this.#joinOwn(makeBroker(party, env), () => {});
      },
      () => {
        if (!closed) stop = env.after(ANSWER, () => this.#again());
      },
    );
    return () => {
      closed = true;
      stop();
      leave();
    };
  }

  /** Have the tab join `broker`, which runs in this page; `left` is called in the end. */
  #joinOwn(broker: Broker, left: () => void): () => void {
    const { tab } = this.#options;
    let ended = false;
    // In a turn of its own: what the tab answers must not come in the middle of what the broker does.
    const port = broker.connect((message) => queueMicrotask(() => ended || tab.take(message)));
    tab.join((message) => port.take(message));
    return () => {
      if (ended) return;
      ended = true;
      tab.part();
      broker.close();
      left();
    };
  }

  // ---- a broker in a worker ----

  #shareWorker(): () => void {
    const { party, tab, worker: script } = this.#options;
    let worker: SharedWorker | undefined;
    let joined = false;
    let closed = false;
    const aborter = new AbortController();
    const close = () => {
      closed = true;
      stopWatching();
      aborter.abort();
      tab.say({ is: "leave" });
      tab.part();
      worker?.port.close();
    };
    const failed = () => {
      if (closed) return;
      if (!joined) this.#workerFails += 1;
      if (!joined && this.#workerWorks) this.#againLater();
      else this.#again();
    };
    const watch = this.#watch(() => way.post({ is: "probe" }), failed, LOADING);
    const stopWatching = watch.stop;
    const way: Way = { post: (message) => worker?.port.postMessage(message), close };
    try {
      worker = openWorker(script, this.#name);
    } catch {
      // Not of this origin, or the page's policy has no place for it.
      queueMicrotask(failed);
      return close;
    }
    worker.onerror = failed;
    worker.port.onmessage = ({ data }: MessageEvent<FromHost>) => {
      if (closed) return;
      watch.heard();
      if (data.is === "here") {
        if (joined) return;
        // It was loaded before the hub was updated, or after it: it goes on for the tabs of its own version.
        if (data.version !== VERSION) return failed();
        joined = this.#workerWorks = true;
        tab.join(way.post);
        // The worker holds this lock for as long as it lives.
        void whenFree(this.#name, aborter.signal).then((free) => free && failed());
      } else if (data.is !== "alive") tab.take(data);
    };
    way.post({ is: "hello", party });
    return close;
  }

  // ---- a broker in one of the tabs ----

  #shareLeader(): () => void {
    const { party, tab, env } = this.#options;
    const me = crypto.randomUUID();
    const all = new BroadcastChannel(this.#name);
    const call = (message: Call) => all.postMessage(message);
    let aborter = new AbortController();
    let closed = false;
    let leader: string | undefined;
    let leave = () => {};
    let again = () => {};
    let terms = 0;
    let granted = false;
    let resign: (() => void) | undefined;
    let stopStealing: (() => void) | undefined;

    const follow = (id: string) => {
      if (id === leader) return;
      leave();
      leader = id;
      leave = this.#joinLeader(
        (session) => call({ is: "hello", to: id, session }),
        () => {
          leader = undefined;
          call({ is: "who" });
          steal(env.random() * SPREAD);
        },
      );
    };
    const lead = async () => {
      granted = true;
      if (closed) return;
      // Without it this tab can't lead: the lock goes to the next one, and this one asks for it again later.
      const mine = ++terms;
      const { makeBroker, hostSession } = await host();
      if (closed || mine !== terms) return;
      stopStealing?.();
      leave();
      const broker = makeBroker(party, env);
      const sessions = new Map<string, () => void>();
      leader = me;
      const withdraw = this.#joinOwn(broker, () => {
        for (const end of sessions.values()) end();
      });
      serve = (session) => sessions.set(session, hostSession(broker, `${this.#name} ${session}`));
      leave = () => {
        serve = undefined;
        leader = undefined;
        leave = () => {};
        withdraw();
        resign?.();
      };
      call({ is: "leader", id: me });
      await new Promise<void>((done) => {
        resign = done;
      });
    };
    let serve: ((session: string) => void) | undefined;
    /** Take the lock: when it is free, or from a leader that says nothing any more. */
    const stand = (rob: boolean) => {
      aborter.abort();
      aborter = new AbortController();
      const { signal } = aborter;
      const options = rob ? { steal: true } : { signal };
      const done = () => {
        if (!closed && !signal.aborted) stand(false);
      };
      navigator.locks.request(this.#name, options, lead).then(done, (error: Error) => {
        if (closed || signal.aborted) return;
        if (!granted && error.name !== "AbortError") return this.goAlone(); // this page may have no locks
        terms += 1;
        if (leader === me) leave();
        call({ is: "who" });
        // Robbed of it: another one leads. Or what a leader needs can't be loaded now.
        if (error.name === "AbortError") stand(false);
        else again = env.after(ANSWER, () => stand(false));
        steal(2 * ANSWER);
      });
    };
    const steal = (ms: number) => {
      stopStealing?.();
      stopStealing = env.after(ms, () => {
        if (!closed && leader === undefined) stand(true);
      });
    };

    all.onmessage = ({ data }: MessageEvent<Call>) => {
      if (closed) return;
      if (data.is === "who" && serve) call({ is: "leader", id: me });
      else if (data.is === "hello" && data.to === me) serve?.(data.session);
      else if (data.is === "leader") {
        stopStealing?.();
        follow(data.id);
      }
    };
    // Loaded before it is needed: when a leader ends, the network may be gone with it.
    void host().catch(() => {});
    stand(false);
    call({ is: "who" });
    steal(ANSWER);
    return () => {
      closed = true;
      stopStealing?.();
      again();
      leave();
      aborter.abort();
      resign?.();
      all.close();
      tab.part();
    };
  }

  /** Have the tab join the leader that `hello` reaches; `lost` is called when that one says nothing any more. */
  #joinLeader(hello: (session: string) => void, lost: () => void): () => void {
    const { tab } = this.#options;
    const session = crypto.randomUUID();
    const channel = new BroadcastChannel(`${this.#name} ${session}`);
    let joined = false;
    let closed = false;
    const post = (message: ToHost) => channel.postMessage(message);
    const watch = this.#watch(
      () => (joined ? post({ is: "probe" }) : hello(session)),
      () => {
        close();
        lost();
      },
      ANSWER,
    );
    const close = () => {
      if (closed) return;
      closed = true;
      watch.stop();
      if (joined) post({ is: "leave" });
      tab.part();
      channel.close();
    };
    channel.onmessage = ({ data }: MessageEvent<FromHost>) => {
      if (closed) return;
      watch.heard();
      if (data.is === "here") {
        if (joined) return;
        joined = true;
        tab.join(post);
      } else if (data.is !== "alive") tab.take(data);
    };
    hello(session);
    return close;
  }

  /** Watch over somebody who should speak: `ask` when there was silence, and call `lost` when that brings nothing. */
  #watch(ask: () => void, lost: () => void, first: number): { heard: () => void; stop: () => void } {
    const { env, visible } = this.#options;
    let heard = env.now();
    let asked: number | undefined = heard;
    let patience = first;
    let stop = () => {};
    const look = (ms: number) => {
      const due = env.now() + ms;
      stop = env.after(ms, () => {
        const now = env.now();
        if (asked !== undefined && now - due > LATE) {
          // This page was held back: what has come meanwhile is still to be read.
          asked = now;
          ask();
        } else if (asked !== undefined && now - asked >= patience) {
          lost();
          return;
        } else if (asked === undefined && now - heard >= (visible() ? SILENT : SILENT_HIDDEN)) {
          asked = now;
          ask();
        }
        look(asked === undefined ? SILENT : patience / 2);
      });
    };
    look(first / 2);
    return {
      heard: () => {
        heard = env.now();
        asked = undefined;
        patience = ANSWER;
      },
      stop: () => stop(),
    };
  }
}

/** Return true when nobody holds the lock `name` any more; false: the wait was ended, or there are no locks. */
async function whenFree(name: string, signal: AbortSignal): Promise<boolean> {
  if (!navigator.locks) return false;
  try {
    return await navigator.locks.request(`${name} worker`, { signal }, () => true);
  } catch {
    return false;
  }
}

function hasWorkers(): boolean {
  return typeof SharedWorker !== "undefined";
}

function hasLeaders(): boolean {
  try {
    new BroadcastChannel("hub-client").close();
    return navigator.locks !== undefined;
  } catch {
    return false;
  }
}

/** Load what runs a broker, where no worker does. */
async function host(): Promise<typeof import("./worker.js")> {
  const loaded = await import("./worker.js");
  if (loaded.VERSION !== VERSION) throw new Error("hub-client: the hub was updated: this page has to be loaded again");
  return loaded;
}

const tagged = typeof document === "undefined" ? undefined : (document.currentScript as HTMLScriptElement | null)?.src;

function openWorker(script: string | URL | undefined, name: string): SharedWorker {
  if (script !== undefined) return new SharedWorker(script, { type: "module", name });
  if (tagged) return new SharedWorker(new URL("hub-client.worker.js", tagged), { type: "module", name });
  // Written out as bundlers look for it.
  return new SharedWorker(new URL("./hub-client.worker.js", import.meta.url), { type: "module", name: name });
}
