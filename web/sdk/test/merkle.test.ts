// Trees, pages and playlists.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { PAGE_LEAVES, proves, root, trueLeaves } from '../src/merkle.ts';
import { type Octets, concat, hex, leaf, sha256, text, unhex } from '../src/octets.ts';
import { PageSchema } from '../src/wire/headwater_pb.ts';
import { likeOurs, meaning, mediaPlaylist } from '../src/hls/playlist.ts';
import { Sorted } from '../src/sorted.ts';
import type { Segment } from '../src/stream.ts';

const bytes = (digits: string) => unhex(digits) as Octets;

test('known roots of RFC trees', async () => {
  assert.equal(hex(await root([])), 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855');
  const first = await leaf(new Uint8Array());
  assert.equal(first, '6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d');
  const two = await root([bytes(first), bytes(await leaf(Uint8Array.of(0)))]);
  assert.equal(hex(two), 'fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125');
});

test('a page is proved against the root, and no other page is', async () => {
  for (const n of [1, 511, 512, 513, 1025, 2600]) {
    const all = await Promise.all(Array.from({ length: n }, async (_, i) => bytes(await leaf(text(String(i))))));
    const expected = await root(all);
    const pages = Math.ceil(n / PAGE_LEAVES);
    const roots = await Promise.all(Array.from({ length: pages }, (_, p) => root(all.slice(p * PAGE_LEAVES, (p + 1) * PAGE_LEAVES))));
    // RFC 9162 section 2.1.3.1.
    const proof = async (hashes: Octets[], index: number): Promise<Octets[]> => {
      if (hashes.length < 2) return [];
      const split = 2 ** Math.ceil(Math.log2(hashes.length) - 1);
      const [left, right] = [hashes.slice(0, split), hashes.slice(split)];
      return index < split ? [...await proof(left, index), await root(right)] : [...await proof(right, index - split), await root(left)];
    };
    for (let number = 0; number < pages; number += 1) {
      const path = await proof(roots, number);
      assert.ok(await proves(expected, pages, number, roots[number] as Octets, path));
      const leaves = concat(...all.slice(number * PAGE_LEAVES, (number + 1) * PAGE_LEAVES));
      const page = create(PageSchema, { number, leaves, proof: concat(...path) });
      assert.equal((await trueLeaves(page, n, expected))?.length, leaves.length / 32);
      const bad = leaves.slice();
      bad[3] = (bad[3] as number) ^ 1;
      assert.equal(await trueLeaves(create(PageSchema, { ...page, leaves: bad }), n, expected), null);
      assert.equal(await trueLeaves(create(PageSchema, { ...page, number: number + 1 }), n, expected), null);
      assert.equal(await trueLeaves(page, n, await sha256()), null);
      if (path.length) assert.equal(await trueLeaves(create(PageSchema, { ...page, proof: concat(...path.slice(1)) }), n, expected), null);
    }
  }
});

test('a playlist lists what is there, gaps, maps and dates', () => {
  const segment = (sequence: number, more: Partial<Segment['listed']> = {}): Segment => ({
    number: 1000 + sequence,
    object: { kind: 1, listed: null, bytes: 1, entries: new Sorted(), numbers: [], timeUnixMs: 0, lost: false },
    listed: {
      sequence, duration: 1_999_500, targetDuration: 2_000_000, discontinuity: false, map: 7, recordedUnixUs: null, origin: null, ...more,
    },
  });
  const list = mediaPlaylist({
    segments: [segment(5, { recordedUnixUs: 1_700_000_000_123_456 }), segment(7), segment(8, { discontinuity: true, map: 9 })], ended: true,
  });
  assert.deepEqual(list.trimEnd().split('\n'), [
    '#EXTM3U', '#EXT-X-VERSION:7', '#EXT-X-TARGETDURATION:2', '#EXT-X-MEDIA-SEQUENCE:5', '#EXT-X-MAP:URI="init-7"',
    '#EXT-X-PROGRAM-DATE-TIME:2023-11-14T22:13:20.123Z', '#EXTINF:1.999500,', 'segment-5', '#EXT-X-GAP', '#EXTINF:2.000000,',
    'segment-6', '#EXTINF:1.999500,', 'segment-7', '#EXT-X-DISCONTINUITY', '#EXT-X-MAP:URI="init-9"', '#EXTINF:1.999500,',
    'segment-8', '#EXT-X-ENDLIST',
  ]);
  const later = mediaPlaylist({ segments: [segment(1, { discontinuity: true }), segment(90)], ended: false });
  assert.match(later, /MEDIA-SEQUENCE:90\n#EXT-X-DISCONTINUITY-SEQUENCE:1\n/);
  assert.deepEqual([meaning('segment-5'), meaning('init-7'), meaning('live.m3u8')], [{ sequence: 5 }, { object: 7 }, null]);
});

test('the origin\'s playlist calls segments as ours does', () => {
  const said = '#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:41\n#EXT-X-MAP:URI="init.mp4"\n#EXTINF:2,\na.m4s\n#EXTINF:2,\n\nhttps://b.example/b.m4s?x=1\n';
  const { list, places } = likeOurs(said, 'https://o.example/live/index.m3u8');
  assert.deepEqual([...places], [[41, 'https://o.example/live/a.m4s'], [42, 'https://b.example/b.m4s?x=1']]);
  assert.equal(list, '#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:41\n#EXT-X-MAP:URI="https://o.example/live/init.mp4"\n#EXTINF:2,\nsegment-41\n'
    + '#EXTINF:2,\n\nsegment-42\n');
});
