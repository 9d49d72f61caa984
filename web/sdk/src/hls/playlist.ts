/** The media playlist that a player gets, from a window of segments. As `crates/hls/src/write.rs`. */

import type { Segment } from '../stream.ts';

const VERSION = 7;
/** So many missing segments in a row are listed as missing. Behind a longer hole the playlist begins anew. */
const MAX_GAPS = 64;

/**
 * Segments are called by their number in the stream, wherever they come from: players take a segment whose address changed
 * for another one.
 */
const segmentName = (sequence: number): string => `segment-${sequence}`;
const mapName = (object: number): string => `init-${object}`;

/** What such a name means. */
export function meaning(name: string): { sequence: number } | { object: number } | null {
  const [, kind, digits] = /^(segment|init)-(\d{1,16})$/.exec(name) ?? [];
  if (digits === undefined) return null;
  return kind === 'segment' ? { sequence: Number(digits) } : { object: Number(digits) };
}

/** The origin's playlist with segments called as here, and where each of them is. */
export function likeOurs(said: string, url: string): { list: string; places: Map<number, string> } {
  const places = new Map<number, string>();
  const absolute = (uri: string) => new URL(uri, url).href;
  let sequence = Number(/^#EXT-X-MEDIA-SEQUENCE:(\d+)/m.exec(said)?.[1] ?? 0);
  const lines = said.split(/\r?\n/).map((line) => {
    if (line.startsWith('#')) return line.replace(/URI="([^"]*)"/, (_, uri: string) => `URI="${absolute(uri)}"`);
    if (!line.trim()) return line;
    places.set(sequence, absolute(line.trim()));
    return segmentName(sequence++);
  });
  return { list: lines.join('\n'), places };
}

export function mediaPlaylist({ segments, ended }: { segments: Segment[]; ended: boolean }): string {
  let first = 0;
  segments.forEach((s, i) => {
    const before = segments[i - 1];
    if (before && s.listed.sequence - before.listed.sequence - 1 > MAX_GAPS) first = i;
  });
  const shown = segments.slice(first);
  const left = segments.slice(0, first).filter((s) => s.listed.discontinuity).length;
  const target = segments.at(-1)?.listed.targetDuration ?? 2_000_000;
  const longest = Math.max(1, Math.ceil(target / 1_000_000), ...shown.map((s) => Math.round(s.listed.duration / 1_000_000)));
  const lines = ['#EXTM3U', `#EXT-X-VERSION:${VERSION}`, `#EXT-X-TARGETDURATION:${longest}`,
    `#EXT-X-MEDIA-SEQUENCE:${shown[0]?.listed.sequence ?? 0}`];
  if (left) lines.push(`#EXT-X-DISCONTINUITY-SEQUENCE:${left}`);
  const seconds = (us: number) => `#EXTINF:${(us / 1_000_000).toFixed(6)},`;
  let map: number | null = null;
  let expected: number | null = null;
  for (const { listed } of shown) {
    for (let gap = expected ?? listed.sequence; gap < listed.sequence; gap += 1) {
      lines.push('#EXT-X-GAP', seconds(target), segmentName(gap));
    }
    if (listed.discontinuity) lines.push('#EXT-X-DISCONTINUITY');
    if (listed.map !== null && listed.map !== map) {
      map = listed.map;
      lines.push(`#EXT-X-MAP:URI="${mapName(map)}"`);
    }
    if (listed.recordedUnixUs !== null) {
      lines.push(`#EXT-X-PROGRAM-DATE-TIME:${new Date(listed.recordedUnixUs / 1000).toISOString()}`);
    }
    lines.push(seconds(listed.duration), segmentName(listed.sequence));
    expected = listed.sequence + 1;
  }
  if (ended) lines.push('#EXT-X-ENDLIST');
  return `${lines.join('\n')}\n`;
}
