/**
 * A stream for Shaka Player: a scheme of its own, by which the player asks for playlist and segments. Types are written out as
 * far as they are needed, so that a page may have any Shaka that plays HLS.
 */

import { HlsView, HttpError, type Load, PLAYLIST } from '../hls/source.ts';
import type { Stream } from '../stream.ts';

const MIME_TYPE = 'application/x-mpegurl';

/** What is needed of Shaka: `globalThis.shaka`, or the package's default export. */
export interface ShakaLibrary {
  net: { NetworkingEngine: { registerScheme(scheme: string, plugin: any): void } };
  util: { Error: any };
}

/** How a stream is played: `player.load(url, null, mimeType)`. */
export interface ShakaSource { url: string; mimeType: string }

interface ShakaRequest { headers: Record<string, string> }

/** Tells Shaka of a scheme for one player. `origin` is the stream's playlist at the publisher's. */
export function shakaSource(shaka: ShakaLibrary, stream: Stream, origin: string | null): ShakaSource {
  const view = new HlsView(stream, origin);
  const scheme = `headwater-${view.number}`;
  const base = `${scheme}://stream/`;
  const { Code, Severity, Category } = shaka.util.Error;
  const failure = (e: unknown, aborted: boolean, uri: string) => {
    if (aborted) return new shaka.util.Error(Severity.CRITICAL, Category.PLAYER, Code.OPERATION_ABORTED);
    const [code, more] = e instanceof HttpError ? [Code.BAD_HTTP_STATUS, [e.code, e.message]] : [Code.HTTP_ERROR, [e]];
    // Shaka asks again, as often as it is configured to.
    return new shaka.util.Error(Severity.RECOVERABLE, Category.NETWORK, code, uri, ...more);
  };

  const plugin = (uri: string, request: ShakaRequest) => {
    const abort = new AbortController();
    const load: Load = { signal: abort.signal, first() {}, came() {} };
    const answer = async () => {
      const name = uri.slice(base.length);
      if (name === PLAYLIST) {
        const data = new TextEncoder().encode(await view.playlist(load));
        return { data: data.buffer, fromCache: true, mimeType: MIME_TYPE };
      }
      const { headers } = request;
      const ranges = Object.entries(headers).find(([header]) => header.toLowerCase() === 'range')?.[1];
      const [, start, last] = /^bytes=(\d+)-(\d+)$/.exec(ranges ?? '') ?? [];
      const part = last === undefined ? {} : { rangeStart: Number(start), rangeEnd: Number(last) + 1 };
      const { data, ofStream } = await view.segment(name, part, load);
      // What was here before it was asked for says nothing of the network.
      return { data, fromCache: ofStream, mimeType: 'application/octet-stream' };
    };
    const promise = answer().then(({ data, fromCache, mimeType }) => ({
      uri, originalUri: uri, data, status: 200, headers: { 'content-type': mimeType }, fromCache, originalRequest: request,
    }), (e: unknown) => { throw failure(e, abort.signal.aborted, uri); });
    const operation = {
      promise,
      abort: () => {
        abort.abort();
        return promise.then(() => {}, () => {});
      },
      finally: (f: (done: boolean) => void) => {
        promise.then(() => f(true), () => f(false));
        return operation;
      },
    };
    return operation;
  };

  shaka.net.NetworkingEngine.registerScheme(scheme, plugin);
  return { url: base + PLAYLIST, mimeType: MIME_TYPE };
}
