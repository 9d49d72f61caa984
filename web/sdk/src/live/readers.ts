/** Players at this page: what each needs next, and when. As `peer-core/live/readers.rs`. */

import type { Window } from './window.ts';

/** What a player may take to begin once its first segment is here. */
const BEGINS_WITHIN = 200_000;
/** A player that reads nothing for so long is paused, or gone. */
const IDLE = 12_000_000;
/** A player that reads so many segments ahead has jumped. */
const JUMP = 8;
const MAX_READERS = 64;

interface Plays {
  /** The segment that it began with, and whether that was here. */
  first: number;
  begun: boolean;
  /** The segment that it read last, and when that has to be here. */
  last: number;
  due: number;
}

interface Reader {
  readAt: number;
  plays: Plays | null;
  /** What it reads now that is no segment. */
  other: number | null;
}

export class Readers {
  #readers = new Map<number, Reader>();

  constructor(readonly window: Window) {}

  left(reader: number): void { this.#readers.delete(reader); }

  /** A player reads an object. */
  reads(now: number, reader: number, object: number): void {
    const sequence = this.window.objects.get(object)?.listed?.sequence;
    const plays = this.#readers.get(reader)?.plays ?? null;
    let next: Reader;
    if (sequence === undefined) {
      next = { readAt: now, plays, other: object };
    } else if (plays && sequence >= plays.last && sequence < plays.last + JUMP) {
      // Whoever reads it only now did not need it before.
      const due = Math.max(now, plays.due + this.#playedBetween(plays.last, sequence));
      next = { readAt: now, plays: { ...plays, due, last: sequence }, other: null };
    } else {
      next = { readAt: now, plays: { first: sequence, due: now + BEGINS_WITHIN, begun: false, last: sequence }, other: null };
    }
    if (this.#readers.size >= MAX_READERS && !this.#readers.has(reader)) {
      const [longest] = [...this.#readers].sort(([, a], [, b]) => a.readAt - b.readAt);
      if (longest) this.#readers.delete(longest[0]);
    }
    this.#readers.set(reader, next);
  }

  /** When players need which objects; those that nobody is going to read are not in it. */
  due(now: number): Map<number, number> {
    for (const [number, r] of this.#readers) if (now - r.readAt >= IDLE) this.#readers.delete(number);
    const due = new Map<number, number>();
    const needs = (object: number, at: number) => due.set(object, Math.min(due.get(object) ?? Infinity, at));
    for (const r of this.#readers.values()) {
      if (r.other !== null) needs(r.other, now);
      const p = r.plays;
      if (!p) continue;
      if (!p.begun) {
        // What follows is needed so much later as the picture came later than it was hoped for.
        p.begun = [...this.window.listed()].some(([n, , l]) => l.sequence === p.first && this.window.isHere(n));
        if (p.begun) p.due = now + this.#playedBetween(p.first, p.last);
      }
      let at = p.due;
      const notBegun = p.begun ? 0 : Math.max(0, now - p.due);
      for (const [object, , l] of this.window.listed()) {
        if (l.sequence < p.last) continue;
        needs(object, at);
        if (l.map !== null) needs(l.map, at);
        at += l.duration + (l.sequence === p.last ? notBegun : 0);
      }
    }
    return due;
  }

  /** How long the segments from `first` to before `sequence` play. */
  #playedBetween(first: number, sequence: number): number {
    let sum = 0;
    for (const [, , l] of this.window.listed()) if (l.sequence >= first && l.sequence < sequence) sum += l.duration;
    return sum;
  }
}
