// A page as a peer: an encoder pushes a channel, native peers pass it on, a page in Chromium plays it with hls.js and the
// SDK, which has no peer on its machine. Prints what was seen as JSON; ends with 1 if a bar is missed, with 2 on wrong usage.
//
//   node run.mjs HEADWATER [MINUTES] [FOLDER] [faults | blocked | no-quic | no-peers | no-udp]
//
// With faults the peer that brings most is killed after a quarter of the time, the control center after half of it, and all
// peers after three quarters: what follows comes from the publisher. Blocked, the page's policy lets it reach the control
// center and the origin only. No-quic, what stands before the control center lets TCP through and swallows UDP: the page's
// session runs over a WebSocket there, and over WebTransport else. No-peers, what the page sends to the peers over UDP is
// swallowed; no-udp, all that it sends over UDP. Both need root and nft, and are undone at the end.
//
// Needs ffmpeg with libx264 and Chromium with H.264, and `npm run build` before.

import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, writeFile } from 'node:fs/promises';
import { loadavg, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  SEGMENT_S, chromium, drift, encoder, harness, ours, progress, removed, round, site, sleep, spread, swallowUdp, tcpOnly, until,
} from '../../../harness.mjs';

const PEERS = 4;
// What peers and the control center listen at, so that a rule can tell them from the page.
const [AT_CONTROL, AT_PEERS] = ['127.0.0.3', '127.0.0.2'];
// What is in the page's way, and what must come of it: `limited` pages play from the origin, and are told to the control
// center as such; how the session runs and whether UDP has shown itself is not looked at where it is left out.
const ALL = { session: 'webtransport', udpFrom: 'test', peers: true };
const LIMITED = { limited: 'no UDP (as it says)' };
const MODES = {
  '': ALL,
  faults: { ...ALL, faults: true, peers: false },
  blocked: { ...LIMITED, policy: true },
  'no-quic': { tcpOnly: true, session: 'websocket', udpFrom: 'claim', peers: true },
  'no-peers': { ...LIMITED, swallowed: [AT_PEERS] },
  'no-udp': { ...LIMITED, swallowed: [AT_PEERS, AT_CONTROL], session: 'websocket' },
};
const mode = MODES[process.argv[5] ?? ''];
// Bars: what a viewer would see, and what a publisher saves.
const START_UP_S = mode?.limited ? 4 : 2;
const PEERS_PERCENT = 85;
const SETTLED_MS = 10_000;
const DRIFT_S = SEGMENT_S;
// What a page has at the end beside what it had after a quarter of the time; a segment more or less may be held.
const GROWS = 1.1;
const HEAP_SLACK_MB = 4;

const sdk = join(dirname(fileURLToPath(import.meta.url)), '../..');
const [program, minutes = '3', folder = 'out/browser'] = process.argv.slice(2);
if (!program || !(Number(minutes) > 0) || !mode) {
  console.error(`usage: node run.mjs HEADWATER [MINUTES] [FOLDER] [${Object.keys(MODES).filter(Boolean).join(' | ')}]`);
  process.exit(2);
}
const { headwater, out } = harness(program, folder);
const measureMs = Number(minutes) * 60_000;

async function main() {
  await mkdir(out, { recursive: true });
  const temp = await mkdtemp(join(tmpdir(), 'headwater-page-'));
  process.on('exit', () => removed(temp));
  if (mode.swallowed) swallowUdp(mode.swallowed);
  const control = ours('control', ['control', '--listen', `${AT_CONTROL}:0`, '--data', join(temp, 'control')]);
  const cc = await control.heard('its address', (v) => v.address);
  const api = async (path) => (await fetch(`${cc.api}${path}`, { headers: { authorization: `Bearer ${cc.admin_token}` } })).json();
  const key = join(temp, 'key');
  execFileSync(headwater, ['key', 'new', '--out', key]);
  const publisher = ours('publisher', [
    'publish', '--live-push', '127.0.0.1:0', '--name', 'channel', '--control', cc.api, '--token', cc.admin_token,
    '--key', key, '--data', join(temp, 'publisher'), '--listen', `${AT_PEERS}:0`, '--rate', '2.5Mbit/s',
    '--log-listen', '127.0.0.1:0',
  ]);
  const { push_url: pushed, public_url: published } = await publisher.event('listens');
  encoder(pushed, measureMs / 1000 + 120);
  const name = (await publisher.event('started')).hw;
  await publisher.event('active');
  progress(`published as ${name}`);
  const log = new URL(decodeURIComponent(/log=([^&]*)/.exec(name)[1])).origin;
  const only = `connect-src ws://${cc.address} ${new URL(published).origin} ${log}`;
  const four = Array.from({ length: PEERS }, (_, n) => ours(`peer-${n + 1}`, [
    'peer', '--control', cc.address, '--cc', cc.node, '--data', join(temp, `peer-${n + 1}`), '--listen', `${AT_PEERS}:0`,
    '--no-gateway', '--no-port-mapping', '--up', '5Mbit/s', '--fetch', name,
  ]));
  for (const p of four) p.id = (await p.event('started')).node;
  for (const p of four) await p.heard('the stream', (v) => v.contents?.[0]?.peer_bytes > 1_000_000);

  progress('the peers have the stream; a page asks for it');
  const { server, origin } = await site({
    '/hls.html': [join(sdk, 'examples/hls.html'), 'text/html'],
    '/headwater.js': [join(sdk, 'dist/headwater.js'), 'text/javascript'],
    '/hls.min.js': [join(sdk, 'node_modules/hls.js/dist/hls.min.js'), 'text/javascript'],
  }, mode.policy ? { 'content-security-policy': only } : {});
  const browser = chromium(join(temp, 'chromium'));
  const version = (await browser.version()).product;
  const seenAt = mode.tcpOnly ? await tcpOnly(cc.address) : cc.address;
  const wants = new URLSearchParams({ control: seenAt, content: name, ...(mode.limited ? { origin: new URL('index.m3u8', published) } : {}) });
  const page = await browser.tab(`${origin}/hls.html?${wants}`);
  await until('a picture', () => page.run('globalThis.seen && (seen.failed ?? (seen.first_frame !== null))'));
  const failed = await page.run('seen.failed');
  if (failed) throw new Error(failed);
  progress('it plays');
  await sleep(measureMs / 4);
  const session = await page.run('headwater.session');
  const node = await api(`/v1/nodes/${await page.run('seen.node')}`);
  const happened = [];
  // After each quarter: an hour of it shows whether anything grows.
  const memory = [];
  const measured = async () => memory.push({ heap_mb: round((await page.heap()) / 1e6, 1), browser_mb: round(browser.memory() / 1e6, 0) });
  const mark = async (what) => happened.push({ what, at: await page.run('Math.round(performance.now())') });
  if (mode.faults) {
    const sources = await page.run('stream.statistics().sources');
    const best = sources.sort((a, b) => b.bytes - a.bytes)[0]?.node;
    const victim = four.find((p) => p.id === best) ?? four[0];
    victim.child.kill('SIGKILL');
    await mark(`killed ${victim.name}`);
  }
  await measured();
  await sleep(measureMs / 4);
  await measured();
  await page.picture(join(out, 'page.png'));
  if (mode.faults) {
    control.child.kill('SIGKILL');
    await mark('killed the control center');
  }
  await sleep(measureMs / 4);
  await measured();
  if (mode.faults) {
    four.forEach((p) => p.child.kill('SIGKILL'));
    await mark('killed all peers');
  }
  await sleep(measureMs / 4);
  await measured();

  const seen = await page.run('seen');
  const playing = seen.samples.filter((s) => s.at > seen.first_frame + 1000);
  const settled = seen.samples.find((s) => s.at > seen.first_frame + SETTLED_MS) ?? seen.samples[0];
  const last = seen.samples.at(-1);
  const began = seen.events.find((e) => e.kind === 'playing')?.at ?? Infinity;
  const count = (kind) => seen.events.filter((e) => e.kind === kind && e.at > began).length;
  const [fromPeers, fromOrigin] = [last.peerBytes - settled.peerBytes, last.originBytes - settled.originBytes];
  const result = {
    headwater: execFileSync(headwater, ['--version'], { encoding: 'utf8' }).trim(), chromium: version,
    minutes: Number(minutes), load_average: round(loadavg()[0]),
    page: {
      start_up_s: round((seen.first_frame - seen.asked) / 1000), seconds: round((last.at - seen.first_frame) / 1000),
      frames: last.frames, dropped: last.dropped, waiting: count('waiting'), stalled: count('stalled'),
      hls_errors: seen.hls_errors, longest_frame_gap_s: round(seen.longest_frame_gap_ms / 1000),
      behind_the_clock_s: round(drift(playing, (s) => s.at / 1000, (s) => s.position_s)),
      buffered_s: spread(playing.map((s) => round(s.buffered_s))), latency_s: spread(playing.map((s) => round(s.latency_s))),
      since_recording_s: spread(playing.map((s) => round(s.since_recording_s))), segments: seen.fragments.length,
      estimate_mbit_s: spread(seen.estimates.map((e) => round(e / 1e6))), peer_bytes: last.peerBytes,
      origin_bytes: last.originBytes, wasted_bytes: last.wastedBytes, lost_pieces: last.lostPieces, sources: last.sources,
      held_bytes: last.heldBytes, lag_p95_ms: round(last.lagP95Ms, 0),
      peers_percent_after_10_s: round((100 * fromPeers) / Math.max(1, fromPeers + fromOrigin), 1),
    },
    happened, session, memory,
    node: { page: node.page, accepts: node.accepts, listens: node.listens, udp: node.udp, udp_from: node.udp_from, limited: node.limited, client: node.client, enrolled: node.enrolled },
    peers: four.map((p) => ({ uploaded_bytes: p.now().contents[0].uploaded_bytes })),
  };
  const p = result.page;
  const bars = [
    [p.waiting + p.stalled === 0, 'the page waited or stalled'],
    [!p.hls_errors.some((e) => /stall|nudge/i.test(e.details) || e.fatal), 'hls.js told of a stall or a fatal error'],
    [p.start_up_s <= START_UP_S, `the page took longer than ${START_UP_S} s to its first picture`],
    [p.seconds >= measureMs / 1000 - 3 && p.frames >= p.seconds * 24, 'the page has too few frames'],
    [p.buffered_s.min > 0, 'nothing was buffered for a moment'],
    [p.behind_the_clock_s <= DRIFT_S, 'the page fell behind the clock'],
    [!mode.peers || p.peers_percent_after_10_s >= PEERS_PERCENT, `less than ${PEERS_PERCENT} % came from peers after 10 s`],
    [!mode.limited || (p.peer_bytes === 0 && result.node.limited === mode.limited), 'the control center does not say why'],
    [memory.at(-1).heap_mb <= GROWS * memory[0].heap_mb + HEAP_SLACK_MB, 'the page\'s heap grew'],
    [Number(minutes) < 30 || memory.at(-1).browser_mb <= GROWS * memory[0].browser_mb, 'the browser\'s memory grew'],
    [p.wasted_bytes <= 0.02 * p.peer_bytes, 'more than 2 % came twice or wrong'],
    [!mode.session || session === mode.session, 'the session runs another way than it should'],
    [!mode.udpFrom || result.node.udp_from === mode.udpFrom, 'the control center does not know whether UDP gets through'],
    [result.node.page && result.node.accepts === 'dial-only' && !result.node.listens, 'the control center takes it for no page'],
  ];
  result.missed = bars.filter(([held]) => !held).map(([, what]) => what);
  await writeFile(join(out, 'seen.json'), JSON.stringify(seen));
  await writeFile(join(out, 'result.json'), JSON.stringify(result, null, 2) + '\n');
  console.log(JSON.stringify(result, null, 2));
  server.close();
  return result.missed.length ? 1 : 0;
}

main().then((code) => process.exit(code), (e) => {
  console.error(`it failed: ${e.stack}`);
  process.exit(1);
});
