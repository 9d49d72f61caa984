/**
 * What a page knows and holds of a live stream: entries, their objects and pieces, as far back as the stream's window.
 * As `peer-core/live/window.rs`.
 */

import { Sorted } from '../sorted.ts';
import { type Listed, type LiveEntry, type LiveTrack, endPiece, placeOf } from '../log.ts';
import type { ObjectKind } from '../wire/headwater_pb.ts';

const MAX_ENTRIES = 1 << 16;
/** An entry that is missing is asked for after this time: those of one object come over two ways. */
const ENTRY_PATIENCE = 150_000;
const ENTRY_AGAIN = 400_000;
/** Nobody has an entry that is missing for so long: it is given up. */
const ENTRY_GIVEN_UP = 5_000_000;

export interface Known { entry: LiveEntry; have: Set<number>; at: number }

/** An object, as far as entries tell. */
export interface StreamObject {
  kind: ObjectKind;
  listed: Listed | null;
  /** Its length; `null` while it grows. */
  bytes: number | null;
  /** Numbers of its entries with pieces, by their place in it. */
  entries: Sorted<number, number>;
  numbers: number[];
  timeUnixMs: number;
  lost: boolean;
}

/** A piece that is known and not here. */
export interface Missing {
  knownAt: number;
  object: number;
  asked: { node: string; at: number } | null;
  asks: number;
  passedOver: number | null;
  atOrigin: boolean;
}

export type Verdict = 'good' | 'bad' | 'useless' | 'early';

export class Window {
  entries = new Sorted<number, Known>();
  objects = new Sorted<number, StreamObject>();
  missing = new Sorted<number, Missing>();
  ended = false;
  lostPieces = 0;
  /** First piece to entry. */
  #byPiece = new Sorted<number, number>();
  /** Entries that others name and that are not here. */
  #unknown = new Sorted<number, { since: number; asked: number | null }>();
  #newest: { number: number; end: number; timeUnixMs: number } | null = null;
  #gone = 0;
  #gonePiece = 0;

  constructor(readonly track: LiveTrack) {}

  newestEntry(): number | null { return this.#newest?.number ?? null; }
  endPiece(): number { return this.#newest?.end ?? 0; }
  firstPiece(): number { return this.#gonePiece; }

  entryOf(piece: number): Known | null {
    const found = this.#byPiece.upTo(piece);
    const known = found && this.entries.get(found[1]);
    return known && piece < endPiece(known.entry) ? known : null;
  }

  has(piece: number): boolean { return this.entryOf(piece)?.have.has(piece) ?? false; }

  /** What bytes with this leaf hash are, said to be `piece`. */
  judge(piece: number, leaf: string, bytes: number): Verdict {
    const known = this.entryOf(piece);
    if (!known) return piece < this.#gonePiece ? 'useless' : 'early';
    if (known.have.has(piece)) return 'useless';
    const place = placeOf(known.entry, piece, this.track.pieceBytes);
    return place?.bytes === bytes && known.entry.leaves[piece - known.entry.firstPiece] === leaf ? 'good' : 'bad';
  }

  /** A verified entry. */
  enter(now: number, entry: LiveEntry): 'new' | 'known' | 'useless' {
    const { number } = entry;
    if (this.entries.has(number)) return 'known';
    if ((number <= this.#gone && this.#newest) || !this.#fits(entry) || this.entries.size >= MAX_ENTRIES) return 'useless';
    this.#unknown.delete(number);
    this.#missAround(now, entry);
    const object = this.objects.entry(entry.object, () => ({
      kind: entry.kind, listed: null, bytes: null, entries: new Sorted(), numbers: [], timeUnixMs: 0, lost: false,
    }));
    object.numbers.push(number);
    object.timeUnixMs = Math.max(object.timeUnixMs, entry.timeUnixMs);
    if (entry.listed) object.listed = entry.listed;
    if (entry.complete) object.bytes = entry.offset + entry.bytes;
    if (entry.leaves.length) {
      object.entries.set(entry.offset, number);
      this.#byPiece.set(entry.firstPiece, number);
    }
    for (let piece = entry.firstPiece; piece < endPiece(entry); piece += 1) {
      this.missing.set(piece, {
        knownAt: now, object: entry.object, asked: null, asks: 0, passedOver: null, atOrigin: false,
      });
    }
    this.ended ||= entry.last;
    if (!this.#newest || this.#newest.number < number) {
      this.#newest = { number, end: endPiece(entry), timeUnixMs: entry.timeUnixMs };
    }
    this.entries.set(number, { entry, have: new Set(), at: now });
    this.#forgetOld();
    return 'new';
  }

  /** Whether an entry's pieces are nobody else's. */
  #fits(entry: LiveEntry): boolean {
    const overlaps = (found: [number, number] | undefined) => {
      const other = found && this.entries.get(found[1])?.entry;
      return other ? endPiece(other) > entry.firstPiece && other.firstPiece < endPiece(entry) : false;
    };
    const object = this.objects.get(entry.object);
    if (object && object.kind !== entry.kind) return false;
    if (!entry.leaves.length) return true;
    return !object?.entries.has(entry.offset)
      && !overlaps(this.#byPiece.upTo(entry.firstPiece)) && !overlaps(this.#byPiece.from(entry.firstPiece));
  }

  /** The entry before this one, and the one before the next, which may have been the oldest here. */
  #missAround(now: number, { number, previous }: LiveEntry): void {
    const next = this.entries.from(number)?.[1].entry.previous ?? null;
    for (const before of [this.#newest ? previous : null, next === number ? null : next]) {
      if (before !== null && before > this.#gone && !this.entries.has(before)) {
        this.#unknown.entry(before, () => ({ since: now, asked: null }));
      }
    }
  }

  /** Somebody has this entry. */
  heardOf(now: number, number: number): void {
    const newest = this.#newest?.number ?? 0;
    if ((!this.#newest || newest < number) && number > this.#gone && !this.#unknown.from(newest)) {
      // Only the newest is remembered: what lies before it comes with it.
      this.#unknown.set(number, { since: now, asked: null });
    }
  }

  /** Whether an entry from before the newest one is missing and may still come. */
  awaitsEntries(): boolean {
    const newest = this.#newest?.number ?? 0;
    return [...this.#unknown.keys()].some((number) => number < newest);
  }

  /** Entries are to be asked for that come after this number. */
  entriesToAsk(now: number): number | null {
    for (const [number, { since }] of [...this.#unknown]) {
      if (now - since >= ENTRY_GIVEN_UP) this.#unknown.delete(number);
    }
    const due = [...this.#unknown].find(([, u]) =>
      now - u.since >= ENTRY_PATIENCE && (u.asked === null || now - u.asked >= ENTRY_AGAIN));
    if (!due) return null;
    for (const u of this.#unknown.values()) u.asked = now;
    return this.entries.before(due[0])?.[0] ?? this.#gone;
  }

  /** The piece was verified and is kept. */
  stored(piece: number): void {
    this.missing.delete(piece);
    this.entryOf(piece)?.have.add(piece);
  }

  /** A piece that nobody has any more. */
  giveUp(piece: number): void {
    const missing = this.missing.delete(piece);
    if (!missing) return;
    this.lostPieces += 1;
    const object = this.objects.get(missing.object);
    if (object) object.lost = true;
  }

  isHere(number: number): boolean {
    const object = this.objects.get(number);
    return object !== undefined && object.bytes !== null && this.#heldFrom(object, 0) === object.bytes;
  }

  /** The byte of an object up to which all is here, from `offset` on. */
  heldUpTo(number: number, offset: number): number {
    const object = this.objects.get(number);
    return object ? this.#heldFrom(object, offset) : offset;
  }

  #heldFrom(object: StreamObject, offset: number): number {
    let at = offset;
    for (;;) {
      const found = this.#pieceOf(object, at);
      const known = found && this.entryOf(found.piece);
      if (!known?.have.has(found?.piece ?? -1) || !found) return at;
      at = found.at + (placeOf(known.entry, found.piece, this.track.pieceBytes)?.bytes ?? 0);
    }
  }

  /** The piece with this byte of an object, and the byte at which that piece begins. */
  pieceAt(number: number, offset: number): { piece: number; at: number } | null {
    const object = this.objects.get(number);
    return object ? this.#pieceOf(object, offset) : null;
  }

  #pieceOf(object: StreamObject, offset: number): { piece: number; at: number } | null {
    const found = object.entries.upTo(offset);
    const entry = found && this.entries.get(found[1])?.entry;
    if (!entry || offset - entry.offset >= entry.bytes) return null;
    const nth = Math.floor((offset - entry.offset) / this.track.pieceBytes);
    return { piece: entry.firstPiece + nth, at: entry.offset + nth * this.track.pieceBytes };
  }

  /** The first piece of an object. */
  firstPieceOf(number: number): number | null {
    const first = this.objects.get(number)?.entries.first();
    return (first && this.entries.get(first[1])?.entry.firstPiece) ?? null;
  }

  /** Listed objects, oldest first. */
  *listed(): Generator<[number, StreamObject, Listed]> {
    for (const [number, object] of this.objects) if (object.listed) yield [number, object, object.listed];
  }

  /** What is older than the window goes, object by object. */
  #forgetOld(): void {
    if (!this.#newest) return;
    const since = this.#newest.timeUnixMs - this.track.window / 1000;
    const first = this.objects.first()?.[1];
    const tooMuch = () => this.entries.size > MAX_ENTRIES / 2;
    if (!(first && first.timeUnixMs < since) && !tooMuch()) return;
    const maps = new Set([...this.objects.values()].filter((o) => o.timeUnixMs >= since).map((o) => o.listed?.map));
    for (const number of [...this.objects.keys()]) {
      if ((this.objects.get(number) as StreamObject).timeUnixMs >= since && !tooMuch()) break;
      if (!maps.has(number)) this.#forget(number);
    }
    for (const number of [...this.#unknown.keys()]) if (number <= this.#gone) this.#unknown.delete(number);
  }

  #forget(object: number): void {
    for (const number of this.objects.delete(object)?.numbers ?? []) {
      const known = this.entries.delete(number);
      if (!known) continue;
      this.#gone = Math.max(this.#gone, number);
      const [first, end] = [known.entry.firstPiece, endPiece(known.entry)];
      if (first === end) continue;
      this.#byPiece.delete(first);
      this.#gonePiece = Math.max(this.#gonePiece, end);
      for (const [piece] of [...this.missing.range(first, end)]) this.missing.delete(piece);
    }
  }
}
