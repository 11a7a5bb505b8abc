// Socket.IO: who connects is in one room, POST /pub emits to it. Run: node main.js PORT
import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    io.to("bench").emit("notification", { id: String(++number), data: JSON.parse(Buffer.concat(parts)) });
    response.writeHead(202).end();
  });
});
http.keepAliveTimeout = 600_000;

let number = 0;
const io = new Server(http);
io.on("connection", (socket) => socket.join("bench"));

http.listen({ port: Number(process.argv[2]), host: "127.0.0.1", backlog: 8192 });
