/** A file at a page: carries out what its swarm decides, verifies pieces and hands them to where they are to be kept. */

import { create, fromBinary } from '@bufbuild/protobuf';
import {
  AlarmMessageSchema, type Assignment, BadPieceSchema, CancelSchema, CloseEdgeSchema, type ContentReport, ContentReportSchema, EdgeRefusal,
  EdgeSchema, JoinSchema, type Lease, LeaseDoneSchema, LeaseFailedSchema, LeaveSchema, type Log, type Page,
  PageRequestSchema, StaticLogSchema, ParentLostSchema, type PeerMessage, Priority, RequestSchema, StarvingSchema, VersionSchema,
  type Version as WireVersion,
} from './wire/headwater_pb.ts';
import type { Content } from './content.ts';
import { clock } from './control.ts';
import type { GivenTicket, Link } from './link.ts';
import { type FileTrack, verifyFileLog } from './log.ts';
import { PAGE_LEAVES, root, trueLeaves } from './merkle.ts';
import type { Name } from './name.ts';
import type { Node } from './node.ts';
import { type Octets, equal, hex, leaf, unhex, whole } from './octets.ts';
import { fetchRange } from './origin.ts';
import type { Pace } from './pace.ts';
import { Serving } from './serving.ts';
import { type StandIn, standInFor } from './stand-in.ts';
import { parentOf } from './stream.ts';
import { Swarm, type SwarmInput, type SwarmOutput, lengthOf, runsOf } from './swarm.ts';

const TICK_MS = 100;
/** Without a session for so long the static log beside the file is read. */
const LOG_AFTER_MS = 3_000;
const MAX_LOG_BYTES = 176 << 20;
/** Pieces that one message may ask for. */
const MAX_NAMED_PIECES = 4096;

/** Where a file's bytes go, in any order; each byte once. */
export interface Sink {
  write(at: number, data: Octets): Promise<void>;
  /** Everything is there. */
  close(): Promise<void>;
  abort(): Promise<void>;
  /** After `close`: what was written. */
  read(at: number, bytes: number): Promise<Octets>;
}

export interface FileProgress {
  /** Name of the file that this is. */
  name: string;
  /** Where it is another one than was asked for: which, and why. */
  standIn: StandIn | null;
  bytes: number; total: number | null; peerBytes: number; originBytes: number; parents: number;
  /** Bytes from each parent of now. */
  sources: { node: string; bytes: number }[];
  /** Sent to others. */
  uploadedBytes: number;
}

export class FileContent implements Content {
  readonly done: Promise<FileTrack>;
  #finish!: (track: FileTrack) => void;
  #fail!: (e: Error) => void;
  #track: FileTrack | null = null;
  #swarm: Swarm | null = null;
  #leaves = new Map<number, string[]>();
  #tickets = new Map<string, GivenTicket>();
  #jobs = new Map<number, AbortController>();
  #pending: (() => void)[] = [];
  #writing = new Set<number>();
  #sink: Sink | null = null;
  #timer = setInterval(() => this.#happened({ is: 'tick' }), TICK_MS);
  #told = -1;
  #over = false;
  #pages = new Map<number, Page>();
  #serving: Serving | null = null;
  /** What it is, where that is not what was asked for. */
  standIn: StandIn | null = null;

  constructor(
    readonly node: Node, public name: Name, public content: Octets, readonly token: string | undefined,
    readonly open: (track: FileTrack) => Promise<Sink>, readonly progress: () => void,
  ) {
    this.done = new Promise((done, failed) => { [this.#finish, this.#fail] = [done, failed]; });
    this.done.catch(() => {});
    if (name.log !== null) setTimeout(() => void this.#readLog(name.log as string), LOG_AFTER_MS);
    this.#join();
  }

  state(): FileProgress {
    const s = this.#swarm;
    return {
      name: this.name.name, standIn: this.standIn,
      bytes: (s?.peerBytes ?? 0) + (s?.originBytes ?? 0), total: this.#track?.bytes ?? null, peerBytes: s?.peerBytes ?? 0,
      originBytes: s?.originBytes ?? 0, parents: s?.edges().filter((e) => e.open).length ?? 0,
      sources: s?.edges().map(({ node, bytes }) => ({ node, bytes })) ?? [], uploadedBytes: this.#serving?.uploadedBytes ?? 0,
    };
  }

  /** Ends it; one that is not complete fails. */
  close(): void { this.#end(new Error('it was given up')); }

  #end(why: Error | null): void {
    if (this.#over) return;
    this.#over = true;
    this.#fetchesNoMore();
    this.#serving?.close();
    const version = this.#version();
    for (const { node } of this.#swarm?.edges() ?? []) {
      this.node.link(node)?.say({ case: 'closeEdge', value: create(CloseEdgeSchema, { version, asChild: true }) });
    }
    this.node.control.say({ case: 'leave', value: create(LeaveSchema, { version }) });
    this.node.forget(this);
    this.node.offer();
    if (!why) return;
    if (!this.#serving) void this.#sink?.abort().catch(() => {});
    this.#fail(why);
  }

  #fetchesNoMore(): void {
    clearInterval(this.#timer);
    this.#jobs.forEach((job) => job.abort());
  }

  // ---- the control center ----

  #version(): WireVersion { return create(VersionSchema, { content: this.content, epoch: this.#track?.version.epoch ?? 0n }); }

  #join(): void {
    if (!this.node.control.connected) return;
    const runs = this.#runs();
    const value = create(JoinSchema, {
      version: this.#version(), viewerToken: this.token ?? '', hasRuns: runs !== null, runs: runs ?? new Uint8Array(),
      complete: this.#swarm?.isComplete() ?? false,
      parents: this.#swarm?.edges().filter((e) => e.open).map((e) => this.node.idOf(e.node)) ?? [],
      leases: this.#swarm?.underWay() ?? [],
    });
    this.node.control.say({ case: 'join', value });
  }

  session(connected: boolean): void {
    this.#happened({ is: 'control', connected });
    if (connected) this.#join();
  }

  refused(why: string): void {
    if (!this.#swarm || this.#serving) this.#end(new Error(why));
  }

  async goOver(to: string, why: string): Promise<void> {
    if (this.standIn || to === this.name.name) return this.#end(new Error(`${why}, and there is nothing else for it`));
    // What is here as a whole stays here.
    if (this.#swarm?.isComplete()) return this.refused(why);
    const next = await standInFor(this.name, to, why);
    // It may have been said twice.
    if (this.standIn || this.#over || this.#swarm?.isComplete()) return;
    await this.#forget();
    [this.name, this.content, this.standIn] = [next.name, next.content, next.standIn];
    this.node.told('stand-in');
    this.#join();
    this.progress();
  }

  /** What came of it, without a control center, is another file's. */
  async #forget(): Promise<void> {
    this.#jobs.forEach((job) => job.abort());
    const sink = this.#sink;
    [this.#track, this.#swarm, this.#sink, this.#told] = [null, null, null, -1];
    [this.#leaves, this.#tickets, this.#pages, this.#writing, this.#jobs].forEach((all) => all.clear());
    this.#pending.splice(0);
    await sink?.abort().catch(() => {});
  }

  async info({ log }: { log?: Log }): Promise<void> {
    if (this.#track || !log || this.#over) return;
    const { content } = this;
    const isOther = () => this.content !== content;
    try {
      const track = await verifyFileLog(log, this.name.name, this.name.key);
      if (isOther()) return;
      const sink = await this.open(track);
      if (this.#over || this.#swarm || isOther()) return void sink.abort();
      [this.#track, this.#sink] = [track, sink];
      const order = new DataView((unhex(this.node.identity.node) as Octets).buffer).getUint32(0);
      this.#swarm = new Swarm(clock(), track, order);
      this.#happened({ is: 'control', connected: this.node.control.connected });
      this.#pending.splice(0).forEach((f) => f());
    } catch (e) {
      if (!isOther()) this.#end(e instanceof Error ? e : new Error(String(e)));
    }
  }

  /** The log that the publisher put beside the file, with all hashes: for those who reach no control center. */
  async #readLog(url: string): Promise<void> {
    if (this.#over || this.node.control.connected || this.standIn) return;
    try {
      const answer = await fetch(url, { credentials: 'omit' });
      if (!answer.ok || Number(answer.headers.get('content-length')) > MAX_LOG_BYTES) throw new Error(`status ${answer.status}`);
      const said = fromBinary(StaticLogSchema, new Uint8Array(await answer.arrayBuffer()));
      if (this.standIn) return;
      await this.info(said.log ? { log: said.log } : {});
      const track = this.#track;
      if (!track) return;
      const hashes = Array.from({ length: track.pieces }, (_, i) => said.leaves.slice(32 * i, 32 * i + 32) as Octets);
      if (!equal(await root(hashes), track.root)) throw new Error('its hashes are not those that the publisher signed');
      if (this.#track !== track) return;
      for (let page = 0; page * PAGE_LEAVES < track.pieces; page += 1) {
        this.#leaves.set(page, hashes.slice(page * PAGE_LEAVES, (page + 1) * PAGE_LEAVES).map(hex));
        this.#happened({ is: 'page', page });
      }
    } catch (e) {
      console.debug('headwater: the static log cannot be used:', e);
    }
  }

  /** At once, or when the log is there. */
  #later(f: () => void): void {
    if (this.#swarm) f();
    else this.#pending.push(f);
  }

  assigned(a: Assignment): void {
    this.#later(() => {
      for (const { node, ticket, ticketSecret } of [...a.parents, ...a.spares]) {
        if (ticket) this.#tickets.set(hex(node), { ticket, secret: ticketSecret });
      }
      const { epoch, counter } = a.generation ?? { epoch: 0n, counter: 0n };
      const parents = a.parents.map(parentOf);
      this.#happened({ is: 'assigned', generation: { epoch: whole(epoch), counter: whole(counter) }, parents });
      // Others cannot dial a page: it dials them, and they show their tickets then.
      if (this.isServed()) a.children.filter((c) => c.dial).forEach((c) => this.node.dial(parentOf(c)));
    });
  }

  leased(lease: Lease): void {
    this.#later(() => {
      if (!lease.from) return this.#happened({ is: 'leased', run: lease.run });
      // Waypoints by HTTPS show certificates that browsers do not accept.
      const why = 'a page reads from no waypoint by HTTPS';
      const value = create(LeaseFailedSchema, { version: this.#version(), run: lease.run, why, forbidden: true });
      this.node.control.say({ case: 'leaseFailed', value });
    });
  }

  leaseRevoked(run: number): void { this.#later(() => this.#happened({ is: 'lease-revoked', run })); }

  /** Bitmap of complete runs. */
  #runs(): Octets | null {
    if (!this.#swarm || !this.#track) return null;
    const bits = new Uint8Array(Math.ceil(runsOf(this.#track) / 8));
    for (let run = 0; run < runsOf(this.#track); run += 1) {
      if (this.#swarm.runIsHere(run)) bits[run >> 3] = (bits[run >> 3] as number) | (1 << (run & 7));
    }
    let end = bits.length;
    while (end && bits[end - 1] === 0) end -= 1;
    return bits.slice(0, end);
  }

  report(): ContentReport | null {
    const s = this.#swarm;
    if (!s) return null;
    const to = this.#serving?.report() ?? [];
    const runs = s.have.size === this.#told ? null : this.#runs();
    this.#told = s.have.size;
    return create(ContentReportSchema, {
      version: this.#version(), priority: Priority.NORMAL, hasRuns: runs !== null, runs: runs ?? new Uint8Array(),
      piecesHeld: s.have.size, originBytes: BigInt(s.originBytes), wastedBytes: BigInt(s.wastedBytes),
      from: s.edges().filter((e) => e.open).map((e) => create(EdgeSchema, {
        node: this.node.idOf(e.node), pieces: BigInt(e.pieces), bytes: BigInt(e.bytes),
      })),
      to,
    });
  }

  // ---- peers ----

  connected(node: string): void { this.#happened({ is: 'connected', node }); }
  lost(node: string, why: string): void {
    this.#serving?.lost(node);
    this.#happened({ is: 'lost', node, why });
  }
  isServed(): boolean { return this.#serving !== null && !this.#over; }
  stopServing(): void { this.#serving?.stop('the page serves nobody now'); }
  isOf(version: WireVersion | undefined): boolean {
    return version !== undefined && equal(version.content, this.content) && version.epoch === this.#track?.version.epoch;
  }

  message(link: Link, body: PeerMessage['body']): void {
    const { node } = link;
    switch (body.case) {
      case 'edgeAnswer': {
        const { refusal, why } = body.value;
        const refused = refusal === EdgeRefusal.ACCEPTED ? null : why || EdgeRefusal[refusal] || 'no';
        return this.#happened({ is: 'answered', parent: node, refused });
      }
      case 'openEdge':
      case 'request':
      case 'cancel':
      case 'pageRequest': return this.#serving?.message(link, body);
      case 'closeEdge':
        if (body.value.asChild) return this.#serving?.message(link, body);
        return this.#happened({ is: 'lost', node, why: body.value.why });
      case 'have': {
        const { all, bitmap, pieces } = body.value;
        return this.#happened({ is: 'has', node, all, pieces: all ? bitsOf(bitmap) : pieces });
      }
      case 'page': {
        const { page } = body.value;
        return page && this.page(page.number, page);
      }
      default:
    }
  }

  page(number: number, page: Page | null): void {
    const track = this.#track;
    if (!track || this.#leaves.has(number)) return;
    if (!page) return this.#happened({ is: 'no-page', page: number });
    void trueLeaves(page, track.pieces, track.root).then((leaves) => {
      if (!leaves || this.#over || this.#track !== track) return;
      if (this.node.pace) this.#pages.set(number, page);
      this.#leaves.set(number, leaves);
      this.#happened({ is: 'page', page: number });
    });
  }

  async pieceCame(link: Link, piece: number, data: Octets): Promise<void> {
    if (this.#swarm?.isParent(link.node)) await this.#take(link.node, piece, data);
  }

  /** Verified, then written, then counted. */
  async #take(from: string | null, piece: number, data: Octets): Promise<void> {
    const [track, swarm, sink] = [this.#track, this.#swarm, this.#sink];
    const wanted = this.#leaves.get(Math.floor(piece / PAGE_LEAVES))?.[piece % PAGE_LEAVES];
    if (!track || !swarm || !sink || wanted === undefined || this.#writing.has(piece)) return;
    const isTrue = data.length === lengthOf(track, piece) && await leaf(data) === wanted;
    const isOther = () => this.#over || this.#swarm !== swarm;
    if (isOther()) return;
    if (!isTrue) return this.#happened({ is: 'bad', from, piece });
    if (!swarm.have.has(piece) && !this.#writing.has(piece)) {
      this.#writing.add(piece);
      try {
        await sink.write(piece * track.pieceBytes, data);
      } catch (e) {
        return isOther() ? undefined : this.#end(e instanceof Error ? e : new Error(String(e)));
      } finally {
        if (!isOther()) this.#writing.delete(piece);
      }
      if (isOther()) return;
    }
    this.#happened({ is: 'stored', from, piece });
    this.progress();
  }

  // ---- the swarm ----

  #happened(input: SwarmInput): void {
    if (!this.#swarm || this.#over) return;
    const out: SwarmOutput[] = [];
    this.#swarm.handle(clock(), input, out);
    for (const output of out) this.#carryOut(output);
  }

  #carryOut(output: SwarmOutput): void {
    const version = this.#version();
    const tell = (node: string, body: PeerMessage['body']) => this.node.link(node)?.say(body);
    switch (output.do) {
      case 'dial': return this.node.dial(output.parent);
      case 'open-edge': return this.#openEdge(output.node);
      case 'close-edge': return tell(output.node, { case: 'closeEdge', value: create(CloseEdgeSchema, { version, asChild: true }) });
      case 'ask': {
        const pieces = output.pieces.slice(0, MAX_NAMED_PIECES);
        return tell(output.node, { case: 'request', value: create(RequestSchema, { version, pieces }) });
      }
      case 'unask':
        return tell(output.node, { case: 'cancel', value: create(CancelSchema, { version, pieces: output.pieces }) });
      case 'ask-page': {
        const value = create(PageRequestSchema, { version, page: output.page });
        if (output.of !== null) return tell(output.of, { case: 'pageRequest', value });
        return this.node.control.say({ case: 'pageRequest', value });
      }
      case 'told-bad': return tell(output.node, { case: 'badPiece', value: create(BadPieceSchema, { version, piece: output.piece }) });
      case 'fetch-origin': return void this.#fetchOrigin(output.run, output.pieces);
      case 'stop-origin': return this.#jobs.get(output.run)?.abort();
      case 'lease-done': return this.node.control.say({ case: 'leaseDone', value: create(LeaseDoneSchema, { version, run: output.run }) });
      case 'lease-failed': {
        const value = create(LeaseFailedSchema, { version, run: output.run, why: output.why.slice(0, 200) });
        return this.node.control.say({ case: 'leaseFailed', value });
      }
      case 'starving': {
        const what = { case: 'starving' as const, value: create(StarvingSchema, { runs: output.runs }) };
        return this.node.control.say({ case: 'alarm', value: create(AlarmMessageSchema, { version, what }) });
      }
      case 'alarm': {
        const { alarm } = output;
        const id = this.node.idOf(alarm.parent);
        const what = alarm.what === 'lost'
          ? { case: 'parentLost' as const, value: create(ParentLostSchema, { parent: id, why: alarm.why.slice(0, 200) }) }
          : { case: alarm.what === 'bad' ? 'badPieces' as const : 'silent' as const, value: id };
        return this.node.control.say({ case: 'alarm', value: create(AlarmMessageSchema, { version, what }) });
      }
      case 'complete': return void this.#complete();
    }
  }

  async #complete(): Promise<void> {
    const [track, sink] = [this.#track as FileTrack, this.#sink as Sink];
    try {
      await sink.close();
      if (this.node.pace) this.#serve(track, sink, this.node.pace);
      else this.#end(null);
      this.#finish(track);
    } catch (e) {
      this.#end(e instanceof Error ? e : new Error(String(e)));
    }
  }

  /** It stays here until it is closed, for others to have. */
  #serve(track: FileTrack, sink: Sink, pace: Pace): void {
    this.#fetchesNoMore();
    this.#serving = new Serving(this.node, {
      version: this.#version(), pieces: track.pieces, page: (number) => this.#pages.get(number),
      read: (piece) => sink.read(piece * track.pieceBytes, lengthOf(track, piece)),
    }, pace);
    this.node.offer();
  }

  #openEdge(node: string): void {
    const given = this.#tickets.get(node);
    if (given) this.node.link(node)?.openEdge(this.#version(), given);
  }

  /** Runs of pieces that follow one another are asked for together. */
  async #fetchOrigin(run: number, pieces: number[]): Promise<void> {
    const track = this.#track as FileTrack;
    const abort = new AbortController();
    this.#jobs.set(run, abort);
    let why: string | null = null;
    try {
      const [url] = track.origins;
      if (!url) throw new Error('the log names no origin');
      for (let rest = pieces; rest.length;) {
        let n = 1;
        while (n < rest.length && rest[n] === (rest[0] as number) + n) n += 1;
        const some = rest.slice(0, n).map((piece) => ({ piece, bytes: lengthOf(track, piece) }));
        const from = (rest[0] as number) * track.pieceBytes;
        for await (const [piece, data] of fetchRange(url, from, some, abort.signal)) await this.#take(null, piece, data);
        rest = rest.slice(n);
      }
    } catch (e) {
      why = e instanceof Error ? e.message : String(e);
    }
    if (this.#jobs.get(run) === abort) this.#jobs.delete(run);
    if (!abort.signal.aborted) this.#happened({ is: 'origin-ended', run, why });
  }
}

function* bitsOf(bitmap: Uint8Array): Generator<number> {
  for (let i = 0; i < bitmap.length * 8; i += 1) if (((bitmap[i >> 3] as number) >> (i & 7)) & 1) yield i;
}

/** In memory. */
export function memorySink(bytes: number): Sink & { blob(): Blob } {
  const all = new Uint8Array(bytes);
  return {
    write: async (at, data) => all.set(data, at),
    close: async () => {},
    abort: async () => {},
    read: async (at, length) => all.slice(at, at + length),
    blob: () => new Blob([all]),
  };
}

/** A file of this site's own on disk, where the browser has such. */
export async function diskSink(name: string): Promise<(Sink & { file(): Promise<File>; remove(): Promise<void> }) | null> {
  const folder = await navigator.storage?.getDirectory?.().catch(() => null);
  if (!folder) return null;
  const handle = await folder.getFileHandle(name, { create: true });
  const out = await handle.createWritable();
  return {
    write: (at, data) => out.write({ type: 'write', position: at, data }),
    close: () => out.close(),
    abort: () => out.abort(),
    read: async (at, bytes) => new Uint8Array(await (await handle.getFile()).slice(at, at + bytes).arrayBuffer()),
    file: () => handle.getFile(),
    remove: () => folder.removeEntry(name),
  };
}
