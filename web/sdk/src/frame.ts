/** Frames: a length of four bytes, big-endian, and as many bytes. */

import { type Octets, concat, u32 } from './octets.ts';

export const PEER_CONTROL_STREAM = 1;
export const PEER_DATA_STREAM = 2;
export const PEER_LIVE_STREAM = 3;
export const MAX_CONTROL_FRAME_BYTES = 8 << 20;
export const MAX_PEER_FRAME_BYTES = 1 << 20;
export const MAX_DATA_HEADER_BYTES = 128;
export const MAX_PIECE_BYTES = 4 << 20;

export const framed = (body: Uint8Array): Octets => concat(u32(body.length), body);

/** Reads exactly as many bytes as are asked for. */
export class ByteReader {
  #chunks: Uint8Array[] = [];
  #have = 0;
  #source: ReadableStreamDefaultReader<Uint8Array>;

  constructor(source: ReadableStream<Uint8Array>) {
    this.#source = source.getReader();
  }

  /** The next `bytes` bytes; `null` when the stream ends before. */
  async take(bytes: number): Promise<Octets | null> {
    while (this.#have < bytes) {
      const { value, done } = await this.#source.read();
      if (done) return null;
      this.#chunks.push(value);
      this.#have += value.length;
    }
    const out = new Uint8Array(bytes);
    let at = 0;
    while (at < bytes) {
      const chunk = this.#chunks[0] as Uint8Array;
      const part = chunk.subarray(0, bytes - at);
      out.set(part, at);
      at += part.length;
      if (part.length === chunk.length) this.#chunks.shift();
      else this.#chunks[0] = chunk.subarray(part.length);
    }
    this.#have -= bytes;
    return out;
  }

  /** The body of the next frame; `null` at the end. */
  async frame(most: number): Promise<Octets | null> {
    const length = await this.take(4);
    if (!length) return null;
    const bytes = new DataView(length.buffer).getUint32(0);
    if (bytes > most) throw new Error(`a frame of ${bytes} bytes where ${most} is the limit`);
    return this.take(bytes);
  }

  cancel(): void {
    this.#source.cancel().catch(() => {});
  }
}
