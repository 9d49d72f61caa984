/** The origin: any HTTP server, by ranges. */

import { ByteReader } from './frame.ts';
import type { Octets } from './octets.ts';

/** The pieces whose bytes follow one another from `from` on, as they come. */
export async function* fetchRange(
  url: string, from: number, pieces: { piece: number; bytes: number }[], signal: AbortSignal,
): AsyncGenerator<[number, Octets]> {
  const last = from + pieces.reduce((n, p) => n + p.bytes, 0) - 1;
  const answer = await fetch(url, { headers: { range: `bytes=${from}-${last}` }, signal, credentials: 'omit' });
  // A server without ranges gives all of it.
  if (answer.status !== 206 && !(answer.status === 200)) throw new Error(`the origin answers ${answer.status}`);
  if (!answer.body) throw new Error('the origin answers nothing');
  const reader = new ByteReader(answer.body);
  try {
    if (answer.status === 200 && from > 0) await reader.take(from);
    for (const { piece, bytes } of pieces) {
      const data = await reader.take(bytes);
      if (!data) throw new Error('the origin stopped in the middle');
      yield [piece, data];
    }
  } finally {
    reader.cancel();
  }
}
