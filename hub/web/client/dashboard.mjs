// Builds the page of the dashboard, which the hub serves at /dashboard: a script, a style, and their licences.
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const served = process.argv[2] ?? join(here, "..", "dashboard", "page");

await build({
  absWorkingDir: here,
  entryPoints: { dashboard: join("dashboard", "main.ts"), style: join("dashboard", "style.css") },
  outdir: served,
  bundle: true,
  minify: true,
  charset: "utf8",
  target: "es2022",
  platform: "browser",
  format: "esm",
  legalComments: "none",
  banner: { js: "/*! with uPlot and eventsource-parser | MIT | licences.txt */" },
});

// What is in the bundle and belongs to others comes with its licence.
const others = { uPlot: join("uplot", "LICENSE"), "eventsource-parser": join("eventsource-parser", "LICENSE") };
const licences = Object.entries(others).map(
  ([name, file]) => `This has ${name} in it:\n\n${readFileSync(join(here, "node_modules", file), "utf8").trim()}\n`,
);
writeFileSync(join(served, "licences.txt"), licences.join("\n----\n\n"));
