/** What carries a session with the control center: WebTransport, or a WebSocket where that does not get through. */

import { ByteReader, MAX_CONTROL_FRAME_BYTES, framed } from './frame.ts';
import { type Octets, concat, unhex } from './octets.ts';

export const PAGE_PATH = '/headwater/1';
/** The control center says within this time by which certificates it is known, or WebTransport is not tried. */
const ASK_PATIENCE_MS = 2_000;
/** WebTransport gets twice the time that this took, which is more round trips than it needs; and between these two. */
const MIN_PATIENCE_MS = 500;
const MAX_PATIENCE_MS = 2_000;
/** A WebSocket that is not open then has failed. */
const SOCKET_PATIENCE_MS = 5_000;
/** How long the last words may take. */
const GOODBYE_MS = 1_000;
const MAX_CERTIFICATES = 3;

/** How a session runs. */
export type SessionWay = 'webtransport' | 'websocket';

export interface Carrier {
  readonly way: SessionWay;
  /** TLS showed one of these certificates (SHA-256); `null` where a page cannot know. */
  readonly certificates: readonly Octets[] | null;
  send(message: Uint8Array): void;
  /** The next message; rejects at the end. */
  next(): Promise<Uint8Array>;
  /** Ends it, when what was said has gone out. */
  close(): void;
}

/** Rejects after a while. */
export function within<T>(ms: number, what: Promise<T>, why: string): Promise<T> {
  let timer: ReturnType<typeof setTimeout>;
  const late = new Promise<never>((_, failed) => { timer = setTimeout(() => failed(new Error(why)), ms); });
  return Promise.race([what, late]).finally(() => clearTimeout(timer));
}

/** Opens one after the other: what carried the last session carries the next one, as far as that can be. */
export class Carriers {
  #tried = false;
  #inVain = false;

  /** `api` is the control center's, without a path. */
  constructor(readonly api: string) {}

  /** WebTransport, if it gets through soon, else a WebSocket. */
  async open(): Promise<Carrier> {
    this.#tried = !this.#inVain && typeof WebTransport === 'function';
    if (this.#tried) {
      try {
        return await openWebTransport(this.api);
      } catch (e) {
        console.debug('headwater: no WebTransport to the control center:', e);
      }
    }
    return openWebSocket(this.api);
  }

  /** A session began. A WebSocket that works where WebTransport did not stands for it on this page from now on. */
  began(way: SessionWay): void {
    this.#inVain ||= this.#tried && way === 'websocket';
  }
}

async function openWebTransport(api: string): Promise<Carrier> {
  const asked = performance.now();
  const answer = await fetch(`${api}/v1/page`, { signal: AbortSignal.timeout(ASK_PATIENCE_MS) });
  if (!answer.ok) throw new Error(`it answers ${answer.status}`);
  const certificates = certificatesIn(await answer.json());
  const patience = Math.min(MAX_PATIENCE_MS, Math.max(MIN_PATIENCE_MS, 2 * (performance.now() - asked)));
  const serverCertificateHashes = certificates.map((value) => ({ algorithm: 'sha-256', value }));
  const transport = new WebTransport(webTransportUrl(api), { serverCertificateHashes });
  transport.closed.catch(() => {});
  try {
    const opened = transport.ready.then(() => transport.createBidirectionalStream());
    return carriedBy(transport, await within(patience, opened, 'no answer over UDP'), certificates);
  } catch (e) {
    transport.close();
    throw e;
  }
}

/** At the host and port of the API, over UDP. */
function webTransportUrl(api: string): string {
  const { hostname, port, protocol } = new URL(api);
  return `https://${hostname}:${port || (protocol === 'http:' ? 80 : 443)}${PAGE_PATH}`;
}

/** What `GET /v1/page` says. */
export function certificatesIn(said: unknown): Octets[] {
  const { webtransport } = (said ?? {}) as { webtransport?: { certificate_hashes?: unknown } };
  const all: unknown[] = Array.isArray(webtransport?.certificate_hashes) ? webtransport.certificate_hashes : [];
  const hashes = all.slice(0, MAX_CERTIFICATES).map((h) => (typeof h === 'string' ? unhex(h) : null));
  const right = hashes.filter((h) => h?.length === 32) as Octets[];
  if (!right.length) throw new Error('it says no certificates');
  return right;
}

function carriedBy(transport: WebTransport, stream: WebTransportBidirectionalStream, certificates: Octets[]): Carrier {
  const reader = new ByteReader(stream.readable as ReadableStream<Uint8Array>);
  const writer = (stream.writable as WritableStream<Uint8Array>).getWriter();
  writer.closed.catch(() => {});
  let writing: Promise<unknown> = Promise.resolve();
  return {
    way: 'webtransport', certificates,
    send: (message) => {
      writing = writing.then(() => writer.write(framed(message))).catch(() => transport.close());
    },
    next: async () => {
      const message = await reader.frame(MAX_CONTROL_FRAME_BYTES);
      if (!message) throw new Error('the stream ended');
      return message;
    },
    close: () => {
      const said = writing.then(() => writer.close());
      within(GOODBYE_MS, said, 'too late').catch(() => {}).finally(() => transport.close());
    },
  };
}

async function openWebSocket(api: string): Promise<Carrier> {
  const socket = new WebSocket(`${api.replace(/^http/, 'ws')}/v1/session`);
  socket.binaryType = 'arraybuffer';
  const waiting: Uint8Array[] = [];
  let wanted: { done(m: Uint8Array): void; failed(e: Error): void } | null = null;
  let over = false;
  socket.addEventListener('message', ({ data }) => {
    const message = new Uint8Array(data as ArrayBuffer);
    if (wanted) wanted.done(message);
    else waiting.push(message);
    wanted = null;
  });
  const opened = new Promise<void>((done, failed) => {
    socket.addEventListener('open', () => done());
    socket.addEventListener('close', () => {
      over = true;
      failed(new Error('no WebSocket'));
      wanted?.failed(new Error('the WebSocket closed'));
    });
  });
  try {
    await within(SOCKET_PATIENCE_MS, opened, 'the WebSocket does not open');
  } catch (e) {
    socket.close();
    throw e;
  }
  return {
    way: 'websocket', certificates: null,
    send: (message) => socket.send(concat(message)),
    next: () => new Promise((done, failed) => {
      const message = waiting.shift();
      if (message) done(message);
      else if (over) failed(new Error('the WebSocket closed'));
      else wanted = { done, failed };
    }),
    close: () => socket.close(),
  };
}
