/** Who this page is: a P-256 key that it makes anew, so that nobody knows a viewer again. */

import type { ParentKey, Ticket } from './wire/headwater_pb.ts';
import { type Octets, concat, hex, sha256, text, u32, u64, unhex } from './octets.ts';

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

const HMAC = { name: 'HMAC', hash: 'SHA-256' };
const hmacKey = (key: Uint8Array, use: 'sign' | 'verify') => crypto.subtle.importKey('raw', concat(key), HMAC, false, [use]);

/** What identifies a connection between a page, as the parent, and a child. */
export interface ShownOn { node: string; ownNonce: Octets }

/**
 * A parent's check of a ticket that a child shows on a connection, as `Ticket::check` in `model/ticket.rs`: `null` when it is
 * good, else why not. A page's certificate is its key, whose hash is its node id.
 */
export async function checkTicket(
  keys: readonly ParentKey[], ticket: Ticket | undefined, proof: Uint8Array, on: ShownOn, own: Identity, controlUnixMs: number | null,
): Promise<string | null> {
  if (!ticket?.version || hex(ticket.child) !== on.node || hex(ticket.parent) !== own.node) return 'the ticket is for another node';
  if (controlUnixMs === null || BigInt(controlUnixMs) > ticket.expiresUnixMs) return 'the ticket has expired';
  const key = keys.find((k) => k.number === ticket.keyNumber)?.key;
  if (!key) return 'the ticket was made under a key that is no longer accepted';
  const covered = concat(
    ticket.child, ticket.parent, ticket.version.content, u64(ticket.version.epoch), u32(ticket.highestPiece),
    u32(ticket.substreams), u64(ticket.keyNumber), u64(ticket.controlEpoch), u64(ticket.expiresUnixMs),
  );
  // WebCrypto compares in constant time.
  const isRight = await crypto.subtle.verify('HMAC', await hmacKey(key, 'verify'), concat(ticket.mac), concat(text('ticket'), covered));
  if (!isRight) return 'the ticket is forged';
  const secret = await crypto.subtle.sign('HMAC', await hmacKey(key, 'sign'), concat(text('secret'), covered));
  const shown = concat(text('proof'), on.ownNonce, unhex(own.node) ?? new Uint8Array());
  const isOwn = await crypto.subtle.verify('HMAC', await hmacKey(new Uint8Array(secret), 'verify'), concat(proof), shown);
  return isOwn ? null : 'the ticket is not this connection\'s: the proof of possession is wrong';
}

/** A child's proof that a ticket is its own, over the parent's nonce and certificate. */
export async function proveTicket(secret: Uint8Array, nonce: Uint8Array, certificate: Uint8Array): Promise<Octets> {
  return new Uint8Array(await crypto.subtle.sign('HMAC', await hmacKey(secret, 'sign'), concat(text('proof'), nonce, certificate)));
}
