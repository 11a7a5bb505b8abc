import { onSubmit } from "./forms.js";
import { mail } from "./lists.js";
import { topicOf } from "./ids.js";
import { follow, line } from "./line.js";
import { shown } from "./store.js";

export function listen(hub) {
  hub.onAny(({ id, topics, data }) => topics.includes(topicOf("user", shown.user)) && mail.add(id, data));
}

onSubmit("user-form", ({ user }) => follow(user)); // hub.add(…) what is new, hub.remove(…) what was

onSubmit("mail-form", async ({ to, message }) => {
  const { id } = await line.hub.publish({ topic: topicOf("user", to), data: { message } });
  return ["mail.accepted", id, to];
});
