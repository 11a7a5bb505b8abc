import { onSubmit, post } from "./forms.js";
import { letters } from "./lists.js";
import { shown } from "./store.js";

export function listen(hub) {
  hub.on("message.private", ({ id, topics, data }) => {
    if (topics.includes(`user/${shown.account}`)) letters.receive(id, data);
  });
}

onSubmit("letter-form", async ({ to, message }) => {
  const { id } = await post("messages", { to, message }); // the server says who it is from, and sends it to one user
  if (to !== shown.account) letters.sent(id, to, message);
  return ["letter.accepted", id, to];
});
