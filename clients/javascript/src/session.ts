/** One user at this device: their consent, their queue, their tab among others, their history. */

import type { Category, Consent, Limits, Options, Receipt, Signals, User } from "./api.ts";
import { MemoryQueue, type Queue, type Row } from "./queue.ts";
import { Sender, typeOf } from "./sender.ts";
import { Store } from "./store.ts";
import { Transport, userOf } from "./transport.ts";

/** Events kept at hand for the beacon, and receipts for the history. */
const RECENT_EVENTS = 1000;

/** So long may the last events take to leave. */
const SIGN_OUT_MS = 3_000;

/** What tabs of one user tell each other. */
interface Note {
  fresh?: number;
  now?: boolean;
  receipts?: Receipt[];
  consent?: Consent;
  out?: boolean;
}

export class Session {
  readonly consent: Consent;
  readonly transport: Transport;
  readonly _options: Options;
  readonly _limits: Limits;
  readonly _emit: <K extends keyof Signals>(name: K, value: Signals[K]) => void;
  /** Not yet in the queue. */
  _fresh: Row[] = [];
  /** Of this tab and not settled, for the beacon; newest last. */
  readonly _recent = new Map<string, Row>();
  readonly _history: Receipt[] = [];
  user: User | undefined;
  _queue: Queue | undefined;
  _sender: Sender | undefined;
  _channel: BroadcastChannel | undefined;
  _release: () => void = () => 0;
  /** Everything that touches the queue, one after the other. */
  _work: Promise<unknown>;
  _writing = false;
  _untold = false;
  _ended = false;
  /** Another tab of this user signed out. */
  onOut: () => void = () => 0;

  constructor(
    user: User | undefined,
    options: Options,
    limits: Limits,
    consent: Consent,
    emit: Session["_emit"],
  ) {
    this.user = user;
    this._options = options;
    this._limits = limits;
    this.consent = consent;
    this._emit = emit;
    this.transport = new Transport(options, limits);
    this._work = this._open();
  }

  /** May this be collected? Until the user's own word is found, it is held in memory, then judged. */
  allows(category: Category): boolean {
    return !this._queue || this.consent[category];
  }

  /** Take an event; called in the game loop. */
  add(row: Row): void {
    this._fresh.push(row);
    this._recent.set(row.id, row);
    if (this._recent.size > RECENT_EVENTS) this._recent.delete(this._recent.keys().next().value!);
    if (this._fresh.length > this._limits.queueEvents) this._lose([this._fresh.shift()!.id], "full");
    if (this._writing) return;
    this._writing = true;
    setTimeout(() => void this._then(() => this._write()), 0);
  }

  async flush(): Promise<void> {
    await this._then(() => this._write());
    if (this._sender) return this._sender.flush();
    this._post({ fresh: 1, now: true });
    for (let wait = 0; wait < this._limits.answerMs && (await this._queue?.count()); wait += 50)
      await sleep(50);
  }

  /** Change what may be collected; what may not be any more is forgotten at once. */
  async setConsent(consent: Consent): Promise<void> {
    this._apply(consent);
    this._post({ consent });
    this._untold = true;
    await this._then(async () => {
      if (this._queue instanceof Store) await this._queue.keepConsent(consent);
      await this._tell();
    });
  }

  history(): Receipt[] {
    const waiting = [...this._recent.values()].map(({ id, body }): Receipt => {
      return { event_id: id, event_type: typeOf(body), outcome: "queued" };
    });
    return [...this._history, ...waiting];
  }

  /** What this tab has not seen settled, to the browser's care. */
  beacon(): void {
    const rows = [...this._recent.values()].filter((row) => this.consent[row.category]);
    rows.sort((a, b) => +b.critical - +a.critical);
    this.transport.beacon(rows.map((row) => row.body!));
  }

  hurry(): void {
    this._sender?.hurry();
  }

  /** Sign out: the last events leave, then the key goes; resolves to the events still unsent. */
  async signOut(elsewhere = false): Promise<number> {
    if (!elsewhere) await Promise.race([this.flush(), sleep(SIGN_OUT_MS)]).catch(() => 0);
    this._sender?.stop();
    return this._then(async () => {
      const queue = this._queue;
      const unsent = ((await queue?.count()) ?? 0) + this._fresh.length;
      if (queue instanceof Store) {
        if (!this.user!.secret) this._lose(await queue.forgetUser(queue.account.u), "signed_out");
        if (!elsewhere) this._post({ out: true });
      }
      // What is only in memory ends here.
      if (!queue?.durable) this._lose([...this._recent.keys()], "signed_out");
      this._end();
      return unsent;
    });
  }

  /** Stop working; what is queued stays, as after a closed tab. */
  async close(): Promise<void> {
    await this._then(() => this._write());
    this.beacon();
    this._end();
  }

  _end(): void {
    this._ended = true;
    this._sender?.stop();
    this.transport.close();
    this._channel?.close();
    this._release();
    this._queue?.close();
  }

  async _open(): Promise<void> {
    this.user ??= await this._askWho();
    if (!this.user) return;
    this.transport.user = this.user.id;
    const queue = await Store.open(this.user, this._limits).catch(() => new MemoryQueue(this._limits));
    const consent = queue instanceof Store && queue.account.consent;
    if (consent && !this._untold) {
      Object.assign(this.consent, consent);
      this._untold = true; // once a page: the last one may have ended before the broker knew
    }
    this._queue = queue;
    this._apply(this.consent);
    if (queue instanceof Store) await this._joinTabs(queue);
    else this._send(queue);
    await this._write();
  }

  /** The user that the page's token names: asked for until there is one. */
  async _askWho(): Promise<User | undefined> {
    while (!this._ended) {
      try {
        return { id: userOf(await this.transport.token()) };
      } catch {
        await sleep(this._limits.retryMs);
      }
    }
    return undefined;
  }

  async _joinTabs(store: Store): Promise<void> {
    const { u } = store.account;
    this._channel = new BroadcastChannel("mlc-events " + u);
    this._channel.onmessage = ({ data }) => this._hear(data as Note);
    // Who holds the lock sends, for all tabs; it goes on to another tab with the page.
    const held = new Promise<void>((yes) => (this._release = yes));
    void navigator.locks.request("mlc-events " + u, () => {
      if (!this._ended) this._send(store);
      return held;
    });
    for (const stranger of await store.strangers())
      await navigator.locks.request("mlc-events " + stranger, { ifAvailable: true }, async (lock) => {
        if (lock) this._lose(await store.forgetUser(stranger), "signed_out");
      });
  }

  _send(queue: Queue): void {
    this._sender = new Sender(queue, this.transport, this._limits, {
      allowed: (category) => this.allows(category),
      settled: (receipts) => {
        this._post({ receipts });
        this._settled(receipts);
      },
      state: (state) => this._emit("state", { state, durable: queue.durable }),
      before: () => this._tell(),
    });
    void queue.count().then((count) => count && this._sender!.notice(count, true));
  }

  async _write(): Promise<void> {
    this._writing = false;
    while (this._fresh.length && this._queue) {
      const rows = this._fresh.splice(0, 100);
      try {
        this._lose(await this._queue.put(rows), "full");
      } catch {
        // The disk takes nothing: memory must do, and what is stored waits for the next page.
        this._sender?.stop();
        this._send((this._queue = new MemoryQueue(this._limits)));
        this._fresh.unshift(...rows);
        continue;
      }
      const critical = rows.some((row) => row.critical);
      if (this._sender) this._sender.notice(rows.length, critical);
      else this._post({ fresh: rows.length, now: critical });
    }
  }

  /** Make the consent hold here: in memory, then in the queue. */
  _apply(consent: Consent): void {
    Object.assign(this.consent, consent);
    const gone = (Object.keys(consent) as Category[]).filter((category) => !consent[category]);
    const denied = (row: Row) => gone.includes(row.category);
    const lost = this._fresh.filter(denied).map((row) => row.id);
    this._fresh = this._fresh.filter((row) => !denied(row));
    for (const row of this._recent.values()) if (denied(row)) this._recent.delete(row.id);
    this._lose(lost, "consent");
    this._emit("consent", { ...this.consent });
    void this._then(async () => this._lose((await this._queue?.forget(gone)) ?? [], "consent"));
  }

  /** Tell the broker what the user chose; it is asked again before the next events leave. */
  async _tell(): Promise<void> {
    if (!this._untold || !this.user?.id) return;
    const words = Object.entries(this.consent).map(([category, given]) => {
      return [category, given ? "granted" : "denied"];
    });
    // Of the other two the school decides.
    const body = JSON.stringify(Object.fromEntries(words), ["user_interaction", "business_intelligence"]);
    const path = "/v1/consents/" + encodeURIComponent(this.user.id);
    const answer = await this.transport.request("PUT", path, body).catch(() => null);
    // A refusal is for good: a school may keep consent in its own hands.
    if (!answer || answer.status >= 500 || answer.status == 429) return;
    this._untold = false;
  }

  _hear(note: Note): void {
    if (note.fresh) this._sender?.notice(note.fresh, !!note.now);
    if (note.receipts) this._settled(note.receipts);
    if (note.consent) this._apply(note.consent);
    if (note.out) this.onOut();
  }

  _settled(receipts: Receipt[]): void {
    for (const receipt of receipts) {
      this._recent.delete(receipt.event_id);
      this._history.push(receipt);
      this._emit("ack", receipt);
      if (receipt.outcome == "dropped" || receipt.outcome == "rejected") this._emit("drop", receipt);
    }
    this._history.splice(0, this._history.length - RECENT_EVENTS);
  }

  _lose(ids: string[], reason: string): void {
    for (const event_id of ids) {
      const event_type = typeOf(this._recent.get(event_id)?.body ?? null);
      this._recent.delete(event_id);
      this._emit("drop", { event_id, event_type, outcome: "dropped", reason });
    }
  }

  _post(note: Note): void {
    try {
      this._channel?.postMessage(note);
    } catch {} // closed meanwhile: nobody to tell
  }

  _then<T>(work: () => Promise<T> | T): Promise<T> {
    const result = this._work.catch(() => 0).then(work);
    this._work = result.catch(() => 0);
    return result;
  }
}

function sleep(ms: number): Promise<void> {
  return new Promise((yes) => setTimeout(yes, ms));
}
