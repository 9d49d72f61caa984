/** Signed logs: what a publisher says about a content. Nothing is used before it is verified here. */

import { type Entry, type LiveEntry as WireLiveEntry, type Log, ObjectKind } from './wire/headwater_pb.ts';
import { type Octets, concat, equal, hex, sha256, text, u64, whole } from './octets.ts';
import { contentOf } from './name.ts';

const MAX_SUBSTREAMS = 32;
const MAX_ENTRY_PIECES = 128;
const MAX_OBJECT_PIECES = 1 << 16;
const MAX_KEY_CHANGES = 16;
const MAX_WINDOW_US = 6 * 3600 * 1_000_000;
const MAX_SEGMENT_US = 3600 * 1_000_000;
const MAX_URL_BYTES = 4096;

/** Content and version. */
export interface Version { content: Octets; epoch: bigint }

/** What a verified log says of a live track. */
export interface LiveTrack {
  version: Version;
  name: string;
  substreams: number;
  /** Payload of the whole stream, bytes per second. */
  rate: number;
  /** How long nodes keep pieces, microseconds. */
  window: number;
  pieceBytes: number;
  origins: string[];
  verify(message: Octets, signature: Uint8Array): Promise<boolean>;
}

export interface Listed {
  sequence: number;
  /** Microseconds. */
  duration: number;
  targetDuration: number;
  discontinuity: boolean;
  map: number | null;
  recordedUnixUs: number | null;
  origin: { url: string; from: number } | null;
}

/** One signed statement of a live track, verified. */
export interface LiveEntry {
  number: number;
  previous: number | null;
  timeUnixMs: number;
  object: number;
  kind: ObjectKind;
  offset: number;
  firstPiece: number;
  bytes: number;
  /** Hash of each piece, hexadecimal. */
  leaves: string[];
  complete: boolean;
  listed: Listed | null;
  last: boolean;
}

/** The log is not its publisher's, or not what was asked for. */
export class LogError extends Error {}

type Verify = LiveTrack['verify'];

async function verifier(key: Uint8Array): Promise<Verify> {
  const imported = await crypto.subtle.importKey('raw', concat(key), 'Ed25519', false, ['verify']);
  return (message, signature) => crypto.subtle.verify('Ed25519', imported, concat(signature), message);
}

/** The key that signs, of a log of this name under the pinned key; and the content's id. */
async function verifyKey(log: Log, name: string, pinned: Uint8Array): Promise<{ content: Octets; verify: Verify }> {
  if (!equal(await sha256(log.firstKey), pinned)) throw new LogError('the name pins another key than the log begins with');
  if (log.name !== name) throw new LogError(`the log is for "${log.name}", not for "${name}"`);
  if (log.keyChanges.length > MAX_KEY_CHANGES) throw new LogError('more than 16 key changes');
  const content = await contentOf(pinned, name);
  let verify = await verifier(log.firstKey);
  for (const change of log.keyChanges) {
    const said = concat(content, text('headwater key change\0'), change.next);
    if (!await verify(said, change.signature)) throw new LogError('the signature of a key change is wrong');
    verify = await verifier(change.next);
  }
  return { content, verify };
}

/** What the log of a live stream says, under the key that the name pins. */
export async function verifyLiveLog(log: Log, name: string, pinned: Uint8Array): Promise<LiveTrack> {
  const { content, verify } = await verifyKey(log, name, pinned);
  const [entry] = log.entries;
  if (!entry || log.entries.length !== 1 || !entry.live) throw new LogError('this is no live stream');
  if (!await verify(concat(content, signedBytes(entry)), entry.signature)) {
    throw new LogError('the signature of an entry is wrong');
  }
  const isFirst = entry.number === 0 && entry.previous.every((b) => b === 0) && !entry.last && !entry.objects.length;
  const { substreams, rateBytesPerS, windowUs } = entry.live;
  const isSane = substreams >= 1 && substreams <= MAX_SUBSTREAMS && rateBytesPerS > 0n && windowUs <= BigInt(MAX_WINDOW_US)
    && entry.pieceBytes > 0 && entry.pieceBytes <= 4 << 20;
  if (!isFirst || !isSane) throw new LogError('the log of the stream is not what one is');
  return {
    version: { content, epoch: entry.epoch }, name, substreams, rate: whole(rateBytesPerS), window: whole(windowUs),
    pieceBytes: entry.pieceBytes, origins: entry.origins, verify,
  };
}

const MAX_ENTRIES = 4096;
const MAX_PIECES = 1 << 22;
const MIN_PIECE_BYTES = 4 << 10;
const RUN_BYTES = 1 << 20;
const MAX_RUNS = 2048;

/** What a verified log says of a closed track of one object. */
export interface FileTrack {
  version: Version;
  /** Path of the file. */
  path: string;
  mediaType: string;
  bytes: number;
  pieceBytes: number;
  pieces: number;
  runPieces: number;
  root: Octets;
  origins: string[];
}

/** What the log of a file says, under the key that the name pins. */
export async function verifyFileLog(log: Log, name: string, pinned: Uint8Array): Promise<FileTrack> {
  const { content, verify } = await verifyKey(log, name, pinned);
  const [first] = log.entries;
  if (!first || log.entries.length > MAX_ENTRIES) throw new LogError('the log has no entries, or too many');
  if (first.live) throw new LogError('this is a live stream, no file');
  let previous: Uint8Array = new Uint8Array(32);
  let leaves = 0;
  for (const [i, e] of log.entries.entries()) {
    const bytes = signedBytes(e);
    if (!await verify(concat(content, bytes), e.signature)) throw new LogError('the signature of an entry is wrong');
    const follows = e.number === i && equal(e.previous, previous) && e.firstLeaf === leaves && e.leaves >= leaves
      && e.epoch === first.epoch && e.pieceBytes === first.pieceBytes && e.last === (i + 1 === log.entries.length);
    if (!follows) throw new LogError('an entry does not follow the one before it');
    previous = await sha256(bytes);
    leaves = e.leaves;
  }
  const objects = log.entries.flatMap((e) => e.objects);
  const [object] = objects;
  if (!object || objects.length !== 1) throw new LogError('this is a folder: a page fetches single files');
  const { pieceBytes } = first;
  const bytes = whole(object.sizeBytes);
  const pieces = Math.ceil(bytes / pieceBytes);
  const isSize = pieceBytes >= MIN_PIECE_BYTES && pieceBytes <= 4 << 20 && (pieceBytes & (pieceBytes - 1)) === 0;
  if (!isSize || pieces !== leaves || pieces > MAX_PIECES || pieces === 0) throw new LogError('the layout is not one');
  const runPieces = Math.max(1, Math.floor(RUN_BYTES / pieceBytes), Math.ceil(pieces / MAX_RUNS));
  const last = log.entries.at(-1) as Entry;
  return {
    version: { content, epoch: first.epoch }, path: object.path, mediaType: object.mediaType, bytes, pieceBytes, pieces, runPieces,
    root: concat(last.root), origins: first.origins,
  };
}

/** The bytes that are signed of an entry of a log. */
export function signedBytes(e: Entry): Octets {
  const said = (s: string) => [u64(text(s).length), text(s)];
  const format = e.live ? 3 : e.sums.length ? 2 : 1;
  return concat(
    text('headwater log entry\0'), u64(format), ...said(e.track), u64(e.epoch), u64(e.number), e.previous,
    u64(e.timeUnixMs), u64(e.pieceBytes), u64(e.objects.length),
    ...e.objects.flatMap((o) => [...said(o.path), ...said(o.mediaType), u64(o.sizeBytes)]),
    u64(e.firstLeaf), u64(e.leaves), e.root, u64(e.origins.length), ...e.origins.flatMap(said),
    Uint8Array.of(e.last ? 1 : 0), e.sums,
    ...(e.live ? [Uint8Array.of(e.live.substreams), u64(e.live.rateBytesPerS), u64(e.live.windowUs)] : []),
  );
}

/** Checks signature, version and limits of an entry of a stream; `null` if it is not its publisher's. */
export async function verifyLiveEntry(e: WireLiveEntry, track: LiveTrack): Promise<LiveEntry | null> {
  if (e.epoch !== track.version.epoch || e.signature.length !== 64 || e.leaves.length % 32) return null;
  const pieces = e.leaves.length / 32;
  const l = e.listed;
  const sane = pieces <= MAX_ENTRY_PIECES && Math.ceil(e.bytes / track.pieceBytes) === pieces
    && Number(e.offset) / track.pieceBytes + pieces <= MAX_OBJECT_PIECES
    && (e.previous === undefined || e.previous < e.number)
    && (!l || ((l.originUrl === '' || /^https?:\/\//.test(l.originUrl)) && l.originUrl.length <= MAX_URL_BYTES
      && Number(l.durationUs) <= MAX_SEGMENT_US && Number(l.targetDurationUs) <= MAX_SEGMENT_US));
  if (!sane || !await track.verify(liveSignedBytes(e, track.version.content), e.signature)) return null;
  const leaves = Array.from({ length: pieces }, (_, i) => hex(e.leaves.subarray(32 * i, 32 * i + 32)));
  const maybe = (n: bigint | undefined) => (n === undefined ? null : whole(n));
  return {
    number: whole(e.number), previous: maybe(e.previous), timeUnixMs: whole(e.timeUnixMs), object: whole(e.object),
    kind: e.kind, offset: whole(e.offset), firstPiece: whole(e.firstPiece), bytes: e.bytes, leaves, complete: e.complete,
    last: e.last,
    listed: l ? {
      sequence: whole(l.sequence), duration: whole(l.durationUs), targetDuration: whole(l.targetDurationUs),
      discontinuity: l.discontinuity, map: maybe(l.map), recordedUnixUs: maybe(l.recordedUnixUs),
      origin: l.originUrl ? { url: l.originUrl, from: whole(l.originFrom) } : null,
    } : null,
  };
}

/** The bytes that are signed of an entry of a stream. */
export function liveSignedBytes(e: WireLiveEntry, content: Uint8Array): Octets {
  const flag = (is: boolean) => Uint8Array.of(is ? 1 : 0);
  const maybe = (n: bigint | undefined) => [flag(n !== undefined), u64(n ?? 0n)];
  const l = e.listed;
  return concat(
    content, text('headwater live entry\0'), u64(1), u64(e.epoch), u64(e.number), ...maybe(e.previous),
    u64(e.timeUnixMs), u64(e.object), Uint8Array.of(e.kind), u64(e.offset), u64(e.firstPiece), u64(e.bytes),
    u64(e.leaves.length / 32), e.leaves, flag(e.complete), flag(e.last), flag(l !== undefined),
    ...(l ? [
      u64(l.sequence), u64(l.durationUs), u64(l.targetDurationUs), flag(l.discontinuity), ...maybe(l.map),
      ...maybe(l.recordedUnixUs), u64(l.originUrl ? l.originFrom : 0n), u64(text(l.originUrl).length), text(l.originUrl),
    ] : []),
  );
}

/** Number of the piece that follows its last one. */
export const endPiece = (e: LiveEntry): number => e.firstPiece + e.leaves.length;

/** Place in the object and length of a piece. */
export function placeOf(e: LiveEntry, piece: number, pieceBytes: number): { at: number; bytes: number } | null {
  const index = piece - e.firstPiece;
  if (index < 0 || index >= e.leaves.length) return null;
  const before = index * pieceBytes;
  return { at: e.offset + before, bytes: Math.min(e.bytes - before, pieceBytes) };
}
