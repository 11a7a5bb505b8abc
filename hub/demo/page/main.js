"use strict";

// Every path is relative to this page: a proxy may show it anywhere.
const SYMBOLS = ["AAPL", "GOOG", "MSFT", "NVDA", "TSLA"];
const FEED = "notifications/subscribe?topic=notifications&topic=news&topic=stock/*&envelope=1"; // `{topic, data}`
const USERS = { ann: "Ann", bo: "Bo" }; // they can log in; who else is there has no account
const ROOM = "room/tea"; // where the two of them meet
const KEEP = { orders: 20, news: 12, mail: 20, letters: 40, talk: 40, prices: 40, tiles: 10, journal: 40 };
const SILENT = 20_000; // the news tick every second: after so many ms without a word the connection is dead
const ASLEEP = 15_000; // a clock that jumps by so many ms was a closed laptop
const SLOWEST = 10; // seconds between attempts, at most

const $ = (id) => document.getElementById(id);
const calm = matchMedia("(prefers-reduced-motion: reduce)");

// ---- what a reload must not lose: everything shown, and the cursors that say where it ends ----

const fresh = () => ({
  orders: [], news: [], stocks: {}, mail: [], user: "42", account: null, letters: [], talk: [],
  feed: { cursor: "", left: 0 }, inbox: { cursor: "", left: 0 },
});
const shown = restore();

function restore() {
  try {
    return { ...fresh(), ...JSON.parse(sessionStorage.getItem("hub-demo")) };
  } catch {
    return fresh();
  }
}

function save() {
  try {
    sessionStorage.setItem("hub-demo", JSON.stringify(shown)); // one entry: cursor and list never disagree
  } catch {
    // No storage: then a reload begins anew.
  }
}

// ---- ids: `epoch-offset`, one order for the whole hub ----

const offsetOf = (id) => Number(id.slice(id.lastIndexOf("-") + 1));
const epochOf = (id) => id.slice(0, id.lastIndexOf("-"));

async function newestId() {
  try {
    const answer = await fetch("notifications/stats", { signal: AbortSignal.timeout(5_000) });
    return (await answer.json()).log?.newest ?? "";
  } catch {
    return "";
  }
}

// ---- one stream ----

/**
 * An EventSource, and what it takes to come back in the cases where the browser does not by itself.
 *
 * The browser resumes after a lost connection: it sends the last id it has seen. It gives up after an answer that is
 * not 200, and some do when the connection is refused; then a new EventSource asks with `?lastEventId=`. So does a
 * page that was reloaded, left, or asleep.
 *
 * States: connecting, live, reconnecting (by the browser), waiting (by us), away (as the user wishes), resting (the
 * tab is hidden), refused (it can never succeed).
 */
class Stream {
  constructor(name, path, place, types, on) {
    Object.assign(this, { name, path, place, types, on });
    this.state = "resting";
    this.facts = {};
    this.source = null;
    this.failures = 0;
    this.until = 0;
  }

  get url() {
    const url = new URL(this.path, location.href);
    if (this.place.cursor) url.searchParams.set("lastEventId", this.place.cursor);
    return url;
  }

  open() {
    this.#drop();
    this.#become(this.facts.connection ? "reconnecting" : "connecting");
    const source = this.source = new EventSource(this.url);
    source.addEventListener("hub.open", (event) => this.#greeted(event));
    source.addEventListener("hub.gap", (event) => this.#missed(event));
    source.addEventListener("hub.dropped", (event) => this.#skipped(event));
    source.addEventListener("hub.close", (event) => this.#dismissed(event));
    source.addEventListener("hub.topics", (event) => this.#changed(event));
    for (const type of ["hub.presence", "hub.join", "hub.leave"]) {
      source.addEventListener(type, (event) => this.on.people?.(type, JSON.parse(event.data)));
    }
    for (const type of this.types) source.addEventListener(type, (event) => this.#taken(event));
    source.onerror = () => (source.readyState === EventSource.CLOSED ? this.#failed() : this.#lost());
  }

  /** Leave for so many seconds, or until opened again. */
  leave(state, seconds = Infinity) {
    this.#drop();
    this.until = Date.now() + seconds * 1_000;
    this.#become(state);
  }

  /** Come back although nobody has said that the connection is lost. */
  doubt() {
    this.on.note(this, "silent", "asking again, with the cursor", "warn");
    this.place.left = this.heard;
    this.open();
  }

  /** Stay away: what was asked for is refused, and asking again would change nothing. */
  refuse(why) {
    this.#drop();
    this.refusal = why;
    this.on.note(this, "refused", why, "warn");
    this.#become("refused");
  }

  /** Do what is due; called a few times a second. */
  tick(now) {
    const due = now >= this.until && (this.state === "waiting" || this.state === "away");
    if (due && !document.hidden) this.open();
    this.on.change();
  }

  get detail() {
    const ahead = Math.max(0, Math.ceil((this.until - Date.now()) / 1_000));
    switch (this.state) {
      case "waiting": return `in ${ahead} s`;
      case "away": return `back in ${ahead} s`;
      case "reconnecting": return `for ${Math.round((Date.now() - this.since) / 1_000)} s`;
      default: return "";
    }
  }

  isReplay(id) {
    const { opening } = this;
    return Boolean(opening) && offsetOf(id) > opening.from && offsetOf(id) <= opening.upto;
  }

  #drop() {
    if (this.state === "live") this.place.left ||= Date.now();
    this.source?.close();
    this.source = null;
    this.until = 0;
  }

  #become(state) {
    if (state === this.state) return;
    this.state = state;
    this.since = Date.now();
    this.on.change();
  }

  #hear(event) {
    this.heard = Date.now();
    if (event.lastEventId) this.place.cursor = event.lastEventId;
  }

  #greeted(event) {
    const facts = this.facts = JSON.parse(event.data);
    this.#hear(event);
    this.failures = 0;
    // Whatever is newer than the id of `hub.open` and not newer than the hub's newest now was sent before we came.
    const opening = this.opening = { id: event.lastEventId, from: offsetOf(event.lastEventId), upto: 0, early: [], count: 0 };
    this.away = this.place.left ? Math.max(1, Math.round((Date.now() - this.place.left) / 1_000)) : 0;
    this.place.left = 0;
    this.on.note(this, "hub.open", event.data, facts.recovered === false ? "warn" : "");
    this.#become("live");
    this.on.topics?.(facts.topics);
    if (facts.recovered !== null) this.#findReplayed(opening);
  }

  async #findReplayed(opening) {
    const newest = await newestId();
    if (this.opening !== opening || epochOf(newest) !== epochOf(opening.id)) return;
    opening.upto = offsetOf(newest);
    opening.count += opening.early.filter((offset) => offset <= opening.upto).length;
    opening.early = [];
    opening.known = true;
    this.on.replayed(this);
  }

  #taken(event) {
    const { opening } = this;
    if (!opening) return; // not a stream of the hub: that begins with `hub.open`
    if (event.lastEventId === this.place.cursor) return; // older than its topic here, and without an id: see `readTalk`
    this.#hear(event);
    const offset = offsetOf(event.lastEventId);
    if (opening.known) opening.count += offset <= opening.upto;
    else if (this.facts.recovered !== null) opening.early.push(offset);
    this.on.notification(this, event);
  }

  /** Topics can come and go while the stream is open. */
  #changed(event) {
    this.#hear(event);
    this.facts.topics = JSON.parse(event.data).topics;
    this.on.note(this, "hub.topics", event.data, "");
    this.on.topics?.(this.facts.topics);
    this.on.change();
  }

  #missed(event) {
    this.#hear(event);
    this.gap = event.data;
    this.on.note(this, "hub.gap", event.data, "warn");
    this.on.gap(this, gapSentence(JSON.parse(event.data)));
  }

  #skipped(event) {
    this.#hear(event);
    const { dropped } = JSON.parse(event.data);
    this.dropped = (this.dropped ?? 0) + dropped;
    this.on.note(this, "hub.dropped", event.data, "warn");
    this.on.gap(this, `${counted(dropped)} left out: this page read too slowly.`);
  }

  #dismissed(event) {
    this.#hear(event);
    this.reason = JSON.parse(event.data).reason;
    this.on.note(this, "hub.close", event.data, "warn");
    this.on.dismissed?.(this.reason);
  }

  #lost() {
    if (this.state === "live") {
      this.place.left = Date.now();
      this.on.note(this, "lost", "the browser comes back by itself", "warn");
    }
    this.#become("reconnecting");
  }

  async #failed() {
    const failed = this.source;
    if (this.state === "live") this.place.left = Date.now();
    this.#become("reconnecting");
    const refusal = await refusalOf(this.url);
    if (this.source !== failed) return; // opened or left meanwhile
    this.#drop();
    if (refusal) {
      this.refuse(refusal);
    } else {
      const seconds = Math.min(2 ** this.failures++, SLOWEST);
      this.until = Date.now() + seconds * 1_000 * (0.8 + 0.4 * Math.random());
      this.on.note(this, "failed", `the browser gave up; we try again in ${seconds} s`, "warn");
      this.#become("waiting");
    }
  }
}

/** An EventSource does not say why it gave up. Return why the hub refuses for good; nothing if it may work later. */
async function refusalOf(url) {
  const control = new AbortController();
  const timer = setTimeout(() => control.abort(), 5_000);
  try {
    const answer = await fetch(url, { signal: control.signal, cache: "no-store" });
    if (answer.status === 204) return "the hub asks not to come back";
    if (answer.status < 400 || answer.status >= 500 || [408, 425, 429].includes(answer.status)) return "";
    return (await answer.json().catch(() => null))?.detail ?? `status ${answer.status}`;
  } catch {
    return "";
  } finally {
    clearTimeout(timer);
    control.abort();
  }
}

// ---- one answer of the AI ----

const CHAT = "ai/chat/stream";
const ENDS = ["done", "failed", "cancelled"];

/**
 * An answer that the hub generates, whether or not anybody watches. This page only ever watches: what it shows is
 * begun by `ask` and by nothing else, neither by a reload nor by a connection that was lost.
 *
 * Phases: idle, asking, connecting, streaming, reconnecting (by the browser), waiting (by us), resting (the tab is
 * hidden, or offline as the user wishes), and the ends: done, failed, cancelled, gone (the hub does not have it).
 */
class Answer {
  phase = "idle";
  id = "";
  #source = null;
  #key = null; // of the question that the hub has not confirmed yet
  #timer = 0;
  #failures = 0;

  constructor(change) {
    this.change = change;
    this.#forget();
  }

  get over() {
    return this.phase === "idle" || this.phase === "gone" || ENDS.includes(this.phase);
  }

  get path() {
    return `${CHAT}/${encodeURIComponent(this.id)}`;
  }

  #forget() {
    Object.assign(this, { text: "", cursor: "", usage: null, why: "", model: null, stopping: false });
  }

  #become(phase, facts = {}) {
    Object.assign(this, { trouble: "" }, facts, { phase });
    this.change();
  }

  /** Begin a generation; return whether the hub has. Who asks the same once more, because nobody heard of the first attempt, gets that one. */
  async ask(question) {
    if (this.#key?.question !== question) this.#key = { question, value: randomKey() };
    const before = this.phase;
    this.#become("asking");
    try {
      const { sessionId } = await post(`${CHAT}/init`, { message: question }, { "Idempotency-Key": this.#key.value });
      this.#key = null;
      this.watch(sessionId);
      return true;
    } catch (error) {
      this.#become(before, { trouble: `Not asked: ${error.message}.` });
      return false;
    }
  }

  /** Show the generation *id* from its beginning, whoever began it. */
  watch(id) {
    this.#leave();
    this.#forget();
    this.id = id;
    this.#failures = 0;
    document.hidden ? this.#become("resting") : this.#open();
  }

  #open() {
    this.#leave();
    this.#become(this.cursor ? "reconnecting" : "connecting");
    const url = new URL(this.path, location.href);
    if (this.cursor) url.searchParams.set("lastEventId", this.cursor);
    const source = this.#source = new EventSource(url);
    source.addEventListener("start", (event) => this.#begun(event));
    source.onmessage = (event) => this.#added(event);
    source.addEventListener("done", (event) => (this.usage = JSON.parse(event.data).usage));
    source.addEventListener("failed", (event) => (this.why = JSON.parse(event.data).message));
    source.addEventListener("close", (event) => this.#ended(JSON.parse(event.data).phase));
    source.onerror = () => (source.readyState === EventSource.CLOSED ? this.#abandoned(source) : this.#become("reconnecting"));
  }

  #begun(event) {
    if (event.lastEventId === `${this.id}.0`) this.text = ""; // from the beginning: then all of it follows
    this.cursor = event.lastEventId;
    this.#failures = 0;
    this.#become("streaming", { model: JSON.parse(event.data).model });
  }

  #added(event) {
    if (event.data === "[DONE]") return;
    this.text += JSON.parse(event.data).content;
    this.cursor = event.lastEventId;
    this.change();
  }

  #ended(phase) {
    this.#leave(); // or the browser would come back, to be told that there is nothing more
    this.#become(phase);
  }

  /** An EventSource does not say why it gave up; the hub does, as JSON. */
  async #abandoned(source) {
    this.#become("reconnecting");
    let answer = null;
    try {
      answer = await fetch(this.path, { headers: { Accept: "application/json" }, cache: "no-store", signal: AbortSignal.timeout(5_000) });
    } catch {
      // Then it is the network.
    }
    const said = await answer?.json().catch(() => null);
    if (this.#source !== source) return; // something else is shown by now
    if (answer?.ok && ENDS.includes(said?.phase)) {
      const { phase, text, usage = null, message = "", lastEventId } = said;
      this.#leave();
      this.#become(phase, { text, usage, why: message, cursor: lastEventId });
    } else if (answer && [404, 410].includes(answer.status)) {
      this.#leave();
      this.#become("gone", { why: said?.detail ?? "" });
    } else {
      this.#leave();
      this.#become("waiting");
      this.#timer = setTimeout(() => this.#open(), Math.min(2 ** this.#failures++, SLOWEST) * 1_000 * (0.8 + 0.4 * Math.random()));
    }
  }

  #leave() {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = null;
  }

  async stop() {
    this.stopping = true;
    this.change();
    try {
      const answer = await fetch(`${this.path}/cancel`, { method: "DELETE", signal: AbortSignal.timeout(10_000) });
      if (!answer.ok) throw new Error((await answer.json().catch(() => null))?.detail ?? `status ${answer.status}`);
    } catch (error) {
      this.stopping = false;
      this.#become(this.phase, { trouble: `Not stopped: ${error.name === "Error" ? error.message : "the hub cannot be reached"}.` });
    }
  }

  rest() {
    if (this.over || this.phase === "asking") return;
    this.#leave();
    this.#become("resting");
  }

  wake() {
    if (this.phase === "resting") this.#open();
  }
}

function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const ANSWERS = {
  idle: ["Idle", ""],
  asking: ["Asking", "The hub is asked."],
  connecting: ["Connecting", "The hub generates; this page goes and watches."],
  streaming: ["Streaming", "Generated by the hub, watched from here: closing this page stops nothing."],
  reconnecting: ["Reconnecting", "The connection is lost. The answer goes on; the browser comes back for the rest."],
  waiting: ["Reconnecting", "The browser has given up; this page tries again, with its cursor."],
  resting: ["Resting", "The answer goes on; this page comes back for the rest."],
  done: ["Done", "The answer is complete."],
  failed: ["Failed", "The answer is not complete"],
  cancelled: ["Stopped", "Stopped before its end; what there is stays."],
  gone: ["Gone", "The hub does not have this answer"],
};

// ---- what came of it, in words ----

const counted = (count) => (count === 1 ? "1 notification" : `${count.toLocaleString("en")} notifications`);
const lasted = (seconds) => (seconds < 120 ? `${seconds} s` : seconds < 7_200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3_600)} h`);

function gapSentence({ reason, oldest }) {
  switch (reason) {
    case "epoch": return "The hub was restarted; what it kept in memory is gone.";
    case "trimmed": return `Some of what was sent meanwhile is no longer kept; ${oldest} is the oldest that is.`;
    default: return "The hub does not know the place this page asked for.";
  }
}

function sentence({ state, facts, opening, away, refusal }) {
  switch (state) {
    case "reconnecting": return ["The connection is lost; the browser comes back by itself, with its cursor.", ""];
    case "waiting": return ["The browser has given up; this page tries again, with its cursor.", ""];
    case "away": return ["Away on purpose: what is sent now will be caught up.", ""];
    case "refused": return [`The hub refuses: ${refusal}`, "warn"];
  }
  if (!opening) return ["", ""];
  const caughtUp = opening.count ? `${counted(opening.count)} caught up` : "";
  if (facts.recovered === null) return ["A fresh start: nothing was asked, so what is new follows.", ""];
  if (facts.recovered) {
    const back = away ? `Back after ${lasted(away)}` : "Back";
    return [`${back}: nothing is missing, ${caughtUp || "nothing was sent meanwhile"}.`, "good"];
  }
  return [gapSentence(facts) + (caughtUp ? ` Of what it has now, ${caughtUp}.` : ""), "warn"];
}

// ---- from a notification to what is shown ----

const journal = [];
let journaled = 0;

const on = {
  change: () => paint(),
  note(stream, what, text, tone) {
    journal.push({ id: String(++journaled), at: Date.now(), name: stream.name, what, text, tone });
    journal.splice(0, journal.length - KEEP.journal);
    paint();
  },
};

const feed = new Stream("feed", feedPath(), shown.feed, ["message", "order.paid", "order.shipped", "news-flash", "stock.traded", "message.private", "message.room"], {
  ...on,
  notification(stream, event) {
    const { topic, data } = JSON.parse(event.data);
    if (topic === `user/${shown.account}`) receive(event.lastEventId, data, stream.isReplay(event.lastEventId));
    else if (topic === ROOM) overhear(event.lastEventId, data, stream.isReplay(event.lastEventId));
    else if (topic === "news") add("news", stream, event.lastEventId, data);
    else if (topic === "notifications") add("orders", stream, event.lastEventId, data);
    else trade(event.lastEventId, data);
  },
  gap: (stream, text) => divide("orders", text),
  replayed: (stream) => mark(stream, shown.orders, shown.news, shown.letters, shown.talk),
  topics: (topics) => belong(topics.includes(ROOM)),
  people,
  dismissed: (reason) => ["unauthorized", "forbidden", "revoked"].includes(reason) && recognize(reason === "revoked"),
});

const inbox = new Stream("user", userPath(), shown.inbox, ["message", "user.registered"], {
  ...on,
  notification: (stream, event) => add("mail", stream, event.lastEventId, parsed(event.data)),
  gap: (stream, text) => divide("mail", text),
  replayed: (stream) => mark(stream, shown.mail),
  dismissed(reason) {
    if (["unauthorized", "forbidden"].includes(reason)) inbox.refuse(`${shown.user} has a login, and only that user may read this`);
  },
});

const streams = [feed, inbox];
const answer = new Answer(() => paint());

/** A login adds to the stream that is open anyway: a browser has six connections for all tabs. */
function feedPath() {
  return shown.account ? `${FEED}&topic=user/${shown.account}&rooms=1&presence=1` : FEED;
}

function userPath() {
  return `sse/${encodeURIComponent(shown.user)}`;
}

/** Plain text is data, too. */
function parsed(data) {
  try {
    return JSON.parse(data);
  } catch {
    return data;
  }
}

/** Return what a notification says: the demo's own have a message, anybody may publish something else. */
function read(data) {
  const told = typeof data?.message === "string";
  const text = told ? data.message : typeof data === "string" ? data : JSON.stringify(data);
  return { text: text.slice(0, 300), amount: told && typeof data.amount === "number" ? data.amount : null };
}

function add(panel, stream, id, data) {
  shown[panel].push({ id, at: Date.now(), ...read(data), replayed: stream.isReplay(id) });
  shown[panel].splice(0, shown[panel].length - KEEP[panel]);
  paint();
}

function divide(panel, text) {
  shown[panel].push({ id: `gap ${Date.now()} ${Math.random()}`, at: Date.now(), text, gap: true });
  shown[panel].splice(0, shown[panel].length - KEEP[panel]);
  paint();
}

function mark(stream, ...panels) {
  for (const item of panels.flat()) {
    if (!item.gap && epochOf(item.id) === epochOf(stream.opening.id) && stream.isReplay(item.id)) item.replayed = true;
  }
  paint();
}

// ---- the two users ----

/** Show that *account* is logged in, null: nobody; a stream that may not go on, or may get more, begins anew. */
async function become(account, ended = false) {
  if (account !== null && !(account in USERS)) return;
  const other = account !== shown.account;
  if (other) {
    Object.assign(shown, { account, letters: [] });
    belong(false);
  }
  if (feed.path !== feedPath() || ended) {
    feed.path = feedPath();
    if (!["away", "resting"].includes(feed.state)) feed.open();
  }
  if (other) $("letter-to").value = account === "ann" ? "bo" : "ann";
  paint();
  if (other && account) await readLetters(account);
}

let questions = 0; // an answer to an earlier one than the last is out of date
let logging = false; // then the answer says who is logged in

/** Ask who is logged in: another tab may have changed that. */
async function recognize(ended = false) {
  if (logging) return;
  const question = ++questions;
  let account;
  try {
    const answer = await fetch("login", { cache: "no-store", signal: AbortSignal.timeout(10_000) });
    if (!answer.ok) return;
    account = (await answer.json()).user ?? null;
  } catch {
    return; // the hub cannot be reached: the streams say so
  }
  if (question === questions) await become(account, ended);
}

/** Give *take* what the history has of *topic*, page by page, as long as it is *wanted*; return whether that is all. */
async function readHistory(topic, wanted, take) {
  let after = "earliest";
  for (let page = 0; after && page < 20; page += 1) {
    let answer;
    try {
      answer = await fetch(`notifications/history?topic=${topic}&after=${after}&limit=1000`, { signal: AbortSignal.timeout(10_000) });
      if (!answer.ok) return false;
      answer = await answer.json();
    } catch {
      return false;
    }
    if (!wanted()) return false;
    for (const { id, data, at } of answer.notifications) take(id, data, false, Date.parse(at));
    after = answer.next;
  }
  return !after;
}

/** Show what came for *account* before this page did; the stream brings what follows. */
const readLetters = (account) => readHistory(`user/${account}`, () => shown.account === account, receive);

function receive(id, data, replayed, at = Date.now()) {
  keep("letters", { id, at, replayed, from: USERS[data?.from] ?? "the hub", text: read(data).text });
}

/** Keep one entry for each id, in the order of the ids. What was sent to oneself is also received. */
function keep(panel, letter) {
  const letters = shown[panel];
  const before = letters.find((each) => each.id === letter.id);
  if (before) Object.assign(before, letter, { replayed: before.replayed || letter.replayed });
  else letters.push(letter);
  letters.sort((one, other) => offsetOf(one.id) - offsetOf(other.id));
  letters.splice(0, letters.length - KEEP[panel]);
  paint();
}

function letterRow(item) {
  const made = row(item);
  const way = item.by ?? (item.to ? `to ${item.to}` : `from ${item.from}`);
  made.classList.toggle("own", Boolean(item.to));
  made.prepend(make("span", { class: "way", "data-testid": "way" }, way));
  return made;
}

function paintPrivate() {
  const name = USERS[shown.account];
  for (const button of document.querySelectorAll("[data-login]")) {
    const own = button.dataset.login === shown.account;
    button.setAttribute("aria-pressed", String(own));
    tell(button.querySelector(".does"), own ? "You" : "Log in");
  }
  tell($("login-said"), name ? `You are ${name}. Only your page gets what is sent to you.` : "Nobody is logged in here.");
  $("log-out").hidden = !name;
  $("letter-to").disabled = $("letter-text").disabled = $("letter-send").disabled = !name;
  tell($("letters-empty"), name ? `Nothing for ${name} yet.` : "Log in to send a message, and to get what is sent to you.");
  paintLetters("letters");
}

function paintLetters(panel) {
  paintList(panel, letterRow);
  const list = $(panel);
  const order = shown[panel].map(({ id }) => id).reverse();
  const rows = new Map([...list.children].map((element) => [element.dataset.id, element]));
  // What the history brought may be older than what the stream has brought meanwhile.
  if ([...rows.keys()].join() !== order.join()) list.append(...order.map((id) => rows.get(id)));
}

// ---- the room of the two ----

let member = false; // as the stream said last
let stay = 0; // what was asked for in another stay does not count any more
const there = new Set(); // users who are in the room now

/** Show the room, or nothing of it: as soon as one has left, what was said there is for the others. */
function belong(now) {
  stay += 1;
  shown.talk = now ? shown.talk.filter(({ id }) => epochOf(id) === epochOf(feed.place.cursor)) : [];
  if (!now || !member) there.clear();
  member = now;
  if (member) readTalk(stay);
  paint();
}

/** Show what was said since one belongs to the room, and nothing older; the stream brings what follows. */
async function readTalk(mine) {
  const before = new Set(shown.talk.map(({ id }) => id)); // perhaps of an earlier membership
  const complete = await readHistory(ROOM, () => stay === mine, (id, ...rest) => (before.delete(id), overhear(id, ...rest)));
  if (!complete) return;
  shown.talk = shown.talk.filter(({ id }) => !before.has(id));
  paint();
}

function overhear(id, data, replayed, at = Date.now()) {
  const by = data?.from === shown.account ? "You" : USERS[data?.from] ?? "the hub";
  keep("talk", { id, at, replayed, by, text: read(data).text });
}

/** Follow who comes and goes; the snapshot tells who is there already. */
function people(type, { topic, user, users = [] }) {
  if (topic !== ROOM) return;
  if (type === "hub.presence") {
    there.clear();
    for (const each of users) there.add(each.id);
  } else if (type === "hub.join") {
    there.add(user);
  } else {
    there.delete(user);
  }
  paint();
}

function paintRoom() {
  const name = USERS[shown.account];
  const known = member && feed.state === "live";
  for (const face of document.querySelectorAll("[data-there]")) {
    const here = known && there.has(face.dataset.there);
    face.dataset.here = String(here);
    tell(face.querySelector(".does"), !known ? "–" : here ? "In the room" : "Not here");
  }
  const belongs = member ? "You belong to the room." : "You do not belong to the room.";
  tell($("room-said"), name ? belongs : "Only Ann and Bo can join. Log in as one of them.");
  $("room-change").disabled = !name;
  tell($("room-change"), member ? "Leave the room" : "Join the room");
  $("talk-text").disabled = $("talk-send").disabled = !member;
  const silent = member ? "Nothing has been said since you joined." : "Join the room to read what is said, and to say something.";
  tell($("talk-empty"), name ? silent : "Log in and join the room to read what is said.");
  paintLetters("talk");
}

function trade(id, data) {
  const { symbol, price, change } = data ?? {};
  if (typeof symbol !== "string" || typeof price !== "number") return;
  if (!(symbol in shown.stocks) && Object.keys(shown.stocks).length >= KEEP.tiles) return;
  const prices = shown.stocks[symbol]?.prices ?? [];
  prices.push(price);
  prices.splice(0, prices.length - KEEP.prices);
  shown.stocks[symbol] = { prices, change: typeof change === "number" ? change : 0, id };
  paint();
}

// ---- painting: once per frame, whatever came ----

let painting = false;

function paint() {
  if (painting) return;
  painting = true;
  requestAnimationFrame(() => {
    painting = false;
    paintList("orders", orderRow);
    paintList("news", row);
    paintList("mail", row);
    paintPrivate();
    paintRoom();
    paintStocks();
    paintState("feed", feed);
    paintState("inbox", inbox);
    paintChat();
    paintJournal();
    paintCurl();
    save();
  });
}

/** Return an element; strings become text, never markup. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function tell(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function fill(input, text) {
  if (input.value !== text) input.value = input.title = text;
}

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const money = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });

function row(item) {
  if (item.gap) return make("li", { class: "gap", "data-testid": "gap", "data-id": item.id }, make("span", { class: "text" }, item.text));
  const mark = make("span", { class: "mark", title: "Sent while this page was not connected, and caught up" }, "↺", make("span", {}, " caught up"));
  const text = make("span", { class: "text" }, item.text);
  if (/\p{Script=Han}/u.test(item.text)) text.lang = "zh-CN";
  return make("li", { "data-testid": "row", "data-id": item.id }, text, mark, make("time", {}, clock.format(item.at)));
}

function orderRow(item) {
  const made = row(item);
  if (typeof item.amount === "number") {
    made.querySelector(".text").after(make("span", { class: "amount", "data-testid": "amount" }, money.format(item.amount)));
  }
  return made;
}

function paintList(panel, makeRow) {
  const list = $(panel);
  const items = shown[panel];
  const known = new Map([...list.children].map((element) => [element.dataset.id, element]));
  const wanted = new Set(items.map((item) => item.id));
  for (const [id, element] of known) if (!wanted.has(id)) element.remove();
  for (const item of items) {
    const element = known.get(item.id) ?? makeRow(item);
    element.classList.toggle("replayed", Boolean(item.replayed));
    if (!known.has(item.id)) list.prepend(element);
  }
}

const SVG = "http://www.w3.org/2000/svg";

function tile(symbol) {
  const chart = document.createElementNS(SVG, "svg");
  chart.setAttribute("viewBox", "0 0 100 30");
  chart.setAttribute("preserveAspectRatio", "none");
  chart.setAttribute("aria-hidden", "true");
  chart.append(document.createElementNS(SVG, "polyline"));
  const parts = [make("b", {}, symbol), make("span", { class: "change" }, make("span"), make("span", { class: "percent" })), make("span", { class: "price" }, "–"), chart];
  return make("div", { class: "tile", "data-testid": `stock-${symbol}`, "data-symbol": symbol }, ...parts);
}

function paintStocks() {
  const tiles = new Map([...$("stocks").children].map((element) => [element.dataset.symbol, element]));
  for (const symbol of new Set([...SYMBOLS, ...Object.keys(shown.stocks)])) {
    const element = tiles.get(symbol) ?? $("stocks").appendChild(tile(symbol));
    const stock = shown.stocks[symbol];
    if (!stock || element.dataset.id === stock.id) continue;
    element.dataset.id = stock.id;
    paintStock(element, stock);
  }
}

function paintStock(element, { prices, change }) {
  const price = prices.at(-1);
  const opening = price - change;
  element.dataset.trend = change > 0 ? "up" : change < 0 ? "down" : "flat";
  tell(element.querySelector(".price"), money.format(price));
  const arrow = change > 0 ? "▲" : change < 0 ? "▼" : "■";
  const percent = opening > 0 ? ` (${money.format(Math.abs(change / opening) * 100)} %)` : "";
  const [by, part] = element.querySelector(".change").children;
  tell(by, `${arrow} ${money.format(Math.abs(change))}`);
  tell(part, percent);
  const [low, high] = [Math.min(...prices), Math.max(...prices)];
  const points = prices.map((each, place) => {
    const across = prices.length > 1 ? (place / (prices.length - 1)) * 100 : 100;
    return `${across.toFixed(1)},${(28 - ((each - low) / (high - low || 1)) * 26).toFixed(1)}`;
  });
  element.querySelector("polyline").setAttribute("points", points.join(" "));
  if (!calm.matches) element.animate([{ borderColor: "var(--accent)" }, {}], { duration: 700, easing: "ease-out" });
}

const WORDS = {
  connecting: "Connecting", live: "Live", reconnecting: "Reconnecting", waiting: "Reconnecting", away: "Offline",
  resting: "Resting", refused: "Refused",
};

function paintState(name, stream) {
  const pill = $(`${name}-state`);
  pill.dataset.state = stream.state;
  tell(pill.querySelector("[role=status]"), WORDS[stream.state]);
  tell(pill.querySelector(".detail"), stream.detail);
  const { connection = "", recovered, reason, topics = [] } = stream.facts;
  tell($(`${name}-connection`), connection);
  tell($(`${name}-recovered`), recovered === undefined ? "" : String(recovered) + (reason ? ` (${reason})` : ""));
  tell($(`${name}-cursor`), stream.place.cursor);
  tell($(`${name}-topics`), topics.join("  "));
  tell($(`${name}-gap`), stream.gap ?? "");
  tell($(`${name}-dropped`), String(stream.dropped ?? 0));
  tell($(`${name}-close`), stream.reason ?? "");
  if (name !== "feed") return;
  const [text, tone] = sentence(stream);
  tell($("feed-said"), text);
  $("feed-said").dataset.tone = tone;
  tell($("leave"), stream.state === "away" ? "Come back now" : "Go offline for 10 s");
}

let asked = null; // `{ id, question }` of the last question of this browser, for all its tabs

function questionOf(id) {
  try {
    asked ??= JSON.parse(localStorage.getItem("hub-demo-chat"));
  } catch {
    asked = null;
  }
  return asked?.id === id ? asked.question : "";
}

function remember(id, question) {
  asked = { id, question };
  try {
    localStorage.setItem("hub-demo-chat", JSON.stringify(asked));
  } catch {
    // No storage: then a second tab does not know the question.
  }
}

function paintChat() {
  const [word, text] = ANSWERS[answer.phase];
  const broken = answer.phase === "failed" || answer.phase === "gone";
  $("chat-state").dataset.state = answer.phase;
  tell($("chat-state").firstElementChild, word);
  const sentence = broken ? `${text}${answer.why ? `: ${answer.why}` : ""}.` : text;
  tell($("chat-said"), answer.trouble || sentence);
  $("chat-said").dataset.tone = broken || answer.trouble ? "bad" : "";
  $("chat-ask").disabled = !answer.over;
  $("chat-stop").disabled = answer.over || answer.phase === "asking" || answer.stopping;
  tell($("chat-stop"), answer.stopping && !answer.over ? "Stopping" : "Stop");
  if (answer.id) $("chat-tab").href = `#ai=${answer.id}`;
  tell($("chat-session"), answer.id);
  tell($("chat-cursor"), answer.cursor);
  const { prompt_tokens = 0, completion_tokens = 0 } = answer.usage ?? {};
  tell($("chat-usage"), answer.usage ? `${prompt_tokens} + ${completion_tokens} tokens${answer.model ? `, ${answer.model}` : ""}` : "");
  tell($("chat-asked"), answer.id ? questionOf(answer.id) : "");
  $("chat-asked").lang = /\p{Script=Han}/u.test($("chat-asked").textContent) ? "zh-CN" : "";
  paintAnswer($("chat-answer"));
}

function paintAnswer(element) {
  const atEnd = element.scrollHeight - element.scrollTop - element.clientHeight < 40;
  element.dataset.phase = answer.phase;
  element.setAttribute("aria-busy", String(!answer.over)); // spoken when it is complete, not word by word
  tell(element, answer.text);
  if (atEnd) element.scrollTop = element.scrollHeight;
}

function paintJournal() {
  const list = $("journal");
  const last = Number(list.firstElementChild?.dataset.id ?? 0);
  for (const { id, at, name, what, text, tone } of journal.filter((each) => Number(each.id) > last)) {
    list.prepend(make("li", { "data-id": id, "data-tone": tone }, `${clock.format(at)} ${name} `, make("b", {}, what), ` ${text}`));
  }
  while (list.children.length > KEEP.journal) list.lastElementChild.remove();
}

// ---- the same from a terminal ----

const absolute = (path) => new URL(path, location.href).href;
const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const listening = (path) => `curl -N ${quote(absolute(path))}`;
const posting = (path, body) => `curl ${quote(absolute(path))} -H 'Content-Type: application/json' -d ${quote(JSON.stringify(body))}`;

const order = () => ({ amount: $("order-amount").valueAsNumber });
const mail = () => ({ topic: `user/${$("mail-to").value}`, data: { message: $("mail-text").value } });

function paintCurl() {
  fill($("curl-stocks"), listening("notifications/subscribe?topic=stock/*"));
  fill($("curl-news"), listening("notifications/subscribe?topic=news"));
  fill($("curl-orders"), listening("notifications/subscribe"));
  fill($("curl-order"), posting("orders", order()));
  fill($("curl-user"), listening(userPath()));
  fill($("curl-mail"), posting("notifications/publish", mail()));
  fill($("curl-private"), listening(`notifications/subscribe?topic=user/${shown.account ?? "ann"}`));
  fill($("curl-room"), listening(`notifications/subscribe?topic=${ROOM}`));
  fill($("curl-resume"), listening(`${FEED}&lastEventId=${feed.opening?.id ?? ""}`));
  fill($("curl-chat"), answer.id ? listening(answer.path) : listening(`${CHAT}?message=${encodeURIComponent($("chat-question").value)}`));
  tell($("inbox-asks"), `user/${shown.user}`);
}

for (const button of document.querySelectorAll("[data-copies]")) {
  const line = $(button.dataset.copies);
  line.addEventListener("focus", () => line.select());
  button.addEventListener("click", async () => {
    const copied = await copy(line);
    tell(button, copied ? "Copied" : "Selected");
    tell($("spoken"), copied ? "Copied" : "Selected; press Control C to copy");
    setTimeout(() => (tell(button, "Copy"), tell($("spoken"), "")), 2_000);
  });
}

async function copy(line) {
  try {
    await navigator.clipboard.writeText(line.value);
    return true;
  } catch {
    line.focus(); // no clipboard over plain HTTP from another machine
    return false;
  }
}

// ---- what the user does ----

async function post(path, body, headers = {}, method = "POST") {
  const signal = AbortSignal.timeout(10_000);
  let answer;
  try {
    answer = await fetch(path, { method, headers: { "Content-Type": "application/json", ...headers }, body: JSON.stringify(body), signal });
  } catch {
    throw new Error("the hub cannot be reached");
  }
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(said.detail ?? `status ${answer.status}`);
  return said;
}

function onSubmit(form, output, act) {
  $(form).addEventListener("submit", async (event) => {
    event.preventDefault();
    const say = (text, tone = "") => ($(output).dataset.tone = tone, tell($(output), text));
    await act().then(say, (error) => say(`Not done: ${error.message}.`, "bad"));
  });
}

onSubmit("order-form", "order-answer", async () => {
  const { id } = await post("orders", order());
  return `Accepted as order ${id}; the stream brings the rest.`;
});

onSubmit("mail-form", "mail-answer", async () => {
  const to = $("mail-to").value;
  const { id } = await post("notifications/publish", mail());
  return `Accepted as ${id}, for user ${to} only.`;
});

onSubmit("letter-form", "letter-answer", async () => {
  const [to, message] = [$("letter-to").value, $("letter-text").value];
  const { id } = await post("messages", { to, message });
  if (to !== shown.account) keep("letters", { id, at: Date.now(), to: USERS[to], text: message });
  return `Accepted as ${id}, for ${USERS[to]} only.`;
});

onSubmit("talk-form", "talk-answer", async () => {
  const data = { from: shown.account, message: $("talk-text").value };
  const { id } = await post("notifications/publish", { topic: ROOM, type: "message.room", private: true, data });
  if ($("talk-text").value === data.message) {
    $("talk-form").reset(); // or the empty field would be shown as a mistake
    $("talk-text").value = "";
  }
  return `Accepted as ${id}, for the members of the room only.`;
});

$("room-change").addEventListener("click", async () => {
  const output = $("talk-answer");
  const [method, body] = member ? ["DELETE", {}] : ["PUT", { publish: true }];
  try {
    await post(`notifications/rooms/tea/members/${shown.account}`, body, {}, method);
    output.dataset.tone = "";
    tell(output, ""); // the stream says the rest, to the other tabs too
  } catch (error) {
    output.dataset.tone = "bad";
    tell(output, `Not done: ${error.message}.`);
  }
});

async function log(method, body) {
  if (logging) return;
  const answer = $("letter-answer");
  questions += 1;
  logging = true;
  try {
    const { user } = await post("login", body, {}, method);
    answer.dataset.tone = "";
    tell(answer, "");
    become(user, true);
  } catch (error) {
    answer.dataset.tone = "bad";
    tell(answer, `Not done: ${error.message}.`);
  } finally {
    logging = false;
  }
}

for (const button of document.querySelectorAll("[data-login]")) {
  button.addEventListener("click", () => button.dataset.login !== shown.account && log("POST", { user: button.dataset.login }));
}
$("log-out").addEventListener("click", () => log("DELETE", {}));

$("user-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const user = $("user-id").value;
  if (user === shown.user && inbox.state !== "refused") return;
  Object.assign(shown, { user, mail: [] });
  Object.assign(shown.inbox, { cursor: "", left: 0 });
  Object.assign(inbox, { path: userPath(), facts: {}, opening: null, gap: null, dropped: 0, reason: "" });
  $("mail-to").value = user;
  inbox.open();
});

$("chat-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (!answer.over) return;
  const question = $("chat-question").value;
  if (!(await answer.ask(question))) return;
  remember(answer.id, question);
  history.replaceState(null, "", `#ai=${answer.id}`); // a reload finds the answer, and so does who gets the link
});

$("chat-stop").addEventListener("click", () => answer.stop());

/** Show the answer that the address names. */
function watchNamed() {
  const id = new URLSearchParams(location.hash.slice(1)).get("ai");
  if (id && id !== answer.id) answer.watch(id);
}

addEventListener("hashchange", watchNamed);

$("leave").addEventListener("click", () => {
  const back = feed.state === "away";
  for (const stream of streams) back ? stream.open() : stream.leave("away", 10);
  if (!back) answer.rest();
});

for (const id of ["order-amount", "mail-to", "mail-text", "chat-question"]) $(id).addEventListener("input", paint);

// ---- coming and going ----

// Browsers open six connections per host over HTTP/1.1, for all tabs together. A tab that nobody sees hands its own
// back, and has missed nothing when it is seen again.
function rest() {
  for (const stream of streams) if (stream.state !== "away") stream.leave("resting");
  answer.rest();
  save();
}

function wake() {
  recognize();
  for (const stream of streams) if (stream.state === "resting") stream.open();
  answer.wake();
}

document.addEventListener("visibilitychange", () => (document.hidden ? rest() : wake()));
addEventListener("pagehide", rest);
addEventListener("pageshow", (event) => event.persisted && wake());
addEventListener("online", () => {
  for (const stream of streams) if (stream.state === "reconnecting" || stream.state === "waiting") stream.open();
});

let ticked = Date.now();
setInterval(() => {
  const now = Date.now();
  const slept = now - ticked > ASLEEP;
  const silent = feed.state === "live" && now - feed.heard > SILENT;
  ticked = now;
  for (const stream of streams) {
    // A connection may be dead without anybody having said so. Asking again costs nothing: the cursor knows.
    if ((slept || silent) && stream.state === "live") stream.doubt();
    stream.tick(now);
  }
  if (!document.hidden && feed.state !== "away") answer.wake();
}, 250);

$("user-id").value = $("mail-to").value = shown.user;
watchNamed();
if (!document.hidden) wake();
paint();
