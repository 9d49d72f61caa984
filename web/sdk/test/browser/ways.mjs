// Ways of use, beside hls.js: the page of `headwater demo --page`, Shaka Player, and a download that may be handed over. One
// demo has the channel and the file. Prints what was seen as JSON; ends with 1 if a bar is missed, with 2 on wrong usage.
//
//   node ways.mjs HEADWATER [SECONDS] [FOLDER]
//
// Needs Chromium with H.264, and `npm run build` before.

import { once } from 'node:events';
import { mkdir, mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium, harness, progress, removed, round, site, sleep, speaks, until } from '../../../harness.mjs';

const sdk = join(dirname(fileURLToPath(import.meta.url)), '../..');
const [program, seconds = '20', folder = 'out/ways'] = process.argv.slice(2);
if (!program || !(Number(seconds) > 0)) {
  console.error('usage: node ways.mjs HEADWATER [SECONDS] [FOLDER]');
  process.exit(2);
}
const { headwater, out } = harness(program, folder);
// Bars: the picture goes on, and others bring what there is.
const FRAMES_PER_S = 24;
const PEERS_PERCENT = 80;

const percent = (peers, origin) => round((100 * peers) / Math.max(1, peers + origin), 1);

/** The demo's own page: it plays, and downloads what the publisher has. */
async function demoPage(browser, demo) {
  const page = await browser.tab(demo.url);
  await until('a picture', async () => {
    const failed = await page.run('globalThis.seen?.failed');
    if (failed) throw new Error(failed);
    return page.run('globalThis.seen?.live?.frames > 0');
  });
  await page.click('#download');
  await until('half of the file', () => page.run('document.getElementById("bar").value > 0.5'));
  await page.picture(join(out, 'demo.png'));
  await until('the file', () => page.run('seen.file !== null'), 120_000);
  await page.picture(join(out, 'demo-done.png'));
  const { live, file } = await page.run('seen');
  await page.close();
  return {
    frames: live.frames, live_peers_percent: percent(live.peerBytes, live.originBytes), lost_pieces: live.lostPieces,
    file_peers_percent: percent(file.peerBytes, file.originBytes), file_is_the_publishers: file.same,
  };
}

/** Shaka plays for so many seconds. */
async function shakaPage(browser, demo, origin) {
  const wants = new URLSearchParams({ control: demo.control, content: demo.channel });
  const page = await browser.tab(`${origin}/shaka.html?${wants}`);
  const frames = () => page.run('globalThis.player ? video.getVideoPlaybackQuality().totalVideoFrames : 0');
  await until('a picture of Shaka', async () => {
    const failed = await page.run('globalThis.seen?.failed');
    if (failed) throw new Error(failed);
    return (await frames()) > 0;
  });
  const [before, began] = [await frames(), await page.run('video.currentTime')];
  await sleep(Number(seconds) * 1000);
  const stats = await page.run('stream.statistics()');
  await page.picture(join(out, 'shaka.png'));
  const seen = {
    frames_per_s: round(((await frames()) - before) / Number(seconds), 1),
    played_s: round((await page.run('video.currentTime')) - began), peers_percent: percent(stats.peerBytes, stats.originBytes),
    errors: await page.run('seen.errors'), waited_s: round(await page.run('player.getStats().bufferingTime')),
  };
  await page.close();
  return seen;
}

/** Nobody takes the name: the page fetches. Somebody seems to: it does not, until it is told to. */
async function downloadPage(browser, demo, origin) {
  const wants = new URLSearchParams({ control: demo.control, content: demo.film.hw });
  const open = () => browser.tab(`${origin}/download.html?${wants}`);
  const by = (page) => until('a decision', () => page.run('seen.failed ?? seen.by'));
  const alone = await open();
  await until('a button', () => alone.run('Boolean(globalThis.seen)'));
  await alone.run('document.hasFocus = () => true');
  await alone.click('#fetch');
  const untaken = await by(alone);
  await until('the file', () => alone.run('seen.failed ?? seen.bytes !== null'), 120_000);
  const bytes = await alone.run('seen.bytes');
  await alone.close();
  const taken = await open();
  await until('a button', () => taken.run('Boolean(globalThis.seen)'));
  // As a browser does that asks its user whether to open the program.
  await taken.run(`let front = true; document.hasFocus = () => front;
    new MutationObserver(() => { front = false; dispatchEvent(new Event('blur')); }).observe(document.body, { childList: true })`);
  await taken.click('#fetch');
  const handed = await by(taken);
  const link = await taken.run('document.querySelector("iframe").src');
  await taken.run('seen.by = null');
  await taken.click('#here');
  const after = await by(taken);
  await taken.close();
  return { untaken, bytes, handed, handed_the_name: link === demo.film.hw, after };
}

async function main() {
  await mkdir(out, { recursive: true });
  const temp = await mkdtemp(join(tmpdir(), 'headwater-ways-'));
  process.on('exit', () => removed(temp));
  const player = join(sdk, 'node_modules/hls.js/dist/hls.min.js');
  const parts = speaks('demo', headwater, ['demo', '--page', '--json', '--hls', player]);
  const demo = await parts.heard('its page', (v) => v.url);
  progress(`the demo is at ${demo.url}`);
  const { server, origin } = await site({
    '/shaka.html': [join(sdk, 'examples/shaka.html'), 'text/html'],
    '/download.html': [join(sdk, 'examples/download.html'), 'text/html'],
    '/headwater.js': [join(sdk, 'dist/headwater.js'), 'text/javascript'],
    '/shaka-player.compiled.js': [join(sdk, 'node_modules/shaka-player/dist/shaka-player.compiled.js'), 'text/javascript'],
  });
  const browser = chromium(join(temp, 'chromium'), ['--window-size=1180,1250']);
  const result = { chromium: (await browser.version()).product };
  for (const [what, tried] of Object.entries({ demo: demoPage, shaka: shakaPage, download: downloadPage })) {
    progress(`trying ${what}`);
    result[what] = await tried(browser, demo, origin).catch((e) => ({ failed: e.stack }));
  }
  server.close();
  parts.child.kill('SIGTERM');
  const [code] = await once(parts.child, 'exit');
  const { demo: d, shaka: s, download: l } = result;
  const bars = [
    ...[d, s, l].map(({ failed }) => [!failed, failed]),
    [d.live_peers_percent >= PEERS_PERCENT && d.file_peers_percent >= PEERS_PERCENT, `less than ${PEERS_PERCENT} % from peers`],
    [d.file_is_the_publishers, 'the demo\'s file is another one'],
    [s.frames_per_s >= FRAMES_PER_S && s.played_s >= Number(seconds) * 0.9, 'Shaka stood still'],
    [s.errors?.length === 0 && s.peers_percent >= PEERS_PERCENT, 'Shaka told of errors, or played from the origin'],
    [l.untaken === 'page' && l.bytes === demo.film.bytes, 'a name that nobody took was not fetched by the page'],
    [l.handed === 'resident' && l.handed_the_name && l.after === 'page', 'a name that somebody took was not handed over'],
    [code === 0, `the demo ended with ${code}`],
  ];
  result.missed = bars.filter(([held]) => !held).map(([, what]) => what);
  await writeFile(join(out, 'result.json'), JSON.stringify(result, null, 2) + '\n');
  console.log(JSON.stringify(result, null, 2));
  return result.missed.length ? 1 : 0;
}

main().then((code) => process.exit(code), (e) => {
  console.error(`it failed: ${e.stack}`);
  process.exit(1);
});
