/**
 * A headless Chromium for the tests: one JSON command a line on stdin, one JSON answer on stdout.
 *
 * Pages of `/game` on any host are answered here, with the client that the daemon serves, so that
 * a page can be reloaded while the daemon is away.
 */

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { createRequire } from "node:module";

const ROOT = new URL("../../", import.meta.url);
const { chromium } = createRequire(new URL("clients/javascript/package.json", ROOT))("playwright-core");
const SDK = readFileSync(new URL("mlc_broker/edge/static/sdk/mlc-events.js", ROOT), "utf8");
const GAME = `<!doctype html><html lang="en"><title>game</title>
<script type="module">import { createClient } from "/game/mlc-events.js"; window.createClient = createClient;
window.acks = []; window.drops = []; window.states = [];
window.begin = (options) => { window.client = createClient({ ...options, getToken: () => window.token });
  client.on("ack", (r) => acks.push(r)); client.on("drop", (r) => drops.push(r));
  client.on("state", (s) => states.push(s)); };</script>`;

const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:";

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  // The game's pages come from this process, so Chromium takes their origin for a public one.
  args: ["--disable-features=LocalNetworkAccessChecks,LocalNetworkAccessChecksWebSockets", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
const contexts = new Map();
const pages = new Map();
let count = 0;

const commands = {
  async context({ options }) {
    const context = await browser.newContext(options ?? {});
    await context.route("**/game", (route) => route.fulfill({ contentType: "text/html", body: GAME }));
    await context.route("**/game/mlc-events.js", (route) =>
      route.fulfill({ contentType: "text/javascript", body: SDK }));
    contexts.set(++count, context);
    return count;
  },
  /** Answer /demo/ and /sdk/ with the files of the source tree, and /demo/token with `token`. */
  async demo({ context, token }) {
    const files = new URL("mlc_broker/edge/static/", ROOT);
    const types = { html: "text/html", js: "text/javascript", css: "text/css" };
    const headers = { "Content-Security-Policy": POLICY };
    const answer = (route) => {
      const path = new URL(route.request().url()).pathname.slice(1).replace(/\/$/, "/index.html");
      const contentType = types[path.split(".").pop()];
      return route.fulfill({ contentType, headers, body: readFileSync(new URL(path, files)) });
    };
    await contexts.get(context).route(/\/(demo|sdk)\//, answer);
    await contexts.get(context).route("**/demo/token", (route) => route.fulfill({ json: token }));
  },
  async page({ context }) {
    const page = await contexts.get(context).newPage();
    page.errors = [];
    page.on("pageerror", (error) => page.errors.push(String(error)));
    page.on("console", (said) => said.type() == "error" && page.errors.push(said.text()));
    pages.set(++count, page);
    return count;
  },
  goto: async ({ page, url }) => void (await pages.get(page).goto(url)),
  reload: async ({ page }) => void (await pages.get(page).reload()),
  evaluate: ({ page, script, value }) =>
    pages.get(page).evaluate(([script, value]) => new Function("value", `return (async () => {${script}})()`)(value), [script, value]),
  async wait({ page, script, value, ms }) {
    // Asked again and again from outside: inside, a strict policy forbids it.
    for (const end = Date.now() + ms; ; await new Promise((yes) => setTimeout(yes, 30))) {
      if (await commands.evaluate({ page, script: `return (${script})`, value }).catch(() => false)) return;
      if (Date.now() > end) throw new Error(`waited ${ms} ms in vain for ${script}`);
    }
  },
  offline: async ({ context, offline }) => void (await contexts.get(context).setOffline(offline)),
  clock: async ({ context, ms }) =>
    void (await contexts.get(context).addInitScript((ms) => {
      const Real = Date;
      globalThis.Date = class extends Real {
        constructor(...given) { given.length ? super(...given) : super(Real.now() + ms); }
        static now() { return Real.now() + ms; }
      };
    }, ms)),
  close: async ({ page }) => void (await pages.get(page).close({ runBeforeUnload: false })),
  endContext: async ({ context }) => void (await contexts.get(context).close()),
  press: async ({ page, key }) => void (await pages.get(page).keyboard.press(key)),
  click: async ({ page, selector }) => void (await pages.get(page).click(selector)),
  size: async ({ page, width, height }) => void (await pages.get(page).setViewportSize({ width, height })),
  screenshot: async ({ page, path }) => void (await pages.get(page).screenshot({ path })),
  errors: async ({ page }) => pages.get(page).errors,
  axe: async ({ page }) => {
    const axe = createRequire(new URL("clients/javascript/package.json", ROOT)).resolve("axe-core/axe.min.js");
    await pages.get(page).evaluate(readFileSync(axe, "utf8"));
    const { violations } = await pages.get(page).evaluate(() => globalThis.axe.run());
    return violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`);
  },
};

console.log(JSON.stringify({ ready: true }));
for await (const line of createInterface({ input: process.stdin })) {
  const { command, ...rest } = JSON.parse(line);
  try {
    console.log(JSON.stringify({ value: (await commands[command](rest)) ?? null }));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error.stack ?? error) }));
  }
}
await browser.close();
