import assert from "node:assert/strict";
import { test } from "node:test";
import { eventId, share } from "../src/ids.ts";

test("an id is a UUIDv7, as the protocol wants them", () => {
  assert.match(eventId(), /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
});

test("ids of one page rise, even when the clock is set back", (t) => {
  const ids = Array.from({ length: 9000 }, eventId);
  t.mock.method(Date, "now", () => 1_000_000);
  ids.push(eventId());
  assert.deepEqual(ids, [...new Set(ids)].sort());
});

test("an id has the share that the broker reckons", () => {
  // As pipeline/builtin/sample.py reckons it, in Python.
  for (const [id, known] of KNOWN) assert.equal(share(id), known);
  const mean = Array.from({ length: 2000 }, () => share(eventId())).reduce((a, b) => a + b) / 2000;
  assert.ok(mean > 0.45 && mean < 0.55, `${mean}`);
});

const KNOWN = [
  ["evt_1234567890abcdef", 0.21197575982660055],
  ["01948000-0000-7000-8000-000000000000", 0.11328031099401414],
  ["a-b_c-d_", 0.23914275388233364],
];
