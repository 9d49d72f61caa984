/**
 * A file at a page: which piece is asked of whom, what is fetched from the origin, what is done without either. Decides
 * only: no I/O, no clock; times are microseconds. After `peer-core`'s `swarm.rs`, `parents.rs` and `origin.rs`, without
 * children; simpler than these: a page that comes for one file makes no plans for others.
 */

import { PAGE_LEAVES } from './merkle.ts';
import type { Alarm, Generation, Parent } from './live/channel.ts';

/** Pieces that one parent is asked for at once, and their bytes. */
const MAX_ASKED = 32;
const MAX_ASKED_BYTES = 4 << 20;
/** How much the latest piece says of a parent's pace. */
const PACE_GAIN = 0.25;
/** Of one of which nothing came yet. */
const UNKNOWN_PACE = 100_000;
/** A piece that is taken from one parent and asked of another is so much later for it. */
const STEALING_TAKES = 100_000;
/** A parent that sends nothing of what it was asked for is left after this time. */
const SILENT = 2_000_000;
/** A parent that is not connected, or does not answer, within this time is lost. */
const OPENS_WITHIN = 5_000_000;
/** Without a session, or without a parent that has anything, runs are fetched alone after this time. */
const ALONE_AFTER = 3_000_000;
/** Runs fetched from the origin alone at once. */
const MAX_ALONE = 2;
/** What no parent has is told of again after this time. */
const STARVING_AGAIN = 2_000_000;
const MAX_STARVING_RUNS = 16;
/** Pages of hashes asked for at once, and again after this time. */
const MAX_PAGES_ASKED = 4;
const PAGE_AGAIN = 2_000_000;
const MAX_PAGES_AHEAD = 8;

/** What a verified log says of a file, as far as it is needed here. */
export interface Layout { pieces: number; pieceBytes: number; runPieces: number; bytes: number }

export const runsOf = (l: Layout): number => Math.ceil(l.pieces / l.runPieces);
export const lengthOf = (l: Layout, piece: number): number => Math.min(l.pieceBytes, l.bytes - piece * l.pieceBytes);

export type SwarmInput =
  | { is: 'assigned'; generation: Generation; parents: Parent[] }
  | { is: 'connected'; node: string }
  | { is: 'lost'; node: string; why: string }
  | { is: 'answered'; parent: string; refused: string | null }
  | { is: 'has'; node: string; pieces: Iterable<number>; all: boolean }
  | { is: 'page'; page: number }
  | { is: 'no-page'; page: number }
  | { is: 'stored'; from: string | null; piece: number }
  | { is: 'bad'; from: string | null; piece: number }
  | { is: 'leased'; run: number }
  | { is: 'lease-revoked'; run: number }
  | { is: 'origin-ended'; run: number; why: string | null }
  | { is: 'control'; connected: boolean }
  | { is: 'tick' };

export type SwarmOutput =
  | { do: 'dial'; parent: Parent }
  | { do: 'open-edge'; node: string }
  | { do: 'close-edge'; node: string }
  | { do: 'ask'; node: string; pieces: number[] }
  | { do: 'unask'; node: string; pieces: number[] }
  | { do: 'ask-page'; page: number; of: string | null }
  | { do: 'told-bad'; node: string; piece: number }
  | { do: 'fetch-origin'; run: number; pieces: number[] }
  | { do: 'stop-origin'; run: number }
  | { do: 'lease-done'; run: number }
  | { do: 'lease-failed'; run: number; why: string }
  | { do: 'alarm'; alarm: Alarm }
  | { do: 'starving'; runs: number[] }
  | { do: 'complete' };

interface Edge {
  entry: Parent;
  stage: 'dialling' | 'opening' | 'open' | 'failed';
  since: number;
  has: Set<number>;
  /** In the order in which they come. */
  asked: Map<number, number>;
  /** What a piece takes lately, when more are to come after it; null until one came. */
  pace: number | null;
  heardAt: number;
  pieces: number;
  bytes: number;
}

export class Swarm {
  readonly have: Set<number> = new Set();
  peerBytes = 0;
  originBytes = 0;
  wastedBytes = 0;
  #edges = new Map<string, Edge>();
  #generation: Generation = { epoch: 0, counter: 0 };
  #pages = new Set<number>();
  #pagesAsked = new Map<number, number>();
  /** Runs fetched from the origin; whether leased. */
  #runs = new Map<number, boolean>();
  #control = false;
  #aloneSince: number | null;
  #starvingAt = 0;
  #originFailed = 0;
  #next = 0;

  constructor(now: number, readonly layout: Layout, readonly pieceOrder: number) {
    this.#aloneSince = now;
  }

  isComplete(): boolean { return this.have.size === this.layout.pieces; }
  isParent(node: string): boolean { return this.#edges.has(node); }
  edges(): { node: string; pieces: number; bytes: number; open: boolean }[] {
    return [...this.#edges].map(([node, e]) => ({ node, pieces: e.pieces, bytes: e.bytes, open: e.stage === 'open' }));
  }
  runIsHere(run: number): boolean { return this.#missingOf(run).length === 0; }
  underWay(): number[] { return [...this.#runs.keys()]; }

  handle(now: number, input: SwarmInput, out: SwarmOutput[]): void {
    if (this.isComplete()) return;
    switch (input.is) {
      case 'assigned': this.#assigned(now, input, out); break;
      case 'connected': this.#connected(now, input.node, out); break;
      case 'lost': this.#leave(now, input.node, { what: 'lost', parent: input.node, why: input.why }, out); break;
      case 'answered': this.#answered(now, input.parent, input.refused, out); break;
      case 'has': {
        const edge = this.#edges.get(input.node);
        if (!edge) return;
        if (input.all) edge.has.clear();
        for (const piece of input.pieces) if (piece < this.layout.pieces) edge.has.add(piece);
        break;
      }
      case 'page':
        this.#pages.add(input.page);
        this.#pagesAsked.delete(input.page);
        break;
      case 'no-page': this.#pagesAsked.delete(input.page); break;
      case 'stored': this.#stored(now, input.from, input.piece, out); break;
      case 'bad': this.#bad(now, input.from, input.piece, out); break;
      case 'leased': this.#leased(input.run, out); break;
      case 'lease-revoked':
        if (this.#runs.delete(input.run)) out.push({ do: 'stop-origin', run: input.run });
        break;
      case 'origin-ended': this.#originEnded(now, input.run, input.why, out); break;
      case 'control':
        this.#control = input.connected;
        break;
      case 'tick': this.#watch(now, out); break;
    }
    this.#askPages(now, out);
    this.#ask(now, out);
  }

  #assigned(now: number, { generation, parents }: Extract<SwarmInput, { is: 'assigned' }>, out: SwarmOutput[]): void {
    const [a, b] = [generation, this.#generation];
    if (a.epoch < b.epoch || (a.epoch === b.epoch && a.counter <= b.counter)) return;
    this.#generation = generation;
    const named = new Set(parents.map((p) => p.node));
    for (const node of [...this.#edges.keys()]) {
      if (named.has(node)) continue;
      this.#edges.delete(node);
      out.push({ do: 'close-edge', node });
    }
    for (const parent of parents) {
      const edge = this.#edges.get(parent.node);
      const isNewProcess = edge !== undefined && edge.entry.certificate !== parent.certificate;
      if (edge && !isNewProcess && edge.stage !== 'failed') {
        edge.entry = parent;
        continue;
      }
      this.#edges.set(parent.node, {
        entry: parent, stage: 'dialling', since: now, has: new Set(), asked: new Map(), pace: null, heardAt: now,
        pieces: edge?.pieces ?? 0, bytes: edge?.bytes ?? 0,
      });
      out.push({ do: 'dial', parent });
    }
  }

  #connected(now: number, node: string, out: SwarmOutput[]): void {
    const edge = this.#edges.get(node);
    if (!edge || (edge.stage !== 'dialling' && edge.stage !== 'failed')) return;
    [edge.stage, edge.since] = ['opening', now];
    out.push({ do: 'open-edge', node });
  }

  #answered(now: number, node: string, refused: string | null, out: SwarmOutput[]): void {
    const edge = this.#edges.get(node);
    if (!edge || edge.stage !== 'opening') return;
    if (refused !== null) return this.#leave(now, node, { what: 'lost', parent: node, why: `it refused: ${refused}` }, out);
    [edge.stage, edge.since, edge.heardAt] = ['open', now, now];
  }

  #leave(now: number, node: string, alarm: Alarm, out: SwarmOutput[]): void {
    const edge = this.#edges.get(node);
    if (!edge || edge.stage === 'failed') return;
    [edge.stage, edge.since] = ['failed', now];
    edge.asked.clear();
    edge.has.clear();
    out.push({ do: 'close-edge', node }, { do: 'alarm', alarm });
  }

  #stored(now: number, from: string | null, piece: number, out: SwarmOutput[]): void {
    const bytes = lengthOf(this.layout, piece);
    const edge = from === null ? undefined : this.#edges.get(from);
    if (edge) {
      const took = now - edge.heardAt;
      edge.pace = edge.pace === null ? took : edge.pace + (took - edge.pace) * PACE_GAIN;
      edge.heardAt = now;
      edge.asked.delete(piece);
    }
    if (this.have.has(piece)) {
      this.wastedBytes += bytes;
      return;
    }
    this.have.add(piece);
    if (from === null) this.originBytes += bytes;
    else this.peerBytes += bytes;
    if (edge) [edge.pieces, edge.bytes] = [edge.pieces + 1, edge.bytes + bytes];
    const run = Math.floor(piece / this.layout.runPieces);
    if (this.#runs.get(run) && this.runIsHere(run)) {
      this.#runs.delete(run);
      out.push({ do: 'lease-done', run });
    }
    if (this.isComplete()) {
      out.push({ do: 'complete' });
      for (const node of this.#edges.keys()) out.push({ do: 'close-edge', node });
    }
  }

  #bad(now: number, from: string | null, piece: number, out: SwarmOutput[]): void {
    this.wastedBytes += lengthOf(this.layout, piece);
    if (from === null) return;
    out.push({ do: 'told-bad', node: from, piece });
    this.#leave(now, from, { what: 'bad', parent: from }, out);
  }

  // ---- the origin ----

  #missingOf(run: number): number[] {
    const first = run * this.layout.runPieces;
    const end = Math.min(this.layout.pieces, first + this.layout.runPieces);
    const missing: number[] = [];
    for (let piece = first; piece < end; piece += 1) if (!this.have.has(piece)) missing.push(piece);
    return missing;
  }

  #leased(run: number, out: SwarmOutput[]): void {
    if (run >= runsOf(this.layout) || this.#runs.get(run)) return;
    const missing = this.#missingOf(run);
    if (!missing.length) return void out.push({ do: 'lease-done', run });
    const alone = this.#runs.has(run);
    this.#runs.set(run, true);
    // A piece in a run that is fetched from the origin is asked of no parent.
    if (!alone) out.push({ do: 'fetch-origin', run, pieces: missing });
  }

  #originEnded(now: number, run: number, why: string | null, out: SwarmOutput[]): void {
    const leased = this.#runs.get(run);
    this.#runs.delete(run);
    if (leased === undefined || this.runIsHere(run)) return;
    this.#originFailed = now;
    if (leased) out.push({ do: 'lease-failed', run, why: why ?? 'it ended before all was there' });
  }

  // ---- parents ----

  /** Pages of hashes come before their pieces: of those ahead the first few, from a parent, else from the control center. */
  #askPages(now: number, out: SwarmOutput[]): void {
    for (const [page, at] of this.#pagesAsked) if (now - at >= PAGE_AGAIN) this.#pagesAsked.delete(page);
    const pages = Math.ceil(this.layout.pieces / PAGE_LEAVES);
    let ahead = 0;
    for (let page = 0; page < pages && ahead < MAX_PAGES_AHEAD; page += 1) {
      if (this.#pages.has(page)) {
        if (!this.#pageIsDone(page)) ahead += 1;
        continue;
      }
      ahead += 1;
      if (this.#pagesAsked.has(page) || this.#pagesAsked.size >= MAX_PAGES_ASKED) continue;
      const open = [...this.#edges].filter(([, e]) => e.stage === 'open').map(([node]) => node);
      const of = open[(page + Math.floor(now / PAGE_AGAIN)) % Math.max(1, open.length)] ?? null;
      if (of === null && !this.#control) return;
      this.#pagesAsked.set(page, now);
      out.push({ do: 'ask-page', page, of });
    }
  }

  #pageIsDone(page: number): boolean {
    const end = Math.min(this.layout.pieces, (page + 1) * PAGE_LEAVES);
    for (let piece = page * PAGE_LEAVES; piece < end; piece += 1) if (!this.have.has(piece)) return false;
    return true;
  }

  /** Each parent in turn is asked for what fewest have; those who come for the same begin at different places. */
  #ask(now: number, out: SwarmOutput[]): void {
    const open = [...this.#edges].filter(([, e]) => e.stage === 'open');
    if (!open.length) return;
    const most = Math.max(1, Math.min(MAX_ASKED, Math.floor(MAX_ASKED_BYTES / this.layout.pieceBytes)));
    if (open.every(([, e]) => e.asked.size > most / 2)) return;
    const asked = new Set(open.flatMap(([, e]) => [...e.asked.keys()]));
    const wanted: { piece: number; who: Edge[] }[] = [];
    for (const page of this.#pages) {
      const end = Math.min(this.layout.pieces, (page + 1) * PAGE_LEAVES);
      for (let piece = page * PAGE_LEAVES; piece < end; piece += 1) {
        if (this.have.has(piece) || asked.has(piece) || this.#runs.has(Math.floor(piece / this.layout.runPieces))) continue;
        const who = open.filter(([, e]) => e.has.has(piece)).map(([, e]) => e);
        if (who.length) wanted.push({ piece, who });
      }
    }
    const place = (piece: number) => (piece + this.layout.pieces - (this.pieceOrder % this.layout.pieces)) % this.layout.pieces;
    wanted.sort((a, b) => a.who.length - b.who.length || place(a.piece) - place(b.piece));
    const asks = new Map<Edge, number[]>();
    for (const { piece, who } of wanted) {
      const edge = who.filter((e) => e.asked.size < most).sort((a, b) => a.asked.size - b.asked.size)[0];
      if (!edge) continue;
      if (!edge.asked.size) edge.heardAt = now;
      edge.asked.set(piece, now);
      asks.set(edge, [...(asks.get(edge) ?? []), piece]);
    }
    for (const [edge, pieces] of asks) out.push({ do: 'ask', node: edge.entry.node, pieces });
    for (const [, edge] of open) if (!edge.asked.size) this.#steal(now, edge, out);
  }

  /**
   * End game: a parent with nothing to do takes over a piece that would come much later from another. It is asked of one only,
   * so that it is not sent twice.
   */
  #steal(now: number, thief: Edge, out: SwarmOutput[]): void {
    let worst: { edge: Edge; piece: number; eta: number } | null = null;
    for (const edge of this.#edges.values()) {
      if (edge === thief || edge.stage !== 'open') continue;
      // The first one is probably on its way.
      const [, ...queue] = edge.asked.keys();
      const at = queue.findLastIndex((piece) => thief.has.has(piece));
      const piece = queue[at];
      if (piece === undefined) continue;
      const eta = (edge.pace ?? UNKNOWN_PACE) * (at + 2) - (now - edge.heardAt);
      if (!worst || eta > worst.eta) worst = { edge, piece, eta };
    }
    if (!worst || worst.eta <= 2 * ((thief.pace ?? UNKNOWN_PACE) + STEALING_TAKES)) return;
    const { edge, piece } = worst;
    edge.asked.delete(piece);
    thief.asked.set(piece, now);
    thief.heardAt = now;
    out.push({ do: 'unask', node: edge.entry.node, pieces: [piece] }, { do: 'ask', node: thief.entry.node, pieces: [piece] });
  }

  #watch(now: number, out: SwarmOutput[]): void {
    for (const [node, e] of [...this.#edges]) {
      const waits = e.stage === 'dialling' || e.stage === 'opening';
      if (waits && now - e.since >= OPENS_WITHIN) this.#leave(now, node, { what: 'lost', parent: node, why: 'it was not there in time' }, out);
      if (e.stage === 'open' && e.asked.size && now - e.heardAt >= SILENT) this.#leave(now, node, { what: 'silent', parent: node }, out);
    }
    const busy = this.#runs.size > 0 || [...this.#edges.values()].some((e) => e.asked.size > 0);
    if (busy) this.#aloneSince = null;
    else this.#aloneSince ??= now;
    if (this.#aloneSince === null) return this.#fetchAlone(now, out);
    if (this.#control && now - this.#starvingAt >= STARVING_AGAIN && now - this.#aloneSince >= STARVING_AGAIN / 2) {
      this.#starvingAt = now;
      out.push({ do: 'starving', runs: this.#someRuns(MAX_STARVING_RUNS) });
    }
    this.#fetchAlone(now, out);
  }

  #someRuns(most: number): number[] {
    const runs: number[] = [];
    for (let run = 0; run < runsOf(this.layout) && runs.length < most; run += 1) {
      if (!this.#runs.has(run) && !this.runIsHere(run)) runs.push(run);
    }
    return runs;
  }

  /** The last resort: what nobody brings is fetched without leave. */
  #fetchAlone(now: number, out: SwarmOutput[]): void {
    const alone = [...this.#runs.values()].filter((leased) => !leased).length;
    const goesOn = alone > 0 && [...this.#edges.values()].every((e) => e.stage !== 'open');
    const begins = this.#aloneSince !== null && now - this.#aloneSince >= ALONE_AFTER;
    if (!(goesOn || begins) || alone >= MAX_ALONE || now - this.#originFailed < ALONE_AFTER) return;
    const total = runsOf(this.layout);
    for (let i = 0; i < total; i += 1) {
      const run = (this.#next + i) % total;
      if (this.#runs.has(run) || this.runIsHere(run)) continue;
      this.#next = run + 1;
      this.#runs.set(run, false);
      return void out.push({ do: 'fetch-origin', run, pieces: this.#missingOf(run) });
    }
  }
}
