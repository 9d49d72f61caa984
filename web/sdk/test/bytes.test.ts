// Names, numbers and the session's decisions.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseName } from '../src/name.ts';
import { hex, unhex, whole } from '../src/octets.ts';
import { ControlSession } from '../src/session.ts';
import { Sorted } from '../src/sorted.ts';
import { ByteReader, framed } from '../src/frame.ts';
import { concat } from '../src/octets.ts';

test('names are read, and what is none says why', () => {
  const fp = 'ab'.repeat(32);
  const n = parseName(`hw://cc.example/films/a%20b#key=${fp}&x=1&log=https://o/f.hwlog%3Fa%26b&cc=${fp}`);
  assert.deepEqual(
    [n.control, n.name, hex(n.key), n.log, n.controlId], ['cc.example:7400', 'films/a b', fp, 'https://o/f.hwlog?a&b', fp]);
  for (const [said, why] of [
    ['http://x', /no hw/], [`hw://cc/n#log=x`, /no key=/], ['hw://cc/n#key=12', /64 hexadecimal/], [`hw://cc/%zz#key=${fp}`, /escape/],
  ] as [string, RegExp][]) assert.throws(() => parseName(said), why);
});

test('numbers past what is exact are refused', () => {
  assert.equal(whole(2n ** 53n - 1n), Number.MAX_SAFE_INTEGER);
  assert.throws(() => whole(2n ** 53n), RangeError);
  assert.equal(unhex('0g'), null);
});

test('a sorted map stays sorted whatever is added and taken away', () => {
  const map = new Sorted<number, number>();
  const model = new Map<number, number>();
  for (let i = 0, seed = 7; i < 3000; i += 1) {
    seed = (seed * 48271) % 2147483647;
    const key = seed % 200;
    if (seed % 3) { map.set(key, i); model.set(key, i); } else { assert.equal(map.delete(key), model.get(key)); model.delete(key); }
    const keys = [...model.keys()].sort((a, b) => a - b);
    assert.deepEqual(map.keys(), keys);
    const some = seed % 210;
    assert.equal(map.upTo(some)?.[0], keys.findLast((k) => k <= some));
    assert.equal(map.before(some)?.[0], keys.findLast((k) => k < some));
    assert.equal(map.from(some)?.[0], keys.find((k) => k >= some));
    assert.deepEqual([...map.range(some)].map(([k]) => k), keys.filter((k) => k >= some));
  }
});

test('frames come out as they went in, however they are cut', async () => {
  const bodies = [1, 0, 70_000, 5].map((n) => new Uint8Array(n).fill(n % 251));
  const all = concat(...bodies.map(framed));
  const chunks = [3, 1, 4, 40_000, 1_000_000].map((n, i, a) => all.subarray(a.slice(0, i).reduce((x, y) => x + y, 0)).subarray(0, n));
  const reader = new ByteReader(new ReadableStream({ start(c) { chunks.forEach((x) => c.enqueue(x)); c.close(); } }));
  for (const body of bodies) assert.deepEqual(await reader.frame(1 << 20), body);
  assert.equal(await reader.frame(1 << 20), null);
  const large = new ByteReader(new ReadableStream({ start(c) { c.enqueue(framed(new Uint8Array(10))); c.close(); } }));
  await assert.rejects(large.frame(9), /limit/);
});

const S = 1_000_000;

test('the session backs off with jitter up to the cap, and beats in numbered intervals', () => {
  const session = new ControlSession(0, () => 0.5);
  assert.deepEqual(session.poll(0), { do: 'dial' });
  assert.equal(session.poll(0), null, 'it is dialling');
  let before = 0;
  for (let i = 0; i < 8; i += 1) {
    session.lost(before);
    const wait = session.nextTimeout(before) - before;
    assert.ok(wait >= Math.min(100_000 * 2 ** i, S) && wait <= 2 * S, `the pause ${i} is ${wait}`);
    before += wait;
    assert.deepEqual(session.poll(before), { do: 'dial' });
  }
  session.welcomed(before, before - 20_000, 1_000_001, 2000, 2000);
  assert.equal(session.controlUnixMs(before), 1_000_011, 'control time is the midpoint\'s');
  const at = session.nextTimeout(before);
  assert.equal(session.poll(at - 2), null);
  assert.deepEqual(session.poll(at), { do: 'heartbeat', interval: 501 });
  assert.equal(session.poll(at + S), null);
  assert.deepEqual(session.poll(at + 2 * S), { do: 'heartbeat', interval: 502 });
  assert.deepEqual(session.poll(at + 5 * S + 1), { do: 'redial' }, 'no reply');
});
