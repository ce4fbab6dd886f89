/**
 * A user's key. It never leaves WebCrypto, and it goes when the user goes.
 *
 * With a secret the key is made from it and lives in memory alone: the next person on this
 * device has nothing to open the queue with, and the same user opens it at the next sign-in.
 * Without one it is a random key kept by IndexedDB until sign-out, and deleted there.
 */

import type { User } from "./api.ts";

export const text = new TextEncoder();
const AES = "AES-GCM";

/** Name of the user's rows: says neither who it is, nor, with a secret, lets a guess be tried. */
export async function vaultName(user: User): Promise<string> {
  return btoa(String.fromCharCode(...(await digest("name", user))));
}

/** The user's key, for this session: from the secret, or else by chance. */
export async function vaultKey(user: User): Promise<CryptoKey> {
  // The secret is itself a key: one hash makes another of it.
  const bytes = user.secret ? await digest("key", user) : crypto.getRandomValues(new Uint8Array(32));
  return crypto.subtle.importKey("raw", bytes, AES, false, ["encrypt", "decrypt"]);
}

async function digest(purpose: string, user: User): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = text.encode(JSON.stringify(["mlc-events", purpose, user.secret, user.id]));
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}

/** A sealed body, and the number used once for it. */
export interface Sealed {
  iv: Uint8Array<ArrayBuffer>;
  data: ArrayBuffer;
}

/** Seal a body; its id is authenticated with it, so that rows cannot be exchanged. */
export async function seal(key: CryptoKey, id: string, body: string): Promise<Sealed> {
  const iv = crypto.getRandomValues(new Uint8Array(12));
  return { iv, data: await crypto.subtle.encrypt(how(iv, id), key, text.encode(body)) };
}

/** Open a body; null where the key is another than the one that sealed it. */
export function open(key: CryptoKey, id: string, { iv, data }: Sealed): Promise<string | null> {
  return crypto.subtle.decrypt(how(iv, id), key, data).then(
    (body) => new TextDecoder().decode(body),
    () => null,
  );
}

function how(iv: Uint8Array<ArrayBuffer>, id: string): AesGcmParams {
  return { name: AES, iv, additionalData: text.encode(id) };
}
