// Which way a session runs: WebTransport first, a WebSocket where that does not get through.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Carriers, certificatesIn } from '../src/carrier.ts';
import { framed } from '../src/frame.ts';
import { text } from '../src/octets.ts';

const API = 'http://127.0.0.1:7400';
const HASHES = ['ab'.repeat(32), 'cd'.repeat(32)];

/** A network: what answers, and what was dialled. */
interface World { answers: number | null; udp: boolean; tcp: boolean; dialled: string[]; written: Uint8Array[] }

/** Runs `story` where the browser's ways out end in `world`. */
async function within(world: World, story: () => Promise<void>): Promise<void> {
  class FakeWebTransport {
    closed = new Promise<never>(() => {});
    ready = world.udp ? Promise.resolve() : new Promise<never>(() => {});
    constructor(url: string, { serverCertificateHashes }: { serverCertificateHashes: { value: Uint8Array }[] }) {
      world.dialled.push(url);
      assert.deepEqual(serverCertificateHashes.map(({ value }) => value[0]), [0xab, 0xcd]);
    }
    async createBidirectionalStream() {
      const readable = new ReadableStream({ start: (c) => { c.enqueue(framed(text('hello'))); c.close(); } });
      return { readable, writable: new WritableStream({ write: (bytes) => { world.written.push(bytes); } }) };
    }
    close() { world.dialled.push('closed'); }
  }
  class FakeWebSocket extends EventTarget {
    constructor(url: string) {
      super();
      world.dialled.push(url);
      setTimeout(() => this.dispatchEvent(new Event(world.tcp ? 'open' : 'close')), 1);
    }
    send(bytes: Uint8Array) { world.written.push(bytes); }
    close() {}
  }
  const fetch = async (url: string) => {
    world.dialled.push(url);
    if (world.answers === null) throw new TypeError('no network');
    return new Response(JSON.stringify({ webtransport: { certificate_hashes: HASHES } }), { status: world.answers });
  };
  const before = { fetch: globalThis.fetch, WebTransport: globalThis.WebTransport, WebSocket: globalThis.WebSocket };
  Object.assign(globalThis, { fetch, WebTransport: FakeWebTransport, WebSocket: FakeWebSocket });
  await story().finally(() => Object.assign(globalThis, before));
}

const world = (changes: Partial<World> = {}): World =>
  ({ answers: 200, udp: true, tcp: true, dialled: [], written: [], ...changes });
const [ASK, DIAL, SOCKET] = [`${API}/v1/page`, 'https://127.0.0.1:7400/headwater/1', 'ws://127.0.0.1:7400/v1/session'];

test('WebTransport comes first, its messages are framed, and the next session runs over it too', async () => {
  const open = world();
  await within(open, async () => {
    const carriers = new Carriers(API);
    const first = await carriers.open();
    assert.deepEqual([first.way, first.certificates?.length], ['webtransport', 2]);
    assert.deepEqual(await first.next(), text('hello'));
    await assert.rejects(first.next(), /ended/);
    first.send(text('a'));
    first.close();
    await new Promise((done) => setTimeout(done, 5));
    assert.deepEqual(open.written, [framed(text('a'))]);
    carriers.began('webtransport');
    // The certificates may be others by now.
    assert.equal((await carriers.open()).way, 'webtransport');
  });
  assert.deepEqual(open.dialled, [ASK, DIAL, 'closed', ASK, DIAL]);
});

test('a WebSocket stands for WebTransport that is not answered, and does so from then on', async () => {
  const walled = world({ udp: false });
  await within(walled, async () => {
    const carriers = new Carriers(API);
    const asked = performance.now();
    const carrier = await carriers.open();
    assert.ok(performance.now() - asked < 1000, 'the wait is short where answers come soon');
    assert.deepEqual([carrier.way, carrier.certificates], ['websocket', null]);
    carrier.send(text('a'));
    assert.deepEqual(walled.written.map((w) => w[0]), [...text('a')]);
    carriers.began(carrier.way);
    assert.equal((await carriers.open()).way, 'websocket');
  });
  assert.deepEqual(walled.dialled, [ASK, DIAL, 'closed', SOCKET, SOCKET]);
});

test('a control center that is away teaches nothing, and an older one is reached', async () => {
  const away = world({ answers: null, tcp: false });
  await within(away, async () => {
    const carriers = new Carriers(API);
    await assert.rejects(carriers.open(), /WebSocket/);
    Object.assign(away, { answers: 200, tcp: true });
    assert.equal((await carriers.open()).way, 'webtransport');
  });
  const older = world({ answers: 404 });
  await within(older, async () => assert.equal((await new Carriers(API).open()).way, 'websocket'));
  assert.deepEqual(older.dialled, [ASK, SOCKET]);
});

test('only hashes are taken for certificates', () => {
  const said = (...certificate_hashes: unknown[]) => ({ webtransport: { certificate_hashes } });
  assert.equal(certificatesIn(said(...HASHES)).length, 2);
  assert.equal(certificatesIn(said('ab', 7, HASHES[0])).length, 1);
  for (const bad of [null, {}, { webtransport: { certificate_hashes: 'x' } }, said('zz'.repeat(32)), said('ab')]) {
    assert.throws(() => certificatesIn(bad), /no certificates/);
  }
});
