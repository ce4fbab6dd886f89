/** The events as they are stored, newest first. */

import { listen } from "./api.js";
import { $, clock, count, make, state } from "./dom.js";

const ROWS_MAX = 200;
const WAITING_MAX = 500; // while paused
const SAY_MS = 5000; // how often a screen reader hears of it
const MARKS = {
  learning_progress: "L",
  user_interaction: "U",
  system_performance: "S",
  business_intelligence: "B",
};

/** The category of every event type, as the daemon knows them. */
export const categories = new Map();

let stop = new AbortController();
let paused = false;
let waiting = [];
let cursor = "";
let seen = 0;
let recent = [];

/** Begin to follow; `refused(problem)` hears when the token does not count any more. */
export function follow(refused) {
  $("filters").onsubmit = (event) => {
    event.preventDefault();
    clear();
    run(refused);
  };
  $("pause").onclick = () => {
    paused = !paused;
    $("pause").setAttribute("aria-pressed", paused);
    $("pause").textContent = paused ? "Resume" : "Pause";
    if (!paused) waiting.splice(0).forEach(show);
  };
  $("clear").onclick = clear;
  setInterval(say, SAY_MS);
  run(refused);
}

export function end() {
  stop.abort();
}

async function run(refused) {
  stop.abort();
  const mine = (stop = new AbortController());
  cursor = "";
  const path = `/v1/live?${chosen()}`;
  for (let pause = 500; !mine.signal.aborted; pause = Math.min(pause * 2, 15000)) {
    try {
      const reading = listen(path, { after: cursor, signal: mine.signal, hear: (said) => hear(said) });
      state($("live-state"), "good", "Connected");
      const ended = await reading;
      if (ended?.status === 401 && ended.message.includes("credential")) throw ended;
      pause = 500;
    } catch (problem) {
      if (mine.signal.aborted) return;
      if (problem.status === 401) return refused(problem);
      if (problem.status === 403 || problem.status === 400) return state($("live-state"), "bad", problem.message);
    }
    state($("live-state"), "warn", "Connecting again…");
    await new Promise((done) => setTimeout(done, pause));
  }
}

function chosen() {
  const wanted = new URLSearchParams();
  for (const [name, value] of new FormData($("filters"))) {
    for (const one of value.split(",")) if (one.trim()) wanted.append(name, one.trim());
  }
  return wanted;
}

function hear({ id, event, data }) {
  if (id) cursor = id;
  if (event) return;
  seen += 1;
  recent.push(Date.now());
  if (!paused) return show(data);
  waiting.push(data);
  waiting.splice(0, waiting.length - WAITING_MAX);
}

function show(event) {
  const category = categories.get(event.event_type) ?? "";
  const context = event.context ?? {};
  const properties = event.properties ?? {};
  const everywhere = !$("organization").hidden;
  const place = [context.class_id ?? event.meta?.class_ids?.[0], context.assignment_id, properties.game_id ?? context.page_url, everywhere && event.organization_id];
  const row = make("tr", {},
    make("td", { class: "when" }, clock(event.timestamp)),
    make("td", {}, make("span", { class: "mark", title: category.replaceAll("_", " "), "aria-hidden": "true" }, MARKS[category] ?? "·"), make("span", { class: "kind" }, event.event_type)),
    make("td", { title: event.user_id ?? "" }, short(event.user_id)),
    make("td", {}, place.filter(Boolean).join(" · ")),
    make("td", {}, what(event, properties)));
  $("events").prepend(row);
  while ($("events").rows.length > ROWS_MAX) $("events").lastElementChild.remove();
  $("none").hidden = true;
}

/** A line of the event's own words; all of it when opened. */
function what(event, properties) {
  const parts = Object.entries(properties).filter(([name, value]) => typeof value !== "object" && name !== "game_id");
  const words = parts.slice(0, 3).map(([name, value]) => `${name} ${String(value).slice(0, 40)}`).join(", ");
  const details = make("details", {}, make("summary", {}, words || "show"));
  details.addEventListener("toggle", () => {
    if (details.open && !details.querySelector("pre")) {
      details.append(make("pre", {}, JSON.stringify(event, null, 2)));
    }
  });
  return details;
}

/** A pseudonym is told from others by its first letters. */
function short(id) {
  if (!id) return "nobody named";
  return id.startsWith("pseudo_") ? `${id.slice(0, 15)}…` : id;
}

function clear() {
  waiting = [];
  $("events").replaceChildren();
  $("none").hidden = false;
}

function say() {
  const since = Date.now() - 60000;
  recent = recent.filter((moment) => moment > since);
  $("live-said").textContent = `${count(seen)} events came by, ${count(recent.length)} in the last minute` +
    (paused ? `; paused, ${count(waiting.length)} wait.` : ".");
}
