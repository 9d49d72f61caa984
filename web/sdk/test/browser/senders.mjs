// Pages as senders: four native peers and six pages, which have a file; a native peer that lacks it gets it from them. Prints
// what was seen as JSON; ends with 1 if a bar is missed, with 2 on wrong usage.
//
//   node senders.mjs HEADWATER [MEGABYTES] [FOLDER]
//
// Three of the peers have the file, and hardly any uplink; the origin is gone when the fourth one comes.

import { execFile, execFileSync } from 'node:child_process';
import { createHash, randomFillSync } from 'node:crypto';
import { mkdir, mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { chromium, harness, originOf, ours, progress, removed, round, site, until } from '../../../harness.mjs';

const PAGES = 6;
const FORMER = 3;
const PAGE_UP = 8_000_000;

const sdk = join(dirname(fileURLToPath(import.meta.url)), '../..');
const [program, megabytes = '16', folder = 'out/senders'] = process.argv.slice(2);
if (!program || !(Number(megabytes) > 0)) {
  console.error('usage: node senders.mjs HEADWATER [MEGABYTES] [FOLDER]');
  process.exit(2);
}
const { headwater, out } = harness(program, folder);
const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');

async function main() {
  await mkdir(out, { recursive: true });
  const temp = await mkdtemp(join(tmpdir(), 'headwater-senders-'));
  process.on('exit', () => removed(temp));
  const path = join(temp, 'film.bin');
  const film = randomFillSync(Buffer.alloc(Number(megabytes) * 1e6));
  await writeFile(path, film);
  const origin = await originOf(path);
  const control = ours('control', ['control', '--listen', '127.0.0.1:0', '--data', join(temp, 'control')]);
  const cc = await control.heard('its address', (v) => v.address);
  const api = async (path) => (await fetch(`${cc.api}${path}`, { headers: { authorization: `Bearer ${cc.admin_token}` } })).json();
  const key = join(temp, 'key');
  execFileSync(headwater, ['key', 'new', '--out', key]);
  const published = await promisify(execFile)(headwater, [
    'publish', path, '--name', 'film', '--origin', origin.url, '--control', cc.api, '--token', cc.admin_token, '--key', key,
    '--json',
  ]);
  const { hw: name } = JSON.parse(published.stdout);
  const peer = (n, up) => ours(`peer-${n}`, [
    'peer', '--control', cc.address, '--cc', cc.node, '--data', join(temp, `peer-${n}`), '--listen', '127.0.0.1:0',
    '--no-gateway', '--no-port-mapping', '--up', up, '--fetch', name,
  ]);
  const complete = (p) => p.heard('the file', (v) => v.contents?.[0]?.complete);
  const former = Array.from({ length: FORMER }, (_, n) => peer(n + 1, '200kbit/s'));
  await Promise.all(former.map(complete));

  progress('three peers have the file; six pages fetch it');
  const { server, origin: at } = await site({
    '/file.html': [join(sdk, 'examples/file.html'), 'text/html'],
    '/headwater.js': [join(sdk, 'dist/headwater.js'), 'text/javascript'],
  });
  const browser = chromium(join(temp, 'chromium'));
  const pages = [];
  for (let n = 0; n < PAGES; n += 1) {
    const page = await browser.tab(
      `${at}/file.html?keep&up=${PAGE_UP}&control=${cc.address}&content=${encodeURIComponent(name)}`, true);
    await until('a page', () => page.run('document.readyState === "complete" && Boolean(globalThis.seen)'));
    await page.run('document.getElementById("fetch").click()');
    pages.push(page);
  }
  for (const page of pages) {
    await until('the file', () => page.run('Boolean(seen.failed ?? seen.done)'));
    const failed = await page.run('seen.failed');
    if (failed) throw new Error(failed);
  }
  const ids = await Promise.all(pages.map((page) => page.run('headwater.node')));
  const nodes = () => Promise.all(ids.map((id) => api(`/v1/nodes/${id}`)));
  await until('the pages\' offers', async () => (await nodes()).every((n) => n.up_bytes_per_s > 0));
  const offered = await nodes();

  progress('the pages have it; the origin goes, another peer comes');
  origin.stop();
  const before = former.map((p) => p.now().contents[0].uploaded_bytes);
  const begun = Date.now();
  const last = peer(FORMER + 1, '1Mbit/s');
  await complete(last);
  const seconds = (Date.now() - begun) / 1000;
  await Promise.all(former.map((p, i) => p.heard('its count', (v) => v.contents?.[0]?.uploaded_bytes >= before[i])));
  const file = join(temp, 'again.bin');
  last.child.kill('SIGTERM');
  const uploaded = await Promise.all(pages.map((page) => page.run('download.progress().uploadedBytes')));
  execFileSync(headwater, ['export', '--data', join(temp, `peer-${FORMER + 1}`), '--output', file, name]);
  const status = await api('/v1/status');
  const fromPages = uploaded.reduce((a, b) => a + b, 0);
  const result = {
    megabytes: Number(megabytes), seconds: round(seconds), sha256_right: sha256(await readFile(file)) === sha256(film),
    from_pages: fromPages, pages_that_sent: uploaded.filter((n) => n > 0).length, uploaded,
    from_pages_percent: round((100 * fromPages) / film.length, 1), lightweight_pairs: status.totals.lightweight_pairs,
    pages: offered.map(({ page, accepts, forwards, up_bytes_per_s }) => ({ page, accepts, forwards, up_bytes_per_s })),
  };
  const bars = [
    [result.sha256_right, 'the file is another one'],
    [result.pages_that_sent > 0, 'no page sent anything'],
    [result.from_pages_percent >= 50, 'less than half came from pages, which had nearly all uplink'],
    [result.lightweight_pairs === 0, 'two that cannot be dialled were paired'],
    [result.pages.every((p) => p.page && p.accepts === 'dial-only' && p.forwards === 'memory'), 'a page is taken for something else'],
  ];
  result.missed = bars.filter(([held]) => !held).map(([, what]) => what);
  await writeFile(join(out, 'result.json'), JSON.stringify(result, null, 2) + '\n');
  console.log(JSON.stringify(result, null, 2));
  server.close();
  return result.missed.length ? 1 : 0;
}

main().then((code) => process.exit(code), (e) => {
  console.error(`it failed: ${e.stack}`);
  process.exit(1);
});
