/** The daemon over HTTP. The token travels in a header, never in an address. */

const KEY = "mlc-broker-token";

export const token = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

/** What the daemon said when it did not answer as hoped. */
export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** GET as JSON. Throws Problem; its status is 0 where the daemon cannot be reached. */
export async function get(path) {
  const answer = await ask(path, { Accept: "application/json" });
  return answer.json();
}

/**
 * Read server-sent events until they end. `hear({ id, event, data })` gets each; resolves with the
 * problem of a stream that ended for a reason, else null.
 */
export async function listen(path, { after, signal, hear }) {
  const answer = await ask(path, after ? { "Last-Event-ID": after } : {}, signal);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return null;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const said = read(part);
      if (said.event === "error") return new Problem(401, said.data.detail ?? "The stream ended.");
      if (said.data !== undefined) hear(said);
    }
  }
}

async function ask(path, headers, signal) {
  let answer;
  try {
    answer = await fetch(path, {
      headers: { Authorization: `Bearer ${token.get()}`, ...headers },
      credentials: "omit",
      cache: "no-store",
      signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "The daemon does not answer.");
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  throw new Problem(answer.status, told.detail ?? answer.statusText);
}

function read(part) {
  const said = {};
  for (const line of part.split("\n")) {
    const at = line.indexOf(": ");
    if (at > 0) said[line.slice(0, at)] = line.slice(at + 2);
  }
  if (said.data !== undefined) said.data = JSON.parse(said.data);
  return said;
}
