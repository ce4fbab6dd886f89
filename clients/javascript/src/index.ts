import type { Client, Options } from "./api.ts";
import { GameClient } from "./client.ts";

export type * from "./api.ts";
export type * from "./events.ts";

/**
 * Start reporting. Returns at once; whatever goes wrong later comes by `on("drop")` and
 * `on("state")`, never as an exception.
 */
export function createClient(options: Options): Client {
  return new GameClient(options);
}
