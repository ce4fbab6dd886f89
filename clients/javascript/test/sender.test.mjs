import assert from "node:assert/strict";
import { test } from "node:test";
import { eventId } from "../src/ids.ts";
import { MemoryQueue } from "../src/queue.ts";
import { Sender } from "../src/sender.ts";
import { Refusal } from "../src/transport.ts";

const LIMITS = { queueEvents: 1000, batchEvents: 100, batchMs: 30_000, retryMs: 1000, offlineMs: 60_000 };

/** A sender whose broker is a function of the ids of a publish; time is the test's. */
function house(t, broker) {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  let now = 0;
  t.mock.method(performance, "now", () => now);
  t.mock.method(Math, "random", () => 0.5);
  const queue = new MemoryQueue(LIMITS);
  const told = { receipts: [], states: [], publishes: [] };
  const transport = {
    async publish(bodies) {
      const ids = bodies.map((body) => JSON.parse(body).event_id);
      told.publishes.push(ids);
      return { receipts: [], ...(await broker(ids)) };
    },
  };
  const sender = new Sender(queue, transport, LIMITS, {
    allowed: (category) => category != "user_interaction",
    settled: (receipts) => told.receipts.push(...receipts),
    state: (state) => told.states.push(state),
    before: async () => {},
  });
  const add = async (count, critical = false, category = "learning_progress") => {
    const rows = Array.from({ length: count }, () => {
      const id = eventId();
      return { id, category, critical, body: JSON.stringify({ event_id: id, event_type: "target_met" }) };
    });
    await queue.put(rows);
    sender.notice(count, critical);
    await settle();
    return rows.map(({ id }) => id);
  };
  const pass = async (ms) => {
    now += ms;
    t.mock.timers.tick(ms);
    await settle();
  };
  return { queue, sender, add, pass, ...told, told };
}

async function settle() {
  for (let i = 0; i < 60; i++) await Promise.resolve();
  await new Promise((yes) => setImmediate(yes));
}

test("critical events leave at once, others after 30 s or as a hundred", async (t) => {
  const { add, pass, publishes } = house(t, () => ({}));
  await add(1, true);
  assert.equal(publishes.length, 1);
  await add(99);
  assert.equal(publishes.length, 1);
  await pass(29_999);
  assert.equal(publishes.length, 1);
  await pass(1);
  assert.deepEqual(publishes.map((ids) => ids.length), [1, 99]);
  await add(100);
  assert.equal(publishes.length, 3);
});

test("what is answered is forgotten, what is to be sent again stays", async (t) => {
  let first = true;
  const { add, pass, queue, receipts } = house(t, (ids) => {
    const again = first && ids.length > 2;
    first = false;
    return again
      ? { retry_after_ms: 5000, receipts: [{ index: 1, outcome: "retry" }, { index: 2, outcome: "rejected", reason: "schema" }] }
      : {};
  });
  const ids = await add(3, true);
  assert.deepEqual(receipts.map((r) => [r.event_id, r.outcome]), [[ids[0], "stored"], [ids[2], "rejected"]]);
  assert.equal(await queue.count(), 1);
  await pass(4999);
  assert.equal(await queue.count(), 1);
  await pass(1);
  assert.equal(await queue.count(), 0);
});

test("three quick retries with jitter, then the offline queue, tried slowly", async (t) => {
  const { add, pass, states, publishes, sender } = house(t, () => Promise.reject(new Error("down")));
  await add(1, true);
  for (const wait of [1000, 2000, 4000]) await pass(wait);
  assert.equal(publishes.length, 4);
  assert.deepEqual(states, ["retrying", "retrying", "retrying", "offline"]);
  await pass(44_999);
  assert.equal(publishes.length, 4);
  await pass(1);
  assert.equal(publishes.length, 5);
  sender.hurry();
  await settle();
  assert.equal(publishes.length, 6);
});

test("a publish that can never be taken is taken apart, and only the culprit is lost", async (t) => {
  let bad = "";
  const { add, receipts, publishes } = house(t, (ids) => {
    bad ||= ids[1];
    if (ids.includes(bad)) throw new Refusal("too_large");
    return {};
  });
  const ids = await add(3, true);
  assert.equal(publishes.length, 4);
  const said = Object.fromEntries(receipts.map((r) => [r.event_id, r.reason ?? r.outcome]));
  assert.deepEqual(said, { [ids[0]]: "stored", [ids[1]]: "too_large", [ids[2]]: "stored" });
});

test("consent is asked again at the door", async (t) => {
  const { add, receipts, publishes } = house(t, () => ({}));
  await add(2, true, "user_interaction");
  assert.equal(publishes.length, 0);
  assert.deepEqual(receipts.map((r) => r.reason), ["consent", "consent"]);
});
