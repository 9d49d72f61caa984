// A page as a sender: whose ticket it takes, what a child gets, and how fast.

import assert from 'node:assert/strict';
import { createHmac, randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { Children } from '../src/children.ts';
import { type Identity, checkTicket } from '../src/identity.ts';
import { type Octets, concat, hex, text, u32, u64 } from '../src/octets.ts';
import { Pace } from '../src/pace.ts';
import { ParentKeySchema, type Ticket, TicketSchema, VersionSchema } from '../src/wire/headwater_pb.ts';

const octets = (n: number): Octets => new Uint8Array(randomBytes(n));
const hmac = (key: Uint8Array, ...parts: Uint8Array[]): Octets =>
  new Uint8Array(createHmac('sha256', key).update(concat(...parts)).digest());

test('a page serves whom the control center sent, on the connection that it was sent for, in time', async () => {
  const [child, parent, key, nonce] = [octets(32), octets(32), octets(32), octets(32)];
  const version = create(VersionSchema, { content: octets(32), epoch: 3n });
  const covered = concat(child, parent, version.content, u64(3), u32(99), u32(0), u64(7), u64(2), u64(1000));
  const ticket = create(TicketSchema, {
    child, parent, version, highestPiece: 99, keyNumber: 7n, controlEpoch: 2n, expiresUnixMs: 1000n,
    mac: hmac(key, text('ticket'), covered),
  });
  const proof = hmac(hmac(key, text('secret'), covered), text('proof'), nonce, parent);
  const keys = [create(ParentKeySchema, { number: 6n, key: octets(32) }), create(ParentKeySchema, { number: 7n, key })];
  const own = { node: hex(parent) } as Identity;
  const on = { node: hex(child), ownNonce: nonce };
  const check = (t: Ticket | undefined, more: { proof?: Octets; on?: typeof on; now?: number | null; keys?: typeof keys } = {}) =>
    checkTicket(more.keys ?? keys, t, more.proof ?? proof, more.on ?? on, own, more.now === undefined ? 999 : more.now);
  assert.equal(await check(ticket), null);
  const changed = (by: Partial<Ticket>): Ticket => ({ ...ticket, ...by });
  for (const [why, refused] of [
    ['another node', check(undefined)],
    ['another node', check(ticket, { on: { ...on, node: hex(octets(32)) } })],
    ['another node', check(changed({ parent: octets(32) }))],
    ['expired', check(ticket, { now: 1001 })],
    ['expired', check(ticket, { now: null })],
    ['key', check(ticket, { keys: keys.slice(0, 1) })],
    ['forged', check(changed({ highestPiece: 100 }))],
    ['forged', check(changed({ mac: octets(32) }))],
    ['forged', check(changed({ mac: octets(0) }))],
    ['possession', check(ticket, { on: { ...on, ownNonce: octets(32) } })],
    ['possession', check(ticket, { proof: octets(32) })],
    ['possession', check(ticket, { proof: octets(3) })],
  ] as const) {
    assert.match(await refused ?? 'accepted', new RegExp(why));
  }
});

test('children get what they ask for, each piece once, in order', () => {
  const all = new Children(100);
  all.asked(0, 'stranger', [1]);
  assert.equal(all.next(0, 'stranger'), null);
  assert.ok(all.opened('a') && all.opened('b') && all.opened('a'));
  all.asked(0, 'a', [3, 1, 3, 100, 2]);
  all.asked(0, 'a', [1, 4]);
  all.unasked('a', [2]);
  assert.deepEqual([0, 1, 2, 3].map(() => all.next(5, 'a')), [3, 1, 4, null]);
  all.sent('a', 10);
  assert.deepEqual(all.report(9), [{ node: 'a', pieces: 1, bytes: 10, waited: 5 }, { node: 'b', pieces: 0, bytes: 0, waited: 0 }]);
  all.asked(0, 'b', Array.from({ length: 5000 }, (_, i) => i % 100));
  let n = 0;
  while (all.next(0, 'b') !== null) n += 1;
  assert.equal(n, 100);
  all.closed('a');
  assert.equal(all.has('a'), false);
  let room = 0;
  while (all.opened(`c${room}`)) room += 1;
  assert.equal(room + 1, 32);
});

test('what leaves keeps to its rate, and makes up for nothing', () => {
  const pace = new Pace(1000);
  assert.deepEqual([pace.take(0, 500), pace.take(0, 500), pace.take(0, 1)], [0, 500_000, 1_000_000]);
  assert.equal(pace.take(60_000_000, 1000), 0);
  assert.equal(pace.take(60_000_000, 1000), 1_000_000);
});
