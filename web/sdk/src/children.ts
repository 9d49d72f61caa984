/**
 * What native peers that this page dialled may have of a file that it has whole. Decides only; times are microseconds. As
 * `peer-core/children.rs`, for who has everything.
 */

/** Pieces that wait for one child; it asks again for more. */
const MAX_QUEUE_PIECES = 512;
const MAX_CHILDREN = 32;

interface Child {
  queue: number[];
  pieces: number;
  bytes: number;
  busySince: number | null;
  waited: number;
}

/** What heartbeats tell of a child; `waited` is since the last one. */
export interface ChildView { node: string; pieces: number; bytes: number; waited: number }

export class Children {
  #children = new Map<string, Child>();

  constructor(readonly pieces: number) {}

  has(node: string): boolean { return this.#children.has(node); }
  get size(): number { return this.#children.size; }

  /** Whether there is room for it. */
  opened(node: string): boolean {
    if (this.#children.has(node)) return true;
    if (this.#children.size >= MAX_CHILDREN) return false;
    this.#children.set(node, { queue: [], pieces: 0, bytes: 0, busySince: null, waited: 0 });
    return true;
  }

  closed(node: string): void { this.#children.delete(node); }

  asked(now: number, node: string, pieces: readonly number[]): void {
    const child = this.#children.get(node);
    if (!child) return;
    const waiting = new Set(child.queue);
    for (const piece of pieces) {
      if (child.queue.length >= MAX_QUEUE_PIECES) break;
      if (piece >= this.pieces || waiting.has(piece)) continue;
      waiting.add(piece);
      child.queue.push(piece);
    }
    if (child.queue.length) child.busySince ??= now;
  }

  unasked(node: string, pieces: readonly number[]): void {
    const child = this.#children.get(node);
    const no = new Set(pieces);
    if (child) child.queue = child.queue.filter((piece) => !no.has(piece));
  }

  /** The next piece for a child; `null` while it waits for none. */
  next(now: number, node: string): number | null {
    const child = this.#children.get(node);
    if (!child) return null;
    const piece = child.queue.shift() ?? null;
    if (piece === null && child.busySince !== null) {
      child.waited += now - child.busySince;
      child.busySince = null;
    }
    return piece;
  }

  sent(node: string, bytes: number): void {
    const child = this.#children.get(node);
    if (child) [child.pieces, child.bytes] = [child.pieces + 1, child.bytes + bytes];
  }

  report(now: number): ChildView[] {
    return [...this.#children].map(([node, c]) => {
      if (c.busySince !== null) [c.waited, c.busySince] = [c.waited + now - c.busySince, now];
      const waited = c.waited;
      c.waited = 0;
      return { node, pieces: c.pieces, bytes: c.bytes, waited };
    });
  }
}
