/** Who this page is: a P-256 key that it makes anew, so that nobody knows a viewer again. */

import { type Octets, concat, hex, sha256, text } from './octets.ts';

const ECDSA = { name: 'ECDSA', namedCurve: 'P-256' };
const SIGNS = { name: 'ECDSA', hash: 'SHA-256' };
/** What stands before the point of a P-256 key in SubjectPublicKeyInfo (RFC 5480). */
const P256_SPKI = Uint8Array.of(
  0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d,
  0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
);
const SPKI_BYTES = 91;

export interface Identity {
  /** Node id: SHA-256 of the key, hexadecimal. */
  node: string;
  /** SubjectPublicKeyInfo. */
  key: Octets;
  /** r and s, 32 bytes each. */
  sign(message: Octets): Promise<Octets>;
}

export async function newIdentity(): Promise<Identity> {
  const pair = await crypto.subtle.generateKey(ECDSA, false, ['sign', 'verify']);
  const key: Octets = new Uint8Array(await crypto.subtle.exportKey('spki', pair.publicKey));
  return {
    node: hex(await sha256(key)),
    key,
    sign: async (message) => new Uint8Array(await crypto.subtle.sign(SIGNS, pair.privateKey, message)),
  };
}

/** The P-256 key in a certificate; whoever signs with it is the node of that id. */
export function keyOfCertificate(der: Uint8Array): Octets | null {
  for (let at = 0; at + SPKI_BYTES <= der.length; at += 1) {
    if (P256_SPKI.every((byte, i) => der[at + i] === byte)) return concat(der.subarray(at, at + SPKI_BYTES));
  }
  return null;
}

export async function verifySigned(spki: Octets, message: Octets, signature: Uint8Array): Promise<boolean> {
  const key = await crypto.subtle.importKey('spki', spki, ECDSA, false, ['verify']);
  return crypto.subtle.verify(SIGNS, key, concat(signature), message);
}

/** A child's proof that a ticket is its own, over the parent's nonce and certificate. */
export async function proveTicket(secret: Uint8Array, nonce: Uint8Array, certificate: Uint8Array): Promise<Octets> {
  const key = await crypto.subtle.importKey('raw', concat(secret), { name: 'HMAC', hash: 'SHA-256' }, false, ['sign']);
  return new Uint8Array(await crypto.subtle.sign('HMAC', key, concat(text('proof'), nonce, certificate)));
}
