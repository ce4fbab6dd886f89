/**
 * The queue on this device: IndexedDB, one sealed row an event.
 *
 * A row shows its user's name (a hash), its id (a time), its category and whether it is critical;
 * the event itself is sealed. Every change is one transaction, so tabs may write side by side.
 */

import type { Category, Consent, Limits, User } from "./api.ts";
import type { Queue, Row } from "./queue.ts";
import { open, type Sealed, seal, vaultKey, vaultName } from "./vault.ts";

interface Stored {
  u: string;
  id: string;
  /** 1: critical, 0: not. Index "room" gives the order in which rows go when there is no room. */
  c: number;
  g: Category;
  d: Sealed;
}

/** A user of this device: the key where there is no secret, and the consent that they gave. */
export interface Account {
  u: string;
  /** When they last were here, in milliseconds since 1970. */
  at: number;
  key?: CryptoKey;
  consent?: Consent;
}

/** A user with a secret who did not come back for so long is forgotten: the broker would not take it. */
const AWAY_MS = 90 * 86_400_000;
const ROWS = "rows";
const USERS = "users";
const INDEX = "room";

export class Store implements Queue {
  readonly durable = true;
  readonly _db: IDBDatabase;
  readonly _limits: Limits;
  _key!: CryptoKey;
  account!: Account;

  constructor(db: IDBDatabase, limits: Limits) {
    this._db = db;
    this._limits = limits;
  }

  /** Open the user's queue; throws where this browser cannot keep one. */
  static async open(user: User, limits: Limits): Promise<Store> {
    const request = indexedDB.open("mlc-events", 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore(USERS, { keyPath: "u" });
      request.result
        .createObjectStore(ROWS, { keyPath: ["u", "id"] })
        .createIndex(INDEX, ["u", "c", "id"]);
    };
    const store = new Store(await done(request), limits);
    const u = await vaultName(user);
    const fresh = await vaultKey(user);
    await store._within(async (_rows, users) => {
      const known = await done<Account | undefined>(users.get(u));
      const account: Account = { ...known, u, at: Date.now() };
      store._key = account.key ?? fresh;
      if (!user.secret) account.key = store._key;
      users.put((store.account = account));
    });
    return store;
  }

  async put(rows: Row[]): Promise<string[]> {
    const { u } = this.account;
    const sealed = await Promise.all(
      rows.map(async ({ id, critical, category, body }): Promise<Stored> => {
        return { u, id, c: +critical, g: category, d: await seal(this._key, id, body!) };
      }),
    );
    return this._within(async (store) => {
      for (const row of sealed) store.put(row);
      const over = (await done<number>(store.count(all(u)))) - this._limits.queueEvents;
      return over > 0 ? drop(store.index(INDEX), u, store, over) : [];
    });
  }

  async take(count: number, after: string): Promise<Row[]> {
    const { u } = this.account;
    const range = IDBKeyRange.bound([u, after], [u, []], true);
    const found = await this._within((rows) => done<Stored[]>(rows.getAll(range, count)));
    return Promise.all(
      found.map(async ({ id, c, g, d }) => {
        return { id, category: g, critical: !!c, body: await open(this._key, id, d) };
      }),
    );
  }

  async remove(ids: string[]): Promise<void> {
    await this._within(async (rows) => ids.forEach((id) => rows.delete([this.account.u, id])));
  }

  forget(categories: Category[]): Promise<string[]> {
    const gone = (row: Stored) => categories.includes(row.g);
    return this._within((rows) => drop(rows, this.account.u, rows, undefined, gone));
  }

  count(): Promise<number> {
    return this._within((rows) => done(rows.count(all(this.account.u))));
  }

  close(): void {
    this._db.close();
  }

  /** Keep the consent that this user gave. */
  async keepConsent(consent: Consent): Promise<void> {
    this.account = { ...this.account, consent };
    await this._within(async (_rows, users) => users.put(this.account));
  }

  /** Forget a user of this device, key and rows; ids of the rows. */
  forgetUser(u: string): Promise<string[]> {
    return this._within((rows, users) => {
      users.delete(u);
      return drop(rows, u, rows);
    });
  }

  /** Users to forget if no page is theirs: who left without signing out, or long ago. */
  async strangers(): Promise<string[]> {
    const accounts = await this._within((_rows, users) => done<Account[]>(users.getAll()));
    const least = Date.now() - AWAY_MS;
    return accounts
      .filter(({ u, key, at }) => u != this.account.u && (key || at < least))
      .map(({ u }) => u);
  }

  /** One transaction over both tables; resolves once it is committed. */
  async _within<T>(work: (rows: IDBObjectStore, users: IDBObjectStore) => Promise<T>): Promise<T> {
    const transaction = this._db.transaction([ROWS, USERS], "readwrite", { durability: "relaxed" });
    const end = new Promise<void>((yes, no) => {
      transaction.oncomplete = () => yes();
      transaction.onabort = () => no(transaction.error);
    });
    const result = work(transaction.objectStore(ROWS), transaction.objectStore(USERS));
    await Promise.all([result, end]);
    return result;
  }
}

/** Delete the first `count` (all) rows of a user, in the order of `source`, that fit; ids. */
async function drop(
  source: IDBObjectStore | IDBIndex,
  u: string,
  rows: IDBObjectStore,
  count?: number,
  fit: (row: Stored) => boolean = () => true,
): Promise<string[]> {
  const found = (await done<Stored[]>(source.getAll(all(u), count))).filter(fit);
  return found.map(({ id }) => {
    rows.delete([u, id]);
    return id;
  });
}

function all(u: string): IDBKeyRange {
  return IDBKeyRange.bound([u], [u, []]);
}

function done<T>(request: IDBRequest): Promise<T> {
  return new Promise((yes, no) => {
    request.onsuccess = () => yes(request.result as T);
    request.onerror = () => no(request.error);
  });
}
