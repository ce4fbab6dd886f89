/** The client itself; what each method promises stands in api.ts. */

import type {
  Category,
  Client,
  Consent,
  Context,
  Limits,
  Options,
  Receipt,
  Signals,
  User,
} from "./api.ts";
import { CATEGORIES } from "./categories.ts";
import { eventId, share } from "./ids.ts";
import { Session } from "./session.ts";
import { text } from "./vault.ts";

const LIMITS: Limits = {
  queueEvents: 20_000,
  batchEvents: 100,
  batchMs: 30_000,
  answerMs: 10_000,
  retryMs: 1_000,
  offlineMs: 60_000,
};

/** So that a batch of 100 fits into a message of the broker's. */
const EVENT_BYTES = 10_000;

const NOTHING: Consent = {
  learning_progress: false,
  user_interaction: false,
  system_performance: false,
  business_intelligence: false,
};

/** Of learning and of operation the school decides; the rest is nobody's until it is given. */
const SCHOOL: Consent = { ...NOTHING, learning_progress: true, system_performance: true };

export class GameClient implements Client {
  readonly _options: Options;
  readonly _limits: Limits;
  readonly _listeners: { [K in keyof Signals]?: Set<(value: Signals[K]) => void> } = {};
  readonly _sessionId = eventId();
  readonly _device: Record<string, string>;
  _session: Session | null = null;
  readonly _over = new AbortController();

  constructor(options: Options) {
    this._options = options;
    this._limits = { ...LIMITS, ...options.limits };
    this._device = { platform: platform(), ...options.device };
    this._signIn(options.user, options.consent);
    const { signal } = this._over;
    addEventListener("online", () => this._session?.hurry(), { signal });
    addEventListener("pagehide", () => this._session?.beacon(), { signal });
    addEventListener("visibilitychange", () => void (document.hidden && this.flush()), { signal });
  }

  track(type: string, properties: unknown, context?: Context): string {
    const id = eventId();
    let reason: string;
    try {
      reason = this._take(id, type, properties, context);
    } catch {
      reason = "malformed";
    }
    if (reason) this._emit("drop", { event_id: id, event_type: type, outcome: "dropped", reason });
    return id;
  }

  async flush(): Promise<void> {
    await this._session?.flush().catch(() => 0);
  }

  get consent(): Consent {
    return { ...(this._session?.consent ?? NOTHING) };
  }

  async setConsent(consent: Partial<Consent>): Promise<void> {
    await this._session?.setConsent({ ...this.consent, ...consent }).catch(() => 0);
  }

  optOut(): Promise<void> {
    return this.setConsent(NOTHING);
  }

  async setUser(user: User, consent?: Partial<Consent>): Promise<void> {
    if (this._over.signal.aborted || this._session?.user?.id === user.id) return;
    const left = this.clearUser();
    this._signIn(user, consent);
    await left;
  }

  async clearUser(): Promise<number> {
    const session = this._session;
    this._session = null;
    return (await session?.signOut().catch(() => 0)) ?? 0;
  }

  on<K extends keyof Signals>(name: K, listener: (value: Signals[K]) => void): () => void {
    const all: Set<typeof listener> = (this._listeners[name] ??= new Set() as never)!;
    all.add(listener);
    return () => all.delete(listener);
  }

  history(): Receipt[] {
    return this._session?.history() ?? [];
  }

  async close(): Promise<void> {
    this._over.abort();
    await this._session?.close().catch(() => 0);
    this._session = null;
    this._emit("state", { state: "closed", durable: false });
  }

  _signIn(user: User | undefined, consent?: Partial<Consent>): void {
    const emit = this._emit.bind(this);
    const given = { ...SCHOOL, ...consent };
    const session = new Session(user, this._options, this._limits, given, emit);
    session.onOut = () => {
      if (this._session == session) this._session = null;
      void session.signOut(true);
    };
    this._session = session;
  }

  /** Take the event, or say why not. */
  _take(id: string, type: string, properties: unknown, context?: Context): string {
    const session = this._session;
    if (!session) return this._over.signal.aborted ? "closed" : "no_user";
    const category = this._options.types?.[type] ?? categoryOf(type);
    if (!session.allows(category)) return "consent";
    if (share(id) >= (session.transport.sampling[type] ?? 1)) return "sampled";
    const body = JSON.stringify({
      event_id: id,
      event_type: type,
      timestamp: new Date(),
      session_id: this._sessionId,
      device_info: this._device,
      context: { ...this._options.context, ...context },
      properties,
    });
    if (text.encode(body).length > EVENT_BYTES) return "too_large";
    const critical = category == "learning_progress" || type.endsWith("_error");
    session.add({ id, category, critical, body });
    return "";
  }

  _emit<K extends keyof Signals>(name: K, value: Signals[K]): void {
    for (const listener of this._listeners[name] ?? [])
      // A listener's own mistake is reported by the browser, and ends neither game nor queue.
      queueMicrotask(() => listener(value));
  }
}

function categoryOf(type: string): Category {
  const found = Object.entries(CATEGORIES).find(([, starts]) => {
    return starts.split(" ").some((start) => type.startsWith(start));
  });
  return (found?.[0] as Category | undefined) ?? "user_interaction";
}

function platform(): string {
  return /Mobi/.test(navigator.userAgent) ? "mobile" : "desktop";
}
