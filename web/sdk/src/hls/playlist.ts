/** The media playlist that a player gets, from a window of segments. As `crates/hls/src/write.rs`. */

import { ObjectKind } from '../wire/headwater_pb.ts';
import type { Segment } from '../stream.ts';

const VERSION = 7;
/** So many missing segments in a row are listed as missing. Behind a longer hole the playlist begins anew. */
const MAX_GAPS = 64;
const ENDINGS: Record<number, string> = {
  [ObjectKind.TS]: 'ts', [ObjectKind.MP4]: 'm4s', [ObjectKind.MP4_INIT]: 'mp4', [ObjectKind.AAC]: 'aac', [ObjectKind.VTT]: 'vtt',
};

/** As playlists call an object. */
export const nameOf = (number: number, kind: ObjectKind): string => `${number}.${ENDINGS[kind] ?? 'bin'}`;

/** The object of such a name. */
export function objectOf(name: string): number | null {
  const digits = /^(\d{1,16})\.\w+$/.exec(name)?.[1];
  return digits === undefined ? null : Number(digits);
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
  for (const { number, object, listed } of shown) {
    const name = nameOf(number, object.kind);
    for (let gap = expected ?? listed.sequence; gap < listed.sequence; gap += 1) {
      lines.push('#EXT-X-GAP', seconds(target), `gap-${gap}.${name.split('.')[1]}`);
    }
    if (listed.discontinuity) lines.push('#EXT-X-DISCONTINUITY');
    if (listed.map !== null && listed.map !== map) {
      map = listed.map;
      lines.push(`#EXT-X-MAP:URI="${nameOf(map, ObjectKind.MP4_INIT)}"`);
    }
    if (listed.recordedUnixUs !== null) {
      lines.push(`#EXT-X-PROGRAM-DATE-TIME:${new Date(listed.recordedUnixUs / 1000).toISOString()}`);
    }
    lines.push(seconds(listed.duration), name);
    expected = listed.sequence + 1;
  }
  if (ended) lines.push('#EXT-X-ENDLIST');
  return `${lines.join('\n')}\n`;
}
