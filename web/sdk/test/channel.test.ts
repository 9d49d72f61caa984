// The stories that peer-core's viewers were told: a page decides the same.

import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import { Channel, type Input, type Output, type Parent } from '../src/live/channel.ts';
import type { LiveEntry, LiveTrack } from '../src/log.ts';

const PIECE_BYTES = 8 << 10;
const PIECES = 16;
const STORIES = 'test/stories';

const track: LiveTrack = {
  version: { content: new Uint8Array(32), epoch: 1n }, name: 'n', substreams: 4, rate: PIECES * PIECE_BYTES, window: 10_000_000,
  pieceBytes: PIECE_BYTES, origins: [], verify: async () => true,
};

const parents = (said: string): Parent[] => said.split(',').map((one) => {
  const [node, substreams] = one.split(':') as [string, string];
  return { node, substreams: Number(substreams), addresses: [], certificate: '1', pageCertificates: [] };
});
const number = (said: string | undefined) => (said === undefined || said === '-' ? null : Number(said));

function entryOf([number_, previous, time, object, first, count, sequence, url, from]: string[]): LiveEntry {
  const firstPiece = Number(first);
  return {
    number: Number(number_), previous: number(previous), timeUnixMs: Number(time), object: Number(object), kind: 0, offset: 0,
    firstPiece, bytes: Number(count) * PIECE_BYTES, leaves: Array.from({ length: Number(count) }, (_, i) => String(firstPiece + i)),
    complete: true, last: false,
    listed: {
      sequence: Number(sequence), duration: 1_000_000, targetDuration: 1_000_000, discontinuity: false, map: null,
      recordedUnixUs: null, origin: url && url !== '-' ? { url, from: Number(from) } : null,
    },
  };
}

function inputOf(channel: Channel, words: string[]): Input {
  const [what, a = '', b = '', c = '', d = ''] = words;
  switch (what) {
    case 'assigned': return { is: 'assigned', generation: { epoch: 1, counter: Number(a) }, parents: parents(b), spares: parents(c) };
    case 'connected': return { is: 'connected', node: a };
    case 'answered': return { is: 'answered', parent: a, refused: null };
    case 'lost': return { is: 'lost', node: a, why: words.slice(2).join(' ') };
    case 'entry': return { is: 'entries', from: a, entries: [entryOf(words.slice(2))] };
    case 'piece': {
      const verdict = channel.window.judge(Number(b), c === 'right' ? b : 'wrong', PIECE_BYTES);
      assert.equal(verdict, d, 'what the piece is');
      return { is: 'piece', from: a === 'origin' ? null : a, piece: Number(b), verdict, bytes: PIECE_BYTES };
    }
    case 'position': {
      const lacks = c.split(',').map((one) => one.split(':').map(Number) as [number, number]);
      return { is: 'position', node: a, newest: Number(b), lacks };
    }
    case 'origin-ended': return { is: 'origin-ended', job: Number(a) };
    case 'reads': return { is: 'reads', reader: Number(a), object: Number(b) };
    case 'time': return { is: 'control-time', ms: Number(a) };
    case 'tick': return { is: 'tick' };
    default: throw new Error(`no such thing happens: ${what}`);
  }
}

function words(o: Output): string {
  switch (o.do) {
    case 'dial': return `dial ${o.parent.node}`;
    case 'open-edge':
    case 'close-edge': return `${o.do} ${o.node}`;
    case 'subscribe': return `subscribe ${o.node} ${o.substreams} ${o.from ?? '-'}`;
    case 'ask':
    case 'cancel': return `${o.do} ${o.node} ${o.pieces.join()}`;
    case 'ask-entries': return `ask-entries ${o.node} ${o.after}`;
    case 'fetch-origin': return `fetch-origin ${o.job} ${o.url} ${o.from} ${o.pieces.map((p) => `${p.piece}:${p.bytes}`).join()}`;
    case 'alarm': {
      const more = o.alarm.what === 'lost' ? ` ${o.alarm.why}` : o.alarm.what === 'behind' ? ` ${o.alarm.substreams}` : '';
      return `alarm ${o.alarm.what} ${o.alarm.parent}${more}`;
    }
    default: return o.do;
  }
}

for (const file of readdirSync(STORIES)) {
  test(`a page decides as a native viewer: ${file}`, () => {
    const lines = readFileSync(`${STORIES}/${file}`, 'utf8').trimEnd().split('\n');
    const channel = new Channel(1_000_000, track);
    let told = 0;
    for (let at = 0; at < lines.length;) {
      const line = lines[at] as string;
      const [, time, ...said] = line.split(' ');
      const out: Output[] = [];
      channel.handle(Number(time), inputOf(channel, said), out);
      const wanted: string[] = [];
      for (at += 1; lines[at]?.startsWith('< '); at += 1) wanted.push((lines[at] as string).slice(2));
      assert.deepEqual(out.map(words), wanted, `line ${at}: after "${line}"`);
      told += 1;
      if (!lines[at]?.startsWith('= ')) continue;
      const fares = [channel.peerBytes, channel.originBytes, channel.wastedBytes, channel.awaited(), channel.window.lostPieces,
        channel.feeds.unfed()];
      assert.equal(fares.join(), (lines[at] as string).slice(2), `line ${at + 1}: how it fares`);
      at += 1;
    }
    assert.ok(told > 1000, 'a story that is one');
  });
}
