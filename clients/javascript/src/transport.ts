/** One way out for events: the WebSocket first, HTTP where it does not open, a beacon at the end. */

import type { Limits, Options, Outcome } from "./api.ts";

/** What the broker says of one event of a publish. */
export interface Answer {
  index: number;
  outcome: Outcome | "retry";
  reason?: string;
  detail?: string;
}

/** What it says about a publish; `receipts` lists what is neither stored nor duplicate. */
export interface Ack {
  receipts: Answer[];
  retry_after_ms?: number;
}

/** The publish was not carried out; `message` is the broker's code, `wait` its wish in milliseconds. */
export class Refusal extends Error {
  wait: number;

  constructor(code: string, wait = 0) {
    super(code);
    this.wait = wait;
  }
}

type Message = Record<string, any>;

/** How long HTTP alone is used after the WebSocket did not open. */
const STREAM_REST_MS = 30_000;
/** A browser's beacons may hold 64 KiB in all; the token needs room too. */
const BEACON_BYTES = 56_000;

export class Transport {
  readonly _options: Options;
  readonly _limits: Limits;
  readonly _stream: string;
  /** The user whose events leave here; another user's token is not used for them. */
  user: string | undefined;
  /** The shares that the broker keeps, by event type, where it said so: others need not leave. */
  sampling: Record<string, number> = {};
  _token = "";
  _socket: Promise<WebSocket> | null = null;
  _streamRestsUntil = 0;
  readonly _waiting = new Map<string, (answer: Message) => void>();
  _publishes = 0;

  constructor(options: Options, limits: Limits) {
    this._options = options;
    this._limits = limits;
    this._stream = options.stream ?? options.url.replace(/^http/, "ws") + "/v1/stream";
  }

  /** Send events, each already JSON; throws `Refusal`, or whatever the network throws. */
  async publish(events: string[]): Promise<Ack> {
    const socket = await this._open();
    const body = `"sent_at":"${new Date().toISOString()}","events":[${events}]}`;
    if (!socket) return this._post("{" + body);
    const id = "b" + ++this._publishes;
    const answer = this._answer(socket, id);
    socket.send(`{"op":"publish","id":"${id}",${body}`);
    return (await answer) as Ack;
  }

  /** Hand events to the browser for the time after the page; as many as it takes. */
  beacon(events: string[]): void {
    const head = JSON.stringify({ token: this._token, sent_at: new Date() }).slice(0, -1);
    let room = BEACON_BYTES - head.length;
    // Three bytes a character, at most.
    const fit = events.filter((event) => (room -= 3 * event.length) > 0);
    if (this._token && fit.length)
      navigator.sendBeacon(this._options.url + "/v1/beacon", `${head},"events":[${fit}]}`);
  }

  /** A request with the user's token; `path` begins with a slash. */
  async request(method: string, path: string, body: string): Promise<Response> {
    return fetch(this._options.url + path, {
      method,
      body,
      credentials: "omit",
      headers: {
        Authorization: "Bearer " + (await this.token()),
        "Content-Type": "application/json",
      },
      signal: AbortSignal.timeout(this._limits.answerMs),
    });
  }

  /** The token of our user: the last one while it lasts, else the page's next. */
  async token(): Promise<string> {
    if (!this._token || claims(this._token).exp * 1000 < Date.now()) {
      this._token = "";
      const token = await this._options.getToken();
      if (this.user !== undefined && userOf(token) !== this.user) throw new Refusal("wrong_user");
      this._token = token;
    }
    return this._token;
  }

  close(): void {
    this._socket?.then((socket) => socket.close(1000)).catch(() => 0);
    this._socket = null;
    this._token = "";
  }

  async _post(body: string): Promise<Ack> {
    const response = await this.request("POST", "/v1/events", body);
    if (response.status == 401) this._token = "";
    const answer: Message = await response.json().catch(() => ({}));
    if (answer.receipts) return answer as Ack;
    const wait = Number(response.headers.get("Retry-After"));
    throw new Refusal(answer.code ?? `${response.status}`, wait * 1000 || 0);
  }

  /** The open socket; null where HTTP has to do. */
  async _open(): Promise<WebSocket | null> {
    if (performance.now() < this._streamRestsUntil) return null;
    const socket = (this._socket ??= this.token().then((token) => this._greet(token)));
    try {
      return await socket;
    } catch (error) {
      if (this._socket == socket) this._socket = null;
      if (error instanceof Refusal && error.message != "closed") throw error;
      this._streamRestsUntil = performance.now() + STREAM_REST_MS;
      return null;
    }
  }

  async _greet(token: string): Promise<WebSocket> {
    const socket = new WebSocket(this._stream);
    socket.onopen = () =>
      socket.send(JSON.stringify({ op: "hello", token, client: "mlc-events-js/1.0.0" }));
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      this._waiting.get(message.id ?? "")?.(message);
    };
    socket.onclose = () => {
      this._socket = null;
      this._waiting.forEach((answer) => answer({ code: "closed" }));
    };
    this.sampling = (await this._answer(socket, "")).sampling ?? {};
    return socket;
  }

  /** The answer to the message of this id; "" is the id of `hello`. */
  async _answer(socket: WebSocket, id: string): Promise<Message> {
    const timer = setTimeout(() => socket.close(), this._limits.answerMs);
    const { code, retry_after_ms, ...answer } = await new Promise<Message>((yes) => {
      this._waiting.set(id, yes);
    });
    clearTimeout(timer);
    this._waiting.delete(id);
    if (code == "unauthenticated") this._token = "";
    if (code) throw new Refusal(code, retry_after_ms);
    return { ...answer, retry_after_ms };
  }
}

/** The user that a token speaks for; "" for an anonymous key. */
export function userOf(token: string): string {
  return claims(token).sub ?? "";
}

function claims(token: string): Message {
  const body = token.split(".")[1];
  if (!body) return {};
  const bytes = atob(body.replace(/-/g, "+").replace(/_/g, "/"));
  return JSON.parse(decodeURIComponent(escape(bytes)));
}
