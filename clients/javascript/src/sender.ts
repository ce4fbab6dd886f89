/** Takes events out of the queue and sends them: when, how many, and how often again. */

import type { Category, Limits, Receipt, State } from "./api.ts";
import type { Queue, Row } from "./queue.ts";
import { type Answer, Refusal, type Transport } from "./transport.ts";

export interface Ears {
  /** May events of this category leave? Asked again just before they do. */
  allowed(category: Category): boolean;
  settled(receipts: Receipt[]): void;
  state(state: State["state"]): void;
  /** Before events leave: tell the broker what it must know first. */
  before(): Promise<void>;
}

/** Three quick retries, as the specification says; then the offline queue. */
const QUICK_RETRIES = 3;
/** Publishes under way at once; the daemon lets a connection have 16. */
const IN_FLIGHT = 4;
/** Codes that mean: these events, together, can never be taken. Then each is sent by itself. */
const TOO_MUCH = ["malformed", "too_large", "too_many", "413"];

export class Sender {
  readonly _queue: Queue;
  readonly _transport: Transport;
  readonly _limits: Limits;
  readonly _ears: Ears;
  _timer: ReturnType<typeof setTimeout> | undefined;
  /** When the timer rings; Infinity while none is set. */
  _rings = Infinity;
  /** No attempt of our own accord before this. */
  _notBefore = 0;
  /** The broker asked for patience until then. */
  _askedUntil = 0;
  _failures = 0;
  _fresh = 0;
  _draining: Promise<void> | null = null;
  _again = false;
  _stopped = false;

  constructor(queue: Queue, transport: Transport, limits: Limits, ears: Ears) {
    this._queue = queue;
    this._transport = transport;
    this._limits = limits;
    this._ears = ears;
  }

  /** Events came into the queue. */
  notice(count: number, critical: boolean): void {
    this._fresh += count;
    const now = critical || this._fresh >= this._limits.batchEvents;
    this._wake(now ? 0 : this._limits.batchMs);
  }

  /** Send all there is, now, unless the broker asked for patience; resolves after the attempt. */
  async flush(): Promise<void> {
    if (clock() >= this._askedUntil) await this._drain();
  }

  /** The network is back: what waits need not wait longer. */
  hurry(): void {
    if (this._failures) {
      this._notBefore = this._askedUntil;
      this._wake(0);
    }
  }

  stop(): void {
    this._stopped = true;
    clearTimeout(this._timer);
  }

  _wake(delay: number): void {
    const now = clock();
    const when = Math.max(now + delay, this._notBefore);
    if (this._stopped || when >= this._rings) return;
    clearTimeout(this._timer);
    this._rings = when;
    const ring = () => {
      this._rings = Infinity;
      if (clock() < this._notBefore) this._wake(0);
      else void this._drain();
    };
    // At once, not by a timer: hidden pages get theirs once a minute.
    if (when <= now) ring();
    else this._timer = setTimeout(ring, when - now);
  }

  /** One attempt at everything; two at once become one after the other. */
  _drain(): Promise<void> {
    if (this._stopped) return Promise.resolve();
    this._again = !!this._draining;
    return (this._draining ??= this._attempt().finally(() => {
      this._draining = null;
      if (this._again) this._wake(0);
    }));
  }

  async _attempt(): Promise<void> {
    this._fresh = 0;
    const failure: unknown = await this._sendAll().catch((error) => error);
    if (this._stopped) return;
    if (!failure) {
      this._failures = this._notBefore = this._askedUntil = 0;
      return this._ears.state("online");
    }
    const quick = this._failures++ < QUICK_RETRIES;
    const { retryMs, offlineMs } = this._limits;
    const jitter = Math.random();
    const wait = quick ? jitter * retryMs * 2 ** this._failures : (1 + jitter) * 0.5 * offlineMs;
    const asked = (failure as Partial<Refusal>).wait ?? 0;
    this._askedUntil = clock() + asked;
    this._notBefore = clock() + Math.max(wait, asked);
    this._again = false;
    this._ears.state(quick ? "retrying" : "offline");
    this._wake(0);
  }

  /** Publish after publish, several under way; the first failure, once all are answered. */
  async _sendAll(): Promise<unknown> {
    await this._ears.before();
    const under = new Set<Promise<void>>();
    let failure: unknown;
    let after = "";
    while (!failure && !this._stopped) {
      const rows = await this._queue.take(this._limits.batchEvents, after);
      if (!rows.length) break;
      after = rows[rows.length - 1]!.id;
      const job: Promise<void> = this._deliver(rows)
        .catch((error) => void (failure ??= error))
        .finally(() => under.delete(job));
      under.add(job);
      if (under.size >= IN_FLIGHT) await Promise.race(under);
    }
    await Promise.all(under);
    return failure;
  }

  async _deliver(rows: Row[]): Promise<void> {
    const answers = new Map<Row, Partial<Receipt> | Answer>();
    const going = rows.filter((row) => {
      const reason = row.body == null ? "unreadable" : this._ears.allowed(row.category) ? "" : "consent";
      answers.set(row, reason ? { outcome: "dropped", reason } : { outcome: "stored" });
      return !reason;
    });
    let wait: number | undefined;
    if (going[0])
      try {
        const ack = await this._transport.publish(going.map((row) => row.body!));
        wait = ack.retry_after_ms;
        for (const answer of ack.receipts) answers.set(going[answer.index]!, answer);
      } catch (error) {
        const reason = (error as Error).message;
        if (!TOO_MUCH.includes(reason)) throw error;
        if (rows[1]) {
          for (const row of rows) await this._deliver([row]);
          return;
        }
        answers.set(going[0], { outcome: "rejected", reason });
      }
    const settled = rows.filter((row) => answers.get(row)!.outcome != "retry");
    await this._queue.remove(settled.map((row) => row.id));
    this._ears.settled(
      settled.map((row) => {
        const { outcome, reason, detail } = answers.get(row) as Receipt;
        return { event_id: row.id, event_type: typeOf(row.body), outcome, reason, detail };
      }),
    );
    if (settled.length < rows.length) throw new Refusal("retry", wait);
  }
}

/** Milliseconds that go on evenly, whatever is done to the device's clock. */
function clock(): number {
  return performance.now();
}

/** The event's type, read from the head of its JSON. */
export function typeOf(body: string | null): string {
  return /"event_type":"([^"]*)/.exec(body ?? "")?.[1] ?? "";
}
