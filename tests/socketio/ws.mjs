// The npm package ws as a client of /notifications/ws: node ws.mjs <url> <token> <1: with compression>
import WebSocket from "ws";

const [url, token, deflate] = process.argv.slice(2);

function opened(options = {}) {
  const socket = new WebSocket(url, ["other", "hub.v1.json"], {
    perMessageDeflate: deflate === "1" ? { threshold: 0 } : false, ...options,
  });
  socket.heard = [];
  socket.waiting = [];
  socket.on("message", (data, isBinary) => {
    socket.heard.push(isBinary ? "binary" : JSON.parse(data));
    socket.waiting.forEach((look) => look());
  });
  socket.end = new Promise((resolve) => socket.on("close", (code, reason) => resolve([code, String(reason)])));
  return socket;
}

// Resolves with the first message for which the condition holds.
const first = (socket, condition) => new Promise((resolve) => {
  const look = () => {
    const found = socket.heard.find(condition);
    if (found) resolve(found);
  };
  socket.waiting.push(look);
  look();
});

let refs = 0;
function ask(socket, message) {
  const ref = ++refs;
  socket.send(JSON.stringify({ ref, ...message }));
  return first(socket, (each) => each.ref === ref);
}

const reader = opened();
const talker = opened({ headers: { Authorization: `Bearer ${token}` } });
await Promise.all([reader, talker].map((each) => new Promise((resolve) => each.on("open", resolve))));
const { user } = await ask(reader, { op: "auth", token });
const { from } = await ask(reader, { op: "subscribe", topics: ["orders/*"] });
const draft = { op: "publish", topic: "orders/1", data: { text: "é".repeat(1_000) }, key: "once" };
const published = [await ask(talker, draft), await ask(talker, draft)];
const seen = await first(reader, (each) => each.op === "notification");
const pong = new Promise((resolve) => talker.on("pong", (data) => resolve(String(data))));
talker.ping("are you there");
const said = {
  protocol: reader.protocol,
  extensions: reader.extensions,
  user,
  pong: await pong,
  after: seen.id > from,
  same: published.every(({ id }) => id === seen.id),
  repeated: published.map(({ repeated }) => repeated ?? false),
  data: seen.data.text === draft.data.text,
  refused: (await ask(talker, { op: "publish", topic: "secret", data: 1 })).code,
};
talker.close(3001, "bye");
said.left = await talker.end;
const wrong = opened({ headers: { Authorization: `Bearer ${token}` } });
await new Promise((resolve) => wrong.on("open", resolve));
wrong.send(Buffer.from("binary"));
said.wrong = (await wrong.end)[0];
console.log(JSON.stringify(said));
// Now the hub drains.
console.log(JSON.stringify([await reader.end, reader.heard.at(-1).reason]));
