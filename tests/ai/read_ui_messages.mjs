// Reads an answer the way `useChat` does, through the transport of the documentation, and prints the message it makes.
import { readUIMessageStream } from "ai";

const [transport_module, origin, place] = process.argv.slice(2);

// What a browser has and Node.js has not: a page's origin, and its storage.
const kept = new Map(place ? [["answer", place]] : []);
globalThis.sessionStorage = {
  getItem: (key) => kept.get(key) ?? null,
  setItem: (key, value) => kept.set(key, value),
};
const fetch_anywhere = globalThis.fetch;
globalThis.fetch = (url, options) => fetch_anywhere(new URL(url, origin), options);

const { transport } = await import(transport_module);
const stream = place
  ? await transport.reconnectToStream({ chatId: "c" })
  : await transport.sendMessages({
      chatId: "c",
      trigger: "submit-message",
      messages: [{ id: "m", role: "user", parts: [{ type: "text", text: "hi" }] }],
    });

let message = null;
const errors = [];
for await (const each of readUIMessageStream({ stream, onError: (error) => errors.push(error.message) })) {
  message = each;
}
console.log(JSON.stringify({ message, errors, place: kept.get("answer") }));
