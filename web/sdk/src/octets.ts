/** Bytes: what the formats that are hashed and signed are made of. */

/** Bytes whose memory is nobody else's, as WebCrypto wants them. */
export type Octets = Uint8Array<ArrayBuffer>;

const encoder = new TextEncoder();

/** UTF-8. */
export const text = (s: string): Octets => encoder.encode(s) as Octets;

/** One after the other. */
export function concat(...parts: Uint8Array[]): Octets {
  const out = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** Eight bytes, big-endian. */
export function u64(n: number | bigint): Octets {
  const out = new Uint8Array(8);
  new DataView(out.buffer).setBigUint64(0, BigInt(n));
  return out;
}

/** Four bytes, big-endian. */
export function u32(n: number): Octets {
  const out = new Uint8Array(4);
  new DataView(out.buffer).setUint32(0, n);
  return out;
}

/** Lower-case hexadecimal digits. */
export const hex = (bytes: Uint8Array): string => Array.from(bytes, (b) => b.toString(16).padStart(2, '0')).join('');

/** What `hex` wrote; `null` for anything else. */
export function unhex(digits: string): Octets | null {
  if (digits.length % 2 || !/^[0-9a-fA-F]*$/.test(digits)) return null;
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => parseInt(pair, 16)) as Octets;
}

export const equal = (a: Uint8Array, b: Uint8Array): boolean => a.length === b.length && a.every((x, i) => x === b[i]);

/** SHA-256. */
export async function sha256(...parts: Uint8Array[]): Promise<Octets> {
  return new Uint8Array(await crypto.subtle.digest('SHA-256', concat(...parts)));
}

/** Leaf of a Merkle tree (RFC 9162), as hexadecimal digits. */
export async function leaf(data: Uint8Array): Promise<string> {
  return hex(await sha256(Uint8Array.of(0), data));
}

/** A number of the schema's uint64, which all that Headwater counts fits into. */
export function whole(n: bigint): number {
  if (n > BigInt(Number.MAX_SAFE_INTEGER)) throw new RangeError('a number past 2^53');
  return Number(n);
}

export const random = (bytes: number): Octets => crypto.getRandomValues(new Uint8Array(bytes));
