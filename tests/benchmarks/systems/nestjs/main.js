// One controller: GET /sub is an `@Sse` stream of a Subject, POST /pub feeds it. Run: node main.js PORT
// The decorators are applied by hand, so that no compiler is needed.
import "reflect-metadata";
import { Body, Controller, HttpCode, Module, Post, Sse } from "@nestjs/common";
import { NestFactory } from "@nestjs/core";
import { Subject } from "rxjs";

const decorate = (target, name, ...decorators) => {
  const property = Object.getOwnPropertyDescriptor(target.prototype, name);
  for (const each of decorators) each(target.prototype, name, property);
};

class Bench {
  subject = new Subject();
  number = 0;

  subscribe() {
    return this.subject;
  }

  publish(body) {
    this.subject.next({ id: String(++this.number), data: body });
  }
}
Controller()(Bench);
decorate(Bench, "subscribe", Sse("sub"));
decorate(Bench, "publish", Post("pub"), HttpCode(202));
Body()(Bench.prototype, "publish", 0);

class App {}
Module({ controllers: [Bench] })(App);

const app = await NestFactory.create(App, { logger: ["error", "warn"] });
app.getHttpServer().keepAliveTimeout = 600_000;
await app.init();
app.getHttpServer().listen({ port: Number(process.argv[2]), host: "127.0.0.1", backlog: 8192 });
