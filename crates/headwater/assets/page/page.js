// What the demo's page does: it plays, downloads, and counts by source, every half second.
'use strict';

const LOOK_MS = 500;
const SHOWN_S = 60;
/** Rates are those of the last whole seconds. */
const RATE_S = 3;
const BLUES = ['#1c6fb5', '#36a2c9', '#2a9d8f', '#7cb65c', '#5a78c9', '#8cc5e8', '#1f5d73', '#a5c98b'];
const KINDS = {
  viewer: { what: 'another viewer', order: 0 },
  waypoint: { what: 'a helper that the operator runs', color: '#8e5bb5', order: 1 },
  publisher: { what: 'where the channel is made', color: '#8a8f98', order: 2 },
  origin: { what: 'the publisher\'s web server', color: '#e8842c', order: 3 },
};

const of = (id) => document.getElementById(id);
const say = (id, text, kind = '') => Object.assign(of(id), { textContent: text }).classList.toggle('bad', kind === 'bad');
const made = (tag, text = '', more = {}) => Object.assign(document.createElement(tag), { textContent: text, ...more });
const rounded = (n) => n.toFixed(n < 10 ? 1 : 0);

function bytes(n) {
  if (n >= 1e9) return `${rounded(n / 1e9)} GB`;
  return n >= 1e6 ? `${rounded(n / 1e6)} MB` : `${Math.round(n / 1e3)} kB`;
}

/** Bytes by source over time: bars of a second that are stacked, and a table that is their legend. */
class Picture {
  constructor(name, sources) {
    [this.canvas, this.table] = [of(`${name}-picture`), of(`${name}-table`)];
    this.sources = [...sources].sort((a, b) => KINDS[a.kind].order - KINDS[b.kind].order);
    this.totals = new Map(this.sources.map((s) => [s.node, 0]));
    this.told = new Map();
    this.seconds = [];
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    const show = () => {
      this.draw();
      this.tell();
    };
    setInterval(show, LOOK_MS);
    show();
  }

  /** What the SDK counts now; a parent that comes back is counted from 0 again. */
  count(counts) {
    const second = Math.floor(performance.now() / 1000);
    let bar = this.seconds.at(-1);
    if (bar?.second !== second) this.seconds.push(bar = { second, by: new Map() });
    while (this.seconds[0].second < second - SHOWN_S) this.seconds.shift();
    for (const { node, bytes: n } of counts) {
      const before = this.told.get(node) ?? 0;
      const more = n < before ? n : n - before;
      this.told.set(node, n);
      if (!more || !this.totals.has(node)) continue;
      this.totals.set(node, this.totals.get(node) + more);
      bar.by.set(node, (bar.by.get(node) ?? 0) + more);
    }
  }

  draw() {
    const { clientWidth: w, clientHeight: h } = this.canvas;
    const scale = devicePixelRatio || 1;
    Object.assign(this.canvas, { width: w * scale, height: h * scale });
    const to = this.canvas.getContext('2d');
    to.scale(scale, scale);
    to.font = '12px system-ui, sans-serif';
    const [left, bottom, top] = [62, h - 20, 8];
    const sum = (bar) => [...bar.by.values()].reduce((a, b) => a + b, 0);
    const most = nice(Math.max(20e3, ...this.seconds.map(sum)));
    to.fillStyle = '#5d6b7a';
    to.strokeStyle = '#e6eaee';
    for (const share of [0, 0.5, 1]) {
      const y = Math.round(bottom - share * (bottom - top)) + 0.5;
      to.beginPath();
      to.moveTo(left, y);
      to.lineTo(w, y);
      to.stroke();
      to.textAlign = 'right';
      to.fillText(share ? `${bytes(most * share)}/s` : '0', left - 8, y + 4);
    }
    to.textAlign = 'left';
    to.fillText(`${SHOWN_S} s ago`, left, h - 4);
    to.textAlign = 'right';
    to.fillText('now', w, h - 4);
    const width = (w - left) / SHOWN_S;
    const now = Math.floor(performance.now() / 1000);
    for (const bar of this.seconds) {
      let y = bottom;
      const x = w - (now - bar.second + 1) * width;
      if (x < left - 1) continue;
      for (const s of this.sources) {
        const height = ((bar.by.get(s.node) ?? 0) / most) * (bottom - top);
        to.fillStyle = s.color;
        to.fillRect(x + 0.5, y - height, Math.max(1, width - 1), height);
        y -= height;
      }
    }
  }

  /** The legend: who that is, how fast in the last whole seconds, and how much so far. */
  tell() {
    const now = Math.floor(performance.now() / 1000);
    const last = this.seconds.filter((bar) => bar.second < now && bar.second >= now - RATE_S);
    const all = [...this.totals.values()].reduce((a, b) => a + b, 0);
    const rate = (node) => last.reduce((n, bar) => n + (bar.by.get(node) ?? 0), 0) / RATE_S;
    const row = (words, rate, total, kind = '') => {
      const tr = made('tr', '', { className: kind });
      const share = all ? `${((100 * total) / all).toFixed(1)} %` : '';
      tr.append(words, made('td', rate ? `${bytes(rate)}/s` : '–'), made('td', bytes(total)), made('td', share));
      return tr;
    };
    const head = made('tr');
    head.append(...['Bytes came from', 'Now', 'So far', 'Share'].map((text) => made('th', text)));
    const rows = this.sources.map((s) => {
      const words = made('td');
      const swatch = made('i');
      swatch.style.background = s.color;
      words.append(swatch, s.name.replace('-', ' '), ' ', made('small', KINDS[s.kind].what));
      return row(words, rate(s.node), this.totals.get(s.node), this.totals.get(s.node) ? '' : 'idle');
    });
    const sum = this.sources.reduce((n, s) => n + rate(s.node), 0);
    this.table.replaceChildren(head, ...rows, row(made('td', 'All'), sum, all, 'all'));
  }
}

/** The next of 1, 2, 5, 10, 20 … that is not less. */
function nice(n) {
  const unit = 10 ** Math.floor(Math.log10(n));
  return unit * [1, 2, 5, 10].find((step) => step * unit >= n);
}

async function play(headwater, about, sources) {
  const picture = new Picture('live', sources);
  const stream = await headwater.stream(about.channel, { origin: about.playlist });
  const video = of('video');
  let hls = null;
  if (about.player) {
    await new Promise((done, failed) => {
      document.head.append(made('script', '', { src: 'hls.min.js', onload: done, onerror: () => failed(new Error('no hls.js')) }));
    });
    const { url, loader } = stream.hls();
    hls = new Hls({ loader });
    hls.loadSource(url);
    hls.attachMedia(video);
  }
  [video.hidden, of('empty').hidden] = [!hls, Boolean(hls)];
  const look = () => {
    const s = stream.statistics();
    picture.count([...s.sources, { node: 'origin', bytes: s.originBytes }]);
    say('live-words', stream.problem ?? `${s.parents} connections with peers, ${s.lostPieces} pieces lost`);
    const recorded = hls?.playingDate?.getTime();
    if (recorded) say('play-words', `${((Date.now() - recorded) / 1000).toFixed(1)} s behind the recording`);
    seen.live = { ...s, position_s: video.currentTime, frames: video.getVideoPlaybackQuality().totalVideoFrames };
  };
  setInterval(look, LOOK_MS);
}

/** SHA-256 of what is on this page's disk now, as `sha256sum` would say it. */
async function sha256(blob) {
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', await blob.arrayBuffer()));
  return [...digest].map((b) => b.toString(16).padStart(2, '0')).join('');
}

function offer(headwater, about, sources) {
  const { hw, bytes: size, sha256: wanted } = about.film;
  const picture = new Picture('file', sources.filter((s) => s.kind !== 'publisher'));
  say('file-words', bytes(size));
  of('download').disabled = false;
  of('download').onclick = async () => {
    of('download').disabled = true;
    const began = performance.now();
    const look = () => {
      const p = download.progress();
      of('bar').value = p.total ? p.bytes / p.total : 0;
      picture.count([...p.sources, { node: 'origin', bytes: p.originBytes }]);
      const s = (performance.now() - began) / 1000;
      say('file-say', `${bytes(p.bytes)} of ${bytes(size)} in ${s.toFixed(0)} s, from ${p.parents} peers`);
    };
    const { file: download } = await headwater.download(hw, { resident: 'never' });
    const looking = setInterval(look, LOOK_MS);
    try {
      const { blob } = await download.done;
      look();
      const found = await sha256(blob);
      const same = found === wanted;
      of('hash').classList.add(same ? 'good' : 'bad');
      say('hash', `SHA-256 ${found}${same ? ' – what the publisher has' : `, but the publisher has ${wanted}`}`, same ? '' : 'bad');
      seen.file = { ...download.progress(), same };
    } catch (e) {
      say('file-say', `It failed: ${e.message}`, 'bad');
      of('download').disabled = false;
    } finally {
      clearInterval(looking);
    }
  };
}

/** For whoever tries the page without looking. */
const seen = window.seen = { live: null, file: null, failed: null };

async function main() {
  const about = await (await fetch('demo.json')).json();
  let viewers = 0;
  const sources = [...about.sources, { node: 'origin', name: 'origin', kind: 'origin' }]
    .map((s) => ({ ...s, color: KINDS[s.kind].color ?? BLUES[viewers++ % BLUES.length] }));
  const headwater = await Headwater.connect({ control: about.control });
  const tell = () => say('session', headwater.connected
    ? `this page is the node ${headwater.node.slice(0, 8)}` : 'no session with the control center');
  headwater.on('session', tell);
  headwater.on('no-session', tell);
  headwater.on('limited', () => say('session', 'no connection with peers gets through: all comes from the origin', 'bad'));
  offer(headwater, about, sources);
  await play(headwater, about, sources);
}

main().catch((e) => {
  seen.failed = String(e.stack ?? e);
  say('session', `It failed: ${e.message}`, 'bad');
});
