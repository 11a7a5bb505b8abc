// Builds what a page loads. `dist` is what npm packs; what the hub itself serves goes into `../static` as well.
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const dist = join(here, "dist");
const served = process.argv[2] ?? join(here, "..", "static");
const { version } = JSON.parse(readFileSync(join(here, "package.json"), "utf8"));

// The script tag needs one object in `window`. The worker is a module of its own, which a page without workers loads.
// What is for React or Vue goes through a bundler, so the hub does not serve it.
const bundles = [
  { entry: "index.ts", file: "hub-client.js", format: "esm", serve: true },
  { entry: "index.ts", file: "hub-client.global.js", format: "iife", globalName: "hubClient", serve: true },
  { entry: "worker.ts", file: "hub-client.worker.js", format: "esm", serve: true },
  { entry: "others.ts", file: "hub-client.wires.js", format: "esm", serve: true },
  // React has to know that these hooks are for the browser, where a framework runs components on the server.
  { entry: "react.ts", file: "hub-client.react.js", format: "esm", first: '"use client";\n' },
  { entry: "vue.ts", file: "hub-client.vue.js", format: "esm" },
];

// Modules that another bundle has are loaded from there, so that nothing is there twice.
const apart = {
  name: "apart",
  setup({ onResolve }) {
    onResolve({ filter: /^\.\/worker\.js$/ }, () => ({ path: "./hub-client.worker.js", external: true }));
    onResolve({ filter: /^\.\/others\.js$/ }, () => ({ path: "./hub-client.wires.js", external: true }));
    onResolve({ filter: /^\.\/index\.js$/ }, () => ({ path: "./hub-client.js", external: true }));
  },
};

rmSync(dist, { recursive: true, force: true });
mkdirSync(served, { recursive: true });
for (const { entry, file, format, globalName, serve, first = "" } of bundles) {
  await build({
    absWorkingDir: here,
    entryPoints: [join("src", entry)],
    outfile: join(dist, file),
    bundle: true,
    plugins: [apart],
    external: ["react", "vue"],
    minify: true,
    charset: "utf8",
    target: "es2022",
    platform: "browser",
    legalComments: "none",
    format,
    ...(globalName === undefined ? {} : { globalName }),
    // `import.meta` is empty in a script tag; the code asks whether it has a URL.
    logOverride: { "empty-import-meta": "silent" },
    banner: { js: `${first}/*! hub-client ${version} | MIT | hub-client.LICENSE.txt */` },
  });
  if (serve) copyFileSync(join(dist, file), join(served, file));
}

// What is in the bundles and belongs to others comes with its licence.
const own = readFileSync(join(here, "LICENSE.txt"), "utf8");
const parser = readFileSync(join(here, "node_modules", "eventsource-parser", "LICENSE"), "utf8");
const licence = `${own.trim()}\n\n----\n\nThis has eventsource-parser in it:\n\n${parser.trim()}\n`;
for (const folder of [dist, served]) writeFileSync(join(folder, "hub-client.LICENSE.txt"), licence);

execFileSync(join(here, "node_modules", ".bin", "tsc"), ["-p", join(here, "tsconfig.build.json")], {
  stdio: "inherit",
});
