/** Composables for Vue. Nothing begins before a component is on the page, so they may be rendered on a server. */

import {
  type App,
  computed,
  type ComputedRef,
  getCurrentInstance,
  getCurrentScope,
  inject,
  type InjectionKey,
  type MaybeRefOrGetter,
  onMounted,
  onScopeDispose,
  provide,
  shallowRef,
  type ShallowRef,
  toValue,
  watch,
} from "vue";
import {
  BEFORE,
  Feed,
  feedAt,
  type Followed,
  type Handlers,
  type HubOptions,
  identityOf,
  listOf,
  NOTHING,
  View,
} from "./feed.js";
import type { Presence } from "./index.js";
import { IDLE, type Tokens, TokenStream, type TokenStreamOptions } from "./tokens.js";

export type { Followed, Handlers, HubOptions, Tokens, TokenStreamOptions };

export interface UseNotificationsOptions<T = unknown> extends Handlers<T> {
  /** Only those of this type, or of these; those without a type have the type `message`. */
  type?: string | readonly string[];
  /** How many notifications are kept; default: 100. */
  keep?: number;
  /** Where the hub is mounted, for components without a provider, or with another one; default: `/`. */
  url?: string;
}

type Refs<T> = { readonly [Name in keyof T]: ComputedRef<T[Name]> };

export interface UseNotifications<T = unknown> extends Refs<Followed<T>> {
  /** Forget the notifications and the gap. */
  clear(): void;
}

export interface UseTokenStreamOptions extends TokenStreamOptions {
  /** Where the hub is mounted, for components without a provider, or with another one; default: `/`. */
  url?: string;
}

export interface UseTokenStream extends Refs<Tokens> {
  /** Ask; resolves with the whole text. An answer that still grows is stopped. */
  ask(prompt: string | Record<string, unknown>): Promise<string>;
  /** Show an answer that has begun. */
  attach(sessionId: string): Promise<string>;
  /** Stop the answer, and what makes it. */
  stop(): Promise<void>;
  /** Show nothing; the answer goes on. */
  clear(): void;
}

const FEED: InjectionKey<ComputedRef<Feed>> = Symbol("hub-client");

/** Say how the components of an application connect: `app.use(hubPlugin, options)`. All of them share one line. */
export const hubPlugin = {
  install(app: App, options: MaybeRefOrGetter<HubOptions> = {}): void {
    app.provide(FEED, feedOf(options));
  },
};

/** Say how the components below this one connect. All of them share one line, which is open while one of them needs it. */
export function provideHub(options: MaybeRefOrGetter<HubOptions> = {}): void {
  const feed = feedOf(options);
  // Of another user nothing more comes, not even for a moment.
  watch(feed, (_, before) => before.close());
  onScopeDispose(() => feed.value.close());
  provide(FEED, feed);
}

function feedOf(options: MaybeRefOrGetter<HubOptions>): ComputedRef<Feed> {
  let identity: string | undefined;
  let feed: Feed | undefined;
  return computed(() => {
    const wanted = identityOf(toValue(options));
    if (!feed || wanted !== identity) feed = new Feed(() => toValue(options));
    identity = wanted;
    return feed;
  });
}

function useFeed(url: string | undefined): ComputedRef<Feed> {
  const provided = url === undefined ? inject(FEED, undefined) : undefined;
  return provided ?? computed(() => feedAt(url ?? "/"));
}

/** Run `begin` when the component is on the page, or now in a scope of its own; on a server never. What it returns ends it. */
function whileShown(begin: () => () => void): void {
  let end: (() => void) | undefined;
  if (getCurrentInstance()) onMounted(() => (end = begin()));
  else if (typeof document !== "undefined") end = begin();
  if (getCurrentScope()) onScopeDispose(() => end?.());
}

/** Keep `seen` up to date with what `make` makes, which is made anew when one of `sources` changes. */
function useStore<S>(
  seen: ShallowRef<S>,
  sources: readonly (() => unknown)[],
  make: () => { subscribe(changed: () => void): () => void; look(): S } | undefined,
  otherwise: S,
): void {
  whileShown(() => {
    let end: (() => void) | undefined;
    const begin = () => {
      end?.();
      const store = make();
      const look = () => {
        seen.value = store ? store.look() : otherwise;
      };
      end = store?.subscribe(look);
      look();
    };
    begin();
    const unwatch = watch([...sources], begin);
    return () => {
      unwatch();
      end?.();
    };
  });
}

/**
 * Return the notifications of topics and patterns as they come, how the line is, and what is missing.
 *
 * @param topics null: follow nothing, for as long as the topic is not known. None: `notifications`, or the rooms of the user.
 */
export function useNotifications<T = unknown>(
  topics: MaybeRefOrGetter<string | readonly string[] | null> = [],
  options: UseNotificationsOptions<T> = {},
): UseNotifications<T> {
  const { type, keep, url } = options;
  const feed = useFeed(url);
  const wanted = computed(() => {
    const now = toValue(topics);
    return now === null ? "" : JSON.stringify({ topics: listOf(now), types: listOf(type), keep });
  });
  const seen = shallowRef<Followed<T>>(wanted.value ? BEFORE : NOTHING);
  let view: View<T> | undefined;
  useStore(
    seen,
    [() => feed.value, () => wanted.value],
    () => {
      view = wanted.value ? new View<T>(feed.value, JSON.parse(wanted.value)) : undefined;
      if (!view) return undefined;
      view.handlers = options;
      return { subscribe: view.subscribe, look: view.snapshot };
    },
    NOTHING,
  );
  return { ...refsOf(seen, BEFORE), clear: () => view?.clear() };
}

/** Return who is on `topic`: `{topic, count, users}`; undefined until the hub has said it. It follows the topic, too. */
export function usePresence(
  topic: MaybeRefOrGetter<string | null>,
  { url }: { url?: string } = {},
): ShallowRef<Presence | undefined> {
  const feed = useFeed(url);
  const seen = shallowRef<Presence | undefined>();
  useStore(
    seen,
    [() => feed.value, () => toValue(topic)],
    () => {
      const wanted = toValue(topic);
      if (wanted === null) return undefined;
      const view = new View(feed.value, { topics: [wanted], keep: 0, presence: true });
      return { subscribe: view.subscribe, look: view.present };
    },
    undefined,
  );
  return seen;
}

/** Return an answer of an AI as it grows, and what asks for one. */
export function useTokenStream({ url, name, sessionId }: UseTokenStreamOptions = {}): UseTokenStream {
  const feed = useFeed(url);
  const seen = shallowRef<Tokens>(IDLE);
  const make = () => new TokenStream(() => feed.value.options, { name, sessionId });
  let stream = make();
  useStore(
    seen,
    [() => feed.value],
    () => {
      stream = make();
      return { subscribe: stream.subscribe, look: stream.snapshot };
    },
    IDLE,
  );
  return {
    ...refsOf(seen, IDLE),
    ask: (prompt) => stream.ask(prompt),
    attach: (id) => stream.attach(id),
    stop: () => stream.stop(),
    clear: () => stream.clear(),
  };
}

/** Return a reference to each fact of `seen`, which has those that `sample` has. */
function refsOf<S extends object>(seen: ShallowRef<S>, sample: S): Refs<S> {
  const names = Object.keys(sample) as (keyof S)[];
  return Object.fromEntries(names.map((name) => [name, computed(() => seen.value[name])])) as Refs<S>;
}
