/**
 * Build mlc-events and mlc-consent, each .js and .d.ts, into dist/, and print the size.
 *
 *   node scripts/build.mjs              for npm
 *   node scripts/build.mjs --serve      also into the daemon's static files, which are committed
 *   node scripts/build.mjs --check      build nothing; 1 where the daemon's files are not fresh
 */

import { mkdir, readFile, writeFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const ROOM_BYTES = 6 * 1024;
/** Names that nobody outside sees, besides those with an underscore. */
const INNER =
  /^(_.*|account|allowed|allows|beacon|before|category|critical|forget|forgetUser|hurry|keepConsent|notice|onOut|publish|settled|signOut|strangers|take|transport)$/;

const ROOT = new URL("../", import.meta.url);
const DIST = new URL("dist/", ROOT);
const SERVED = new URL("../../mlc_broker/edge/static/sdk/", ROOT);

const files = {
  "mlc-events.js": await script("index.ts"),
  "mlc-events.d.ts": await types(),
  "mlc-consent.js": await script("consent.ts"),
  "mlc-consent.d.ts": await consentTypes(),
};
const size = gzipSync(files["mlc-events.js"], { level: 9 }).length;
console.log(`mlc-events.js: ${files["mlc-events.js"].length} bytes, ${size} gzipped (at most ${ROOM_BYTES})`);
if (size > ROOM_BYTES) fail("The client is too large for a school's line: something must go.");
if (process.argv.includes("--check")) {
  for (const [name, text] of Object.entries(files))
    if ((await readFile(new URL(name, SERVED), "utf8").catch(() => "")) != text)
      fail(`${name}, as served by the daemon, is not what the source builds: run "npm run build".`);
} else {
  await write(DIST);
  if (process.argv.includes("--serve")) await write(SERVED);
}

async function script(entry) {
  const { outputFiles } = await build({
    entryPoints: [new URL(`src/${entry}`, ROOT).pathname],
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    mangleProps: INNER,
    legalComments: "none",
    write: false,
  });
  return outputFiles[0].text;
}

/** One declaration file: both type-only modules, without their imports, and the function. */
async function types() {
  const parts = await Promise.all(
    ["api.ts", "events.ts"].map((name) => readFile(new URL(`src/${name}`, ROOT), "utf8")),
  );
  const index = await readFile(new URL("src/index.ts", ROOT), "utf8");
  const create = index.slice(index.lastIndexOf("/**")).replace(/ \{[^]*$/, ";\n");
  const body = parts.join("\n").replace(/^import .*\n+/gm, "");
  return `${body}\n${create.replace("export function", "export declare function")}`;
}

async function consentTypes() {
  const consent = await readFile(new URL("src/consent.ts", ROOT), "utf8");
  const define = consent.slice(consent.indexOf("/** Make")).replace(/ \{\n[^]*$/, ";\n");
  const from = 'import type { Client, ConsentWords } from "./mlc-events.js";\n\n';
  return from + define.replace("export function", "export declare function");
}

async function write(folder) {
  await mkdir(folder, { recursive: true });
  for (const [name, text] of Object.entries(files)) await writeFile(new URL(name, folder), text);
}

function fail(why) {
  console.error(why);
  process.exitCode = 1;
}
