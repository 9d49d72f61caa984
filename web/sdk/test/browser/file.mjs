// A file in a page: native peers have it, a page in Chromium fetches it. Prints what was seen as JSON; ends with 1 if a bar
// is missed, with 2 on wrong usage.
//
//   node file.mjs HEADWATER [MEGABYTES] [FOLDER] [hostile]
//
// Hostile, two of the peers (`headwater-hostile`, beside HEADWATER) flip a bit in each piece, or send another one.

import { execFile, execFileSync } from 'node:child_process';
import { createHash, randomFillSync } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { mkdir, mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { chromium, harness, hostile, originOf, ours, progress, removed, round, site, until } from '../../../harness.mjs';

const PEERS = 3;
// Bars: little leaves the origin where peers have it all, and the page's memory does not grow with the file.
const PEERS_PERCENT = 85;
const HEAP_MB = 128;

const sdk = join(dirname(fileURLToPath(import.meta.url)), '../..');
const [program, megabytes = '500', folder = 'out/file', mode] = process.argv.slice(2);
if (!program || !(Number(megabytes) > 0) || (mode && mode !== 'hostile')) {
  console.error('usage: node file.mjs HEADWATER [MEGABYTES] [FOLDER] [hostile]');
  process.exit(2);
}
const { headwater, out } = harness(program, folder);

async function made(path) {
  const hash = createHash('sha256');
  const to = createWriteStream(path);
  for (let i = 0; i < Number(megabytes); i += 1) {
    const part = randomFillSync(Buffer.alloc(1e6));
    hash.update(part);
    if (!to.write(part)) await once(to, 'drain');
  }
  to.end();
  await once(to, 'close');
  return hash.digest('hex');
}

async function main() {
  await mkdir(out, { recursive: true });
  const temp = await mkdtemp(join(tmpdir(), 'headwater-file-'));
  process.on('exit', () => removed(temp));
  const path = join(temp, 'film.bin');
  const wanted = await made(path);
  const origin = await originOf(path);
  const control = ours('control', ['control', '--listen', '127.0.0.1:0', '--data', join(temp, 'control')]);
  const cc = await control.heard('its address', (v) => v.address);
  const key = join(temp, 'key');
  execFileSync(headwater, ['key', 'new', '--out', key]);
  const published = await promisify(execFile)(headwater, [
    'publish', path, '--name', 'film', '--origin', origin.url, '--control', cc.api, '--token', cc.admin_token, '--key', key,
    '--json',
  ]);
  const { hw: name } = JSON.parse(published.stdout);
  const peers = Array.from({ length: PEERS }, (_, n) => ours(`peer-${n + 1}`, [
    'peer', '--control', cc.address, '--cc', cc.node, '--data', join(temp, `peer-${n + 1}`), '--listen', '127.0.0.1:0',
    '--no-gateway', '--no-port-mapping', '--fetch', name, ...(mode ? ['--up', '3Mbit/s'] : []),
  ]));
  for (const p of peers) await p.heard('the file', (v) => v.contents?.[0]?.complete);
  // They are honest until others have something of them, and found out soon then: they come after the peers are done.
  const liars = (mode ? ['flips-bits', 'wrong-piece'] : []).map((kind) => hostile(kind, [
    '--kind', kind, '--control', cc.address, '--cc', cc.node, '--data', join(temp, kind), '--name', name, '--listen', '127.0.0.1:0',
  ]));
  for (const l of liars) l.id = (await l.event('started')).node;
  const api = async (path) => (await fetch(`${cc.api}${path}`, { headers: { authorization: `Bearer ${cc.admin_token}` } })).json();
  await until('all to have it', async () => (await api('/v1/contents'))[0].complete === PEERS + liars.length, 120_000);
  const before = origin.sent();
  progress('the peers have the file; a page fetches it');
  const { server, origin: at } = await site({
    '/file.html': [join(sdk, 'examples/file.html'), 'text/html'],
    '/headwater.js': [join(sdk, 'dist/headwater.js'), 'text/javascript'],
  });
  const browser = chromium(join(temp, 'chromium'));
  const page = await browser.tab(`${at}/file.html?keep&control=${cc.address}&content=${encodeURIComponent(name)}`);
  await until('the page', () => page.run('document.readyState === "complete" && Boolean(globalThis.seen)'));
  const [begun, browserBefore] = [Date.now(), browser.memory()];
  await page.click('#fetch');
  let heap = 0;
  let [memory, looks] = [0, 0];
  await until('the file', async () => {
    heap = Math.max(heap, await page.run('performance.memory.usedJSHeapSize'));
    // It takes the kernel a while to count: that would slow down what is measured.
    if (looks++ % 10 === 0) memory = Math.max(memory, browser.memory());
    return page.run('Boolean(seen.failed ?? seen.done)');
  }, 120_000, 200);
  const [seconds, sent] = [(Date.now() - begun) / 1000, origin.sent() - before];
  const seen = await page.run('seen');
  if (seen.failed) throw new Error(seen.failed);
  await page.picture(join(out, 'file.png'));
  // What is on disk is read back in parts: WebCrypto hashes no streams.
  const parts = createHash('sha256');
  for (let from = 0; from < seen.done.bytes; from += 4e6) {
    const text = await page.run(`(async () => {
      const bytes = new Uint8Array(await blob.slice(${from}, ${from + 4e6}).arrayBuffer());
      let s = ''; for (let i = 0; i < bytes.length; i += 32768) s += String.fromCharCode(...bytes.subarray(i, i + 32768));
      return btoa(s); })()`);
    parts.update(Buffer.from(text, 'base64'));
  }
  // The same file from the origin as any page fetches it, neither verified nor kept.
  const plain = await page.run(`(async () => {
    const begun = performance.now();
    const reader = (await fetch(${JSON.stringify(origin.url)})).body.getReader();
    let bytes = 0;
    for (let part = await reader.read(); !part.done; part = await reader.read()) bytes += part.value.length;
    return { bytes, seconds: (performance.now() - begun) / 1000 }; })()`);
  const id = await page.run('headwater.node');
  const lied = await Promise.all(liars.map(async (l) => {
    const about = (event) => l.events.filter((e) => e.event === event && [e.to, e.by, e.node].includes(id)).length;
    const { accusations } = await api(`/v1/nodes/${l.id}`);
    return { kind: l.name, harmed: about('harm'), left: about('left-by'), accused: accusations.filter((a) => a.by === id).length };
  }));
  const result = {
    megabytes: Number(megabytes), seconds: round(seconds), mb_per_s: round(Number(megabytes) / seconds),
    plain_fetch_mb_per_s: round(plain.bytes / 1e6 / plain.seconds), sha256_right: parts.digest('hex') === wanted,
    heap_mb: round(heap / 1e6), browser_grew_mb: round((memory - browserBefore) / 1e6), peer_bytes: seen.done.peerBytes,
    origin_bytes: seen.done.originBytes, origin_sent: sent, parents: seen.done.parents,
    peers_percent: round((100 * seen.done.peerBytes) / seen.done.bytes, 1), lied,
  };
  const bars = [
    [result.sha256_right, 'the file is another one'],
    [mode || result.peers_percent >= PEERS_PERCENT, `less than ${PEERS_PERCENT} % came from peers`],
    [!mode || lied.some((l) => l.harmed), 'no liar sent the page anything'],
    [lied.every((l) => !l.harmed || (l.left && l.accused)), 'a liar was not left, or not reported'],
    [result.heap_mb <= HEAP_MB, `the page's heap grew beyond ${HEAP_MB} MB`],
  ];
  result.missed = bars.filter(([held]) => !held).map(([, what]) => what);
  await writeFile(join(out, 'result.json'), JSON.stringify(result, null, 2) + '\n');
  console.log(JSON.stringify(result, null, 2));
  server.close();
  origin.stop();
  return result.missed.length ? 1 : 0;
}

main().then((code) => process.exit(code), (e) => {
  console.error(`it failed: ${e.stack}`);
  process.exit(1);
});
