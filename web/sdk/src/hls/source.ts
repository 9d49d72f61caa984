/** A stream as HLS, for whatever player: its playlist and segments come from peers, and from the origin where they do not. */

import type { Stream } from '../stream.ts';
import { likeOurs, meaning, mediaPlaylist } from './playlist.ts';

/** What the playlist is called, beside which segments are. */
export const PLAYLIST = 'live.m3u8';
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

/** How a player loads one thing. */
export interface Load {
  /** Ends it. */
  readonly signal: AbortSignal;
  /** Called when its first byte is there. */
  first(): void;
  /** Called with how much is there so far. */
  came(bytes: number): void;
}

/** A part of something, by HTTP's ways; all of it without `rangeEnd`, which is behind its last byte. */
export interface Part { rangeStart?: number; rangeEnd?: number; headers?: Record<string, string> }

export class HttpError extends Error {
  constructor(readonly code: number, what: string) { super(what); }
}

let players = 0;
const later = (ms: number) => new Promise<void>((done) => setTimeout(done, ms));

/** What one player gets of a stream. */
export class HlsView {
  /** Of this player on this page. */
  readonly number = ++players;
  /** Where segments are at the origin, by their numbers in the stream. */
  #places = new Map<number, string>();
  #placesFrom: string | null = null;

  /** `given` is the stream's playlist at the publisher's, for when nothing else is there. */
  constructor(readonly stream: Stream, readonly given: string | null) {}

  /** What stands in for a stream is played from its own playlist, as its log says. */
  get origin(): string | null {
    const { given, stream } = this;
    return given !== null && stream.standIn ? stream.track?.origins[0] ?? null : given;
  }

  /** The playlist, as soon as there is enough to begin with; the origin's where that takes long. */
  async playlist(load: Load): Promise<string> {
    const { stream } = this;
    const began = performance.now();
    let since: number | null = null;
    for (;;) {
      const now = performance.now();
      const window = stream.segments();
      const n = window.segments.length;
      if (n) since ??= now;
      const target = window.segments.at(-1)?.listed.targetDuration ?? 0;
      const { origin } = this;
      if (n && origin !== null && !window.ended && stream.stale > STALE_SEGMENTS * target) {
        const fromOrigin = await this.#originPlaylist(origin, load).catch(() => null);
        if (fromOrigin !== null) return fromOrigin;
      }
      const more = since !== null && now - since < MORE_WITHIN_MS;
      if (n >= BEGINS_BEFORE_END || (n && (window.ended || !more))) {
        load.first();
        return mediaPlaylist(window);
      }
      if (!n && origin !== null && now - began >= ORIGIN_AFTER_MS) return this.#originPlaylist(origin, load);
      if (!n && now - began >= BEGINS_WITHIN_MS) throw new Error(stream.problem ?? 'nothing of the stream is here yet');
      await Promise.race([stream.changed(), later(100)]);
      load.signal.throwIfAborted();
    }
  }

  async #originPlaylist(url: string, load: Load): Promise<string> {
    const { list, places } = likeOurs(await (await fetched(url, {}, load)).text(), url);
    [this.#places, this.#placesFrom] = [places, url];
    return list;
  }

  /**
   * A segment by its name in the playlist, and whether it came by the stream; from the origin's playlist what the stream does
   * not have, or parts of.
   */
  async segment(name: string, part: Part, load: Load): Promise<{ data: ArrayBuffer; ofStream: boolean }> {
    const wanted = meaning(name);
    const listed = wanted && 'sequence' in wanted
      ? this.stream.segments().segments.find((s) => s.listed.sequence === wanted.sequence) : undefined;
    const number = wanted && 'object' in wanted ? wanted.object : listed?.number;
    const found = number === undefined || part.rangeEnd ? null : this.stream.open(number, this.number);
    const isOfOrigin = wanted && 'sequence' in wanted && this.#placesFrom === this.origin;
    const place = isOfOrigin ? this.#places.get(wanted.sequence) : undefined;
    if (!found && place !== undefined) return { data: await (await fetched(place, part, load)).arrayBuffer(), ofStream: false };
    if (!found) throw new Error(`there is no ${name} in this stream, or no longer`);
    const out = new Uint8Array(found.bytes);
    let at = 0;
    for await (const chunk of found.chunks) {
      load.signal.throwIfAborted();
      load.first();
      out.set(chunk, at);
      at += chunk.length;
      load.came(at);
    }
    return { data: out.buffer, ofStream: true };
  }
}

/** What is there by HTTP; throws `HttpError` for another status than one of success. */
export async function fetched(url: string, { rangeStart, rangeEnd, headers }: Part, load: Load): Promise<Response> {
  const range: Record<string, string> = rangeEnd ? { range: `bytes=${rangeStart ?? 0}-${rangeEnd - 1}` } : {};
  const answer = await fetch(url, { signal: load.signal, headers: { ...headers, ...range } });
  if (!answer.ok) throw new HttpError(answer.status, `${url} answers ${answer.status}`);
  load.first();
  return answer;
}
