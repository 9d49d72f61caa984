// What tests with browsers share: programs of ours and their words, Chromium without a library, an encoder, a site.

import { execFileSync, spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { createReadStream, createWriteStream, readFileSync, readdirSync, rmSync, statSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { connect, createServer as createTcpServer } from 'node:net';
import { dirname, join, resolve } from 'node:path';
import { createInterface } from 'node:readline';

export const SEGMENT_S = 2;
const PATIENCE_MS = 60_000;

let headwater = '';
let out = '';

// The program that is tested, and the folder for what is said.
export function harness(program, folder) {
  headwater = resolve(program);
  out = resolve(folder);
  return { headwater, out };
}

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
export const progress = (text) => console.error(`${new Date().toISOString().slice(11, 19)} ${text}`);

export async function until(what, look, patience = PATIENCE_MS, every = 50) {
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

export function start(name, command, args, stdio = ['pipe', 'pipe', 'pipe']) {
  const child = spawn(command, args, { stdio, env: { HEADWATER_LOG: 'info', ...process.env } });
  child.on('error', (e) => { throw new Error(`${name}: ${e.message}`); });
  child.stderr.pipe(createWriteStream(join(out, `${name}.err`)));
  children.push(child);
  return child;
}

// What a browser's processes still write comes in between.
export function removed(folder) {
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
export const ours = (name, args) => speaks(name, headwater, [...args, '--json', '--exit-with-stdin']);

// A peer that misbehaves, beside it.
export const hostile = (name, args) => speaks(name, join(dirname(headwater), 'headwater-hostile'), [...args, '--exit-with-stdin']);

// A program that speaks in JSON lines.
export function speaks(name, program, args) {
  const child = start(name, program, args);
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
  return { child, name, heard, event: (e) => heard(e, (v) => v.event === e), events, now: () => last, states };
}

// Packets of UDP to these addresses are swallowed, but for those between programs that listen there, until the end.
export function swallowUdp(addresses) {
  const nft = (rules) => execFileSync('nft', ['-f', '-'], { input: rules });
  const table = `headwater_test_${process.pid}`;
  nft(`table ip ${table} {
    chain in {
      type filter hook input priority 0; policy accept;
      ip saddr 127.0.0.1 ip daddr { ${addresses.join(', ')} } meta l4proto udp drop
    }
  }`);
  process.on('exit', () => nft(`delete table ip ${table}`));
}

// Chromium by its DevTools protocol, over a pipe: no port, no library.
export function chromium(data, more = []) {
  const flags = [
    '--headless=new', '--no-sandbox', '--disable-gpu', '--no-first-run', '--mute-audio', '--remote-debugging-pipe',
    '--autoplay-policy=no-user-gesture-required', `--user-data-dir=${data}`, '--window-size=700,760', ...more, 'about:blank',
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
    // Bytes of memory of all of the browser's processes, as far as they share none.
    memory: () => tree(child.pid).reduce((all, pid) => all + privateBytes(pid), 0),
    // One in a window of its own stays in the foreground.
    async tab(url, newWindow = false) {
      const { targetId } = await call('Target.createTarget', { url, newWindow });
      const { sessionId } = await call('Target.attachToTarget', { targetId, flatten: true });
      return {
        async run(expression) {
          const said = await call('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true }, sessionId);
          if (said.exceptionDetails) throw new Error(`${expression}: ${JSON.stringify(said.exceptionDetails)}`);
          return said.result.value;
        },
        async click(selector) {
          const at = await this.run(`(() => { const e = document.querySelector(${JSON.stringify(selector)});
            e.scrollIntoView({ block: 'nearest' }); const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()`);
          for (const type of ['mousePressed', 'mouseReleased']) {
            const mouse = { type, x: at[0], y: at[1], button: 'left', clickCount: 1 };
            await call('Input.dispatchMouseEvent', mouse, sessionId);
          }
        },
        shown: () => call('Page.bringToFront', {}, sessionId),
        // Bytes of JavaScript that are in use when what is not has been collected.
        async heap() {
          await call('HeapProfiler.collectGarbage', {}, sessionId);
          return (await call('Runtime.getHeapUsage', {}, sessionId)).usedSize;
        },
        close: () => call('Target.closeTarget', { targetId }),
        async picture(path) {
          const { data } = await call('Page.captureScreenshot', { format: 'png' }, sessionId);
          await writeFile(path, data, 'base64');
        },
      };
    },
  };
}

// A process and all that it started.
function tree(root) {
  const parents = new Map();
  for (const name of readdirSync('/proc').filter((n) => /^\d+$/.test(n))) {
    const parent = read(`/proc/${name}/stat`).split(') ').at(-1)?.split(' ')[1];
    parents.set(Number(name), Number(parent));
  }
  const below = (pid) => pid === root || (parents.has(pid) && pid > 1 && below(parents.get(pid)));
  return [...parents.keys()].filter(below);
}

const privateBytes = (pid) => [...read(`/proc/${pid}/smaps_rollup`).matchAll(/^Private_\w+: +(\d+) kB$/gm)]
  .reduce((all, [, kb]) => all + Number(kb) * 1024, 0);

// Nothing of a process that is gone.
function read(path) {
  try { return readFileSync(path, 'utf8'); } catch { return ''; }
}

// A site of files: path to file and media type; all with these headers.
export async function site(files, headers = {}) {
  const server = createServer(async (request, response) => {
    const [path, type] = files[new URL(request.url, 'http://x').pathname] ?? [];
    if (!path) return response.writeHead(404).end();
    response.writeHead(200, { 'content-type': type, ...headers }).end(await readFile(path));
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  return { server, origin: `http://127.0.0.1:${server.address().port}` };
}

// Before a server: TCP goes through, and UDP is swallowed.
export async function tcpOnly(address) {
  const to = new URL(`http://${address}`);
  const server = createTcpServer((client) => {
    const through = connect(Number(to.port), to.hostname);
    for (const [one, other] of [[client, through], [through, client]]) one.on('error', () => other.destroy()).pipe(other);
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  const { port } = server.address();
  await new Promise((done) => createSocket('udp4').bind(port, '127.0.0.1', done));
  return `127.0.0.1:${port}`;
}

// An origin with ranges that pages of other sites may read.
export async function originOf(path) {
  let bytes = 0;
  const size = statSync(path).size;
  const server = createServer((request, response) => {
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '');
    const [from, to] = range ? [Number(range[1]), range[2] ? Number(range[2]) : size - 1] : [0, size - 1];
    response.writeHead(range ? 206 : 200, {
      'content-length': to - from + 1, 'accept-ranges': 'bytes', 'access-control-allow-origin': '*',
      ...(range ? { 'content-range': `bytes ${from}-${to}/${size}` } : {}),
    });
    if (request.method === 'HEAD') return response.end();
    createReadStream(path, { start: from, end: to }).on('data', (d) => { bytes += d.length; }).pipe(response);
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  const stop = () => {
    server.close();
    server.closeAllConnections();
  };
  return { url: `http://127.0.0.1:${server.address().port}/film.bin`, sent: () => bytes, stop };
}

// 2 Mbit/s whatever is in the picture: noise keeps the encoder busy, the clock shows what is late.
export function encoder(to, seconds) {
  const clock = 'drawtext=text=\'%{gmtime} UTC  frame %{n}\':fontsize=26:fontcolor=white:box=1:boxcolor=black:x=12:y=12';
  const drawn = execFileSync('ffmpeg', ['-hide_banner', '-filters']).includes('drawtext');
  const filters = ['noise=alls=12:allf=t', ...(drawn ? [clock] : [])].join(',');
  return start('encoder', 'ffmpeg', [
    '-v', 'warning', '-nostdin', '-re', '-f', 'lavfi', '-i', 'testsrc=size=640x360:rate=25',
    '-re', '-f', 'lavfi', '-i', 'sine=frequency=330', '-t', String(seconds), '-vf', filters,
    '-c:v', 'libx264', '-preset', 'superfast', '-pix_fmt', 'yuv420p', '-b:v', '1800k', '-maxrate', '1800k',
    '-bufsize', '1800k', '-nal-hrd', 'cbr', '-g', String(25 * SEGMENT_S), '-sc_threshold', '0', '-c:a', 'aac',
    '-b:a', '96k', '-f', 'hls', '-hls_time', String(SEGMENT_S), '-hls_list_size', '8',
    '-hls_flags', 'program_date_time+delete_segments', '-method', 'PUT', `${to}index.m3u8`,
  ]);
}

export const round = (x, digits = 2) => (x === null || x === undefined ? null : Number(x.toFixed(digits)));
export const middle = (list) => (list.length ? [...list].sort((a, b) => a - b)[list.length >> 1] : null);
export const spread = (list) => ({ min: Math.min(...list), median: middle(list), max: Math.max(...list) });

// How far the position fell behind the clock since the first sample, at most.
export function drift(samples, at, position) {
  const [first] = samples;
  return Math.max(...samples.map((s) => (at(s) - at(first)) - (position(s) - position(first))));
}
