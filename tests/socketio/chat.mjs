// A chat of two rooms over Socket.IO: node chat.mjs <url> <transports> <token of ann> <token of bob>
import { io } from "socket.io-client";

const [address, transports, ...tokens] = process.argv.slice(2);
const path = "/socket.io/";

async function connected(token) {
  const socket = io(address, { path, transports: transports.split(","), auth: { token }, reconnection: false });
  socket.heard = [];
  socket.on("notification", ({ topics, data }) => socket.heard.push([topics[0], data]));
  socket.on("connect_error", (error) => process.stderr.write(`${error.message} ${JSON.stringify(error.data)}\n`));
  await new Promise((resolve) => socket.once("connect", resolve));
  return socket;
}

const said = (socket, room, data) =>
  socket.timeout(10_000).emitWithAck("publish", { topic: `room/${room}`, data, private: true });

async function heard(socket, number) {
  while (socket.heard.length < number) await new Promise((resolve) => socket.once("notification", resolve));
}

const people = [await connected(tokens[0]), await connected(tokens[1])];
if (transports === "polling,websocket") {
  await Promise.all(people.map(({ io: { engine } }) =>
    engine.transport.name === "websocket" || new Promise((resolve) => engine.once("upgrade", resolve))));
}
for (const person of people) {
  for (const room of ["lobby", "garden"]) {
    await person.timeout(10_000).emitWithAck("join", { room, publish: true });
  }
}
const closed = await people[0].timeout(10_000).emitWithAck("join", "closed");
await said(people[0], "lobby", "hello");
await said(people[1], "garden", "hi");
for (const person of people) await heard(person, 2);
await people[1].timeout(10_000).emitWithAck("leave", "lobby");
await said(people[0], "lobby", "only for me");
await said(people[0], "garden", "for both");
await heard(people[0], 4);
await heard(people[1], 3);
console.log(JSON.stringify({
  transports: people.map((person) => person.io.engine.transport.name),
  heard: people.map((person) => person.heard),
  closed: closed.code,
}));
people.forEach((person) => person.disconnect());
