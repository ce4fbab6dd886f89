import type { Client, ConsentWords } from "./mlc-events.js";

/** Make `<mlc-consent>` known to the page and let it speak for `client`. Call it once. */
export declare function defineConsent(client: Client, words?: Partial<ConsentWords>): void;
