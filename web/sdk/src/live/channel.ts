/**
 * A live stream at a page: who pushes which substream to it, what it lacks and where it asks for that in time, and what
 * the player reads. Decides only: no I/O, no clock; times are microseconds. As `peer-core/live`, without children.
 */

import type { LiveEntry, LiveTrack } from '../log.ts';
import { placeOf } from '../log.ts';
import { Feeds } from './feeds.ts';
import { type Missing, type Verdict, Window } from './window.ts';
import { Readers } from './readers.ts';
import { Sorted } from '../sorted.ts';

/** Thresholds and limits; those of `LiveConfig`. */
export const CONFIG = {
  suspected: 500_000,
  silent: 700_000,
  behind: 1_000_000,
  behindPercent: 40,
  askAgain: 400_000,
  askAhead: 1_200_000,
  originAhead: 600_000,
  giveUp: 4_000_000,
  inTime: 5_000_000,
  maxAsked: 64,
  // As many connections as browsers make to one host.
  maxOriginJobs: 6,
  maxOriginPieces: 64,
};

/** A piece that a parent passed over may still come for so long. */
const MAY_COME = 1_000_000;
/** Nobody pushes a substream for so long: its pieces are asked for. */
const UNFED = 400_000;
/** A parent that pushed something so lately is at it. */
const FLOWS = 600_000;
/** Pieces looked at in one go. */
const MAX_LOOKED_AT = 4096;
/** Lags that are kept until a heartbeat says them: there is none while the control center is away. */
const MAX_LAGS = 4096;
const TICK = 50_000;
/** An origin that did not give what was asked for is left alone for so long, as one that refuses pages of other sites. */
const ORIGIN_RESTS = 2_000_000;
const ORIGIN_RESTS_MOST = 60_000_000;

/** A parent or spare, as the control center names it. */
export interface Parent {
  node: string;
  /** Substreams, one bit each. */
  substreams: number;
  addresses: string[];
  /** SHA-256 of its node's certificate, hexadecimal. */
  certificate: string;
  /** SHA-256 of the certificates that it shows to pages. */
  pageCertificates: Uint8Array[];
}

export interface Generation { epoch: number; counter: number }

export type Alarm =
  | { what: 'lost'; parent: string; why: string }
  | { what: 'silent'; parent: string }
  | { what: 'bad'; parent: string }
  | { what: 'behind'; parent: string; substreams: number };

/** What happens to a stream at a page. */
export type Input =
  | { is: 'assigned'; generation: Generation; parents: Parent[]; spares: Parent[] }
  | { is: 'connected'; node: string }
  | { is: 'lost'; node: string; why: string }
  | { is: 'feed-closed'; node: string; why: string }
  | { is: 'answered'; parent: string; refused: string | null }
  | { is: 'entries'; from: string | null; entries: LiveEntry[] }
  | { is: 'piece'; from: string | null; piece: number; verdict: Verdict; bytes: number }
  | { is: 'position'; node: string; newest: number; lacks: [number, number][] }
  | { is: 'origin-ended'; job: number }
  | { is: 'reads'; reader: number; object: number }
  | { is: 'reader-left'; reader: number }
  | { is: 'pause'; paused: boolean }
  | { is: 'control-time'; ms: number }
  | { is: 'tick' };

/** What it wants done. */
export type Output =
  | { do: 'dial'; parent: Parent }
  | { do: 'open-edge'; node: string }
  | { do: 'close-edge'; node: string }
  | { do: 'subscribe'; node: string; substreams: number; from: number | null }
  | { do: 'ask'; node: string; pieces: number[] }
  | { do: 'cancel'; node: string; pieces: number[] }
  | { do: 'ask-entries'; node: string; after: number }
  | { do: 'fetch-origin'; job: number; url: string; from: number; pieces: { piece: number; bytes: number }[] }
  | { do: 'alarm'; alarm: Alarm }
  | { do: 'changed' }
  | { do: 'forget' };

const isNewer = (a: Generation, b: Generation) => a.epoch > b.epoch || (a.epoch === b.epoch && a.counter > b.counter);

export class Channel {
  readonly window: Window;
  readonly feeds: Feeds;
  readonly readers: Readers;
  paused = false;
  peerBytes = 0;
  originBytes = 0;
  wastedBytes = 0;
  tickAt = 0;
  /** From the publisher having a piece to its being here, milliseconds: of the last heartbeat's time. */
  lags: number[] = [];
  #generation: Generation = { epoch: 0, counter: 0 };
  #begin: number | null = null;
  #jobs = new Map<number, number[]>();
  #nextJob = 0;
  /** The origin is not asked before then; failures in a row make that longer. */
  #originRests = { until: 0, failures: 0 };
  #forgotten = 0;
  #control: { ms: number; at: number } | null = null;

  constructor(now: number, readonly track: LiveTrack) {
    this.window = new Window(track);
    this.feeds = new Feeds(now, this);
    this.readers = new Readers(this.window);
    this.tickAt = now;
  }

  substreamOf(piece: number): number { return piece % this.track.substreams; }
  substreamRate(): number { return Math.ceil(this.track.rate / this.track.substreams); }
  hasAssignment(): boolean { return isNewer(this.#generation, { epoch: 0, counter: 0 }); }

  /** Pieces that should come and are not here. */
  awaited(): number {
    let n = 0;
    for (const _ of this.window.missing.range(this.#begin ?? 0)) n += 1;
    return n;
  }

  /**
   * The piece from which on everything is pushed: what lies before it a newcomer asks for. It is the first piece of the
   * object that was the newest listed one when the first entries came.
   */
  begin(): number {
    if (this.#begin === null) {
      const newest = [...this.window.listed()].at(-1);
      this.#begin = newest ? this.window.firstPieceOf(newest[0]) : null;
    }
    return this.#begin ?? 0;
  }
  begins(): number | null { return this.#begin; }

  /** The one way in. */
  handle(now: number, input: Input, out: Output[]): void {
    switch (input.is) {
      case 'assigned':
        if (!isNewer(input.generation, this.#generation)) return;
        this.#generation = input.generation;
        return this.feeds.assigned(now, input.parents, input.spares, out);
      case 'connected': return this.feeds.connected(now, input.node, out);
      case 'lost':
      case 'feed-closed': return this.feeds.lost(now, input.node, input.why, out);
      case 'answered': return this.feeds.answered(now, input.parent, input.refused, out);
      case 'entries': return input.entries.forEach((entry) => this.#entry(now, input.from, entry, out));
      case 'piece': return this.#piece(now, input, out);
      case 'position': return this.feeds.position(now, input.node, input.newest, input.lacks);
      case 'origin-ended': return this.#originEnded(now, input.job);
      case 'reads':
        this.readers.reads(now, input.reader, input.object);
        return this.mend(now, out);
      case 'reader-left': return this.readers.left(input.reader);
      case 'pause':
        this.paused = input.paused;
        return;
      case 'control-time':
        this.#control = { ms: input.ms, at: now };
        return;
      case 'tick':
        this.tickAt = now + TICK;
        if (this.paused) return;
        this.feeds.watch(now, out);
        this.feeds.openLanes(now, out);
        return this.mend(now, out);
    }
  }

  #entry(now: number, from: string | null, entry: LiveEntry, out: Output[]): void {
    if (from !== null) this.feeds.heard(now, from);
    if (this.window.enter(now, entry) !== 'new') return;
    if (entry.listed || entry.last) out.push({ do: 'changed' });
    const first = this.window.firstPiece();
    if (first > this.#forgotten) {
      this.#forgotten = first;
      out.push({ do: 'forget' });
    }
  }

  #piece(now: number, input: Extract<Input, { is: 'piece' }>, out: Output[]): void {
    const { from, piece, verdict, bytes } = input;
    if (from !== null) this.feeds.came(now, from, piece, bytes, verdict);
    if (verdict === 'good') {
      this.#countLag(now, piece);
      if (from !== null) this.peerBytes += bytes;
      else this.originBytes += bytes;
      this.window.stored(piece);
      out.push({ do: 'changed' });
    } else if (verdict !== 'early') {
      this.wastedBytes += bytes;
      if (verdict === 'bad' && from !== null) this.feeds.leave(now, from, { what: 'bad', parent: from }, out);
    }
  }

  #countLag(now: number, piece: number): void {
    const known = this.window.entryOf(piece);
    if (piece < this.begin() || !this.#control || !known) return;
    const ms = this.#control.ms + (now - this.#control.at) / 1000;
    if (this.lags.length < MAX_LAGS) this.lags.push(Math.max(0, ms - known.entry.timeUnixMs));
  }

  // ---- what did not come by itself (repair.rs) ----

  /** Looks through all that is missing. */
  mend(now: number, out: Output[]): void {
    if (this.paused) return;
    this.#passOver(now);
    const begin = this.begin();
    const due = this.readers.due(now);
    const helpers = this.feeds.mayBeAsked();
    const asks = new Sorted<string, number[]>();
    const notAsked = new Sorted<string, number[]>();
    const fromOrigin: number[] = [];
    const givenUp: number[] = [];
    const before = new Map<number, number>();
    const pieceTime = Math.floor((this.track.pieceBytes * 1_000_000) / this.substreamRate());
    let looked = 0;
    for (const [piece, m] of this.window.missing) {
      // What lies before a newcomer's beginning is nobody's business but a player's.
      if (piece < begin && !due.has(m.object)) continue;
      if ((looked += 1) > MAX_LOOKED_AT) break;
      const substream = this.substreamOf(piece);
      const ofLane = (before.get(substream) ?? 0) + (piece >= begin ? 1 : 0);
      before.set(substream, ofLane);
      switch (this.#need(now, piece, m, begin, due, pieceTime * ofLane, helpers)) {
        case 'ask': {
          const asked = this.#ask(now, piece, m);
          if (!asked) break;
          push(asks, asked.node, piece);
          asked.others.forEach((other) => push(notAsked, other, piece));
          break;
        }
        case 'origin': fromOrigin.push(piece); break;
        case 'give-up': givenUp.push(piece); break;
        case 'nothing': break;
      }
    }
    for (const [node, pieces] of notAsked) out.push({ do: 'cancel', node, pieces });
    for (const [node, pieces] of asks) out.push({ do: 'ask', node, pieces });
    if (givenUp.length) {
      givenUp.forEach((piece) => this.window.giveUp(piece));
      out.push({ do: 'changed' });
    }
    this.#fetch(fromOrigin, out);
    const after = this.window.entriesToAsk(now);
    const node = after === null ? null : this.feeds.anyone(now);
    if (after !== null && node !== null) out.push({ do: 'ask-entries', node, after });
  }

  /** `comesIn` is how long its parent needs for it and what comes before it. */
  #need(
    now: number, piece: number, m: Missing, begin: number, due: Map<number, number>, comesIn: number, helpers: number,
  ): 'nothing' | 'ask' | 'origin' | 'give-up' {
    const player = due.get(m.object);
    if (piece < begin && player === undefined) return 'nothing';
    const by = player ?? m.knownAt + CONFIG.inTime;
    if (now >= by + CONFIG.giveUp && now - m.knownAt >= CONFIG.inTime) return 'give-up';
    if (m.atOrigin) return 'nothing';
    const lane = this.feeds.lane(this.substreamOf(piece));
    const fed = lane.parent !== null || now - lane.since < UNFED;
    const somebody = (helpers & bit(this.substreamOf(piece))) !== 0;
    const left = Math.max(0, by - now);
    const comes = fed && piece >= begin && (m.passedOver === null || now - m.passedOver < MAY_COME);
    const flows = lane.pushedAt !== null && now - lane.pushedAt < FLOWS;
    const inTime = comes && flows && comesIn < left;
    // Where nobody could bring it, waiting helps nobody.
    const waitsInVain = !fed && !somebody;
    const originHelps = player !== undefined && now >= this.#originRests.until && this.#hasOrigin(m.object);
    // Whole segments from before this page came would take uplinks that are for what others need now.
    const ahead = piece < begin ? CONFIG.askAhead : CONFIG.originAhead;
    if (originHelps && !inTime && (left <= ahead || waitsInVain) && this.#jobs.size < CONFIG.maxOriginJobs) return 'origin';
    // So would asking others for what is only late.
    if (inTime || (originHelps && (comes || piece < begin)) || (comes && left > CONFIG.askAhead)) return 'nothing';
    return m.asked && now - m.asked.at < CONFIG.askAgain ? 'nothing' : 'ask';
  }

  #hasOrigin(object: number): boolean {
    return Boolean(this.window.objects.get(object)?.listed?.origin);
  }

  /** Pieces before one that its parent pushed later were passed over. */
  #passOver(now: number): void {
    for (const [piece, m] of this.window.missing) {
      if (m.passedOver === null && this.feeds.passedOver(piece)) m.passedOver = now;
    }
  }

  /** Whom to ask for a piece, one after the other, the one that passed it over last; and who else might send it. */
  #ask(now: number, piece: number, m: Missing): { node: string; others: string[] } | null {
    const could = this.feeds.whoHas(this.substreamOf(piece));
    const node = could[m.asks % Math.max(1, could.length)];
    if (node === undefined) return null;
    if (m.asked) this.feeds.unasked(m.asked.node, piece);
    const others = this.#senders(piece, m).filter((n) => n !== node);
    this.feeds.asked(now, node, piece);
    m.asked = { node, at: now };
    m.asks += 1;
    return { node, others };
  }

  /** Who may send a piece: whose turn it is in its substream, and who was asked for it. */
  #senders(piece: number, m: Missing | undefined): string[] {
    const lane = this.feeds.lane(this.substreamOf(piece));
    const brings = piece < lane.from ? lane.former : lane.parent;
    return [...new Set([brings, m?.asked?.node ?? null])].filter((n) => n !== null);
  }

  /** Runs of pieces that follow one another in an object are fetched together. */
  #fetch(pieces: number[], out: Output[]): void {
    const objectOf = (piece: number) => this.window.missing.get(piece)?.object;
    for (let rest = pieces; rest.length && this.#jobs.size < CONFIG.maxOriginJobs;) {
      const [first] = rest as [number];
      let run = 1;
      while (run < rest.length && run < CONFIG.maxOriginPieces && rest[run] === first + run
        && objectOf(first + run) === objectOf(first)) run += 1;
      this.#beginJob(rest.slice(0, run), out);
      rest = rest.slice(run);
    }
  }

  #beginJob(pieces: number[], out: Output[]): void {
    const places = pieces.flatMap((piece) => {
      const known = this.window.entryOf(piece);
      const place = known && placeOf(known.entry, piece, this.track.pieceBytes);
      return place ? [{ piece, ...place }] : [];
    });
    const [first] = places;
    const origin = first && this.window.objects.get(this.window.missing.get(first.piece)?.object ?? -1)?.listed?.origin;
    if (!first || !origin) return;
    const job = this.#nextJob;
    this.#nextJob += 1;
    const cancelled = new Sorted<string, number[]>();
    for (const { piece } of places) {
      const m = this.window.missing.get(piece);
      this.#senders(piece, m).forEach((node) => push(cancelled, node, piece));
      if (m) m.atOrigin = true;
    }
    this.#jobs.set(job, pieces);
    for (const [node, all] of cancelled) {
      all.forEach((piece) => this.feeds.unasked(node, piece));
      out.push({ do: 'cancel', node, pieces: all });
    }
    out.push({
      do: 'fetch-origin', job, url: origin.url, from: origin.from + first.at,
      pieces: places.map(({ piece, bytes }) => ({ piece, bytes })),
    });
  }

  /** What the origin did not give is asked of others again. */
  #originEnded(now: number, job: number): void {
    const failed = this.#jobs.get(job)?.some((piece) => this.window.missing.has(piece)) ?? false;
    const failures = failed ? this.#originRests.failures + 1 : 0;
    const rest = Math.min(ORIGIN_RESTS_MOST, ORIGIN_RESTS * 2 ** Math.min(failures - 1, 8));
    this.#originRests = { failures, until: failed ? now + rest : 0 };
    for (const piece of this.#jobs.get(job) ?? []) {
      const m = this.window.missing.get(piece);
      if (!m) continue;
      m.atOrigin = false;
      m.passedOver ??= now;
      m.asked = null;
    }
    this.#jobs.delete(job);
  }
}

export const bit = (substream: number): number => 2 ** substream;

const push = (map: Sorted<string, number[]>, node: string, piece: number) => map.entry(node, () => []).push(piece);
