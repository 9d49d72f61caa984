/** A map in the order of its keys. Keys mostly come in rising order and go from the front. */
export class Sorted<K extends number | string, V> {
  #keys: K[] = [];
  #values = new Map<K, V>();

  get size(): number { return this.#keys.length; }
  get(key: K): V | undefined { return this.#values.get(key); }
  has(key: K): boolean { return this.#values.has(key); }

  set(key: K, value: V): void {
    if (!this.#values.has(key)) {
      const last = this.#keys.at(-1);
      if (last === undefined || last < key) this.#keys.push(key);
      else this.#keys.splice(this.#at(key), 0, key);
    }
    this.#values.set(key, value);
  }

  /** The value, made if there is none. */
  entry(key: K, make: () => V): V {
    let value = this.#values.get(key);
    if (value === undefined) {
      value = make();
      this.set(key, value);
    }
    return value;
  }

  delete(key: K): V | undefined {
    const value = this.#values.get(key);
    if (this.#values.delete(key)) this.#keys.splice(this.#at(key), 1);
    return value;
  }

  clear(): void {
    this.#keys = [];
    this.#values.clear();
  }

  /** Keys and values from `from` on, to before `to`. Nothing may be added or taken away meanwhile. */
  *range(from?: K, to?: K): Generator<[K, V]> {
    for (let i = from === undefined ? 0 : this.#at(from); i < this.#keys.length; i += 1) {
      const key = this.#keys[i] as K;
      if (to !== undefined && key >= to) return;
      yield [key, this.#values.get(key) as V];
    }
  }
  [Symbol.iterator](): Generator<[K, V]> { return this.range(); }
  keys(): readonly K[] { return this.#keys; }
  *values(): Generator<V> { for (const [, value] of this.range()) yield value; }

  first(): [K, V] | undefined { return this.#pair(0); }
  last(): [K, V] | undefined { return this.#pair(this.#keys.length - 1); }
  /** The last one whose key is `key` at most. */
  upTo(key: K): [K, V] | undefined {
    const at = this.#at(key);
    return this.#keys[at] === key ? this.#pair(at) : this.#pair(at - 1);
  }
  /** The last one whose key is less. */
  before(key: K): [K, V] | undefined { return this.#pair(this.#at(key) - 1); }
  /** The first one whose key is `key` at least. */
  from(key: K): [K, V] | undefined { return this.#pair(this.#at(key)); }

  #pair(at: number): [K, V] | undefined {
    const key = this.#keys[at];
    return key === undefined ? undefined : [key, this.#values.get(key) as V];
  }
  #at(key: K): number {
    let [low, high] = [0, this.#keys.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#keys[middle] as K) < key) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
