/** Unsent events: the shape of a queue, and the one in memory. */

import type { Category, Limits } from "./api.ts";

export interface Row {
  id: string;
  category: Category;
  critical: boolean;
  /** The event as JSON; null where it cannot be opened any more. */
  body: string | null;
}

/** Keeps events until they are acknowledged. All answers are in the order of ids: of time. */
export interface Queue {
  readonly durable: boolean;
  /** Keep rows; resolves to the ids that had to go for them. */
  put(rows: Row[]): Promise<string[]>;
  /** At most `count` rows whose ids are greater than `after`. */
  take(count: number, after: string): Promise<Row[]>;
  remove(ids: string[]): Promise<void>;
  /** Forget whole categories; resolves to the ids forgotten. */
  forget(categories: Category[]): Promise<string[]>;
  count(): Promise<number>;
  close(): void;
}

/** The fallback where there is no IndexedDB or no WebCrypto: ends with the page. */
export class MemoryQueue implements Queue {
  readonly durable = false;
  _rows: Row[] = [];
  readonly _limits: Limits;

  constructor(limits: Limits) {
    this._limits = limits;
  }

  async put(rows: Row[]): Promise<string[]> {
    this._rows.push(...rows);
    const lost: string[] = [];
    while (this._rows.length > this._limits.queueEvents) {
      const oldest = Math.max(0, this._rows.findIndex((row) => !row.critical));
      lost.push(this._rows.splice(oldest, 1)[0]!.id);
    }
    return lost;
  }

  async take(count: number, after: string): Promise<Row[]> {
    return this._rows.filter((row) => row.id > after).slice(0, count);
  }

  async remove(ids: string[]): Promise<void> {
    this._rows = this._rows.filter((row) => !ids.includes(row.id));
  }

  async forget(categories: Category[]): Promise<string[]> {
    const gone = this._rows.filter((row) => categories.includes(row.category));
    const ids = gone.map((row) => row.id);
    await this.remove(ids);
    return ids;
  }

  async count(): Promise<number> {
    return this._rows.length;
  }

  close(): void {}
}
