// A live stream for players as they are: an encoder pushes a channel, peers pass it on, Chromium plays it with hls.js
// and ffmpeg in real time, each through the gateway of a peer of its own. Prints what was seen as JSON; ends with 1 if
// a bar is missed, with 2 on wrong usage.
//
//   node run.mjs HEADWATER [MINUTES] [FOLDER]
//
// Needs ffmpeg with libx264, and Chromium with H.264 (CHROMIUM says which program; both are looked for on the path).

import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { loadavg, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import {
  SEGMENT_S, chromium, drift, encoder, harness, ours, progress, removed, round, site, sleep, spread, start, until,
} from '../harness.mjs';

const PEERS = 4;
// Bars: what a viewer would see.
const START_UP_S = 2;
// A picture that stands for longer is seen to stand, though no player calls it a stall.
const FRAME_GAP_S = 1;
// How far a player may fall behind the clock. Less is a busy machine's: what is here is shown late then.
const DRIFT_S = SEGMENT_S;

const here = dirname(fileURLToPath(import.meta.url));
const [program, minutes = '3', folder = 'out'] = process.argv.slice(2);
if (!program || !(Number(minutes) > 0)) {
  console.error('usage: node run.mjs HEADWATER [MINUTES] [FOLDER]');
  process.exit(2);
}
const { headwater, out } = harness(program, folder);
const measureMs = Number(minutes) * 60_000;

// ffmpeg as a player: it reads no faster than the stream plays.
function ffmpegPlayer(url) {
  const begun = performance.now();
  const child = start('ffmpeg-player', 'ffmpeg', [
    '-v', 'warning', '-nostdin', '-re', '-i', url, '-stats_period', '0.2', '-progress', 'pipe:1', '-f', 'null', '-',
  ]);
  const samples = [];
  let now = {};
  createInterface({ input: child.stdout }).on('line', (line) => {
    const [key, value] = line.split('=');
    now[key] = value;
    if (key !== 'progress') return;
    const frame = Number(now.frame);
    if (frame > 0) samples.push({ at: performance.now() - begun, frame, out_s: Number(now.out_time_us) / 1e6 });
    now = {};
  });
  return { child, samples };
}

function ofFfmpeg({ samples }, errors) {
  let gap = 0;
  let since = samples[0];
  for (const s of samples) {
    if (s.frame > since.frame) {
      gap = Math.max(gap, s.at - since.at);
      since = s;
    }
  }
  const last = samples.at(-1);
  gap = Math.max(gap, last.at - since.at);
  const later = samples.filter((s) => s.at > 3000);
  return {
    start_up_s: round(samples[0].at / 1000), seconds: round((last.at - samples[0].at) / 1000), frames: last.frame,
    played_s: round(last.out_s), longest_gap_s: round(gap / 1000),
    behind_the_clock_s: round(drift(later, (s) => s.at / 1000, (s) => s.out_s)), messages: errors,
  };
}

function ofPage(seen) {
  const playing = seen.samples.filter((s) => seen.first_frame !== null && s.at > seen.first_frame + 1000);
  const last = playing.at(-1);
  const began = seen.events.find((e) => e.kind === 'playing')?.at ?? Infinity;
  const count = (kind) => seen.events.filter((e) => e.kind === kind && e.at > began).length;
  const fragments = seen.fragments.slice(2);
  return {
    start_up_s: round((seen.first_frame - seen.asked) / 1000), session_s: round((seen.given - seen.asked) / 1000),
    seconds: round((last.at - seen.first_frame) / 1000), played_s: round(last.position_s - playing[0].position_s),
    frames: last.frames, dropped: last.dropped, longest_frame_gap_s: round(seen.longest_frame_gap_ms / 1000),
    behind_the_clock_s: round(drift(playing, (s) => s.at / 1000, (s) => s.position_s)),
    waiting: count('waiting'), stalled: count('stalled'), hls_errors: seen.hls_errors, sessions: seen.sessions,
    latency_s: spread(playing.map((s) => round(s.latency_s))), buffered_s: spread(playing.map((s) => round(s.buffered_s))),
    since_recording_s: spread(playing.map((s) => round(s.since_recording_s))),
    segments: seen.fragments.length, segment_load_ms: spread(fragments.map((f) => f.load_ms)),
    segment_mbit_s: spread(fragments.map((f) => round((f.bytes * 8) / f.load_ms / 1000))),
    estimate_mbit_s: spread(seen.estimates.map((e) => round(e / 1e6))), last_estimate_mbit_s: round(seen.estimates.at(-1) / 1e6),
  };
}

function missed(page, ffmpeg, wantedS) {
  const bars = [
    [page.waiting + page.stalled === 0, 'the page waited or stalled'],
    [!page.hls_errors.some((e) => /stall|nudge/i.test(e.details) || e.fatal), 'hls.js told of a stall or a fatal error'],
    [page.start_up_s <= START_UP_S, `the page took longer than ${START_UP_S} s to its first picture`],
    [page.seconds >= wantedS - 3 && page.frames >= page.seconds * 24, 'the page has too few frames'],
    [page.longest_frame_gap_s <= FRAME_GAP_S, `a picture stood for longer than ${FRAME_GAP_S} s`],
    [page.buffered_s.min > 0, 'nothing was buffered for a moment'],
    [page.behind_the_clock_s <= DRIFT_S, 'the page fell behind the clock'],
    [ffmpeg.start_up_s <= START_UP_S, `ffmpeg took longer than ${START_UP_S} s to its first frame`],
    [ffmpeg.seconds >= wantedS - 3 && ffmpeg.frames >= ffmpeg.seconds * 24, 'ffmpeg has too few frames'],
    [ffmpeg.longest_gap_s <= FRAME_GAP_S, `ffmpeg's frames stood for longer than ${FRAME_GAP_S} s`],
    [ffmpeg.behind_the_clock_s <= DRIFT_S, 'ffmpeg fell behind the clock'],
    [ffmpeg.messages.length === 0, 'ffmpeg complained'],
  ];
  return bars.filter(([held]) => !held).map(([, what]) => what);
}

// The user allows the site, on the gateway's own page.
async function allow(browser, page) {
  const link = await until('the link to the consent page', () => page.run('document.getElementById("allow")?.href'));
  const asks = await browser.tab(link);
  await until('the question', () => asks.run('document.querySelectorAll("form.ask button").length === 3'));
  await asks.picture(join(out, 'consent.png'));
  // A click that comes at once is asked for again.
  await sleep(1500);
  await asks.click('form.ask button[formaction*="choice=once"]');
  // Between two pages there is none that could be asked.
  await until('the consent', () => asks.run('document.title.startsWith("Allowed")').catch(() => false));
  await asks.close();
  await page.shown();
}

async function main() {
  await mkdir(out, { recursive: true });
  const temp = await mkdtemp(join(tmpdir(), 'headwater-players-'));
  process.on('exit', () => removed(temp));
  const control = ours('control', ['control', '--listen', '127.0.0.1:0', '--data', join(temp, 'control')]);
  const cc = await control.heard('its address', (v) => v.address);
  const key = join(temp, 'key');
  execFileSync(headwater, ['key', 'new', '--out', key]);
  const publisher = ours('publisher', [
    'publish', '--live-push', '127.0.0.1:0', '--name', 'channel', '--control', cc.api, '--token', cc.admin_token,
    '--key', key, '--data', join(temp, 'publisher'), '--listen', '127.0.0.1:0', '--rate', '2.5Mbit/s',
  ]);
  encoder((await publisher.event('listens')).push_url, measureMs / 1000 + 240);
  const name = (await publisher.event('started')).hw;
  await publisher.event('active');
  progress(`published as ${name}`);
  const peer = (who, more) => ours(who, [
    'peer', '--control', cc.address, '--cc', cc.node, '--data', join(temp, who), '--listen', '127.0.0.1:0',
    '--gateway', '127.0.0.1:0', '--no-port-mapping', '--up', '5Mbit/s', ...more,
  ]);
  const four = Array.from({ length: PEERS }, (_, n) => peer(`peer-${n + 1}`, ['--fetch', name]));
  const pagesPeer = peer('peer-of-the-page', []);
  const ffmpegsPeer = peer('peer-of-ffmpeg', []);
  for (const p of four) await p.heard('the stream', (v) => v.contents?.[0]?.peer_bytes > 1_000_000);
  for (const p of [pagesPeer, ffmpegsPeer]) await p.heard('a session', (v) => v.control);

  progress('the peers have the stream; a browser asks for it');
  // Another origin than the gateway's, as a publisher's page is.
  const { server, origin } = await site({
    '/hls.html': [join(here, 'hls.html'), 'text/html'],
    '/hls.min.js': [join(here, 'node_modules/hls.js/dist/hls.min.js'), 'text/javascript'],
  });
  const browser = chromium(join(temp, 'chromium'));
  const version = (await browser.version()).product;
  const gateway = new URL((await pagesPeer.event('started')).consents).origin;
  const page = await browser.tab(
    `${origin}/hls.html?gateway=${encodeURIComponent(gateway)}&content=${encodeURIComponent(name)}`);
  await allow(browser, page);
  await until('a picture', () => page.run('seen.first_frame !== null'));

  progress('it plays; ffmpeg does too');
  execFileSync(headwater, ['fetch', name, '--data', join(temp, 'peer-of-ffmpeg')]);
  const { contents: [{ gateway: url }] } = await ffmpegsPeer.heard('where it is read', (v) => v.contents?.[0]?.gateway);
  const ffmpeg = ffmpegPlayer(url);
  const begun = Date.now();
  await sleep(measureMs * 2 / 3);
  await page.picture(join(out, 'hls.png'));
  progress('a picture of the page was taken');
  await sleep(Math.max(0, begun + measureMs - Date.now()));

  const seen = await page.run('seen');
  const running = ffmpeg.child.exitCode === null;
  const errors = (await readFile(join(out, 'ffmpeg-player.err'), 'utf8')).split('\n').filter(Boolean);
  if (!running) errors.push(`it ended with ${ffmpeg.child.exitCode}`);
  const share = (a, b) => round((100 * (b.origin_bytes - a.origin_bytes))
    / (b.origin_bytes - a.origin_bytes + b.peer_bytes - a.peer_bytes), 1);
  const from = (p) => {
    const last = p.states.at(-1);
    const before = p.states.findLast((s) => Date.parse(last.at) - Date.parse(s.at) >= 30_000) ?? p.states[0];
    return { peer_bytes: last.peer_bytes, origin_bytes: last.origin_bytes, origin_percent_lately: share(before, last) };
  };
  const result = {
    headwater: execFileSync(headwater, ['--version'], { encoding: 'utf8' }).trim(), chromium: version,
    hls_js: JSON.parse(await readFile(join(here, 'node_modules/hls.js/package.json'))).version, minutes: Number(minutes),
    load_average: round(loadavg()[0]),
    page: { ...ofPage(seen), ...from(pagesPeer) }, ffmpeg: { ...ofFfmpeg(ffmpeg, errors), ...from(ffmpegsPeer) },
    peers: four.map((p) => ({ ...from(p), uploaded_bytes: p.now().contents[0].uploaded_bytes })),
  };
  result.missed = missed(result.page, result.ffmpeg, measureMs / 1000);
  await writeFile(join(out, 'seen.json'), JSON.stringify({
    page: seen, ffmpeg: ffmpeg.samples, page_peer: pagesPeer.states, ffmpeg_peer: ffmpegsPeer.states,
  }));
  await writeFile(join(out, 'result.json'), JSON.stringify(result, null, 2) + '\n');
  console.log(JSON.stringify(result, null, 2));
  server.close();
  return result.missed.length ? 1 : 0;
}

main().then((code) => process.exit(code), (e) => {
  console.error(`it failed: ${e.stack}`);
  process.exit(1);
});
