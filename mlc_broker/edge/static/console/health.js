/** How the daemon is: ready or why not; for a System Admin, what flows through it. */

import { get, token } from "./api.js";
import { $, clock, count, make, state, table } from "./dom.js";

const REFRESH_MS = 3000;
const OUTCOMES = ["stored", "duplicate", "dropped", "rejected", "quarantined", "retry"];
let before = null;
let flows = true;

/** Look, and again every few seconds. */
export async function health() {
  await readiness();
  if (flows && token.get() && !$("house").hidden) await flow();
  setTimeout(health, REFRESH_MS);
}

/** Somebody came; what flows is a System Admin's to see. */
export function lookAgain(role) {
  flows = role === "system_admin";
  before = null;
  $("health").replaceChildren(...(flows ? [] : [make("p", { class: "soft" }, "Rates, outcomes and processors are shown to System Admins.")]));
  if (flows) flow();
}

async function readiness() {
  const answer = await fetch("/readyz", { cache: "no-store" }).catch(() => null);
  const told = answer ? await answer.json().catch(() => ({})) : {};
  const reasons = told.reasons ?? [];
  if (!answer) state($("ready"), "bad", "The daemon does not answer");
  else if (answer.ok) state($("ready"), "good", "Ready for events");
  else state($("ready"), "warn", `Not ready: ${reasons.length} ${reasons.length === 1 ? "reason" : "reasons"}`);
  $("troubles").replaceChildren(...reasons.map((reason) => make("li", {}, reason)));
}

async function flow() {
  let now;
  try {
    now = await get("/v1/flow");
  } catch {
    return; // the state above says why
  }
  const seconds = before ? Math.max(0.1, now.up_seconds - before.up_seconds) : now.up_seconds;
  const rate = (after, earlier) => count((after - (before ? earlier ?? 0 : 0)) / seconds);
  const top = (named) => Object.entries(named).sort((a, b) => b[1] - a[1]).slice(0, 8);
  $("health").replaceChildren(
    table("Outcomes", ["Outcome", "Events", "a second"],
      OUTCOMES.map((name) => [name, count(now.outcomes[name]), rate(now.outcomes[name], before?.outcomes[name])])),
    table("Types", ["Type", "Stored", "a second"],
      top(now.types).map(([name, events]) => [name, count(events), rate(events, before?.types[name])])),
    table("Processors", ["Processor", "State", "Events", "µs each"],
      now.processors.map(({ name, state: is, events, seconds: spent }) =>
        [name, is, count(events), events ? count((spent / events) * 1e6) : "–"])),
    table("House", ["Figure", "Now"], house(now)));
  $("health-at").textContent = `as of ${clock(now.at)}`;
  before = now;
}

function house(now) {
  const ms = (seconds) => (seconds === null ? "–" : `${count(seconds * 1000)} ms`);
  return [
    ["Up", now.up_seconds < 5400 ? `${count(now.up_seconds / 60)} min` : `${count(now.up_seconds / 3600)} h`],
    ["In hand", count(now.in_hand)],
    ...Object.entries(now.queues).map(([name, depth]) => [`Queue: ${name}`, count(depth)]),
    ["Answer p50, p99", `${ms(now.latencies.ack_seconds.p50)}, ${ms(now.latencies.ack_seconds.p99)}`],
    ["Loop lag p99", ms(now.latencies.loop_lag_seconds.p99)],
    ["Live readers", count(now.subscribers)],
    ["Organizations", count(Object.keys(now.organizations).length)],
  ];
}
