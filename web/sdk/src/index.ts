/**
 * Headwater in a page.
 *
 *     const headwater = await Headwater.connect({ control: 'https://cc.example:7400' });
 *     const stream = await headwater.stream('hw://cc.example:7400/channel#key=…', { origin: 'https://cdn.example/live.m3u8' });
 *     const { url, loader } = stream.hls();
 *     const hls = new Hls({ loader });
 *     hls.loadSource(url);
 *     hls.attachMedia(video);
 */

import type { SessionWay } from './carrier.ts';
import { FileContent, type FileProgress, type Sink, diskSink, memorySink } from './file.ts';
import { newIdentity } from './identity.ts';
import { type HlsSource, hlsSource } from './hls/loader.ts';
import type { FileTrack } from './log.ts';
import { contentOf, parseName } from './name.ts';
import { hex, random } from './octets.ts';
import { Node } from './node.ts';
import { handOver } from './resident.ts';
import { type ShakaLibrary, type ShakaSource, shakaSource } from './shaka/scheme.ts';
import { Stream, type StreamStatistics } from './stream.ts';

export type { SessionWay } from './carrier.ts';
export type { FileProgress } from './file.ts';
export type { HlsLoader, HlsSource } from './hls/loader.ts';
export type { ShakaLibrary, ShakaSource } from './shaka/scheme.ts';
export type { StandIn } from './stand-in.ts';
export type { StreamStatistics } from './stream.ts';

/** What a page saves the browser has begun to read by then. */
const SAVE_BEGINS_WITHIN_MS = 60_000;
const DEFAULT_MEMORY_BYTES = 128 << 20;
/** On devices with little memory. */
const SMALL_MEMORY_BYTES = 48 << 20;

export interface Options {
  /** The control center: `host:port`, or an `https:`, `http:`, `wss:` or `ws:` address. */
  control: string;
  /** A viewer's token, for contents that are not open to all. */
  token?: string;
  /** Node id of the control center, hexadecimal (`cc=` in names): it is pinned. */
  controlId?: string;
  /** The most bytes of contents that are held. */
  memoryBytes?: number;
  /**
   * What native peers may have of the viewer's uplink, bits per second: files that are here whole are served to those whom
   * the control center names. Nothing without it, in the background, on cellular connections, or where data is to be saved.
   */
  up?: number;
}

export interface StreamOptions {
  /** The stream's playlist at the publisher's: what is played when nothing else is there. */
  origin?: string;
}

/**
 * What happens; statistics tell how much. `limited`: no connection with peers gets through here. `stand-in`: another
 * content of the publisher is here in place of one that was asked for, as pages are lightweight clients.
 */
export type HeadwaterEvent = 'session' | 'no-session' | 'limited' | 'stand-in';

/** A live stream. */
export interface LiveStream {
  /** What hls.js takes. */
  hls(): HlsSource;
  /** Registers a scheme with Shaka Player, whose namespace this is, and gives what its `load` takes. */
  shaka(shaka: ShakaLibrary): ShakaSource;
  statistics(): StreamStatistics;
  /** Why nothing comes, in words; `null` while there is no reason. */
  readonly problem: string | null;
  /** Ends it. */
  close(): void;
}

/** A file that is being fetched. */
export interface FileDownload {
  /** Path and media type as the publisher says, and the file: verified, on disk where the browser can. */
  readonly done: Promise<{ path: string; mediaType: string; blob: Blob }>;
  progress(): FileProgress;
  /** Ends it, and forgets what it kept on disk. */
  close(): void;
}

export interface FileOptions {
  /** Called when something came. */
  progress?(): void;
}

export interface DownloadOptions extends FileOptions {
  /** Whether the peer that is installed on this machine is asked first; `try` where nothing is said. */
  resident?: 'try' | 'never';
}

/** Who fetches a file: the peer of this machine as it seems, or this page. */
export type Download = { by: 'resident' } | { by: 'page'; file: FileDownload };

/** A page as a peer. */
export class Headwater {
  #node: Node;
  #listeners = new Map<HeadwaterEvent, Set<() => void>>();
  /** A page that the browser keeps may come back: its connections are made anew then. */
  #leave = (e: PageTransitionEvent) => { if (!e.persisted) this.close(); };
  #look = () => this.#node.allow(maySend());

  private constructor(node: (told: (what: string) => void) => Node, readonly options: Options) {
    this.#node = node((what) => this.#listeners.get(what as HeadwaterEvent)?.forEach((f) => f()));
    addEventListener('pagehide', this.#leave);
    document.addEventListener('visibilitychange', this.#look);
    network()?.addEventListener?.('change', this.#look);
    this.#look();
  }

  /**
   * Begins to be a peer. It does not wait for the control center: a stream plays from its origin until there is one.
   * Throws where the page has no WebCrypto, as on plain HTTP.
   */
  static async connect(options: Options): Promise<Headwater> {
    if (!globalThis.crypto?.subtle) throw new Error('Headwater needs a page on HTTPS, or on localhost');
    const identity = await newIdentity();
    const config = {
      api: apiOf(options.control), controlId: options.controlId?.toLowerCase() ?? null,
      webTransport: typeof WebTransport === 'function',
    };
    const small = ((navigator as { deviceMemory?: number }).deviceMemory ?? 8) <= 2;
    const memory = options.memoryBytes ?? (small ? SMALL_MEMORY_BYTES : DEFAULT_MEMORY_BYTES);
    const up = Math.max(0, Math.floor((options.up ?? 0) / 8));
    return new Headwater((told) => new Node(config, identity, memory, up, told), options);
  }

  /** Node id of this page, hexadecimal. */
  get node(): string { return this.#node.identity.node; }
  /** Whether there is a session with the control center. */
  get connected(): boolean { return this.#node.control.connected; }

  /** How that session runs; `null` when there is none. Over WebTransport it has shown that UDP gets through. */
  get session(): SessionWay | null { return this.#node.control.way; }

  /** Calls `f` whenever it happens; returns what ends that. */
  on(event: HeadwaterEvent, f: () => void): () => void {
    const all = this.#listeners.get(event) ?? new Set();
    this.#listeners.set(event, all.add(f));
    return () => all.delete(f);
  }

  /** A live stream by its `hw://` name. Throws for a name that is none. */
  async stream(name: string, options: StreamOptions = {}): Promise<LiveStream> {
    const parsed = parseName(name);
    const content = await contentOf(parsed.key, parsed.name);
    const stream = new Stream(this.#node, parsed, content, this.options.token);
    this.#node.add(stream);
    return {
      hls: () => hlsSource(stream, options.origin ?? null),
      shaka: (shaka) => shakaSource(shaka, stream, options.origin ?? null),
      statistics: () => stream.statistics(),
      get problem() { return stream.problem; },
      close: () => stream.close(),
    };
  }

  /** A file by its `hw://` name. Throws for a name that is none. */
  async file(name: string, options: FileOptions = {}): Promise<FileDownload> {
    const parsed = parseName(name);
    const content = await contentOf(parsed.key, parsed.name);
    let kept: (Sink & { file(): Promise<Blob>; remove(): Promise<void> }) | null = null;
    let held: (Sink & { blob(): Blob }) | null = null;
    const open = async (track: FileTrack): Promise<Sink> => {
      kept = await diskSink(`headwater-${hex(random(8))}`);
      if (kept) return kept;
      if (track.bytes > this.#node.memoryBytes) throw new Error('this browser has no place for so large a file');
      held = memorySink(track.bytes);
      return held;
    };
    const file = new FileContent(this.#node, parsed, content, this.options.token, open, () => options.progress?.());
    this.#node.add(file);
    const done = file.done.then(async ({ path, mediaType }) => {
      const blob = await kept?.file() ?? held?.blob() ?? new Blob();
      return { path, mediaType, blob };
    });
    done.catch(() => {});
    return {
      done,
      progress: () => file.state(),
      close: () => {
        file.close();
        void kept?.remove().catch(() => {});
      },
    };
  }

  /**
   * What a click on "Download" does: hands the name to the peer of this machine where the browser seems to have one for `hw://`,
   * else fetches it here and saves it as a download of the page's. To be called by a click. Throws for a name that is none.
   */
  async download(name: string, options: DownloadOptions = {}): Promise<Download> {
    parseName(name);
    if (options.resident !== 'never' && await handOver(name)) return { by: 'resident' };
    const file = await this.file(name, options);
    file.done.then(({ path, blob }) => save(path, blob), () => {});
    return { by: 'page', file };
  }

  /** Leaves: says goodbye to the control center and to parents. */
  close(): void {
    removeEventListener('pagehide', this.#leave);
    document.removeEventListener('visibilitychange', this.#look);
    network()?.removeEventListener?.('change', this.#look);
    this.#node.close();
  }
}

interface Network extends EventTarget { type?: string; saveData?: boolean }

const network = () => (navigator as { connection?: Network }).connection;

/** Whether a viewer would mind if something were sent to others. */
function maySend(): boolean {
  const { type, saveData } = network() ?? {};
  return document.visibilityState !== 'hidden' && type !== 'cellular' && !saveData;
}

/** As browsers save what a page has made. */
function save(path: string, blob: Blob): void {
  const url = URL.createObjectURL(blob);
  const link = Object.assign(document.createElement('a'), { href: url, download: path.split('/').pop() ?? '' });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), SAVE_BEGINS_WITHIN_MS);
}

/** Where the control center's API is. */
function apiOf(control: string): string {
  const said = /^(?:(https?|wss?):\/\/)?([^/?#\s]+)\/?$/.exec(control);
  if (!said) throw new TypeError(`"${control}" is no control center: say host:port`);
  const [, scheme, host] = said as unknown as [string, string | undefined, string];
  // On its own machine a control center has no TLS.
  const isLocal = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?$/.test(host);
  const plain = scheme ? scheme === 'http' || scheme === 'ws' : isLocal;
  return `${plain ? 'http' : 'https'}://${host}`;
}
