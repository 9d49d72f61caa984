/**
 * A loader for hls.js: playlists and segments of a stream come from peers, whatever else is asked for by fetch. Types are
 * written out as far as they are needed, so that a page may have any hls.js of version 1.
 */

import type { Stream } from '../stream.ts';
import { likeOurs, meaning, mediaPlaylist } from './playlist.ts';

/** What playlists and segments of streams are called; nothing is ever asked for there. */
const SCHEME = 'https://headwater.invalid/';
const PLAYLIST = 'live.m3u8';
/** A player begins so many segments before the end (RFC 8216, section 6.3.3). */
const BEGINS_BEFORE_END = 3;
/** So many are waited for no longer than this: the stream may have no more yet. */
const MORE_WITHIN_MS = 1_000;
/** A stream of which nothing is here by then is played from the origin, where the page said where that is. */
const ORIGIN_AFTER_MS = 1_500;
/** So is one of which nothing new has come for so many segments' time. */
const STALE_SEGMENTS = 1.5;
/** Without an origin the player is told to ask again by then. */
const BEGINS_WITHIN_MS = 10_000;
/**
 * What was here before it was asked for says nothing of the network: it counts as loaded at this many times the stream's
 * rate, or as fast as the network has been, so that the player's estimate stays honest.
 */
const FROM_MEMORY = 4;

interface Times { start: number; first: number; end: number }
interface LoaderStats {
  aborted: boolean; loaded: number; retry: number; total: number; chunkCount: number; bwEstimate: number;
  loading: Times; parsing: { start: number; end: number }; buffering: Times;
}
interface Context { url: string; responseType?: string; rangeStart?: number; rangeEnd?: number; headers?: Record<string, string> }
interface Response { url: string; data: string | ArrayBuffer; code?: number }
interface Callbacks {
  onSuccess(response: Response, stats: LoaderStats, context: Context, details: unknown): void;
  onError(error: { code: number; text: string }, context: Context, details: unknown, stats: LoaderStats): void;
  onAbort?(stats: LoaderStats, context: Context, details: unknown): void;
}

/** What hls.js takes as `loader`; open where its types differ from version to version. */
export type HlsLoader = new (config: any) => {
  context: any;
  stats: LoaderStats;
  load(context: any, config: any, callbacks: any): void;
  abort(): void;
  destroy(): void;
};

/** How a stream is played: `new Hls({ loader })`, then `hls.loadSource(url)`. */
export interface HlsSource { url: string; loader: HlsLoader }

let players = 0;

const later = (ms: number) => new Promise<void>((done) => setTimeout(done, ms));

/** `given` is the stream's playlist at the publisher's, for when nothing else is there. */
export function hlsSource(stream: Stream, given: string | null): HlsSource {
  players += 1;
  const reader = players;
  const base = `${SCHEME}${players}/`;
  /** Where segments are at the origin, by their numbers in the stream. */
  let places = new Map<number, string>();
  let placesFrom: string | null = null;
  /** What stands in for a stream is played from its own playlist, as its log says. */
  const originNow = () => (given !== null && stream.standIn ? stream.track?.origins[0] ?? null : given);
  const newStats = (): LoaderStats => ({
    aborted: false, loaded: 0, retry: 0, total: 0, chunkCount: 0, bwEstimate: 0, loading: { start: 0, first: 0, end: 0 },
    parsing: { start: 0, end: 0 }, buffering: { start: 0, first: 0, end: 0 },
  });

  class Loader {
    context: Context | null = null;
    stats = newStats();
    #abort = new AbortController();
    #callbacks: Callbacks | null = null;

    constructor(_: unknown) {}

    load(context: Context, _: unknown, callbacks: Callbacks): void {
      [this.context, this.#callbacks] = [context, callbacks];
      this.stats.loading.start = performance.now();
      this.#load(context).then((data) => {
        if (this.stats.aborted || !this.#callbacks) return;
        const { stats } = this;
        stats.loading.end = Math.max(performance.now(), stats.loading.first);
        stats.loaded = stats.total = typeof data === 'string' ? data.length : data.byteLength;
        this.#honest(context);
        callbacks.onSuccess({ url: context.url, data, code: 200 }, stats, context, null);
      }, (e: unknown) => {
        if (this.stats.aborted || !this.#callbacks) return;
        const code = e instanceof HttpError ? e.code : 404;
        callbacks.onError({ code, text: e instanceof Error ? e.message : String(e) }, context, null, this.stats);
      });
    }

    abort(): void {
      if (this.stats.loading.end || this.stats.aborted) return;
      this.stats.aborted = true;
      this.#abort.abort();
      if (this.context) this.#callbacks?.onAbort?.(this.stats, this.context, null);
    }

    destroy(): void {
      this.#callbacks = null;
      // hls.js counts no load that was aborted, and destroys loaders that have done their work.
      if (!this.stats.loading.end) this.stats.aborted = true;
      this.#abort.abort();
    }

    getCacheAge(): null { return null; }
    getResponseHeader(): null { return null; }

    /** The time that the network would have taken counts, not this page's memory. */
    #honest(context: Context): void {
      if (!context.url.startsWith(base) || context.url.endsWith(PLAYLIST) || !stream.track) return;
      const rate = Math.max(stream.track.rate * FROM_MEMORY, stream.fastestDown);
      const { loading, loaded } = this.stats;
      loading.start = Math.min(loading.start, loading.end - (loaded * 1000) / rate);
      loading.first = Math.max(loading.start, Math.min(loading.first, loading.end));
    }

    async #load(context: Context): Promise<string | ArrayBuffer> {
      if (!context.url.startsWith(base)) return this.#fetch(context);
      const name = context.url.slice(base.length);
      return name === PLAYLIST ? this.#playlist() : this.#segment(name, context);
    }

    /** The playlist, as soon as there is enough to begin with; the origin's where that takes long. */
    async #playlist(): Promise<string> {
      const began = performance.now();
      let since: number | null = null;
      for (;;) {
        const now = performance.now();
        const window = stream.segments();
        const n = window.segments.length;
        if (n) since ??= now;
        const target = window.segments.at(-1)?.listed.targetDuration ?? 0;
        const origin = originNow();
        if (n && origin !== null && !window.ended && stream.stale > STALE_SEGMENTS * target) {
          const fromOrigin = await this.#originPlaylist(origin).catch(() => null);
          if (fromOrigin !== null) return fromOrigin;
        }
        const more = since !== null && now - since < MORE_WITHIN_MS;
        if (n >= BEGINS_BEFORE_END || (n && (window.ended || !more))) {
          this.stats.loading.first = now;
          return mediaPlaylist(window);
        }
        if (!n && origin !== null && now - began >= ORIGIN_AFTER_MS) return this.#originPlaylist(origin);
        if (!n && now - began >= BEGINS_WITHIN_MS) throw new Error(stream.problem ?? 'nothing of the stream is here yet');
        await Promise.race([stream.changed(), later(100)]);
        if (this.stats.aborted) throw new Error('aborted');
      }
    }

    async #originPlaylist(url: string): Promise<string> {
      const { list, places: found } = likeOurs(await this.#fetch({ url, responseType: 'text' }) as string, url);
      [places, placesFrom] = [found, url];
      return list;
    }

    /** From the stream; from the origin's playlist what the stream does not have, or parts of. */
    async #segment(name: string, context: Context): Promise<string | ArrayBuffer> {
      const wanted = meaning(name);
      const listed = wanted && 'sequence' in wanted
        ? stream.segments().segments.find((s) => s.listed.sequence === wanted.sequence) : undefined;
      const number = wanted && 'object' in wanted ? wanted.object : listed?.number;
      const found = number === undefined || context.rangeEnd ? null : stream.open(number, reader);
      const place = wanted && 'sequence' in wanted && placesFrom === originNow() ? places.get(wanted.sequence) : undefined;
      if (!found && place !== undefined) return this.#fetch({ ...context, url: place });
      if (!found) throw new Error(`there is no ${name} in this stream, or no longer`);
      const out = new Uint8Array(found.bytes);
      let at = 0;
      for await (const chunk of found.chunks) {
        if (this.stats.aborted) throw new Error('aborted');
        this.stats.loading.first ||= performance.now();
        out.set(chunk, at);
        at += chunk.length;
        [this.stats.loaded, this.stats.chunkCount] = [at, this.stats.chunkCount + 1];
      }
      return out.buffer;
    }

    async #fetch({ url, responseType, rangeStart, rangeEnd, headers }: Context): Promise<string | ArrayBuffer> {
      const range: Record<string, string> = rangeEnd ? { range: `bytes=${rangeStart ?? 0}-${rangeEnd - 1}` } : {};
      const answer = await fetch(url, { signal: this.#abort.signal, headers: { ...headers, ...range } });
      if (!answer.ok) throw new HttpError(answer.status, `${url} answers ${answer.status}`);
      this.stats.loading.first = performance.now();
      return responseType === 'arraybuffer' ? answer.arrayBuffer() : answer.text();
    }
  }

  return { url: base + PLAYLIST, loader: Loader };
}

class HttpError extends Error {
  constructor(readonly code: number, what: string) { super(what); }
}

