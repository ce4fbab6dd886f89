import assert from "node:assert/strict";
import { test } from "node:test";
import "fake-indexeddb/auto";
import { eventId } from "../src/ids.ts";
import { MemoryQueue } from "../src/queue.ts";
import { Store } from "../src/store.ts";

const LIMITS = { queueEvents: 10 };
let users = 0;

const queues = {
  "the queue on the device": () => Store.open({ id: `usr_${++users}`, secret: "sixteen bytes or more" }, LIMITS),
  "the queue in memory": async () => new MemoryQueue(LIMITS),
};

function row(category = "learning_progress") {
  const id = eventId();
  const critical = category == "learning_progress";
  return { id, category, critical, body: JSON.stringify({ event_id: id, event_type: "target_met" }) };
}

for (const [name, open] of Object.entries(queues)) {
  test(`${name} gives back what it took, oldest first, a part at a time`, async () => {
    const queue = await open();
    const rows = Array.from({ length: 5 }, () => row());
    assert.deepEqual(await queue.put(rows), []);
    const first = await queue.take(2, "");
    assert.deepEqual(first, rows.slice(0, 2));
    assert.deepEqual(await queue.take(9, first[1].id), rows.slice(2));
    await queue.remove(first.map(({ id }) => id));
    assert.equal(await queue.count(), 3);
    queue.close();
  });

  test(`${name} drops the oldest first, and critical ones last`, async () => {
    const queue = await open();
    const scores = Array.from({ length: 6 }, () => row());
    const clicks = Array.from({ length: 4 }, () => row("user_interaction"));
    await queue.put([...scores, ...clicks]);
    const more = [row(), row(), row()];
    assert.deepEqual(await queue.put(more), clicks.slice(0, 3).map(({ id }) => id));
    const last = [row(), row()];
    assert.deepEqual(await queue.put(last), [clicks[3].id, scores[0].id]);
    assert.equal(await queue.count(), 10);
    queue.close();
  });

  test(`${name} forgets a category whose consent is withdrawn`, async () => {
    const queue = await open();
    const rows = [row(), row("user_interaction"), row()];
    await queue.put(rows);
    assert.deepEqual(await queue.forget(["user_interaction"]), [rows[1].id]);
    assert.deepEqual(await queue.take(9, ""), [rows[0], rows[2]]);
    queue.close();
  });
}

test("a row shows neither the user nor the event", async () => {
  const user = { id: "usr_shown_nowhere", secret: "sixteen bytes or more" };
  const store = await Store.open(user, LIMITS);
  await store.put([row()]);
  const stored = (await raw("rows")).find(({ u }) => u == store.account.u);
  const text = Buffer.from(stored.d.data).toString("latin1") + JSON.stringify({ ...stored, d: 0 });
  assert.doesNotMatch(text, /usr_shown_nowhere|target_met/);
  const account = (await raw("users")).find(({ u }) => u == stored.u);
  assert.equal(account.key, undefined);
  store.close();
});

test("with the secret the user opens their queue again; another secret opens nothing", async () => {
  const user = { id: "usr_again", secret: "sixteen bytes or more" };
  const before = await Store.open(user, LIMITS);
  const kept = row();
  await before.put([kept]);
  before.close();
  const after = await Store.open(user, LIMITS);
  assert.deepEqual(await after.take(9, ""), [kept]);
  const other = await Store.open({ ...user, secret: "another of sixteen bytes" }, LIMITS);
  assert.deepEqual(await other.take(9, ""), []);
  after._key = other._key;
  assert.equal((await after.take(9, ""))[0].body, null);
  after.close();
  other.close();
});

test("without a secret the key lies on the device until the user is forgotten", async () => {
  const user = { id: "usr_plain" };
  const store = await Store.open(user, LIMITS);
  const kept = row();
  await store.put([kept]);
  store.close();
  const next = await Store.open({ id: "usr_next" }, LIMITS);
  assert.ok((await next.strangers()).includes(store.account.u));
  assert.deepEqual(await next.forgetUser(store.account.u), [kept.id]);
  const back = await Store.open(user, LIMITS);
  assert.equal(await back.count(), 0);
  back.close();
  next.close();
});

async function raw(name) {
  const db = await new Promise((yes) => {
    const request = indexedDB.open("mlc-events");
    request.onsuccess = () => yes(request.result);
  });
  const all = await new Promise((yes) => {
    const request = db.transaction(name).objectStore(name).getAll();
    request.onsuccess = () => yes(request.result);
  });
  db.close();
  return all;
}
