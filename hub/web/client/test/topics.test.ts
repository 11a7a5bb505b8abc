import { expect, test } from "vitest";

import { epochOf, isAfter, isWithin, matches } from "../src/topics.js";

test.each([
  ["orders", "orders", true],
  ["orders", "orders/1", false],
  ["stock/*", "stock/AAPL", true],
  ["stock/*", "stock", false],
  ["stock/*", "stock/AAPL/trades", false],
  ["stock/**", "stock", true],
  ["stock/**", "stock/AAPL/trades", true],
  ["stock/**", "stocks", false],
  ["*/open", "shop/open", true],
  ["*/open", "open", false],
  ["*/open", "shop/a/open", false],
  ["*/open", "room/open", false],
  ["**/trades", "trades", true],
  ["**/trades", "stock/AAPL/trades", true],
  ["**/trades", "trades/stock", false],
  ["**/trades", "user/trades", false],
  ["user/*", "user/42", true],
  ["user/*", "user", false],
  ["user/*", "user/42/orders", false],
  ["**", "anything/at/all", true],
  ["**", "user/42", false],
  ["**", "room/lobby", false],
  ["**", "ai", false],
  ["a/**/b/**/c", "a/x/b/c/b/y/c", true],
  ["a/**/b/**/c", "a/x/c", false],
])("%s for %s: %s", (pattern, topic, expected) => {
  expect(matches(pattern, topic)).toBe(expected);
});

test("a pattern with many wildcards takes no time on a topic that nearly matches", () => {
  const pattern = `${Array.from({ length: 8 }, () => "**/a").join("/")}/b`;
  expect(matches(pattern, Array.from({ length: 16 }, () => "a").join("/"))).toBe(false);
});

test("ids are compared by their offsets, within one epoch", () => {
  expect(isAfter("e-10", "e-9")).toBe(true);
  expect(isAfter("e-9", "e-10")).toBe(false);
  expect(isAfter("e-9", "e-9")).toBe(false);
  expect(isAfter("e-900719925474099301", "e-900719925474099300")).toBe(true);
  expect(isWithin("e-9", "e-9")).toBe(true);
  expect(isWithin("e-10", "e-9")).toBe(false);
  expect(isWithin("f-1", "e-9")).toBe(false);
  expect(epochOf("8e844e1e90-7")).toBe("8e844e1e90");
});
