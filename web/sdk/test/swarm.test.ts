// A file at a page: stories of parents, leases and an origin under virtual time.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Parent } from '../src/live/channel.ts';
import { type Layout, Swarm, type SwarmInput, type SwarmOutput, lengthOf } from '../src/swarm.ts';

const S = 1_000_000;
const layout: Layout = { pieces: 1200, pieceBytes: 64 << 10, runPieces: 16, bytes: 1200 * (64 << 10) - 77 };
const parent = (node: string): Parent => ({ node, substreams: 0, addresses: [], certificate: '1', pageCertificates: [] });

interface Stub { has: Set<number>; silent?: boolean; liar?: boolean; slow?: number }
interface Story {
  parents: Record<string, Stub>;
  /** The control center leases this many runs a second. */
  leases?: number;
  origin?: boolean;
  control?: boolean;
  /** Parents that break after a second. */
  breaks?: string[];
  /** All pages of hashes are there, as from a static log. */
  pages?: boolean;
}

function play(story: Story, seconds: number) {
  let now = S;
  const swarm = new Swarm(now, layout, 500);
  const later: { at: number; input: () => SwarmInput | null }[] = [];
  const outputs: SwarmOutput[] = [];
  const asked = new Map<number, string>();
  const fetching = new Map<number, Set<number>>();
  const after = (ms: number, input: () => SwarmInput | null) => later.push({ at: now + ms * 1000, input });
  const say = (input: SwarmInput) => {
    if (input.is === 'stored' && input.from !== null) asked.delete(input.piece);
    const out: SwarmOutput[] = [];
    swarm.handle(now, input, out);
    outputs.push(...out);
    for (const o of out) carryOut(o);
  };
  const broken = new Set<string>();
  /** Of slow ones, which send one piece after the other. */
  const busyUntil = new Map<string, number>();
  const carryOut = (o: SwarmOutput) => {
    switch (o.do) {
      case 'dial': return after(20, () => ({ is: 'connected', node: o.parent.node }));
      case 'open-edge':
        after(20, () => ({ is: 'answered', parent: o.node, refused: null }));
        return after(21, () => ({ is: 'has', node: o.node, all: true, pieces: story.parents[o.node]?.has ?? [] }));
      case 'close-edge':
        for (const [piece, node] of asked) if (node === o.node) asked.delete(piece);
        return;
      case 'ask':
        for (const [i, piece] of o.pieces.entries()) {
          assert.ok(story.parents[o.node]?.has.has(piece), 'only what a parent has is asked of it');
          assert.ok(!asked.has(piece) && !swarm.have.has(piece), `piece ${piece} is asked of one parent at a time`);
          for (const run of fetching.values()) assert.ok(!run.has(piece), 'what the origin brings is asked of no parent');
          asked.set(piece, o.node);
          if (story.parents[o.node]?.silent) continue;
          const right = !story.parents[o.node]?.liar || piece % 50;
          const { slow = 0 } = story.parents[o.node] as Stub;
          const busy = Math.max(busyUntil.get(o.node) ?? 0, now + 30_000 + (slow ? 0 : i * 1000)) + slow * 1000;
          if (slow) busyUntil.set(o.node, busy);
          after((busy - now) / 1000, () => (broken.has(o.node) || asked.get(piece) !== o.node ? null
            : { is: right ? 'stored' : 'bad', from: o.node, piece } as SwarmInput));
        }
        return;
      case 'unask':
        for (const piece of o.pieces) {
          assert.equal(asked.get(piece), o.node, 'only what was asked is taken back');
          asked.delete(piece);
        }
        return;
      case 'ask-page': return after(25, () => ({ is: 'page', page: o.page }));
      case 'fetch-origin':
        fetching.set(o.run, new Set(o.pieces));
        if (!story.origin) return after(40, () => { fetching.delete(o.run); return { is: 'origin-ended', run: o.run, why: 'status 403' }; });
        for (const [i, piece] of o.pieces.entries()) after(40 + i, () => ({ is: 'stored', from: null, piece }));
        return after(60, () => { fetching.delete(o.run); return { is: 'origin-ended', run: o.run, why: null }; });
      default:
    }
  };
  say({ is: 'control', connected: story.control ?? true });
  say({ is: 'assigned', generation: { epoch: 1, counter: 1 }, parents: Object.keys(story.parents).map(parent) });
  if (story.pages) [0, 1, 2].forEach((page) => say({ is: 'page', page }));
  let leased = 0;
  for (let step = 0; step < seconds * 100 && !swarm.isComplete(); step += 1) {
    now += 10_000;
    for (let i = 0; i < later.length;) {
      if ((later[i] as { at: number }).at > now) { i += 1; continue; }
      const [{ input }] = later.splice(i, 1) as [{ at: number; input: () => SwarmInput | null }];
      const what = input();
      if (what) say(what);
    }
    if (step === 100) for (const node of story.breaks ?? []) { broken.add(node); say({ is: 'lost', node, why: 'it broke' }); }
    if (story.leases && step % Math.floor(100 / story.leases) === 0) say({ is: 'leased', run: leased++ });
    if (step % 10 === 0) say({ is: 'tick' });
  }
  const count = (what: SwarmOutput['do']) => outputs.filter((o) => o.do === what).length;
  return { swarm, outputs, count, seconds: (now - S) / S };
}

const all = new Set(Array.from({ length: layout.pieces }, (_, i) => i));
const half = (odd: number) => new Set([...all].filter((p) => p % 2 === odd));

test('two parents bring a file', () => {
  const { swarm, count } = play({ parents: { a: { has: all }, b: { has: all } } }, 60);
  assert.ok(swarm.isComplete());
  assert.deepEqual([swarm.peerBytes, swarm.originBytes, swarm.wastedBytes], [layout.bytes, 0, 0]);
  assert.equal(count('complete'), 1);
  assert.equal(lengthOf(layout, 1199), (64 << 10) - 77);
});

test('what no parent has is told of, and comes by leases', () => {
  const { swarm, count } = play({ parents: { a: { has: half(0) } }, leases: 10, origin: true }, 120);
  assert.ok(swarm.isComplete());
  assert.ok(swarm.originBytes > 0.4 * layout.bytes && count('lease-done') > 10, `${swarm.originBytes}`);
});

test('starving is told, and ends at the origin', () => {
  const { swarm, count } = play({ parents: { a: { has: half(1) } }, origin: true }, 120);
  assert.ok(swarm.isComplete());
  assert.ok(count('starving') > 0);
});

test('a silent parent and a liar are left, with a word', () => {
  const { swarm, outputs } = play({ parents: { a: { has: all, silent: true }, b: { has: all, liar: true }, c: { has: all } } }, 60);
  assert.ok(swarm.isComplete());
  const said = outputs.flatMap((o) => (o.do === 'alarm' ? [`${o.alarm.what} ${o.alarm.parent}`] : []));
  assert.deepEqual(said.sort(), ['bad b', 'silent a']);
});

test('a parent that breaks costs nothing but its place', () => {
  const { swarm } = play({ parents: { a: { has: all }, b: { has: all } }, breaks: ['a'] }, 60);
  assert.ok(swarm.isComplete() && swarm.originBytes === 0);
});

test('without a control center and without parents the origin brings all', () => {
  const { swarm, seconds } = play({ parents: {}, control: false, origin: true, pages: true }, 120);
  assert.ok(swarm.isComplete() && swarm.originBytes === layout.bytes);
  assert.ok(seconds > 3, 'somebody might have come');
});

test('a lease that the origin does not fulfil is given back', () => {
  const { count } = play({ parents: {}, leases: 2, origin: false }, 5);
  assert.ok(count('lease-failed') >= 5);
  assert.equal(count('lease-done'), 0);
});

test('a slow parent does not keep the end waiting, and nothing comes twice', () => {
  const slow = play({ parents: { a: { has: all }, b: { has: all, slow: 1500 } } }, 120);
  assert.ok(slow.swarm.isComplete());
  assert.ok(slow.count('unask') > 0 && slow.swarm.wastedBytes === 0);
  const alone = play({ parents: { a: { has: all } } }, 60);
  assert.ok(slow.seconds < alone.seconds + 3, `${slow.seconds} s, ${alone.seconds} s without it`);
});
