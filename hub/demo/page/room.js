import { onSubmit } from "./forms.js";
import { line } from "./line.js";
import { talk } from "./lists.js";
import { belong, joined, left, people, ROOM } from "./members.js";
import { shown } from "./store.js";

export function listen(hub) {
  hub.on("message.room", ({ id, data }) => talk.receive(id, data));
  hub.presence.on(({ topic, users = [] }) => topic === ROOM && people(users.map((user) => user.id)));
}

onSubmit("room-form", () => (belong() ? line.hub.leave("tea").then(left) : line.hub.join("tea", { publish: true }).then(joined)));

onSubmit("talk-form", async ({ message }) => {
  const { id } = await line.hub.publish({ topic: ROOM, type: "message.room", private: true, data: { from: shown.account, message } });
  return ["talk.accepted", id];
});
