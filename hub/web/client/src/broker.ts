/**
 * One line to the hub for many tabs.
 *
 * Each tab has topics and a cursor of its own. The main line carries the topics of all; its newest messages are kept in
 * a ring. A tab whose cursor the ring reaches goes on from there. One that is further behind is brought up by an extra
 * line, together with others that are, until its cursor meets the ring. There are never more than these two lines.
 *
 * Pure: time, lines and ports come from outside. A tab whose broker ends joins another one with its cursor, so nothing
 * here has to survive.
 */

import type { Line, LineError, LineEvent, LineOptions, Start } from "./line.js";
import type { FromTab, Refusal, TabEvent, ToTab } from "./port.js";
import { foldPresence, type Presence, type PresenceFacts } from "./presence.js";
import { keep, type Message, ringAfter, type RingLimits } from "./ring.js";
import { flush, has, Place, type Seat, type SeatLimits, seatOf, taken } from "./seat.js";
import { epochOf, isAfter, isWithin } from "./topics.js";

/** How much a broker keeps, and how long it waits. */
export interface Limits extends RingLimits, SeatLimits {
  /** Topics and patterns of one line; the hub allows no more. */
  topics: number;
  /** Milliseconds between two looks at what is due. */
  sweep: number;
  /** Milliseconds without a word from a tab after which it is asked whether it is there, and let go. */
  quiet: number;
  lost: number;
  /** Milliseconds that a topic without a tab stays on the line: a tab that reloads comes back to it. */
  linger: number;
  /** Milliseconds that a tab has for a token. */
  token: number;
  /** Milliseconds until a change of topics that the hub could not make now is tried again. */
  again: number;
}

export const LIMITS: Limits = {
  ringMessages: 2_000,
  ringSize: 2_000_000,
  unackedEvents: 10_000,
  unackedSize: 8_000_000,
  topics: 128,
  sweep: 5_000,
  quiet: 15_000,
  lost: 60_000,
  linger: 30_000,
  token: 10_000,
  again: 2_000,
};

export interface BrokerOptions {
  /** Whether the rooms of the user come too. */
  rooms: boolean;
  presence: boolean;
  makeLine: (options: Pick<LineOptions, "topics" | "cursor" | "start" | "token" | "rooms" | "presence" | "on">) => Line;
  /** Milliseconds of a clock. */
  now: () => number;
  after: (ms: number, then: () => void) => () => void;
  /** Call `then` when what goes on now is done. */
  soon: (then: () => void) => void;
  limits?: Partial<Limits>;
}

/** The broker's end of the way to one tab. */
export interface Port {
  take(message: FromTab): void;
  /** The tab is gone. */
  close(): void;
}

type State = Extract<LineEvent, { kind: "state" }>;
type Gap = Extract<LineEvent, { kind: "gap" }>;

interface Extra {
  line: Line;
  seats: Set<Seat>;
  /** It was opened for several tabs: a gap may be one of another. */
  shared: boolean;
  /** Its opening had a gap, which follows it once more. */
  told: boolean;
}

export class Broker {
  readonly #options: BrokerOptions;
  readonly #limits: Limits;
  readonly #seats = new Set<Seat>();
  readonly #tokens = new Map<number, (answer: { token?: string; failed?: boolean }) => void>();
  #refs = 0;
  #closed = false;
  /** The hub refuses this user: nothing is tried before another tab joins. */
  #refused = false;
  #flushing = false;
  #swept = 0;
  #stopSweep: (() => void) | undefined;

  #main: Line | undefined;
  #state: State = { kind: "state", state: "closed" };
  /** The main line has said where it begins. */
  #opened = false;
  /** Everything up to here has come on the main line. */
  #cursor = "";
  #ring = ringAfter("");
  /** The topics of the main line, each with the id after which it counts there. */
  readonly #since = new Map<string, string>();
  /** Since when no tab has them. */
  readonly #idle = new Map<string, number>();
  #changing = false;
  #retry: (() => void) | undefined;
  readonly #presence = new Map<string, Presence>();
  /** The topics of the main line, as the hub said them last. */
  #followed: string[] = [];

  #extra: Extra | undefined;

  constructor(options: BrokerOptions) {
    this.#options = options;
    this.#limits = { ...LIMITS, ...options.limits };
  }

  /** How many tabs have joined, for those who want to know. */
  get tabs(): number {
    return this.#seats.size;
  }

  /** Take a tab in; `post` brings messages to it. */
  connect(post: (message: ToTab) => void): Port {
    let seat: Seat | undefined;
    return {
      take: (message) => {
        if (this.#closed) return;
        if (message.is === "join") {
          if (seat) this.#leave(seat);
          seat = this.#join(message, post);
        } else if (seat && this.#seats.has(seat)) this.#hear(seat, message);
      },
      close: () => {
        if (seat) this.#leave(seat);
      },
    };
  }

  /** End the lines and forget the tabs. */
  close(): void {
    this.#closed = true;
    this.#seats.clear();
    this.#rest();
  }

  // ---- tabs ----

  #join(join: Extract<FromTab, { is: "join" }>, post: (message: ToTab) => void): Seat | undefined {
    if (new Set([...this.#wanted(), ...join.topics]).size > this.#limits.topics && this.#seats.size) {
      post({ is: "full" });
      return undefined;
    }
    const seat = seatOf(join, post, this.#options);
    this.#seats.add(seat);
    this.#refused = false;
    this.#stopSweep ??= this.#sweepLater();
    if (this.#main) this.#tell(seat, this.#state);
    this.#settle();
    return seat;
  }

  #hear(seat: Seat, message: FromTab): void {
    seat.heard = this.#options.now();
    seat.asked = false;
    switch (message.is) {
      case "ack":
        taken(seat, message.number);
        break;
      case "change":
        this.#change(seat, message);
        break;
      case "send":
        void this.#send(seat, message);
        break;
      case "token":
        this.#tokens.get(message.ref)?.(message);
        break;
      case "visible":
        seat.visible = message.visible;
        break;
      case "wake":
        this.#main?.wake(message.online);
        this.#extra?.line.wake(message.online);
        break;
      case "leave":
        this.#leave(seat);
        break;
    }
  }

  #leave(seat: Seat): void {
    if (!this.#seats.delete(seat)) return;
    if (!this.#seats.size) this.#rest();
    else {
      this.#leaveExtra(seat);
      // The main line was to begin where this tab was: the next one has another cursor.
      if (!this.#opened && seat.place === Place.MAIN) this.#dropMain();
      this.#settle();
    }
  }

  #letGo(seat: Seat): void {
    seat.post({ is: "gone" });
    this.#leave(seat);
  }

  #change(seat: Seat, { ref, add, remove }: { ref: number; add: string[]; remove: string[] }): void {
    for (const topic of remove) seat.topics.delete(topic);
    const added = add.filter((topic) => !seat.topics.has(topic));
    if (new Set([...this.#wanted(), ...added]).size > this.#limits.topics) {
      if (seat.topics.size + added.length > this.#limits.topics || this.#seats.size === 1) {
        const detail = `a tab may have ${this.#limits.topics} topics`;
        seat.post({ is: "answer", ref, refusal: { status: 400, code: "too_many_topics", detail } });
      } else {
        seat.post({ is: "full" });
        this.#leave(seat);
      }
      return;
    }
    for (const topic of added) seat.topics.add(topic);
    seat.changes.push({ ref, topics: added });
    // The extra line is asked again, for the new topics too.
    if (added.length && seat.place === Place.EXTRA) this.#takeOff(seat);
    this.#settle();
  }

  /** Ask the hub over the main line, and tell the tab what became of it. */
  async #send(seat: Seat, { ref, op, facts }: Extract<FromTab, { is: "send" }>): Promise<void> {
    const nowhere = { status: 0, code: "no_socket", detail: "there is no line" };
    try {
      const told = await this.#main?.send(op, facts);
      seat.post({ is: "answer", ref, ...(told ? { told } : { refusal: nowhere }) });
    } catch (error) {
      const { status, code, message, topic } = error as LineError;
      const refusal = { status, code, detail: message, ...(topic === undefined ? {} : { topic }) };
      seat.post({ is: "answer", ref, refusal });
    }
  }

  /** Take `topics` away from the tab; the hub has said why. */
  #refuse(seat: Seat, refused: string[], refusal: Refusal): void {
    const lost = new Set(refused);
    for (const change of seat.changes.filter((each) => each.topics.some((topic) => lost.has(topic)))) {
      seat.changes.splice(seat.changes.indexOf(change), 1);
      for (const topic of change.topics) {
        lost.delete(topic);
        seat.topics.delete(topic);
      }
      this.#flush(seat);
      seat.post({ is: "answer", ref: change.ref, refusal });
    }
    const topics = [...lost].filter((topic) => seat.topics.delete(topic));
    if (!topics.length) return;
    this.#tell(seat, { kind: "refused", topics, reason: refusal.code });
    if (!seat.topics.size && !this.#options.rooms) {
      this.#tell(seat, { kind: "state", state: "refused", reason: refusal.code, topic: topics[0]! });
      if (seat.place === Place.EXTRA) this.#takeOff(seat);
      seat.place = Place.WAITING;
    }
  }

  /** Tell `event` to the tab, together with what else there is before the next turn. */
  #tell(seat: Seat, event: TabEvent, size = 100): void {
    seat.outbox.push(event);
    seat.outboxSize += size;
    if (!this.#flushing) {
      this.#flushing = true;
      this.#options.soon(() => {
        this.#flushing = false;
        for (const each of [...this.#seats]) this.#flush(each);
      });
    }
  }

  #flush(seat: Seat): void {
    if (!flush(seat, this.#limits)) this.#letGo(seat);
  }

  /** Give the tab `message` if it has one of its topics, and move its cursor. */
  #deliver(seat: Seat, message: Message, size: number): void {
    const isLate = seat.cursor !== undefined && isWithin(message.id, seat.cursor);
    if (!isLate) seat.cursor = message.id;
    const topics = message.topics.filter((topic) => has(seat, topic));
    if (!topics.length) return;
    this.#tell(seat, topics.length === message.topics.length ? message : { ...message, topics }, size);
    if (!isLate) seat.told = message.id;
  }

  #wanted(): Set<string> {
    const wanted = new Set<string>();
    for (const seat of this.#seats) for (const topic of seat.topics) wanted.add(topic);
    return wanted;
  }

  /** Return a token of one of the tabs: of one that is looked at, if there is one. */
  #token = async (): Promise<string | undefined> => {
    const able = [...this.#seats].filter((seat) => seat.hasToken);
    able.sort((one, other) => Number(other.visible) - Number(one.visible) || other.heard - one.heard);
    for (const seat of able) {
      if (!this.#seats.has(seat)) continue;
      const ref = ++this.#refs;
      const answer = await new Promise<{ token?: string; failed?: boolean }>((resolve) => {
        const stop = this.#options.after(this.#limits.token, () => resolve({ failed: true }));
        this.#tokens.set(ref, (said) => {
          stop();
          resolve(said);
        });
        seat.post({ is: "token", ref });
      });
      this.#tokens.delete(ref);
      if (!answer.failed) return answer.token;
    }
    if (able.length) throw new Error("no tab has a token now");
    return undefined;
  };

  // ---- what is to be done next ----

  /** Do what can be done: open lines, ask for topics, bring tabs to their places. */
  #settle(): void {
    if (this.#closed || this.#refused || !this.#seats.size) return;
    if (!this.#main) {
      this.#openMain();
      return;
    }
    if (!this.#opened) return;
    this.#askForTopics();
    for (const seat of this.#seats) this.#place(seat);
    this.#openExtra();
    this.#answerChanges();
  }

  #openMain(): void {
    const waiting = [...this.#seats].filter((seat) => seat.topics.size || this.#options.rooms);
    // Who has a cursor goes first: the line begins there, and brings the others what is new.
    const first = waiting.find((seat) => seat.cursor !== undefined) ?? waiting[0];
    if (!first) return;
    first.place = Place.MAIN;
    this.#opened = false;
    this.#presence.clear();
    this.#main = this.#open(first.topics, first.cursor, first.start, this.#options.presence, this.#onMain);
    this.#main.open();
  }

  /** Make a line whose events stop when it is not the present one any more. */
  #open(
    topics: Iterable<string>,
    cursor: string | undefined,
    start: Start | undefined,
    presence: boolean,
    on: (event: LineEvent, line: Line) => void,
  ): Line {
    const line: Line = this.#options.makeLine({
      topics: [...topics],
      ...(cursor === undefined ? {} : { cursor }),
      ...(start === undefined || cursor !== undefined ? {} : { start }),
      token: this.#token,
      rooms: this.#options.rooms,
      presence,
      on: (event) => on(event, line),
    });
    return line;
  }

  /** Bring the main line to the topics that the tabs want, with one change at a time. */
  #askForTopics(): void {
    const main = this.#main;
    if (!main || this.#changing || this.#retry) return;
    const wanted = this.#wanted();
    const missing = [...wanted].filter((topic) => !this.#since.has(topic));
    const now = this.#options.now();
    const idle = [...this.#since.keys()].filter((topic) => !wanted.has(topic));
    for (const topic of wanted) this.#idle.delete(topic);
    for (const topic of idle) if (!this.#idle.has(topic)) this.#idle.set(topic, now);
    const crowded = this.#since.size + missing.length > this.#limits.topics;
    const old = idle.filter((topic) => crowded || now - this.#idle.get(topic)! >= this.#limits.linger);
    if (old.length && old.length < this.#since.size) {
      for (const topic of old) {
        this.#since.delete(topic);
        this.#idle.delete(topic);
        this.#presence.delete(topic);
      }
      this.#changeMain(main, main.remove(old), () => {});
    } else if (missing.length) {
      const epoch = epochOf(this.#cursor);
      this.#changeMain(
        main,
        main.add(missing),
        (answer) => {
          let from = answer?.from || this.#cursor;
          // The history has become another one since they were asked for: the answer is of the one before.
          if (epochOf(this.#cursor) !== epoch && epochOf(this.#cursor) !== epochOf(from)) from = this.#cursor;
          for (const topic of missing) this.#since.set(topic, from);
        },
        missing,
      );
    }
  }

  #changeMain(
    main: Line,
    change: Promise<{ from: string } | undefined | void>,
    then: (answer: { from: string } | undefined) => void,
    asked: string[] = [],
  ): void {
    this.#changing = true;
    change.then(
      (answer) => {
        if (main !== this.#main) return;
        this.#changing = false;
        then(answer ?? undefined);
        this.#settle();
      },
      (error: LineError) => {
        if (main !== this.#main) return;
        this.#changing = false;
        const { status = 0, code = "", message = "", topic } = error;
        // A new token may be let in later. Without tokens nothing changes by itself: nobody is logged in.
        const passing = [404, 408, 429, ...([...this.#seats].some((seat) => seat.hasToken) ? [401] : [])];
        if (status >= 400 && status < 500 && !passing.includes(status)) {
          const refused = topic !== undefined && asked.includes(topic) ? [topic] : asked;
          const refusal = {
            status,
            code: code || "refused",
            detail: message,
            ...(topic === undefined ? {} : { topic }),
          };
          for (const seat of this.#seats) this.#refuse(seat, refused, refusal);
        } else {
          this.#retry = this.#options.after(this.#limits.again, () => {
            this.#retry = undefined;
            this.#settle();
          });
        }
        this.#settle();
      },
    );
  }

  #answerChanges(): void {
    for (const seat of this.#seats) {
      const made = seat.changes.filter(({ topics }) => topics.every((topic) => this.#since.has(topic)));
      for (const change of made) {
        seat.changes.splice(seat.changes.indexOf(change), 1);
        this.#flush(seat);
        seat.post({ is: "answer", ref: change.ref });
      }
    }
  }

  /** Put a tab that waits, or is on the extra line, on the main line if that has all that the tab does not. */
  #place(seat: Seat): void {
    if (seat.place === Place.MAIN || (!seat.topics.size && !this.#options.rooms)) return;
    let begin = this.#cursor;
    for (const topic of seat.topics) {
      const since = this.#since.get(topic);
      // Of another epoch: the line is about to say so, and then all of its topics count from there.
      if (since === undefined || epochOf(since) !== epochOf(begin)) return;
      if (isAfter(since, begin)) begin = since;
    }
    if (seat.cursor === undefined && seat.start === undefined) {
      seat.cursor = begin;
      this.#attach(seat, null);
    } else if (seat.cursor !== undefined && this.#reaches(seat, seat.cursor)) this.#attach(seat, true);
  }

  /** Whether the ring and what follows it have all of the tab's topics after `cursor`. */
  #reaches(seat: Seat, cursor: string): boolean {
    if (!isWithin(this.#ring.floor, cursor)) return false;
    for (const topic of seat.topics) {
      const since = this.#since.get(topic);
      if (since === undefined || !isWithin(since, cursor)) return false;
    }
    return true;
  }

  #attach(seat: Seat, recovered: boolean | null): void {
    if (seat.place === Place.EXTRA) this.#leaveExtra(seat);
    const cursor = seat.cursor!;
    seat.place = Place.MAIN;
    seat.alone = false;
    this.#sayOpen(seat, cursor, recovered);
    this.#tell(seat, this.#state);
    // From here to the end of the ring and onward in one step: what comes on the line after it is delivered live.
    seat.ahead = epochOf(cursor) === epochOf(this.#cursor) && isAfter(cursor, this.#cursor);
    for (const { message, size } of this.#ring.kept) {
      if (isAfter(message.id, cursor)) this.#deliver(seat, message, size);
    }
    if (!seat.ahead) seat.cursor = this.#cursor;
    for (const [topic, facts] of this.#presence) {
      if (has(seat, topic)) this.#tell(seat, { kind: "presence", facts });
    }
    this.#sayFollowed([seat]);
  }

  /** Say what the line follows: which rooms are the user's only the hub knows. */
  #sayFollowed(seats: Iterable<Seat>): void {
    if (!this.#options.rooms) return;
    for (const seat of seats) this.#tell(seat, { kind: "topics", id: this.#cursor, topics: this.#followed });
  }

  #sayOpen(seat: Seat, id: string, recovered: boolean | null, gap: { reason?: string; oldest?: string } = {}): void {
    if (seat.opened) return;
    seat.opened = true;
    seat.told = id;
    this.#tell(seat, { kind: "open", id, recovered, ...gap });
  }

  // ---- the main line ----

  #onMain = (event: LineEvent, line: Line): void => {
    if (line !== this.#main) return;
    switch (event.kind) {
      case "state":
        this.#mainState(event);
        return;
      case "open":
        this.#followed = event.topics;
        this.#mainOpen(event, line);
        this.#sayFollowed(this.#onMainLine());
        return;
      case "message":
        this.#mainMessage(event);
        break;
      case "cursor":
        this.#mainCursor(event.id);
        break;
      case "gap":
        // The one that follows an opening says the same once more: nothing has moved since.
        if (event.id !== this.#cursor || this.#ring.kept.length) this.#mainGap(event);
        break;
      case "dropped":
        for (const seat of this.#onMainLine()) this.#tell(seat, event);
        break;
      case "topics":
        this.#followed = event.topics;
        this.#sayFollowed(this.#onMainLine());
        break;
      default:
        this.#mainPresence(event.kind, event.facts);
    }
    if (this.#extra) this.#settle();
  };

  #onMainLine(): Seat[] {
    return [...this.#seats].filter((seat) => seat.place === Place.MAIN);
  }

  #mainState(state: State): void {
    this.#state = state;
    if (state.state === "refused") {
      if (state.topic === undefined || !this.#forbid(state.topic, state.reason)) {
        this.#end(state);
        return;
      }
      // Without that topic there is another line, which goes on where this one was.
      this.#reopenMain();
      return;
    }
    if (state.state === "closed") return;
    for (const seat of this.#seats) if (seat.place !== Place.EXTRA) this.#tell(seat, state);
  }

  /** Take a topic that may not be read from the tabs that have it; return whether there are any. */
  #forbid(topic: string, reason = "forbidden"): boolean {
    const having = [...this.#seats].filter((seat) => seat.topics.has(topic));
    const refusal = { status: 403, code: reason, detail: `${topic} may not be read`, topic };
    for (const seat of having) this.#refuse(seat, [topic], refusal);
    return having.length > 0 || this.#since.has(topic);
  }

  /** The hub refuses this user altogether, and says why. Whoever joins next tries again. */
  #end(state: State): void {
    const refusal = { status: 403, code: state.reason ?? "refused", detail: "the hub refuses this user" };
    this.#rest();
    this.#refused = true;
    for (const seat of this.#seats) {
      seat.place = Place.WAITING;
      for (const { ref } of seat.changes.splice(0)) seat.post({ is: "answer", ref, refusal });
      this.#tell(seat, state);
    }
    this.#state = state;
    this.#stopSweep ??= this.#sweepLater();
  }

  #reopenMain(): void {
    if (!this.#opened) {
      this.#dropMain();
      this.#settle();
      return;
    }
    const wanted = this.#wanted();
    for (const topic of this.#since.keys()) if (!wanted.has(topic)) this.#since.delete(topic);
    const former = this.#main;
    this.#main = undefined;
    former?.close();
    this.#changing = false;
    if (!this.#since.size && !this.#options.rooms) {
      this.#dropMain();
      this.#settle();
      return;
    }
    this.#main = this.#open(this.#since.keys(), this.#cursor, undefined, this.#options.presence, this.#onMain);
    this.#main.open();
  }

  #mainOpen(event: Extract<LineEvent, { kind: "open" }>, line: Line): void {
    if (event.recovered === false) {
      if (!this.#opened) this.#begin(event.id, line);
      for (const seat of this.#onMainLine()) this.#sayOpen(seat, event.id, false, event);
      this.#mainGap(gapOf(event));
      return;
    }
    if (!this.#opened) {
      this.#begin(event.id, line);
      for (const seat of this.#onMainLine()) {
        seat.cursor = event.id;
        this.#sayOpen(seat, event.id, event.recovered);
      }
    } else this.#moveTo(event.id);
    this.#settle();
  }

  /** The main line begins after `id`: nothing older will come on it. */
  #begin(id: string, line: Line): void {
    this.#opened = true;
    this.#cursor = id;
    this.#ring = ringAfter(id);
    this.#since.clear();
    this.#idle.clear();
    for (const seat of this.#onMainLine()) for (const topic of seat.topics) this.#since.set(topic, id);
    for (const topic of line.topics) if (!this.#options.rooms) this.#since.set(topic, id);
  }

  /** Note that everything up to `id` has come. Ids of another epoch can't be compared with those before. */
  #moveTo(id: string): void {
    if (isWithin(id, this.#cursor)) return;
    if (epochOf(id) !== epochOf(this.#cursor)) {
      this.#ring = ringAfter(id);
      this.#countFrom(id);
    }
    this.#cursor = id;
  }

  /** No topic counts from before `id` any more. One that was added on the way here may count from later. */
  #countFrom(id: string): void {
    for (const [topic, since] of this.#since)
      if (epochOf(since) !== epochOf(id) || isAfter(id, since)) this.#since.set(topic, id);
  }

  #mainMessage(message: Message): void {
    const size = sizeOf(message);
    if (isWithin(message.id, this.#cursor)) {
      // Of a room that the user has just got, and older than what has come: only for those that are here.
      for (const seat of this.#onMainLine()) this.#deliver(seat, message, size);
      return;
    }
    this.#moveTo(message.id);
    keep(this.#ring, message, size, this.#limits);
    for (const seat of this.#seats) {
      if (seat.place !== Place.MAIN || this.#isAhead(seat, message.id)) continue;
      this.#deliver(seat, message, size);
    }
  }

  #mainCursor(id: string): void {
    this.#moveTo(id);
    for (const seat of this.#seats) {
      if (seat.place === Place.MAIN && !this.#isAhead(seat, id)) seat.cursor = this.#cursor;
    }
  }

  /** Whether the tab has had what stands at `id`, because its cursor was ahead of the line. */
  #isAhead(seat: Seat, id: string): boolean {
    if (seat.ahead) seat.ahead = isWithin(id, seat.cursor!);
    return seat.ahead;
  }

  #mainGap(gap: Gap): void {
    const whole = gap.reason !== "trimmed";
    this.#cursor = gap.id;
    this.#ring = ringAfter(gap.id);
    this.#countFrom(gap.id);
    for (const seat of this.#onMainLine()) {
      if (!whole && this.#isAhead(seat, gap.id)) continue; // it has had what is missing
      // Something of one of the topics is missing. Of which one, only a line with nothing else can say.
      if (whole || this.#main?.topics.every((topic) => seat.topics.has(topic))) this.#giveGap(seat, gap);
      else {
        seat.place = Place.WAITING;
        seat.alone = true;
      }
    }
    this.#settle();
  }

  #giveGap(seat: Seat, gap: Gap): void {
    seat.ahead = false;
    seat.cursor = seat.told = gap.id;
    this.#tell(seat, gap);
  }

  #mainPresence(kind: "presence" | "join" | "leave", facts: unknown): void {
    const { topic } = facts as PresenceFacts;
    const known = foldPresence(this.#presence.get(topic), kind, facts as PresenceFacts);
    if (known) this.#presence.set(topic, known);
    for (const seat of this.#onMainLine()) if (has(seat, topic)) this.#tell(seat, { kind, facts });
  }

  #dropMain(): void {
    const main = this.#main;
    this.#main = undefined;
    main?.close();
    this.#opened = false;
    this.#changing = false;
    this.#retry?.();
    this.#retry = undefined;
    this.#ring = ringAfter("");
    this.#since.clear();
    this.#idle.clear();
    for (const seat of this.#onMainLine()) seat.place = Place.WAITING;
  }

  /** End everything that goes on without tabs. */
  #rest(): void {
    this.#closeExtra();
    this.#dropMain();
    this.#stopSweep?.();
    this.#stopSweep = undefined;
  }

  // ---- the extra line ----

  /** Open the extra line for tabs that are behind; those that can share it do. */
  #openExtra(): void {
    const behind = [...this.#seats].filter((seat) => {
      if (seat.place !== Place.WAITING || (!seat.topics.size && !this.#options.rooms)) return false;
      if (seat.cursor === undefined && seat.start === undefined) return false;
      return [...seat.topics].every((topic) => this.#since.has(topic));
    });
    if (!behind.length) return;
    const present = this.#extra ? [...this.#extra.seats] : [];
    const first = present[0] ?? behind[0]!;
    const group = present.length ? present : [first];
    const before = group.length;
    const topics = new Set(group.flatMap((seat) => [...seat.topics]));
    for (const seat of behind) {
      if (seat === first || first.alone || seat.alone || kindOf(seat) !== kindOf(first)) continue;
      if (new Set([...topics, ...seat.topics]).size > this.#limits.topics) continue;
      for (const topic of seat.topics) topics.add(topic);
      group.push(seat);
    }
    if (present.length && group.length === before) return;
    this.#closeExtra();
    let cursor = first.cursor;
    for (const seat of group) {
      seat.place = Place.EXTRA;
      if (cursor !== undefined && isAfter(cursor, seat.cursor!)) cursor = seat.cursor;
    }
    const line = this.#open(topics, cursor, first.start, false, this.#onExtra);
    this.#extra = { line, seats: new Set(group), shared: group.length > 1, told: false };
    line.open();
  }

  /** Forget the extra line, then close it: what it says to that does not count any more. */
  #closeExtra(): void {
    const extra = this.#extra;
    this.#extra = undefined;
    extra?.line.close();
  }

  #takeOff(seat: Seat): void {
    seat.place = Place.WAITING;
    this.#leaveExtra(seat);
  }

  /** Take a tab from the extra line, and end that if it was the last one. */
  #leaveExtra(seat: Seat): void {
    const extra = this.#extra;
    if (!extra?.seats.delete(seat) || extra.seats.size) return;
    this.#closeExtra();
  }

  #onExtra = (event: LineEvent, line: Line): void => {
    const extra = this.#extra;
    if (line !== extra?.line) return;
    switch (event.kind) {
      case "state":
        this.#extraState(extra, event);
        break;
      case "open":
        this.#extraOpen(extra, event);
        break;
      case "message": {
        extra.told = false;
        const size = sizeOf(event);
        for (const seat of extra.seats) {
          if (seat.cursor === undefined || !isWithin(event.id, seat.cursor)) this.#deliver(seat, event, size);
        }
        break;
      }
      case "cursor":
        for (const seat of extra.seats) {
          if (seat.cursor === undefined || !isWithin(event.id, seat.cursor)) seat.cursor = event.id;
        }
        break;
      case "gap":
        if (!extra.told) this.#extraGap(extra, event);
        break;
      case "dropped":
        for (const seat of extra.seats) this.#tell(seat, event);
        break;
    }
    this.#settle();
  };

  #extraState(extra: Extra, state: State): void {
    if (state.state === "closed") return;
    if (state.state !== "refused") {
      for (const seat of extra.seats) this.#tell(seat, state);
      return;
    }
    this.#closeExtra();
    for (const seat of extra.seats) seat.place = Place.WAITING;
    if (state.topic === undefined || !this.#forbid(state.topic, state.reason)) this.#end(state);
  }

  #extraOpen(extra: Extra, event: Extract<LineEvent, { kind: "open" }>): void {
    if (event.recovered === false) {
      for (const seat of extra.seats) if (!extra.shared) this.#sayOpen(seat, event.id, false, event);
      this.#extraGap(extra, gapOf(event));
      extra.told = true;
      return;
    }
    for (const seat of extra.seats) {
      seat.cursor ??= event.id;
      this.#sayOpen(seat, seat.cursor, event.recovered);
    }
  }

  #extraGap(extra: Extra, gap: Gap): void {
    if (!extra.shared || gap.reason !== "trimmed") {
      for (const seat of extra.seats) {
        this.#sayOpen(seat, gap.id, false, gap);
        this.#giveGap(seat, gap);
        seat.alone = false;
      }
      return;
    }
    // It is a gap of one of them, or of more: each asks by itself.
    this.#closeExtra();
    for (const seat of extra.seats) {
      seat.place = Place.WAITING;
      seat.alone = true;
    }
  }

  // ---- time ----

  #sweepLater(): () => void {
    this.#swept = this.#options.now();
    return this.#options.after(this.#limits.sweep, () => {
      const now = this.#options.now();
      const late = now - this.#swept - this.#limits.sweep;
      this.#stopSweep = this.#sweepLater();
      for (const seat of [...this.#seats]) {
        if (late > this.#limits.sweep) seat.heard += late; // this page slept itself, and heard nobody
        this.#look(seat, now);
      }
      this.#settle();
    });
  }

  #look(seat: Seat, now: number): void {
    const silent = now - seat.heard;
    if (silent >= this.#limits.lost) this.#letGo(seat);
    else if (silent >= this.#limits.quiet && !seat.asked) {
      seat.asked = true;
      seat.post({ is: "ping" });
    }
    // What others got has moved its cursor, too.
    if (seat.opened && seat.cursor !== undefined && seat.cursor !== seat.told) {
      seat.told = seat.cursor;
      this.#tell(seat, { kind: "cursor", id: seat.cursor });
    }
  }
}

/** The tabs that may share an extra line have cursors that can be compared, or the same start. */
function kindOf(seat: Seat): string {
  return seat.cursor === undefined ? `start ${seat.start}` : `epoch ${epochOf(seat.cursor)}`;
}

/** An opening with a gap is one: the line may be cut before the gap itself comes. */
function gapOf({ id, reason = "unknown", oldest }: Extract<LineEvent, { kind: "open" }>): Gap {
  return { kind: "gap", id, reason, ...(oldest === undefined ? {} : { oldest }) };
}

/** About how many characters a message takes. */
function sizeOf(message: Message): number {
  return 100 + (JSON.stringify(message.data)?.length ?? 0);
}
