/** Event ids: UUIDv7, so that the order of ids is the order of time. */

let last = 0;

/** A UUIDv7. Within one page later calls give greater ids, whatever the clock does. */
export function eventId(): string {
  // Twelve bits after the time count on within one millisecond and when the clock steps back.
  last = Math.max(Date.now() * 4096, last + 1);
  const head = hex(Math.floor(last / 4096), 12) + 7 + hex(last % 4096, 3);
  const chance = crypto.getRandomValues(new BigUint64Array(1))[0]!;
  const tail = ((chance >> 2n) | (1n << 63n)).toString(16);
  return (head + tail).replace(/(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

/**
 * Where an id stands between 0 and 1, as the broker reckons it for sampling: CRC-32, spread by the
 * golden ratio. A resend stands the same, and what we keep the broker keeps.
 */
export function share(id: string): number {
  let crc = -1;
  for (let i = 0; i < id.length; i++) {
    crc ^= id.charCodeAt(i);
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  const mixed = Math.imul(~crc, 0x9e3779b1);
  return ((mixed ^ (mixed >>> 15)) >>> 0) / 2 ** 32;
}

function hex(number: number, digits: number): string {
  return number.toString(16).padStart(digits, "0");
}
