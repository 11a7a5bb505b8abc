/** Hooks for React. Nothing begins before a component is on the page, so they may be rendered on a server. */

import {
  createContext,
  createElement,
  type ReactElement,
  type ReactNode,
  useContext,
  useEffect,
  useMemo,
  useRef,
  useSyncExternalStore,
} from "react";
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
  /** How many notifications are kept; default: 100. 0: none, and a notification renders nothing anew. */
  keep?: number;
  /** Where the hub is mounted, for components without a provider, or with another one; default: `/`. */
  url?: string;
}

export interface UseNotifications<T = unknown> extends Followed<T> {
  /** Forget the notifications and the gap. */
  clear(): void;
}

export interface UseTokenStreamOptions extends TokenStreamOptions {
  /** Where the hub is mounted, for components without a provider, or with another one; default: `/`. */
  url?: string;
}

export interface UseTokenStream extends Tokens {
  /** Ask; resolves with the whole text. An answer that still grows is stopped. */
  ask(prompt: string | Record<string, unknown>): Promise<string>;
  /** Show an answer that has begun. */
  attach(sessionId: string): Promise<string>;
  /** Stop the answer, and what makes it. */
  stop(): Promise<void>;
  /** Show nothing; the answer goes on. */
  clear(): void;
}

const FeedContext = createContext<Feed | undefined>(undefined);

/** Say how the components below connect. All of them share one line, which is open while one of them needs it. */
export function HubProvider({ children, ...options }: HubOptions & { children?: ReactNode }): ReactElement {
  const newest = useRef<HubOptions>(options);
  useEffect(() => {
    newest.current = options;
  });
  const identity = identityOf(options);
  // Another hub or another user is another feed; a function that is made anew in each render is not.
  const feed = useMemo(() => new Feed(() => newest.current), [identity]);
  useEffect(() => () => feed.close(), [feed]);
  return createElement(FeedContext.Provider, { value: feed }, children);
}

function useFeed(url: string | undefined): Feed {
  const provided = useContext(FeedContext);
  return url === undefined && provided ? provided : feedAt(url ?? "/");
}

/**
 * Return the notifications of topics and patterns as they come, how the line is, and what is missing.
 *
 * @param topics null: follow nothing, for as long as the topic is not known. None: `notifications`, or the rooms of the user.
 */
export function useNotifications<T = unknown>(
  topics: string | readonly string[] | null = [],
  options: UseNotificationsOptions<T> = {},
): UseNotifications<T> {
  const { type, keep, url, onNotification, onGap, onDrop } = options;
  const feed = useFeed(url);
  const wanted = topics === null ? "" : JSON.stringify({ topics: listOf(topics), types: listOf(type), keep });
  const view = useMemo(() => (wanted ? new View<T>(feed, JSON.parse(wanted)) : undefined), [feed, wanted]);
  useEffect(() => {
    if (view) view.handlers = { onNotification, onGap, onDrop };
  });
  const followed = useSyncExternalStore<Followed<T>>(
    view?.subscribe ?? toNothing,
    view?.snapshot ?? nothing,
    view ? before : nothing,
  );
  return useMemo(() => ({ ...followed, clear: () => view?.clear() }), [followed, view]);
}

/** Return who is on `topic`: `{topic, count, users}`; undefined until the hub has said it. It follows the topic, too. */
export function usePresence(topic: string | null, { url }: { url?: string } = {}): Presence | undefined {
  const feed = useFeed(url);
  const view = useMemo(
    () => (topic === null ? undefined : new View(feed, { topics: [topic], keep: 0, presence: true })),
    [feed, topic],
  );
  return useSyncExternalStore(view?.subscribe ?? toNothing, view?.present ?? undefinedYet, undefinedYet);
}

/** Return an answer of an AI as it grows, and what asks for one. */
export function useTokenStream({ url, name, sessionId }: UseTokenStreamOptions = {}): UseTokenStream {
  const feed = useFeed(url);
  const stream = useMemo(() => new TokenStream(() => feed.options, { name, sessionId }), [feed, name, sessionId]);
  const tokens = useSyncExternalStore(stream.subscribe, stream.snapshot, idle);
  return useMemo(() => {
    const { ask, attach, stop, clear } = stream;
    return { ...tokens, ask, attach, stop, clear };
  }, [tokens, stream]);
}

const toNothing = () => () => {};
const nothing = () => NOTHING;
const before = () => BEFORE;
const idle = () => IDLE;
const undefinedYet = () => undefined;
