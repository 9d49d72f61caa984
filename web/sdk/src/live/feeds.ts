/** Who pushes what to this page: parents, spares, and which of them carries which substream. As `peer-core/live/feeds.rs`. */

import { Sorted } from '../sorted.ts';
import { type Alarm, CONFIG, type Channel, type Output, type Parent, bit } from './channel.ts';
import type { Verdict } from './window.ts';

/** A feed that failed, and that nobody replaces, is tried again after this time. */
const TRY_AGAIN = 2_000_000;
/** A former parent pushes what was there when another took its place for so long at most. */
const HAND_OVER = 4_000_000;
/** When all parents are silent at once it is this page's own line, for as long. */
const ALL_SILENT = 2_000_000;
/** A substream lags when a piece of it has been known for so long and is not here. */
const LAGS_AFTER = 300_000;
/** A parent is given so long before it is measured. */
const SETTLES = 1_500_000;
/** A parent that is not connected, or does not answer, within these times is lost. */
const CONNECTS_WITHIN = 4_000_000;
const ANSWERS_WITHIN = 1_500_000;
/** An assigned parent that is not open after this time has a spare in its place. */
const SLOW_TO_OPEN = 800_000;

type Stage = 'dialling' | 'opening' | 'open' | 'failed';

interface Feed {
  entry: Parent;
  stage: Stage;
  /** When that began. */
  since: number;
  /** Assigned to push these. */
  gives: number;
  /** A spare for these. */
  may: number;
  /** It was told to push these. */
  subscribed: number;
  /** What the tickets name that it was shown. */
  shown: number;
  /** No longer assigned: it is done with by then. */
  endsBy: number | null;
  heardAt: number;
  /** It has said nothing for a while: spares push in its place until it is heard again. */
  suspected: boolean;
  /** Pieces that it was asked for. */
  asked: Map<number, number>;
  pieces: number;
  bytes: number;
}

interface Lane {
  /** Who pushes it: the assigned parent, or a spare in its place. */
  parent: string | null;
  since: number;
  /** The first piece that is expected of it; those before come from the former one, as long as there is one. */
  from: number;
  former: string | null;
  /** The first piece that its parent lacks, as that says. */
  parentLacks: number | null;
  pushedTo: number;
  pushedAt: number | null;
  /** Since when it lags, and what came since. */
  lags: { since: number; came: number } | null;
}

const newLane = (now: number): Lane => ({
  parent: null, since: now, from: 0, former: null, parentLacks: null, pushedTo: 0, pushedAt: null, lags: null,
});
const without = (a: number, b: number) => (a & ~b) >>> 0;
const or = (a: number, b: number) => (a | b) >>> 0;
const contains = (set: number, substream: number) => (set & bit(substream)) !== 0;

/** What heartbeats and statistics tell of an edge. */
export interface EdgeView { node: string; pieces: number; bytes: number; open: boolean; spare: boolean }

export class Feeds {
  #feeds = new Sorted<string, Feed>();
  #lanes: Lane[];

  constructor(now: number, readonly channel: Channel) {
    this.#lanes = Array.from({ length: channel.track.substreams }, () => newLane(now));
  }

  lane(substream: number): Lane { return this.#lanes[substream] as Lane; }
  has(node: string): boolean { return this.#feeds.has(node); }
  parent(node: string): Parent | null { return this.#feeds.get(node)?.entry ?? null; }
  unfed(): number { return this.#lanes.filter((l) => l.parent === null).length; }
  isAlone(): boolean { return ![...this.#feeds.values()].some((f) => f.stage === 'open'); }
  /** Parents with the substreams that they were told to push. */
  subscribed(): [string, number][] { return [...this.#feeds].filter(([, f]) => f.subscribed).map(([n, f]) => [n, f.subscribed]); }
  edges(): EdgeView[] {
    return [...this.#feeds].map(([node, f]) =>
      ({ node, pieces: f.pieces, bytes: f.bytes, open: f.stage === 'open', spare: !f.subscribed }));
  }

  heard(now: number, node: string): void {
    const feed = this.#feeds.get(node);
    if (feed) [feed.heardAt, feed.suspected] = [now, false];
  }

  /** A piece came from a node. */
  came(now: number, node: string, piece: number, bytes: number, verdict: Verdict): void {
    this.heard(now, node);
    const feed = this.#feeds.get(node);
    if (feed) {
      feed.asked.delete(piece);
      if (verdict === 'good') [feed.pieces, feed.bytes] = [feed.pieces + 1, feed.bytes + bytes];
    }
    const lane = this.lane(this.channel.substreamOf(piece));
    if ((verdict === 'good' || verdict === 'useless') && lane.parent === node) {
      lane.pushedTo = Math.max(lane.pushedTo, piece);
      lane.pushedAt = now;
      if (lane.lags) lane.lags.came += bytes;
    }
  }

  // ---- asking ----

  #mayBeAsked(f: Feed): number { return f.stage === 'open' ? or(or(f.gives, f.may), f.subscribed) : 0; }
  /** Substreams of which somebody can be asked. */
  mayBeAsked(): number { return [...this.#feeds.values()].reduce((all, f) => or(all, this.#mayBeAsked(f)), 0); }
  /** Who can be asked for a piece of a substream: its parent last. */
  whoHas(substream: number): string[] {
    const could = [...this.#feeds].filter(([, f]) => contains(this.#mayBeAsked(f), substream) && f.asked.size < CONFIG.maxAsked);
    const parent = this.lane(substream).parent;
    return could.map(([node]) => node).sort((a, b) => Number(a === parent) - Number(b === parent));
  }
  asked(now: number, node: string, piece: number): void { this.#feeds.get(node)?.asked.set(piece, now); }
  unasked(node: string, piece: number): void { this.#feeds.get(node)?.asked.delete(piece); }
  /** Somebody who can be asked for entries, another one each time. */
  anyone(now: number): string | null {
    const open = [...this.#feeds].filter(([, f]) => f.stage === 'open').map(([node]) => node);
    return open[Math.floor(now / 100_000) % Math.max(1, open.length)] ?? null;
  }
  /** Whether its parents will not bring a piece any more. */
  passedOver(piece: number): boolean {
    const lane = this.lane(this.channel.substreamOf(piece));
    if (piece < lane.from) return lane.former === null;
    // What it does not have itself may still come to it.
    return lane.pushedTo > piece && lane.parentLacks !== null && lane.parentLacks > piece;
  }

  // ---- edges ----

  assigned(now: number, parents: Parent[], spares: Parent[], out: Output[]): void {
    const named = new Set([...parents, ...spares].map((p) => p.node));
    for (const [node, feed] of this.#feeds) {
      feed.gives = feed.may = 0;
      feed.endsBy = named.has(node) ? null : feed.endsBy ?? now + HAND_OVER;
    }
    for (const parent of parents) this.#name(now, parent, false, out);
    for (const parent of spares) this.#name(now, parent, true, out);
    this.#showTickets(out);
    this.openLanes(now, out);
  }

  #name(now: number, parent: Parent, spare: boolean, out: Output[]): void {
    const { node } = parent;
    let feed = this.#feeds.get(node);
    if (!feed) {
      out.push({ do: 'dial', parent });
      feed = {
        entry: parent, stage: 'dialling', since: now, gives: 0, may: 0, subscribed: 0, shown: 0, endsBy: null, heardAt: now,
        suspected: false, asked: new Map(), pieces: 0, bytes: 0,
      };
      this.#feeds.set(node, feed);
    }
    const [old, isNewProcess] = [feed.entry, feed.entry.certificate !== parent.certificate];
    const isNewReach = isNewProcess || old.addresses.join() !== parent.addresses.join();
    feed.entry = parent;
    if (spare) feed.may = or(feed.may, parent.substreams);
    else feed.gives = or(feed.gives, parent.substreams);
    // Each process makes a certificate anew: an edge to the former one is dead, whatever it looks like.
    if (isNewProcess || (feed.stage === 'failed' && (!spare || isNewReach))) {
      out.push({ do: 'dial', parent });
      this.#drop(now, node, 'dialling');
    }
  }

  /** Parents that may be asked for more than before see the ticket for it first. */
  #showTickets(out: Output[]): void {
    for (const [node, feed] of this.#feeds) {
      const named = or(feed.gives, feed.may);
      if ((feed.stage === 'open' || feed.stage === 'opening') && without(named, feed.shown)) {
        feed.shown = or(feed.shown, named);
        out.push({ do: 'open-edge', node });
      }
    }
  }

  connected(now: number, node: string, out: Output[]): void {
    const feed = this.#feeds.get(node);
    if (!feed || feed.endsBy !== null || (feed.stage !== 'dialling' && feed.stage !== 'failed')) return;
    this.heard(now, node);
    [feed.stage, feed.since, feed.shown] = ['opening', now, or(feed.gives, feed.may)];
    out.push({ do: 'open-edge', node });
  }

  answered(now: number, node: string, refused: string | null, out: Output[]): void {
    const feed = this.#feeds.get(node);
    if (!feed) return;
    if (refused !== null) return this.lost(now, node, `it refused: ${refused}`, out);
    if (feed.stage !== 'opening') return;
    this.heard(now, node);
    [feed.stage, feed.since] = ['open', now];
    this.openLanes(now, out);
  }

  lost(now: number, node: string, why: string, out: Output[]): void {
    const feed = this.#feeds.get(node);
    if (!feed || feed.stage === 'failed') return;
    if (!or(feed.gives, feed.subscribed) || feed.endsBy !== null) {
      this.#drop(now, node, 'failed');
      this.openLanes(now, out);
    } else {
      this.leave(now, node, { what: 'lost', parent: node, why }, out);
    }
  }

  /** Nothing more is expected of a feed: its substreams are anybody's. */
  #drop(now: number, node: string, stage: Stage): void {
    const feed = this.#feeds.get(node);
    if (!feed) return;
    [feed.stage, feed.since, feed.subscribed] = [stage, now, 0];
    for (const piece of feed.asked.keys()) {
      const m = this.channel.window.missing.get(piece);
      if (m) m.asked = null;
    }
    feed.asked.clear();
    for (const [substream, lane] of this.#lanes.entries()) {
      if (lane.former === node) lane.former = null;
      if (lane.parent === node) this.#handTo(now, substream, null, lane.former, lane.from);
    }
  }

  #handTo(now: number, substream: number, parent: string | null, former: string | null, from: number): void {
    this.#lanes[substream] = { ...newLane(now), parent, former, from };
  }

  /** A parent is left for good, with the reason; spares take its place at once. */
  leave(now: number, node: string, alarm: Alarm, out: Output[]): void {
    this.#drop(now, node, 'failed');
    out.push({ do: 'close-edge', node }, { do: 'alarm', alarm });
    this.openLanes(now, out);
  }

  position(now: number, node: string, newest: number, lacks: [number, number][]): void {
    if (!this.#feeds.has(node)) return;
    this.heard(now, node);
    this.channel.window.heardOf(now, newest);
    for (const [substream, piece] of lacks) {
      const lane = this.#lanes[substream];
      if (lane?.parent === node) lane.parentLacks = piece;
    }
  }

  // ---- lanes ----

  /** Gives each substream the best feed that there is for it. */
  openLanes(now: number, out: Output[]): void {
    if (this.channel.paused) return;
    const { window } = this.channel;
    const end = window.newestEntry() === null ? null : window.endPiece();
    const orphaned = new Sorted<string, number>();
    const handed = new Sorted<string, number>();
    const dismissed = new Sorted<string, number>();
    const deserted = new Sorted<string, number>();
    const add = (to: Sorted<string, number>, node: string, substream: number) =>
      to.set(node, or(to.get(node) ?? 0, bit(substream)));
    for (const [substream, lane] of this.#lanes.entries()) {
      const best = this.#best(now, substream, lane);
      if (best === null || best === lane.parent) continue;
      if (lane.parent === null) {
        this.#handTo(now, substream, best, lane.former, lane.from);
        add(orphaned, best, substream);
      } else if (this.#feeds.get(lane.parent)?.suspected) {
        add(deserted, lane.parent, substream);
        this.#handTo(now, substream, best, lane.former, lane.from);
        add(orphaned, best, substream);
      } else {
        add(dismissed, lane.parent, substream);
        this.#handTo(now, substream, best, lane.parent, end ?? 0);
        add(handed, best, substream);
      }
    }
    for (const [node, added] of orphaned) this.#subscribe(now, node, added, end === null ? null : this.#pushFrom(added), out);
    for (const [node, added] of handed) this.#subscribe(now, node, added, end, out);
    // What is on its way from a suspected one is of use; nothing else is.
    for (const [left, from] of [[dismissed, end], [deserted, 0]] as const) {
      for (const [node, substreams] of left) {
        const feed = this.#feeds.get(node);
        if (feed?.stage !== 'open') continue;
        feed.subscribed = without(feed.subscribed, substreams);
        out.push({ do: 'subscribe', node, substreams: feed.subscribed, from });
      }
    }
    this.#dismissFormer(now);
    this.#endFeeds(now, out);
  }

  #subscribe(now: number, node: string, added: number, from: number | null, out: Output[]): void {
    for (const [substream, lane] of this.#lanes.entries()) if (contains(added, substream)) lane.from = from ?? 0;
    const feed = this.#feeds.get(node);
    if (!feed) return;
    [feed.subscribed, feed.heardAt] = [or(feed.subscribed, added), now];
    out.push({ do: 'subscribe', node, substreams: feed.subscribed, from });
  }

  /** Where parents begin that take the place of lost ones: at the first piece that is missing and that no former one brings. */
  #pushFrom(substreams: number): number {
    const { window } = this.channel;
    for (const [piece] of window.missing.range(this.channel.begin())) {
      const substream = this.channel.substreamOf(piece);
      const lane = this.lane(substream);
      if (contains(substreams, substream) && !(piece < lane.from && lane.former !== null)) return piece;
    }
    return window.endPiece();
  }

  /** The assigned parent if it is open, else a spare that is, if the parent failed, is slow to open or says nothing. */
  #best(now: number, substream: number, lane: Lane): string | null {
    const assigned = [...this.#feeds].find(([, f]) => contains(f.gives, substream));
    const isFit = (f: Feed | undefined) => f !== undefined && f.stage === 'open' && !f.suspected;
    if (isFit(assigned?.[1])) return assigned?.[0] ?? null;
    const current = lane.parent !== null && isFit(this.#feeds.get(lane.parent)) ? lane.parent : null;
    const waits = assigned && (assigned[1].stage === 'dialling' || assigned[1].stage === 'opening')
      && now - assigned[1].since < SLOW_TO_OPEN;
    if (current !== null || waits) return current;
    return [...this.#feeds].find(([, f]) => isFit(f) && contains(f.may, substream))?.[0] ?? lane.parent;
  }

  /** Nothing more is expected of former parents that have brought all, or had their time. */
  #dismissFormer(now: number): void {
    if (this.#lanes.every((l) => l.former === null)) return;
    const owed = new Set<number>();
    for (const [piece] of this.channel.window.missing.range(this.channel.begins() ?? 0)) {
      const substream = this.channel.substreamOf(piece);
      if (piece < this.lane(substream).from) owed.add(substream);
    }
    for (const [substream, lane] of this.#lanes.entries()) {
      if (!owed.has(substream) || now - lane.since >= HAND_OVER) lane.former = null;
    }
  }

  /** Closes edges that are no longer assigned and carry nothing, or have carried it long enough. */
  #endFeeds(now: number, out: Output[]): void {
    for (const [node, f] of [...this.#feeds]) {
      if (f.endsBy === null) continue;
      const isIdle = !f.subscribed && !f.asked.size && !this.#lanes.some((l) => l.former === node);
      if (f.endsBy > now && !isIdle) continue;
      this.#drop(now, node, 'failed');
      this.#feeds.delete(node);
      out.push({ do: 'close-edge', node });
    }
  }

  /** Parents that are silent or behind; feeds that are to be tried again. */
  watch(now: number, out: Output[]): void {
    const pushing = [...this.#feeds].filter(([, f]) => f.stage === 'open' && (f.suspected || f.subscribed));
    const quietFor = (least: number) => pushing.filter(([, f]) => now - f.heardAt >= least);
    const [suspected, silent] = [quietFor(CONFIG.suspected), quietFor(CONFIG.silent)];
    if (suspected.length < pushing.length || pushing.length === 1) for (const [, f] of suspected) f.suspected = true;
    const least = Math.min(...pushing.map(([, f]) => now - f.heardAt));
    if (silent.length < pushing.length || pushing.length === 1 || least >= ALL_SILENT) {
      for (const [node] of silent) this.leave(now, node, { what: 'silent', parent: node }, out);
    }
    for (const [node, f] of [...this.#feeds]) {
      if (f.stage === 'dialling' && now - f.since >= CONNECTS_WITHIN) this.lost(now, node, 'it was not connected in time', out);
      if (f.stage === 'opening' && now - f.since >= ANSWERS_WITHIN) this.lost(now, node, 'it does not answer', out);
    }
    for (const [parent, substreams] of this.#behind(now)) {
      for (const [substream, lane] of this.#lanes.entries()) {
        if (contains(substreams, substream)) [lane.lags, lane.since] = [null, now];
      }
      out.push({ do: 'alarm', alarm: { what: 'behind', parent, substreams } });
    }
    this.#tryAgain(now, out);
  }

  /** Parents that have what they should push, and push too little of it. */
  #behind(now: number): Sorted<string, number> {
    const oldest = new Map<number, number>();
    for (const [piece, m] of this.channel.window.missing.range(this.channel.begin())) {
      const substream = this.channel.substreamOf(piece);
      // What it passed over it will not push any more, however fast it is; nor what a former one owes.
      const isIts = piece >= this.lane(substream).from && m.passedOver === null && !m.atOrigin;
      if (isIts && now - m.knownAt >= LAGS_AFTER && !oldest.has(substream)) oldest.set(substream, piece);
    }
    const least = Math.floor((this.channel.substreamRate() * CONFIG.behindPercent) / 100);
    const behind = new Sorted<string, number>();
    for (const [substream, lane] of this.#lanes.entries()) {
      const waitsFor = oldest.get(substream);
      const parentHasIt = waitsFor !== undefined && lane.parentLacks !== null && lane.parentLacks > waitsFor;
      if (lane.parent === null || !parentHasIt || now - lane.since < SETTLES) {
        lane.lags = null;
        continue;
      }
      lane.lags ??= { since: now, came: 0 };
      const span = now - lane.lags.since;
      if (span < CONFIG.behind) continue;
      const rate = Math.floor((lane.lags.came * 1_000_000) / span);
      lane.lags = null;
      if (rate < least) behind.set(lane.parent, or(behind.get(lane.parent) ?? 0, bit(substream)));
    }
    return behind;
  }

  /** Where nobody else is left, what failed is tried again. */
  #tryAgain(now: number, out: Output[]): void {
    if (this.#lanes.every((l) => l.parent !== null)) return;
    for (const f of this.#feeds.values()) {
      if (f.endsBy !== null || f.stage !== 'failed' || now - f.since < TRY_AGAIN) continue;
      [f.stage, f.since] = ['dialling', now];
      out.push({ do: 'dial', parent: f.entry });
    }
  }
}
