/**
 * What the components of a page share: one client of the hub for all of them, with the topics that they want together.
 *
 * It belongs to no framework. A component makes a view, in any render, and that does nothing yet. It begins when the view is
 * subscribed to, which frameworks do on the page alone and never on a server.
 */

import {
  connect,
  type ConnectOptions,
  type Drop,
  type Gap,
  type Hub,
  type HubState,
  type LineError,
  type LineState,
  matches,
  type Notification,
  type Presence,
} from "./index.js";

/** What `connect` takes, but for what the components say. */
export type HubOptions = Omit<ConnectOptions, "topics" | "persistAs">;

/** What a component gets. */
export interface Followed<T = unknown> {
  /** The newest ones, in order, as many as are kept. */
  readonly notifications: readonly Notification<T>[];
  /** The newest one of them. */
  readonly last: Notification<T> | undefined;
  /** The last gap: something is missing before this id, so what was loaded before may have to be loaded again. */
  readonly gap: Gap | undefined;
  /** Why the hub refuses one of the topics, such as `forbidden`. */
  readonly refused: string | undefined;
  /** How the line is; `closed`: nothing is followed. */
  readonly state: LineState;
  /** Why, if it is not open. */
  readonly reason: string | undefined;
  /** Milliseconds until it tries again. */
  readonly retryIn: number | undefined;
}

export interface Handlers<T = unknown> {
  onNotification?: ((notification: Notification<T>) => void) | undefined;
  onGap?: ((gap: Gap) => void) | undefined;
  onDrop?: ((drop: Drop) => void) | undefined;
}

/** What a component follows. */
export interface Wanted {
  topics: readonly string[];
  /** Of these types only; none: of all. */
  types?: readonly string[];
  /** How many notifications are kept; 0: none, then a notification changes nothing but calls the handlers. */
  keep?: number;
  presence?: boolean;
}

/** How long topics and the line are kept after the last component is gone: the next page may want them again. */
const LINGER = 1_000;
const KEEP = 100;
const DEFAULT_TOPICS: readonly string[] = ["notifications"];

export const BEFORE: Followed<never> = Object.freeze({
  notifications: Object.freeze([]),
  last: undefined,
  gap: undefined,
  refused: undefined,
  state: "connecting",
  reason: undefined,
  retryIn: undefined,
});
export const NOTHING: Followed<never> = Object.freeze({ ...BEFORE, state: "closed" });

/** What of the surroundings a feed uses; tests bring their own. */
export interface FeedEnv {
  connect: typeof connect;
  /** Call `then` once after `ms` milliseconds; return what stops it. */
  after(ms: number, then: () => void): () => void;
}

const PAGE: FeedEnv = {
  connect,
  after(ms, then) {
    const timer = setTimeout(then, ms);
    return () => clearTimeout(timer);
  },
};

export class Feed {
  readonly #options: () => HubOptions;
  readonly #env: FeedEnv;
  readonly #views = new Set<View>();
  /** What the hub follows, or was asked to. */
  readonly #topics = new Set<string>();
  readonly #refused = new Map<string, string>();
  readonly #present = new Map<string, Presence>();
  #hub: Hub | undefined;
  #hasPresence = false;
  #ended = false;
  #settling = false;
  #stopTidying: (() => void) | undefined;

  /** @param options what it connects with; asked when it does, and `token` whenever a token is needed. */
  constructor(options: () => HubOptions, env: FeedEnv = PAGE) {
    this.#options = options;
    this.#env = env;
  }

  get options(): HubOptions {
    return this.#options();
  }

  /** Where the first line begins. What is wanted after it was closed begins with what is new. */
  get #start(): HubOptions["start"] {
    return this.#ended ? undefined : this.options.start;
  }

  /** How the line is; undefined: there is none. */
  get state(): HubState | undefined {
    return this.#hub?.state;
  }

  /** Return why one of `topics` is refused. */
  refusal(topics: readonly string[]): string | undefined {
    for (const topic of topics) if (this.#refused.has(topic)) return this.#refused.get(topic);
    return undefined;
  }

  presence(topic: string): Presence | undefined {
    return this.#present.get(topic);
  }

  /** Return the topics that are meant by none, and nothing for the rooms of the user, which the hub adds by itself. */
  topicsOf(topics: readonly string[]): readonly string[] {
    return topics.length ? topics : this.options.rooms ? [] : DEFAULT_TOPICS;
  }

  /** Have the view get what it wants; return what ends that. */
  follow(view: View): () => void {
    this.#views.add(view);
    // All components of a page begin in one go: the line is opened after that, with the topics of all.
    if (!this.#settling) {
      this.#settling = true;
      queueMicrotask(() => {
        this.#settling = false;
        this.#settle();
      });
    }
    return () => {
      if (!this.#views.delete(view)) return;
      this.#stopTidying?.();
      this.#stopTidying = this.#env.after(LINGER, () => this.#tidy());
    };
  }

  /** Close the line now. It opens again for the next view. */
  close(): void {
    this.#stopTidying?.();
    // Whoever comes later begins with what is new then, as with a topic that is added to an open line.
    if (this.#hub) this.#ended = true;
    this.#let("forget");
    this.#refused.clear();
    this.#present.clear();
  }

  #let(cursor: "forget" | "keep"): void {
    const hub = this.#hub;
    this.#hub = undefined;
    this.#topics.clear();
    hub?.close({ forget: cursor === "forget" });
  }

  #wanted(): Set<string> {
    const wanted = new Set<string>();
    for (const view of this.#views) for (const topic of this.topicsOf(view.wanted.topics)) wanted.add(topic);
    return wanted;
  }

  #settle(): void {
    if (!this.#views.size) return;
    const wanted = this.#wanted();
    const presence = [...this.#views].some((view) => view.wanted.presence);
    if (!this.#hub) this.#open(wanted, presence, this.#start);
    else if (presence && !this.#hasPresence) {
      // Another line can tell who is there. It goes on exactly where this one was.
      const { cursor } = this.#hub;
      for (const topic of this.#topics) wanted.add(topic);
      this.#let("keep");
      this.#open(wanted, true, cursor ?? this.#start);
    } else for (const topic of wanted) this.#add(topic);
  }

  #open(topics: Set<string>, presence: boolean, start: HubOptions["start"]): void {
    const { start: _, onGap, onDrop, onState, onRefused, token, ...options } = this.options;
    this.#hasPresence = presence || options.presence === true;
    for (const topic of topics) this.#topics.add(topic);
    let hub: Hub | undefined;
    // The functions of the options may be others in each render: the newest are called.
    hub = this.#env.connect({
      ...options,
      topics: [...topics],
      presence: this.#hasPresence,
      // The topics change while the page lives, so the cursor can't be kept under their names.
      persistAs: "components",
      ...(start === undefined ? {} : { start }),
      ...(token ? { token: () => this.options.token?.() } : {}),
      onGap: (gap) => {
        this.options.onGap?.(gap);
        this.#each((view) => view.lose(gap));
      },
      onDrop: (drop) => {
        this.options.onDrop?.(drop);
        this.#each((view) => view.handlers.onDrop?.(drop));
      },
      onState: (state) => {
        if (this.#hub !== hub) return;
        this.options.onState?.(state);
        this.#each((view) => view.look());
      },
      onRefused: (refused) => {
        this.options.onRefused?.(refused);
        for (const topic of refused.topics) this.#refuse(topic, refused.reason);
      },
    });
    this.#hub = hub;
    hub.onAny((notification) => this.#each((view) => view.take(notification)));
    hub.presence.on((presence) => {
      this.#present.set(presence.topic, presence);
      this.#each((view) => view.look());
    });
    this.#each((view) => view.look());
  }

  #add(topic: string): void {
    const hub = this.#hub!;
    if (this.#topics.has(topic) || this.#refused.has(topic)) return;
    this.#topics.add(topic);
    // Each by itself: one that is refused keeps no other away.
    hub.add(topic).catch((error: LineError) => {
      if (this.#hub === hub) this.#refuse(topic, error.code || error.message);
    });
  }

  #refuse(topic: string, reason: string): void {
    this.#topics.delete(topic);
    this.#refused.set(topic, reason);
    this.#each((view) => view.look());
  }

  #tidy(): void {
    if (!this.#views.size) {
      this.close();
      return;
    }
    const wanted = this.#wanted();
    for (const topic of this.#refused.keys()) if (!wanted.has(topic)) this.#refused.delete(topic);
    const remove = [...this.#topics].filter((topic) => !wanted.has(topic));
    if (!remove.length) return;
    for (const topic of remove) {
      this.#topics.delete(topic);
      this.#present.delete(topic);
    }
    this.#hub?.remove(...remove).catch(() => {}); // closed meanwhile: then they are gone, too
  }

  /** Tell all views; one whose component fails keeps it from no other. */
  #each(tell: (view: View) => void): void {
    for (const view of [...this.#views]) {
      try {
        tell(view);
      } catch (error) {
        reportError(error);
      }
    }
  }
}

/** What one component sees. */
export class View<T = unknown> {
  readonly wanted: Wanted;
  /** The handlers of the component; it may change them. */
  handlers: Handlers<T> = {};
  readonly #feed: Feed;
  readonly #changed = new Set<() => void>();
  readonly #keep: number;
  #kept: readonly Notification<T>[] = [];
  #gap: Gap | undefined;
  #seen: Followed<T> = BEFORE;
  #unfollow: (() => void) | undefined;

  constructor(feed: Feed, wanted: Wanted) {
    this.#feed = feed;
    this.wanted = wanted;
    this.#keep = wanted.keep ?? KEEP;
  }

  /** What there is now; the same object as long as nothing changes. */
  readonly snapshot = (): Followed<T> => this.#seen;

  /** Begin to follow, and call `changed` after each change; return what ends it. */
  readonly subscribe = (changed: () => void): (() => void) => {
    this.#changed.add(changed);
    this.#unfollow ??= this.#feed.follow(this as View);
    this.look();
    return () => {
      this.#changed.delete(changed);
      if (this.#changed.size) return;
      this.#unfollow?.();
      this.#unfollow = undefined;
    };
  };

  /** Who is on the only topic. */
  readonly present = (): Presence | undefined => this.#feed.presence(this.wanted.topics[0]!);

  /** Forget the notifications and the gap. */
  readonly clear = (): void => {
    this.#kept = [];
    this.#gap = undefined;
    this.#show();
  };

  take(notification: Notification): void {
    const { topics, types } = this.wanted;
    if (types?.length && !types.includes(notification.type)) return;
    const patterns = this.#feed.topicsOf(topics);
    const isMine = (topic: string) =>
      patterns.length ? patterns.some((pattern) => matches(pattern, topic)) : topic.startsWith("room/");
    if (!notification.topics.some(isMine)) return;
    if (this.#keep > 0) {
      this.#kept = [...this.#kept, notification as Notification<T>].slice(-this.#keep);
      this.#show();
    }
    this.handlers.onNotification?.(notification as Notification<T>);
  }

  lose(gap: Gap): void {
    this.#gap = gap;
    this.#show();
    this.handlers.onGap?.(gap);
  }

  /** Look how the line is, and who is there. */
  look(): void {
    const { state, reason, retryIn } = this.#feed.state ?? BEFORE;
    const refused = this.#feed.refusal(this.#feed.topicsOf(this.wanted.topics));
    const seen = this.#seen;
    if (seen.state !== state || seen.reason !== reason || seen.retryIn !== retryIn || seen.refused !== refused) {
      this.#seen = { ...seen, state, reason, retryIn, refused };
    } else if (!this.wanted.presence) return;
    this.#tell();
  }

  #show(): void {
    this.#seen = { ...this.#seen, notifications: this.#kept, last: this.#kept.at(-1), gap: this.#gap };
    this.#tell();
  }

  #tell(): void {
    for (const changed of [...this.#changed]) changed();
  }
}

const feeds = new Map<string, Feed>();

/** Return the feed of the components that have no provider: one per hub. */
export function feedAt(url: string): Feed {
  let feed = feeds.get(url);
  if (!feed) {
    feed = new Feed(() => ({ url }));
    feeds.set(url, feed);
  }
  return feed;
}

/** Return what makes a feed another one: with other handlers, or another function for tokens, it stays the same. */
export function identityOf({ url, user, share, persist, rooms, presence, worker }: HubOptions): string {
  return JSON.stringify([url ?? "/", user, share, persist, rooms, presence, worker]);
}

export function listOf(one: string | readonly string[] | null | undefined): readonly string[] {
  return typeof one === "string" ? [one] : (one ?? []);
}
