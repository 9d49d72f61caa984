/**
 * A loader for hls.js: playlists and segments of a stream come from peers, whatever else is asked for by fetch. Types are
 * written out as far as they are needed, so that a page may have any hls.js of version 1.
 */

import type { Stream } from '../stream.ts';
import { HlsView, HttpError, type Load, PLAYLIST, type Part, fetched } from './source.ts';

/** What playlists and segments of streams are called; nothing is ever asked for there. */
const SCHEME = 'https://headwater.invalid/';
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
interface Context extends Part { url: string; responseType?: string }
interface Answer { url: string; data: string | ArrayBuffer; code?: number }
interface Callbacks {
  onSuccess(response: Answer, stats: LoaderStats, context: Context, details: unknown): void;
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

/** `origin` is the stream's playlist at the publisher's, for when nothing else is there. */
export function hlsSource(stream: Stream, origin: string | null): HlsSource {
  const view = new HlsView(stream, origin);
  const base = `${SCHEME}${view.number}/`;
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
      const { stats } = this;
      const load: Load = {
        signal: this.#abort.signal,
        first() { stats.loading.first ||= performance.now(); },
        came(bytes) { [stats.loaded, stats.chunkCount] = [bytes, stats.chunkCount + 1]; },
      };
      if (!context.url.startsWith(base)) {
        const answer = await fetched(context.url, context, load);
        return context.responseType === 'arraybuffer' ? answer.arrayBuffer() : answer.text();
      }
      const name = context.url.slice(base.length);
      return name === PLAYLIST ? view.playlist(load) : (await view.segment(name, context, load)).data;
    }
  }

  return { url: base + PLAYLIST, loader: Loader };
}
