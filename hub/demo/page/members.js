/** Who belongs to the room, who is there now, and what was said since one belongs to it. */

import { $, onPaint, paint, tell } from "./dom.js";
import { readHistory } from "./history.js";
import { line } from "./line.js";
import { talk, tellEmpty } from "./lists.js";
import { shown } from "./store.js";
import { nameOf, t } from "./words.js";

export const ROOM = "room/tea";

let member = false; // as the hub said last
let stay = 0; // what was asked for in another stay does not count any more
let there = new Set(); // users who are in the room now

export const belong = () => member;

export function people(users) {
  there = new Set(users);
  paint();
}

export function onTopics(topics) {
  if (line.wire === "poll") void ask();
  else settle(topics.includes(ROOM));
}

/** What a poll does not tell. */
export const joined = () => moved(true);
export const left = () => moved(false);

function moved(now) {
  if (line.wire !== "poll") return;
  settle(now);
  if (now) void ask();
}

/** Ask what a poll does not tell: whether the room is the user's, and who is there. */
async function ask() {
  const { hub } = line;
  const mine = stay;
  const answer = await fetch(`notifications/presence?topic=${ROOM}`, { signal: AbortSignal.timeout(10_000) }).catch(() => null);
  const { users = [] } = answer?.ok ? await answer.json() : {};
  if (line.hub !== hub || line.wire !== "poll" || stay !== mine || !(answer?.ok || answer?.status === 403)) return;
  if (answer.ok !== member) settle(answer.ok);
  if (answer.ok) people(users.map((user) => user.id));
}

setInterval(() => line.wire === "poll" && member && !document.hidden && void ask(), 3_000);

/** Show the room, or nothing of it: as soon as one has left, what was said there is for the others. */
export function settle(now) {
  if (now && member) talk.keepEpochOf(line.hub?.cursor ?? "");
  stay += 1;
  if (!now) talk.clear();
  if (!now) there = new Set();
  member = now;
  if (member) void readTalk(stay);
  paint();
}

/** Show what was said since one belongs to the room, and nothing older; the stream brings what follows. */
async function readTalk(mine) {
  const before = new Set(shown.talk.map(({ id }) => id)); // perhaps of an earlier membership
  const complete = await readHistory(ROOM, () => stay === mine, (id, data, at) => {
    before.delete(id);
    talk.receive(id, data, at);
  });
  if (complete) talk.keepOnly((id) => !before.has(id));
}

onPaint(() => {
  const known = member && line.state === "open";
  for (const face of document.querySelectorAll("[data-there]")) {
    const here = known && there.has(face.dataset.there);
    face.dataset.here = String(here);
    tell(face.querySelector(".does"), !known ? "–" : t(here ? "room.here" : "room.not.here"));
  }
  const name = shown.account && nameOf(shown.account);
  tell($("room-said"), t(!name ? "room.who" : member ? "room.member" : "room.no.member"));
  $("room-change").disabled = !name;
  tell($("room-change"), t(member ? "room.leave" : "room.join"));
  $("talk-text").disabled = $("talk-send").disabled = !member;
  tellEmpty("talk-empty", !name ? "talk.login" : member ? "talk.silent" : "talk.join");
});
