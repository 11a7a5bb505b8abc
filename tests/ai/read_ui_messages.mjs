// Reads an answer the way `useChat` does, with the AI SDK's own transport, and prints the message it makes.
import { DefaultChatTransport, readUIMessageStream } from "ai";

const [api, id] = process.argv.slice(2);
const transport = new DefaultChatTransport({
  api,
  prepareSendMessagesRequest: ({ messages }) => ({ body: { message: messages.at(-1).parts[0].text } }),
  prepareReconnectToStreamRequest: () => ({ api: `${api.split("?")[0]}/${id}?format=ai-sdk` }),
});
const stream = id
  ? await transport.reconnectToStream({ chatId: id })
  : await transport.sendMessages({
      chatId: "c",
      trigger: "submit-message",
      messages: [{ id: "m", role: "user", parts: [{ type: "text", text: "hi" }] }],
    });

if (stream === null) {
  console.log(JSON.stringify(null));
} else {
  let message = null;
  const errors = [];
  for await (const each of readUIMessageStream({ stream, onError: (error) => errors.push(error.message) })) {
    message = each;
  }
  console.log(JSON.stringify({ message, errors }));
}
