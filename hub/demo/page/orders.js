import { onSubmit, post } from "./forms.js";
import { orders } from "./lists.js";

export const topics = ["notifications"]; // where the backend announces orders

export function listen(hub) {
  hub.onAny(({ id, topics, data }) => topics.includes("notifications") && orders.add(id, data));
}

onSubmit("order-form", async ({ amount }) => {
  const { id } = await post("orders", { amount: Number(amount) });
  return ["order.accepted", id]; // the stream brings the rest
});
