/** The console: a door with a token, and behind it what that token may see. */

import { get, Problem, token } from "./api.js";
import { $, make } from "./dom.js";
import { figures } from "./figures.js";
import { health, lookAgain } from "./health.js";
import { categories, end, follow } from "./live.js";

$("form").onsubmit = (event) => {
  event.preventDefault();
  token.set($("token").value.trim());
  enter();
};
$("leave").onclick = () => {
  end();
  token.forget();
  location.reload();
};
health();
if (token.get()) enter();
else stay();

async function enter() {
  let me;
  try {
    if (!/^[\x21-\x7e]+$/.test(token.get())) throw new Problem(401, "That is not a token: it has odd characters in it.");
    me = await get("/v1/me");
    if (me.kind !== "user") throw new Problem(403, "That is a key: it publishes, but reads nothing. Sign in with a user's token.");
  } catch (problem) {
    return stay(problem);
  }
  $("door").hidden = true;
  $("house").hidden = $("person").hidden = false;
  $("who").textContent = `${me.id} · ${words(me.role)} of ${me.organization_id}`;
  $("me").replaceChildren(...facts(me).flatMap(([name, said]) => [make("dt", {}, name), make("dd", {}, said)]));
  $("organization").hidden = me.role !== "system_admin";
  lookAgain(me.role);
  await types();
  follow(stay);
  figures().catch(() => {});
}

/** Back to the door, with the reason. */
function stay(problem) {
  end();
  if (problem && problem.status !== 0) token.forget();
  $("refused").textContent = problem ? problem.message : "";
  $("house").hidden = $("person").hidden = true;
  $("door").hidden = false;
  $("token").value = "";
  $("token").focus();
}

async function types() {
  const told = await get("/v1/schemas").catch(() => ({ schemas: {} }));
  for (const [name, schema] of Object.entries(told.schemas)) categories.set(name, schema["x-category"]);
  $("types").replaceChildren(...Object.keys(told.schemas).map((name) => make("option", { value: name })));
}

function facts(me) {
  const until = me.expires_at ? new Date(me.expires_at).toLocaleString() : "no end";
  return [
    ["I am", me.id],
    ["Role", words(me.role)],
    ["Organization", me.organization_id ?? "all of them"],
    ["I see", (me.scope?.grants ?? []).map(grant).join("; ") || "nothing"],
    ["People's ids", me.scope?.pseudonymous ? "as pseudonyms, unless one organization is named" : "as they are"],
    ["Token good until", until],
  ];
}

function grant({ user_ids, class_ids, teacher_ids, categories, roles }) {
  const parts = [categories ? `events of ${categories.map(words).join(" and ")}` : "every event"];
  if (user_ids) parts.push(`of ${some(user_ids, "person", "people")}`);
  if (class_ids) parts.push(`of ${roles ? `${roles.map(words).join(" and ")}s in ` : ""}${some(class_ids, "class", "classes")}`);
  if (teacher_ids) parts.push(`of assignments taught by ${some(teacher_ids, "teacher", "teachers")}`);
  return parts.join(" ");
}

const some = (ids, one, many) => (ids.length === 1 ? ids[0] : ids.length ? `${ids.length} ${many}` : `no ${one}`);
const words = (name) => String(name ?? "").replaceAll("_", " ");
