/** When the next bytes may leave, so that a page's uplink is used at a rate and no more. */

const S = 1_000_000;

/** Decides only; times are microseconds, rates bytes per second. */
export class Pace {
  #freeAt = 0;

  constructor(readonly rate: number) {}

  /** Counts `bytes`; how long to wait before they leave. What was not used before is not made up for. */
  take(now: number, bytes: number): number {
    const at = Math.max(now, this.#freeAt);
    this.#freeAt = at + Math.ceil((bytes * S) / this.rate);
    return at - now;
  }
}
