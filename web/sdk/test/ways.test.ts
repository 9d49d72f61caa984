// What Shaka Player is given, and when a download counts as handed over; in a browser `browser/ways.mjs` tries both.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { test } from 'node:test';
import { handOver } from '../src/resident.ts';
import { shakaSource } from '../src/shaka/scheme.ts';

class ShakaError extends Error {
  static Code = { OPERATION_ABORTED: 7001, BAD_HTTP_STATUS: 1001, HTTP_ERROR: 1002 };
  static Severity = { RECOVERABLE: 1, CRITICAL: 2 };
  static Category = { NETWORK: 1, PLAYER: 7 };
  constructor(readonly severity: number, readonly category: number, readonly code: number) { super(String(code)); }
}

/** Shaka, a stream with one segment of four bytes if it has any, and what asks by the scheme that is registered. */
function played(hasSegment: boolean, origin: string | null) {
  const listed = {
    sequence: 3, duration: 1_000_000, targetDuration: 1_000_000, map: null, discontinuity: false, recordedUnixUs: null,
  };
  const stream: any = {
    stale: 0, problem: null, changed: () => new Promise(() => {}),
    segments: () => ({ segments: hasSegment ? [{ listed, number: 9 }] : [], ended: hasSegment }),
    open: (object: number) => (object === 9 ? { bytes: 4, chunks: (async function* () { yield Uint8Array.of(1, 2, 3, 4); })() } : null),
  };
  let plugin: any = null;
  const shaka = { net: { NetworkingEngine: { registerScheme(_: string, p: any) { plugin = p; } } }, util: { Error: ShakaError } };
  const { url } = shakaSource(shaka, stream, origin);
  const ask = (name: string, headers = {}) => plugin(new URL(name, url).href, { headers });
  return { url, ask };
}

test('Shaka gets a playlist and a segment of the stream', async () => {
  const { url, ask } = played(true, null);
  const list = await ask('live.m3u8').promise;
  assert.match(new TextDecoder().decode(list.data), /#EXT-X-MEDIA-SEQUENCE:3\n(.|\n)*\nsegment-3\n#EXT-X-ENDLIST/);
  assert.equal(list.uri, url);
  const segment = await ask('segment-3').promise;
  assert.deepEqual([...new Uint8Array(segment.data)], [1, 2, 3, 4]);
  assert.equal(segment.fromCache, true);
  await assert.rejects(ask('segment-4').promise, { code: 1002, severity: 1 });
});

test('Shaka gets from the origin what the stream does not have', async () => {
  const server = createServer((request, response) => {
    if (request.url === '/live.m3u8') response.end('#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:7\n#EXTINF:1,\n7.ts\n#EXTINF:1,\n8.ts\n');
    else response.writeHead(request.url === '/7.ts' ? 200 : 404).end(request.headers.range ?? 'whole');
  });
  await new Promise<void>((done) => { server.listen(0, '127.0.0.1', done); });
  const { ask } = played(false, `http://127.0.0.1:${(server.address() as { port: number }).port}/live.m3u8`);
  const text = async (answer: Promise<{ data: ArrayBuffer }>) => new TextDecoder().decode((await answer).data);
  assert.match(await text(ask('live.m3u8').promise), /segment-7\n(.|\n)*segment-8/);
  assert.equal(await text(ask('segment-7').promise), 'whole');
  assert.equal(await text(ask('segment-7', { Range: 'bytes=2-5' }).promise), 'bytes=2-5');
  assert.equal((await ask('segment-7').promise).fromCache, false);
  await assert.rejects(ask('segment-8').promise, { code: 1001, severity: 1 });
  server.close();
});

test('Shaka may end what it asked for', async () => {
  const operation = played(false, null).ask('live.m3u8');
  const ended = new Promise((done) => { operation.finally(done); });
  await operation.abort();
  await assert.rejects(operation.promise, { code: 7001 });
  assert.equal(await ended, false);
});

test('a name is handed over where the page goes to the back', async (t: any) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const page = new EventTarget();
  let front = true;
  const frames: { src?: string }[] = [];
  Object.assign(globalThis, {
    addEventListener: page.addEventListener.bind(page), removeEventListener: page.removeEventListener.bind(page),
    document: {
      addEventListener() {}, removeEventListener() {}, visibilityState: 'visible', hasFocus: () => front,
      createElement: () => ({ remove() {} }), body: { append: (frame: object) => frames.push(frame) },
    },
  });
  const alone = handOver('hw://a/b');
  t.mock.timers.tick(1_200);
  assert.equal(await alone, false);
  const opened = handOver('hw://a/c');
  front = false;
  page.dispatchEvent(new Event('blur'));
  assert.equal(await opened, true);
  assert.deepEqual(frames.map((f) => f.src), ['hw://a/b', 'hw://a/c']);
  // One that is in the back already cannot tell.
  assert.equal(await handOver('hw://a/d'), false);
  assert.equal(frames.length, 2);
});
