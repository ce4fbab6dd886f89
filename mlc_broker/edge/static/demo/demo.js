/** The demo: a two-minute note-naming game that reports what a real one would. */

import { defineConsent } from "/sdk/mlc-consent.js";
import { createClient } from "/sdk/mlc-events.js";
import { drawNote, drawStaff, NAMES, notesOf } from "./staff.js";

const GAME = { game_id: "G-00001", stage_id: "G-00001-quiz", stage_type: "quiz" };
const SECONDS = 120;
const TARGET = 20; // right answers
const CONCEPT = ["treble_staff", "note_names"];
const $ = (id) => document.getElementById(id);

let client;
let round = null;

async function begin() {
  drawStaff($("lines"));
  for (const name of NAMES) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    button.disabled = true;
    button.onclick = () => answer(name, "mouse");
    $("keys").append(button);
  }
  $("start").onclick = start;
  $("stop").onclick = () => quit();
  addEventListener("keydown", pressed);
  const given = await fetch("token").then((answer) => (answer.ok ? answer.json() : null), () => null);
  $("start").disabled = false; // not sooner: what is played before there is a client is not reported
  if (given) return connect(given.token, given.url);
  $("stream").value = `ws://${location.hostname}:7311/v1/stream`;
  $("form").hidden = false;
  $("state").textContent = "Give a token to connect. The game plays without one, too.";
  $("form").onsubmit = (event) => {
    event.preventDefault();
    $("form").hidden = true;
    connect($("token").value.trim(), $("stream").value.trim());
  };
}

/** Two lines make a game report. All the rest of this function shows what came of it. */
function connect(token, stream) {
  client = createClient({ url: location.origin, stream, getToken: () => renewed(token) });
  defineConsent(client);

  client.on("ack", (receipt) => show(receipt));
  client.on("drop", (receipt) => show(receipt));
  client.on("state", ({ state, durable }) => {
    const words = {
      online: "Connected: events reach the broker.",
      retrying: "No answer: trying again.",
      offline: "Offline: events wait on this device.",
      closed: "Closed.",
    };
    $("lamp").className = `lamp ${state}`;
    $("state").textContent = words[state] + (durable ? "" : " (This browser keeps nothing for later.)");
  });
  $("state").textContent = "Ready: nothing to send yet.";
  report("game_launch", { game_id: GAME.game_id });
}

/** The page's token, or a fresh one while the page is open for long. */
async function renewed(token) {
  const fresh = await fetch("token").then((answer) => answer.json()).catch(() => null);
  return fresh?.token ?? token;
}

function report(type, properties) {
  if (client) show({ event_id: client.track(type, properties), event_type: type, outcome: "queued" });
}

function start() {
  round = { began: Date.now(), right: 0, wrong: 0, row: 0, met: false, mode: "keyboard" };
  round.tick = setInterval(tick, 250);
  report("game_stage_start", { ...GAME, input_mode: "keyboard", target_score: TARGET });
  for (const button of $("keys").children) button.disabled = false;
  $("start").disabled = true;
  $("stop").disabled = false;
  say("Which note is this?");
  next();
  count();
  $("keys").firstElementChild.focus();
}

function next() {
  const notes = notesOf(round.right);
  let note;
  do note = notes[Math.floor(Math.random() * notes.length)];
  while (note.step == round.note?.step);
  round.note = note;
  drawNote($("note"), note);
  $("staff-title").textContent = `A treble staff with a note on ${note.place}`;
}

function answer(name, mode) {
  if (!round) return;
  round.mode = mode;
  const right = name == round.note.name;
  if (right) {
    round.right++;
    round.row++;
    say(round.row % 5 ? `${name} is right.` : `${name} is right: ${round.row} in a row!`, "good");
  } else {
    round.wrong++;
    round.row = 0;
    say(`That was ${round.note.name}, not ${name}.`, "bad");
  }
  if (round.right == TARGET && !round.met) {
    round.met = true;
    report("target_met", {
      ...GAME,
      target_score: TARGET,
      actual_score: round.right,
      time_to_target_ms: Date.now() - round.began,
      attempts_to_target: round.right + round.wrong,
    });
  }
  count();
  next();
}

function tick() {
  count();
  if (Date.now() - round.began >= SECONDS * 1000) complete();
}

function complete() {
  const played = end();
  const answers = played.right + played.wrong;
  const score = answers ? Math.round((100 * played.right) / answers) : 0;
  const passed = played.met && score >= 80;
  report("game_stage_complete", {
    ...GAME,
    score,
    max_score: 100,
    passed,
    duration_ms: SECONDS * 1000,
    attempts: 1,
    mistake_count: played.wrong,
    input_mode: played.mode,
    mastery_achieved: passed,
  });
  if (passed)
    report("concept_mastered", { game_id: GAME.game_id, concept_tags: CONCEPT, mastery_level: "quiz_passed" });
  say(`Time! ${played.right} right, ${played.wrong} wrong: ${score} of 100.`);
}

function quit() {
  if (!round) return;
  const played = end();
  const properties = { ...GAME, duration_ms: Date.now() - played.began, mistake_count: played.wrong };
  report("game_stage_quit", { ...properties, quit_reason: "user_exit" });
  say("Stopped. Start again whenever you like.");
}

function end() {
  const played = round;
  clearInterval(played.tick);
  round = null;
  $("note").replaceChildren();
  $("staff-title").textContent = "A treble staff";
  for (const button of $("keys").children) button.disabled = true;
  $("stop").disabled = true;
  $("start").disabled = false;
  $("start").focus();
  return played;
}

function pressed(event) {
  const typing = event.target.closest?.("input, mlc-consent") || event.ctrlKey || event.metaKey || event.altKey;
  const name = event.key.toUpperCase();
  if (typing || !round) return;
  if (NAMES.includes(name)) answer(name, "keyboard");
  else if (event.key == "Escape") quit();
}

function count() {
  if (!round) return;
  const left = Math.max(0, Math.ceil(SECONDS - (Date.now() - round.began) / 1000));
  $("time").textContent = `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}`;
  for (const name of ["right", "wrong", "row"]) $(name).textContent = round[name];
}

function say(words, kind = "") {
  $("say").textContent = words;
  $("say").className = kind;
}

/** One row an event; its outcome is filled in when the broker has answered. */
function show({ event_id, event_type, outcome, reason }) {
  $("log").querySelector(".none")?.remove();
  let row = $(event_id);
  if (!row) {
    row = $("log").insertRow(0);
    row.id = event_id;
    row.insertCell().textContent = new Date().toTimeString().slice(0, 8);
    row.insertCell().textContent = event_type;
    row.insertCell();
    if ($("log").rows.length > 12) $("log").deleteRow(-1);
  }
  const cell = row.cells[2];
  const lost = outcome == "dropped" || outcome == "rejected";
  if (outcome == "queued" && cell.textContent) return;
  cell.className = lost ? "lost" : outcome == "queued" ? "" : "stored";
  const why = { consent: "no consent" }[reason] ?? `${outcome}: ${reason}`;
  cell.textContent = lost ? why : outcome == "queued" ? "waiting" : outcome;
}

begin();
