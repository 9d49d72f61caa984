// A live stream for players as they are: an encoder pushes a channel, peers pass it on, Chromium plays it with hls.js
// and ffmpeg in real time, each through the gateway of a peer of its own. Prints what was seen as JSON; ends with 1 if
// a bar is missed, with 2 on wrong usage.
//
//   node run.mjs HEADWATER [MINUTES] [FOLDER]
//
// Needs ffmpeg with libx264, and Chromium with H.264 (CHROMIUM says which program; both are looked for on the path).

import { execFileSync, spawn } from 'node:child_process';
import { createWriteStream, rmSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { loadavg, tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const SEGMENT_S = 2;
const PEERS = 4;
const PATIENCE_MS = 60_000;
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
const headwater = resolve(program);
const out = resolve(folder);
const measureMs = Number(minutes) * 60_000;
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const progress = (text) => console.error(`${new Date().toISOString().slice(11, 19)} ${text}`);

async function until(what, look, patience = PATIENCE_MS, every = 50) {
  for (const end = Date.now() + patience; ;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > end) throw new Error(`${what} did not come within ${patience / 1000} s`);
    await sleep(every);
  }
}

// Whatever was started here ends with this program.
const children = [];
process.on('exit', () => children.forEach((c) => c.exitCode === null && c.kill('SIGKILL')));
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(130));

function start(name, command, args, stdio = ['pipe', 'pipe', 'pipe']) {
  const child = spawn(command, args, { stdio, env: { HEADWATER_LOG: 'info', ...process.env } });
  child.on('error', (e) => { throw new Error(`${name}: ${e.message}`); });
  child.stderr.pipe(createWriteStream(join(out, `${name}.err`)));
  children.push(child);
  return child;
}

// What a browser's processes still write comes in between.
function removed(folder) {
  for (let tries = 1; ; tries += 1) {
    try {
      return rmSync(folder, { recursive: true, force: true });
    } catch (e) {
      if (tries === 20) return console.error(`${folder} stays: ${e.message}`);
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100);
    }
  }
}

// A program of ours, with its JSON lines.
function ours(name, args) {
  const child = start(name, headwater, [...args, '--json', '--exit-with-stdin']);
  const events = [];
  const states = [];
  let last = null;
  createInterface({ input: child.stdout }).on('line', (line) => {
    try { last = JSON.parse(line); } catch { return; }
    const c = last.contents?.[0];
    if (last.event !== 'status') events.push(last);
    else if (c) {
      const { peer_bytes, origin_bytes, wasted_bytes, parents, live } = c;
      states.push({ at: new Date().toISOString(), peer_bytes, origin_bytes, wasted_bytes, parents, live });
    }
  });
  const heard = (what, wanted) => until(`${name}: ${what}`, () => {
    if (child.exitCode !== null) throw new Error(`${name} ended with ${child.exitCode}; see ${name}.err`);
    return events.find(wanted) ?? (last && wanted(last) ? last : null);
  });
  return { child, name, heard, event: (e) => heard(e, (v) => v.event === e), now: () => last, states };
}

// Chromium by its DevTools protocol, over a pipe: no port, no library.
function chromium(data) {
  const flags = [
    '--headless=new', '--no-sandbox', '--disable-gpu', '--no-first-run', '--mute-audio', '--remote-debugging-pipe',
    '--autoplay-policy=no-user-gesture-required', `--user-data-dir=${data}`, '--window-size=700,760', 'about:blank',
  ];
  const child = start('chromium', process.env.CHROMIUM ?? 'chromium', flags, ['ignore', 'ignore', 'pipe', 'pipe', 'pipe']);
  const waiting = new Map();
  let id = 0;
  let rest = '';
  child.stdio[4].setEncoding('utf8').on('data', (text) => {
    const messages = (rest + text).split('\0');
    rest = messages.pop();
    for (const message of messages.map((m) => JSON.parse(m))) {
      const { done, failed } = waiting.get(message.id) ?? {};
      waiting.delete(message.id);
      if (message.error) failed?.(new Error(message.error.message));
      else done?.(message.result);
    }
  });
  const call = (method, params = {}, sessionId) => new Promise((done, failed) => {
    waiting.set(++id, { done, failed });
    child.stdio[3].write(JSON.stringify({ id, method, params, sessionId }) + '\0');
  });
  return {
    child,
    version: () => call('Browser.getVersion'),
    async tab(url) {
      const { targetId } = await call('Target.createTarget', { url });
      const { sessionId } = await call('Target.attachToTarget', { targetId, flatten: true });
      return {
        async run(expression) {
          const said = await call('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true }, sessionId);
          if (said.exceptionDetails) throw new Error(`${expression}: ${JSON.stringify(said.exceptionDetails)}`);
          return said.result.value;
        },
        async click(selector) {
          const at = await this.run(`(() => { const r = document.querySelector(${JSON.stringify(selector)})
            .getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()`);
          for (const type of ['mousePressed', 'mouseReleased']) {
            const mouse = { type, x: at[0], y: at[1], button: 'left', clickCount: 1 };
            await call('Input.dispatchMouseEvent', mouse, sessionId);
          }
        },
        shown: () => call('Page.bringToFront', {}, sessionId),
        close: () => call('Target.closeTarget', { targetId }),
        async picture(path) {
          const { data } = await call('Page.captureScreenshot', { format: 'png' }, sessionId);
          await writeFile(path, data, 'base64');
        },
      };
    },
  };
}

// The site: another origin than the gateway's, as a publisher's page is.
async function site() {
  const files = { '/hls.html': [join(here, 'hls.html'), 'text/html'] };
  files['/hls.min.js'] = [join(here, 'node_modules/hls.js/dist/hls.min.js'), 'text/javascript'];
  const server = createServer(async (request, response) => {
    const [path, type] = files[new URL(request.url, 'http://x').pathname] ?? [];
    if (!path) return response.writeHead(404).end();
    response.writeHead(200, { 'content-type': type }).end(await readFile(path));
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  return { server, origin: `http://127.0.0.1:${server.address().port}` };
}

// 2 Mbit/s whatever is in the picture: noise keeps the encoder busy, the clock shows what is late.
function encoder(to) {
  const clock = 'drawtext=text=\'%{gmtime} UTC  frame %{n}\':fontsize=26:fontcolor=white:box=1:boxcolor=black:x=12:y=12';
  const drawn = execFileSync('ffmpeg', ['-hide_banner', '-filters']).includes('drawtext');
  const filters = ['noise=alls=12:allf=t', ...(drawn ? [clock] : [])].join(',');
  return start('encoder', 'ffmpeg', [
    '-v', 'warning', '-nostdin', '-re', '-f', 'lavfi', '-i', 'testsrc=size=640x360:rate=25',
    '-re', '-f', 'lavfi', '-i', 'sine=frequency=330', '-t', String(measureMs / 1000 + 240), '-vf', filters,
    '-c:v', 'libx264', '-preset', 'superfast', '-pix_fmt', 'yuv420p', '-b:v', '1800k', '-maxrate', '1800k',
    '-bufsize', '1800k', '-nal-hrd', 'cbr', '-g', String(25 * SEGMENT_S), '-sc_threshold', '0', '-c:a', 'aac',
    '-b:a', '96k', '-f', 'hls', '-hls_time', String(SEGMENT_S), '-hls_list_size', '8',
    '-hls_flags', 'program_date_time+delete_segments', '-method', 'PUT', `${to}index.m3u8`,
  ]);
}

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

const round = (x, digits = 2) => (x === null || x === undefined ? null : Number(x.toFixed(digits)));
const middle = (list) => (list.length ? [...list].sort((a, b) => a - b)[list.length >> 1] : null);
const spread = (list) => ({ min: Math.min(...list), median: middle(list), max: Math.max(...list) });

// How far the position fell behind the clock since the first sample, at most.
function drift(samples, at, position) {
  const [first] = samples;
  return Math.max(...samples.map((s) => (at(s) - at(first)) - (position(s) - position(first))));
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
  encoder((await publisher.event('listens')).push_url);
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
  const { server, origin } = await site();
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
