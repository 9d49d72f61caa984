/** Merkle trees (RFC 9162, SHA-256) and pages of leaf hashes, each proved against a signed root. As `model/merkle.rs`. */

import type { Page } from './wire/headwater_pb.ts';
import { type Octets, equal, hex, sha256 } from './octets.ts';

export const PAGE_LEAVES = 512;
const MAX_PROOF_HASHES = 64;

const inner = (left: Uint8Array, right: Uint8Array) => sha256(Uint8Array.of(1), left, right);
const cut = (bytes: Uint8Array): Octets[] =>
  Array.from({ length: Math.floor(bytes.length / 32) }, (_, i) => bytes.slice(32 * i, 32 * i + 32) as Octets);

/** Root over hashes of leaves. */
export async function root(hashes: Octets[]): Promise<Octets> {
  const [one] = hashes;
  if (!one) return sha256();
  if (hashes.length === 1) return one;
  // The largest power of two below.
  const split = 2 ** Math.ceil(Math.log2(hashes.length) - 1);
  return inner(await root(hashes.slice(0, split)), await root(hashes.slice(split)));
}

/** Whether `path` proves that the `index`th of `count` hashes is `hash` under `expected` (RFC 9162 section 2.1.3.2). */
export async function proves(expected: Uint8Array, count: number, index: number, hash: Octets, path: Octets[]): Promise<boolean> {
  if (index >= count || path.length > MAX_PROOF_HASHES) return false;
  let [fn, sn, r] = [index, count - 1, hash];
  for (const p of path) {
    if (sn === 0) return false;
    if (fn & 1 || fn === sn) {
      r = await inner(p, r);
      while (!(fn & 1) && fn !== 0) [fn, sn] = [fn >>> 1, sn >>> 1];
    } else {
      r = await inner(r, p);
    }
    [fn, sn] = [fn >>> 1, sn >>> 1];
  }
  return sn === 0 && equal(r, expected);
}

/** The leaf hashes of a page that belongs to the tree of `leaves` leaves under `expected`; `null` where it does not. */
export async function trueLeaves(page: Page, leaves: number, expected: Uint8Array): Promise<string[] | null> {
  const pages = Math.ceil(leaves / PAGE_LEAVES);
  const wanted = Math.min(PAGE_LEAVES, leaves - page.number * PAGE_LEAVES);
  if (page.number >= pages || page.leaves.length !== 32 * wanted || page.proof.length % 32) return null;
  const hashes = cut(page.leaves);
  return await proves(expected, pages, page.number, await root(hashes), cut(page.proof)) ? hashes.map(hex) : null;
}
