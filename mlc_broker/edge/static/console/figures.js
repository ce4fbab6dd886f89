/** Today's figures: whatever of these the daemon offers to this person. */

import { get } from "./api.js";
import { $, clock, count, draw, make } from "./dom.js";

const WANTED = [
  ["active_users", "Active people"],
  ["plays", "Stages played"],
  ["pass_rate", "Passed"],
  ["mastery_rate", "Mastery"],
  ["average_score", "Average score"],
  ["play_time", "Time played"],
  ["error_rate", "Errors"],
];
const REFRESH_MS = 15000;
let offered = null;

/** Show them, and again every so often. */
export async function figures() {
  offered ??= await get("/v1/metrics").then(({ metrics }) => new Set(metrics.map(({ name }) => name)), () => null);
  if (offered === null) {
    $("tiles").replaceChildren(make("li", { class: "soft" }, "This daemon offers no metrics to this token."));
    return;
  }
  const tiles = await Promise.all(WANTED.filter(([name]) => offered.has(name)).map(tile));
  $("tiles").replaceChildren(...tiles);
  await hours();
  $("figures-at").textContent = `as of ${clock(Date.now())}`;
  setTimeout(() => figures().catch(() => {}), REFRESH_MS);
}

async function tile([name, title]) {
  const query = new URLSearchParams({ from: midnight(), grain: "total" });
  const told = await get(`/v1/metrics/${name}?${query}`).catch(() => null);
  const row = told?.rows?.at(-1);
  const of = row?.denominator === undefined ? "" : `${count(row.numerator)} of ${count(row.denominator)}`;
  return make("li", { class: "tile" },
    make("span", { class: "name" }, title),
    make("span", { class: "value" }, row ? value(row.value, told.unit) : "–"),
    make("span", { class: "of" }, row ? of : "nothing yet today"));
}

async function hours() {
  const query = new URLSearchParams({ from: midnight(), grain: "hour" });
  const told = await get(`/v1/metrics/events?${query}`).catch(() => null);
  const found = new Array(24).fill(0);
  for (const row of told?.rows ?? []) found[new Date(row.at).getHours()] += row.value ?? 0;
  const total = found.reduce((sum, one) => sum + one, 0);
  $("hours").hidden = !total;
  if (!total) return;
  const most = Math.max(...found);
  $("hours-said").textContent = `${count(total)} events today; the most, ${count(most)}, between ${found.indexOf(most)} and ${found.indexOf(most) + 1} o’clock.`;
  $("chart").replaceChildren(...bars(found, most));
  $("hours-rows").replaceChildren(...found.map((events, hour) => [events, hour]).filter(([events]) => events)
    .map(([events, hour]) => make("tr", {}, make("td", {}, `${hour}:00`), make("td", {}, count(events)))));
}

function* bars(found, most) {
  yield draw("line", { x1: 0, x2: 720, y1: 110.5, y2: 110.5 });
  for (const [hour, events] of found.entries()) {
    const height = (events / most) * 100;
    yield draw("rect", { x: hour * 30 + 3, y: 110 - height, width: 24, height, rx: 3 });
    if (hour % 3 === 0) yield draw("text", { x: hour * 30 + 3, y: 126 }, `${hour}:00`);
  }
}

function value(number, unit) {
  if (number === null || number === undefined) return "–";
  if (unit === "ratio") return `${(number * 100).toFixed(number && number < 0.1 ? 1 : 0)} %`;
  if (unit !== "ms") return count(number);
  if (number < 10000) return `${count(number)} ms`;
  const minutes = number / 60000;
  return minutes < 90 ? `${count(minutes)} min` : `${count(minutes / 60)} h`;
}

function midnight() {
  const day = new Date();
  day.setHours(0, 0, 0, 0);
  return day.toISOString();
}
