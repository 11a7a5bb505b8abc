/** The line of this tab: open, away for a while as the user wishes, and what it has missed and caught up with. */

import { join } from "./connect.js";
import { $, onPaint, paint, tell } from "./dom.js";
import { forgetErrors } from "./forms.js";
import { epochOf, offsetOf, topicOf } from "./ids.js";
import { note } from "./journal.js";
import { all, mail, orders, setLate } from "./lists.js";
import { save, shown } from "./store.js";
import { t } from "./words.js";

/**
 * `state` is what the client says (connecting, open, waiting, offline, refused), or `away`: as the user wishes.
 * `wire` is the one by which it is open, empty: it is not.
 * `opening` is what is known of the last connection: after which offset it began, and up to which one was sent before.
 */
export const line = {
  hub: null, listens: false, state: "connecting", reason: "", wire: "", until: 0, begun: false, opening: null, away: 0, gap: "", dropped: 0,
};

const panels = [];
let refusedBy = () => {};

/** Begin with what the panels follow and hear; `onRefused` is called when the hub refuses this user. */
export function start(parts, onRefused) {
  panels.push(...parts);
  refusedBy = onRefused;
  open();
}

function wanted() {
  const own = shown.account ? [`user/${shown.account}`] : [];
  const followed = shown.refused ? [] : [topicOf("user", shown.user)];
  return [...new Set([...panels.flatMap(({ topics = [] }) => topics), ...followed, ...own])];
}

export function open() {
  if (!panels.length) return; // not begun yet
  drop();
  line.listens = true;
  become({ state: "connecting" });
  // A hub that was closed may still be heard of once: only the last one counts.
  const ifLast = (then) => (...facts) => line.listens && (hub === undefined || hub === line.hub) && then(...facts);
  let hub = undefined;
  hub = join(shown.account ?? "", wanted(), shown.cursor || undefined, {
    onState: ifLast(onState),
    onGap: ifLast(onGap),
    onDrop: ifLast(onDrop),
    onRefused: ifLast(({ topics }) => onRefused(topics)),
    onTopics: ifLast((topics) => panels.forEach((panel) => panel.onTopics?.(topics))),
  });
  line.hub = hub;
  hub.onAny(({ id }) => count(id));
  for (const panel of panels) panel.listen?.(hub);
}

/** Let go of the stream. A client that is closed can still publish, and ask the AI. */
function drop() {
  if (line.state === "open") shown.left ||= Date.now();
  keep();
  line.opening = null;
  line.listens = false;
  line.hub?.close();
}

/** Stay away for so many seconds. */
export function leave(seconds) {
  drop();
  line.until = Date.now() + seconds * 1_000;
  become({ state: "away" });
}

export function keep() {
  save(line.hub?.cursor);
}

/** Follow another user. */
export async function follow(user) {
  if (user === shown.user && !shown.refused) return undefined;
  const [before, after] = [topicOf("user", shown.user), topicOf("user", user)];
  const had = wanted();
  Object.assign(shown, { user, refused: "" });
  mail.clear();
  $("mail-to").value = user;
  if (!line.listens) return undefined; // away: the next opening asks for it
  try {
    if (!had.includes(after)) await line.hub.add(after);
  } catch (error) {
    if (shown.user === user) shown.refused = error.code === "unauthorized" ? "unauthorized" : error.message;
  }
  if (had.includes(before) && !wanted().includes(before)) await line.hub.remove(before);
  return undefined;
}

function become(facts) {
  Object.assign(line, { reason: "", wire: "" }, facts);
  paint();
}

function onState({ state, reason = "", retryIn = 0, wire = "" }) {
  const was = line.state;
  if (was === "open" && state !== "open") {
    shown.left ||= Date.now();
    note("lost", "warn", reason);
  }
  become({ state, reason, wire, until: Date.now() + retryIn });
  if (state === "open") greet();
  if (state === "refused") {
    note("refused", "warn", reason);
    refusedBy(reason);
  }
}

function onRefused(topics) {
  if (topics.includes(topicOf("user", shown.user))) shown.refused = "unauthorized";
  if (topics.includes(`user/${shown.account}`)) refusedBy("forbidden");
  paint();
}

function greet() {
  const cursor = line.hub.cursor ?? shown.cursor;
  const opening = { fresh: !shown.cursor && !line.begun, id: cursor, from: offsetOf(cursor || "-0"), upto: 0, early: [], count: 0, gap: null };
  line.opening = opening;
  line.begun = true;
  line.away = shown.left ? Math.max(1, Math.round((Date.now() - shown.left) / 1_000)) : 0;
  shown.left = 0;
  note(opening.fresh ? "open" : "again", "", line.wire);
  forgetErrors();
  if (!opening.fresh) void findLate(opening);
}

/** Whatever is newer than where the stream begins, and not newer than the hub's newest now, was sent before we came. */
async function findLate(opening) {
  let newest = "";
  try {
    const answer = await fetch("notifications/position", { signal: AbortSignal.timeout(5_000) });
    newest = (await answer.json()).position ?? "";
  } catch {
    return;
  }
  if (line.opening !== opening) return;
  if (epochOf(newest) !== epochOf(opening.id)) opening.from = -1; // another log, of which all that comes was there
  opening.epoch = epochOf(newest);
  opening.upto = offsetOf(newest);
  opening.known = true;
  opening.count += opening.early.filter(isLate).length;
  opening.early = [];
  for (const list of all) list.mark();
  if (opening.count) note("caught.up", "good", opening.count);
}

function isLate(id) {
  const { opening } = line;
  return Boolean(opening?.known) && epochOf(id) === opening.epoch && offsetOf(id) > opening.from && offsetOf(id) <= opening.upto;
}

setLate(isLate);

function count(id) {
  const { opening } = line;
  if (!opening || opening.fresh) return;
  if (opening.known) opening.count += isLate(id);
  else opening.early.push(id);
}

function onGap({ reason, oldest = "" }) {
  const what = [`gap.${["epoch", "trimmed"].includes(reason) ? reason : "unknown"}`, oldest];
  line.gap = what;
  if (line.opening) line.opening.gap = what;
  orders.divide(what);
  note(...[what[0], "warn", oldest]);
}

function onDrop({ dropped }) {
  line.dropped += dropped;
  orders.divide(["dropped", dropped]);
  note("dropped", "warn", dropped);
}

// ---- how it is, in words ----

function stateWord() {
  if (line.state === "connecting" || line.state === "waiting") return t(line.begun ? "state.again" : "state.connecting");
  return t(`state.${line.state}`);
}

function detail() {
  const ahead = Math.max(0, Math.ceil((line.until - Date.now()) / 1_000));
  if (line.state === "away") return t("back.in", ahead);
  return ["waiting", "offline"].includes(line.state) && ahead ? t("in", ahead) : "";
}

function sentence() {
  const { state, opening, away, reason } = line;
  if (state === "away") return [t("said.away"), ""];
  if (state === "refused") return [t("said.refused", reason), "warn"];
  if (state !== "open") return [line.begun ? t("said.lost") : "", ""];
  if (!opening) return ["", ""];
  const caughtUp = opening.count ? t("caught.up", opening.count) : "";
  if (opening.gap) return [[t(...opening.gap), caughtUp].filter(Boolean).join(" "), "warn"];
  if (opening.fresh) return [t("said.fresh"), ""];
  return [`${away ? t("said.back.after", away) : t("said.back")} ${caughtUp || t("said.nothing")}`, "good"];
}

onPaint(() => {
  const pill = $("feed-state");
  pill.dataset.state = line.state;
  tell(pill.querySelector("[role=status]"), stateWord());
  tell(pill.querySelector(".detail"), detail());
  const [text, tone] = sentence();
  tell($("feed-said"), text);
  $("feed-said").dataset.tone = tone;
  tell($("leave"), t(line.state === "away" ? "come.back" : "go.offline"));
  const inbox = $("inbox-state");
  const known = line.state === "open";
  inbox.dataset.state = shown.refused ? "refused" : known ? "open" : "connecting";
  tell(inbox, t(shown.refused ? "user.refused" : known ? "user.followed" : "state.connecting"));
  tell($("user-said"), shown.refused === "unauthorized" ? t("user.private", shown.user) : shown.refused);
  tell($("inbox-asks"), topicOf("user", shown.user));
  tell($("feed-sharing"), line.hub?.sharing ? t(`sharing.${line.hub.sharing}`) : "");
  tell($("feed-wire"), line.wire && t(`wire.${line.wire}`));
  tell($("feed-topics"), line.hub?.topics?.join("  ") ?? "");
  tell($("feed-cursor"), line.hub?.cursor ?? shown.cursor);
  tell($("feed-gap"), line.gap ? t(...line.gap) : "");
  tell($("feed-dropped"), String(line.dropped));
});

/** Do what is due; called a few times a second. */
export function tick(now) {
  if (line.state === "away" && now >= line.until) open();
  if (["away", "waiting", "offline"].includes(line.state)) paint();
}
