import { describe, expect, test } from "vitest";

import { chance, faults, turn, World } from "./crowd.js";

const TOPICS = ["a", "b", "c", "d/1", "d/2"];
const WANTED = [...TOPICS, "d/*", "**"];
const SMALL = { ringMessages: 6, unackedEvents: 5, lost: 20_000, quiet: 8_000, linger: 9_000 };

async function act(seed: number): Promise<World> {
  const random = chance(seed);
  const world = new World(random() < 0.7 ? SMALL : {});
  const upto = (number: number) => Math.floor(random() * number);
  const some = (from: string[]) => from.filter(() => random() < 0.35);
  const one = <T>(from: T[]): T => from[upto(from.length)]!;
  const calm = random() < 0.3;
  if (random() < 0.2) world.hub.forbidden.add("c");
  for (let step = 0; step < 500; step += 1) {
    const pages = world.pages.filter((page) => !page.gone);
    const dice = random();
    if (dice < 0.6) {
      const can = world.possible();
      if (can.length) one(can)();
    } else if (dice < 0.78)
      world.hub.publish(one([["a"], ["b"], [one(TOPICS)], [...new Set([one(TOPICS), one(TOPICS)])]]));
    else if (dice < 0.82) {
      if (pages.length < 6)
        world.open(
          some(WANTED)
            .concat("a")
            .slice(0, 1 + upto(3)),
          random() < 0.1 ? "earliest" : undefined,
        );
    } else if (dice < 0.84 && pages.length > 1) one(pages).leave();
    else if (dice < 0.88 && pages.length) one(pages).load();
    else if (dice < 0.91 && pages.length) {
      const page = one(pages);
      page.frozen = !page.frozen;
    } else if (dice < 0.92 && !calm) world.loseBroker();
    else if (dice < 0.94) {
      for (const line of world.lines) if (random() < 0.5) line.cut();
    } else if (dice < 0.95) {
      if (!calm) world.hub.trim(upto(12));
    } else if (dice < 0.952) {
      if (!calm) world.hub.restart();
    } else if (dice < 0.97) world.pass(upto(12_000));
    else for (const line of world.lines) if (line.live) line.wire.push({ kind: "cursor", id: world.hub.newest });
    await turn();
  }
  await world.settle();
  return world;
}

describe("whatever happens", () => {
  test.each(Array.from({ length: 8 }, (_, group) => group))(
    "each tab has each notification once, in order, or a true gap (hundred %i)",
    async (group) => {
      for (let seed = group * 100; seed < group * 100 + 100; seed += 1) {
        const world = await act(seed);
        const wrong = world.pages.filter((page) => !page.gone).map((page) => faults(page, world.hub));
        expect(wrong.flat(), `schedule ${seed}`).toEqual([]);
        expect(world.hub.most, `lines of schedule ${seed}`).toBeLessThanOrEqual(2);
      }
    },
  );
});
