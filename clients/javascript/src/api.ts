import type { EventName, Events } from "./events.ts";

/** The four categories of events. Consent is given, and withdrawn, by category. */
export type Category =
  | "learning_progress"
  | "user_interaction"
  | "system_performance"
  | "business_intelligence";

/** What may be collected, by category. */
export type Consent = Record<Category, boolean>;

/** Who is signed in on this device. */
export interface User {
  /** The `sub` of the user's token; the empty string for an anonymous key. */
  id: string;
  /**
   * At least 16 random bytes, as text, that your server always gives this user and nobody else
   * (for instance an HMAC of the id). With it, unsent events outlive a sign-out, sealed, and
   * leave when the same user is back. Without it they end with the session.
   */
  secret?: string;
}

/** Where an event happened. Merged over the client's own `context`. */
export interface Context {
  page_url?: string;
  referrer?: string | null;
  assignment_id?: string | null;
  sequence_id?: string | null;
  class_id?: string | null;
  teacher_id?: string | null;
  experiments?: Record<string, string>;
  [key: string]: unknown;
}

/** Every limit has a unit in its name; each can be set. */
export interface Limits {
  /** Events kept on this device for one user (20,000). The oldest non-critical go first. */
  queueEvents: number;
  /** Events in one publish (100; each holds at most 10,000 bytes). */
  batchEvents: number;
  /** Milliseconds until events that are not critical are sent (30,000). */
  batchMs: number;
  /** Milliseconds to wait for a connection or an answer (10,000). */
  answerMs: number;
  /** Milliseconds, doubled at each of the three retries, of which chance takes a part (1,000). */
  retryMs: number;
  /** Milliseconds between tries once the three are used up (60,000). */
  offlineMs: number;
}

export interface Options {
  /** Address of the broker, as `https://broker.school`, without a slash at its end. */
  url: string;
  /** Address of its WebSocket, where that is not `/v1/stream` at `url`. */
  stream?: string;
  /** Gives a user token or an anonymous key. Called when one is needed; may fail while offline. */
  getToken: () => string | Promise<string>;
  /** Who is signed in. Left out, it is the token's `sub`; give it so that offline starts work. */
  user?: User;
  /** What the page knows of consent. Learning progress and system performance default to true. */
  consent?: Partial<Consent>;
  /** Put into every event's context. */
  context?: Context;
  /** Put into every event's `device_info`, beside `platform`. */
  device?: Record<string, string>;
  /** Category of your own event types (`org.…`); an unknown type counts as user interaction. */
  types?: Record<string, Category>;
  limits?: Partial<Limits>;
}

/** The broker's last word on an event, or ours where it never left. */
export type Outcome = "stored" | "duplicate" | "dropped" | "rejected" | "quarantined";

export interface Receipt {
  event_id: string;
  /** Unknown ("") where the event could not be opened any more. */
  event_type: string;
  outcome: Outcome | "queued";
  /**
   * Why an event was lost. The broker's reasons, and our own: `consent`, `sampled`, `full`,
   * `too_large`, `malformed`, `signed_out`, `unreadable`, `no_user`, `closed`.
   */
  reason?: string;
  detail?: string;
}

export interface State {
  /** `offline`: the quick retries are used up, events wait on this device. */
  state: "idle" | "online" | "retrying" | "offline" | "closed";
  /** Whether events outlive this page: false in private windows and without https. */
  durable: boolean;
}

export interface Signals {
  /** An event is settled: it needs no more sending. */
  ack: Receipt;
  /** An event is lost, and why: not sent, or refused by the broker. */
  drop: Receipt;
  state: State;
  /** What may be collected changed. */
  consent: Consent;
}

/** What `<mlc-consent>` says; give your own for other languages. */
export interface ConsentWords {
  title: string;
  school: string;
  user_interaction: string;
  business_intelligence: string;
  save: string;
  refuse: string;
  saved: string;
}

/** What a game holds: takes events, never throws, never waits. */
export interface Client {
  /** What may be collected now. */
  readonly consent: Consent;
  /**
   * Report an event; returns its id at once. Learning progress and errors leave at once, the rest
   * in batches. Never throws: what cannot be taken comes back by `on("drop")`.
   */
  track<T extends EventName>(type: T, properties: Events[T], context?: Context): string;
  track(type: `org.${string}`, properties: Record<string, unknown>, context?: Context): string;
  /** Send what waits; resolves after the attempt, whatever came of it. */
  flush(): Promise<void>;
  /** Give or withdraw consent by category: it holds at once, in every tab; the broker is told. */
  setConsent(consent: Partial<Consent>): Promise<void>;
  /** Collect nothing more, and forget all that has not left, until `setConsent` says otherwise. */
  optOut(): Promise<void>;
  /** Another user is at this device, with their own consent. The last one is signed out first. */
  setUser(user: User, consent?: Partial<Consent>): Promise<void>;
  /**
   * The user leaves: what waits is sent for up to 3 s, then their key goes.
   * Resolves to the events that are still unsent: with a `secret` they wait, sealed, for the
   * user's return; without one they are dropped as `signed_out`.
   */
  clearUser(): Promise<number>;
  /** Listen; returns the function that stops it. */
  on<K extends keyof Signals>(name: K, listener: (value: Signals[K]) => void): () => void;
  /** What was sent about this user from this page, what became of it, and what waits. */
  history(): Receipt[];
  /** The game is over. What waits stays on this device for the next page. */
  close(): Promise<void>;
}
