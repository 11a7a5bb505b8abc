import { expect, test } from "vitest";
import { type Answer, openAnswer } from "../src/ai.js";
import { Clock, FakeHub, problem, randomOf, settled, surroundingsOf } from "./world.js";

const WORDS = ["You ", "asked: ", "Hello"];

/** A hub that answers: each request for the stream gets what it says from there on, and `upto` says how far it is. */
function world() {
  const clock = new Clock();
  const hub = new FakeHub();
  const { env } = surroundingsOf(clock, hub, randomOf(1));
  const asked: { method: string; path: string; key: string | undefined; from: string | null }[] = [];
  const state = { upto: 0, ended: false, answers: [] as (() => Response | Promise<Response>)[] };
  env.fetch = async (input, init = {}) => {
    const url = new URL(String(input));
    const from = url.searchParams.get("lastEventId");
    const key = (init.headers as Record<string, string>)["Idempotency-Key"];
    asked.push({ method: init.method ?? "GET", path: url.pathname, key, from });
    const instead = state.answers.shift();
    if (instead) return instead();
    if (init.method === "POST") return Response.json({ sessionId: "s" }, { status: 201 });
    if (init.method === "DELETE") return Response.json({ sessionId: "s", phase: "cancelled" });
    const begin = from ? Number(from.split(".")[1]) : 0;
    let text = `retry: 1000\nevent: start\nid: s.${begin}\ndata: {"sessionId":"s"}\n\n`;
    for (let part = begin; part < state.upto; part++) {
      text += `id: s.${part + 1}\ndata: ${JSON.stringify({ content: WORDS[part] })}\n\n`;
    }
    if (state.ended)
      text += 'event: done\ndata: {}\n\ndata: [DONE]\n\nevent: close\nid: s.3.end\ndata: {"phase":"done"}\n\n';
    return new Response(text, { headers: { "Content-Type": "text/event-stream" } });
  };
  const texts: string[] = [];
  const on = (answer: Answer) => texts.push(answer.text);
  return { clock, asked, state, texts, options: { url: "http://hub/", env, on } };
}

test("an answer grows, and goes on where it was when its stream is lost", async () => {
  const { clock, asked, state, texts, options } = world();
  state.upto = 1;
  const answer = openAnswer({ ...options, prompt: "Hello" });
  await settled();
  expect([answer.phase, answer.text, answer.sessionId]).toEqual(["growing", "You ", "s"]);
  state.upto = 3;
  state.ended = true;
  await clock.pass(1_000);
  expect(await answer.whole).toBe("You asked: Hello");
  expect(asked.map(({ method, path, from }) => [method, path, from])).toEqual([
    ["POST", "/ai/chat/stream/init", null],
    ["GET", "/ai/chat/stream/s", null],
    ["GET", "/ai/chat/stream/s", "s.1"],
  ]);
  expect(texts.at(-1)).toBe("You asked: Hello");
  await clock.pass(600_000);
  expect(asked).toHaveLength(3);
});

test("asking again after a failure uses the same key, so that there is one answer", async () => {
  const { clock, asked, state, options } = world();
  state.answers = [() => Promise.reject(new TypeError("no network")), () => problem(503, "draining")];
  state.upto = 3;
  state.ended = true;
  const answer = openAnswer({ ...options, prompt: { messages: [{ role: "user", content: "Hello" }] } });
  await clock.pass(20_000);
  expect(await answer.whole).toBe("You asked: Hello");
  const keys = asked.flatMap(({ key }) => key ?? []);
  expect(keys).toHaveLength(3);
  expect(new Set(keys).size).toBe(1);
});

test("a page that was loaded again attaches, and has the whole text", async () => {
  const { asked, state, options } = world();
  state.upto = 3;
  state.ended = true;
  const answer = openAnswer({ ...options, sessionId: "s" });
  expect(await answer.whole).toBe("You asked: Hello");
  expect(asked.map(({ method }) => method)).toEqual(["GET"]);
});

test("an answer is stopped", async () => {
  const { clock, asked, state, options } = world();
  state.upto = 2;
  const answer = openAnswer({ ...options, prompt: "Hello" });
  await settled();
  await answer.stop();
  expect([answer.phase, await answer.whole]).toEqual(["cancelled", "You asked: "]);
  await clock.pass(600_000);
  expect(asked.map(({ method }) => method)).toEqual(["POST", "GET", "DELETE"]);
});

test("a stopped answer has what was made until it stopped", async () => {
  const { state, options } = world();
  let say!: (text: string) => void;
  const body = new ReadableStream<Uint8Array>({
    start: (stream) => {
      say = (text) => stream.enqueue(new TextEncoder().encode(text));
    },
  });
  state.answers = [() => new Response(body, { headers: { "Content-Type": "text/event-stream" } })];
  const answer = openAnswer({ ...options, sessionId: "s" });
  await settled();
  say('event: start\nid: s.0\ndata: {"sessionId":"s"}\n\nid: s.1\ndata: {"content":"You "}\n\n');
  await settled();
  const stopping = answer.stop();
  await settled();
  expect([answer.phase, answer.text]).toEqual(["growing", "You "]);
  say('id: s.2\ndata: {"content":"asked: "}\n\nevent: cancelled\ndata: {}\n\n');
  await stopping;
  expect([answer.phase, await answer.whole]).toEqual(["cancelled", "You asked: "]);
});

test("one that is stopped while it is being asked is stopped at the hub, too", async () => {
  const { asked, state, options } = world();
  let begin = () => {};
  state.answers = [
    () =>
      new Promise((done) => {
        begin = () => done(Response.json({ sessionId: "s" }, { status: 201 }));
      }),
  ];
  const answer = openAnswer({ ...options, prompt: "Hello" });
  await settled();
  await answer.stop();
  begin();
  await settled();
  expect(asked.map(({ method, path }) => [method, path])).toEqual([
    ["POST", "/ai/chat/stream/init"],
    ["DELETE", "/ai/chat/stream/s"],
  ]);
});

test("one is stopped with a new token, if the last one has ended; a failure is a LineError", async () => {
  const { asked, state, options } = world();
  let made = 0;
  state.upto = 1;
  const answer = openAnswer({ ...options, prompt: "Hello", token: async () => `t${++made}` });
  await settled();
  state.answers = [() => problem(500, "")];
  await expect(answer.stop()).rejects.toMatchObject({ name: "LineError", status: 500 });
  expect(answer.phase).not.toBe("cancelled");
  state.answers = [() => problem(401, "token_expired")];
  await answer.stop();
  expect([answer.phase, made, asked.at(-1)!.method]).toEqual(["cancelled", 2, "DELETE"]);
});

test("an answer that is no longer kept has failed", async () => {
  const { state, options } = world();
  state.answers = [() => problem(410, "")];
  const answer = openAnswer({ ...options, sessionId: "s" });
  await expect(answer.whole).rejects.toMatchObject({ code: "lost" });
  expect([answer.phase, answer.reason]).toEqual(["failed", "lost"]);
});
