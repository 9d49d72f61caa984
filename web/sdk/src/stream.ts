/** A live stream at this page: carries out what its channel decides, keeps its pieces, and lets players read it. */

import { create, fromBinary } from '@bufbuild/protobuf';
import {
  type Assignment, AlarmMessageSchema, BehindSchema, type Child as WireChild, CloseEdgeSchema, ContentReportSchema,
  type ContentReport, EdgeSchema, EntriesWantedSchema, JoinSchema, LeaveSchema, LiveCancelSchema, LiveReportSchema,
  LiveRequestSchema, type Parent as WireParent, ParentLostSchema, type PeerMessage, Priority,
  SubscribeSchema, type Version as WireVersion, VersionSchema, EdgeRefusal, type LiveEntry as WireLiveEntry,
  type Log, StaticLogSchema,
} from './wire/headwater_pb.ts';
import { Channel, type Input, type Output, type Parent } from './live/channel.ts';
import type { StreamObject, Verdict } from './live/window.ts';
import { type Listed, type LiveEntry, type LiveTrack, verifyLiveEntry, verifyLiveLog } from './log.ts';
import { type Octets, equal, hex, leaf, whole } from './octets.ts';
import { clock } from './control.ts';
import type { Content } from './content.ts';
import type { GivenTicket, Link } from './link.ts';
import type { Name } from './name.ts';
import type { Node } from './node.ts';
import { fetchRange } from './origin.ts';
import { type StandIn, standInFor } from './stand-in.ts';

/** Pieces that came before their entries. */
const MAX_EARLY = 256;
/** Pieces that one message may ask for. */
const MAX_LIVE_REQUEST = 1024;
const TICK_MS = 50;
/** Without a session and without a parent the stream's published log is read so often. */
const LOG_EVERY_MS = 1_000;
/** With a session parents have so long to be there before that. */
const ALONE_FOR = 2_500_000;
/** A published log of which this much came is none. */
const MAX_LOG_BYTES = 8 << 20;
/** A segment whose end has not come when so many later ones are whole will not be. */
const OVERTAKEN = 3;


/** How a stream fares. */
export interface StreamStatistics {
  /** Name of the stream that this is. */
  name: string;
  /** Where it is another one than was asked for: which, and why. */
  standIn: StandIn | null;
  peerBytes: number;
  originBytes: number;
  wastedBytes: number;
  /** Parents and spares with an open edge. */
  parents: number;
  /** Bytes from each of them. */
  sources: { node: string; bytes: number }[];
  /** Substreams that nobody pushes. */
  unfedSubstreams: number;
  missingPieces: number;
  lostPieces: number;
  heldBytes: number;
  /** 95 of 100 of the last pieces came no later after their publisher had them, milliseconds. */
  lagP95Ms: number | null;
}

/** A segment that players may ask for. */
export interface Segment { number: number; object: StreamObject; listed: Listed }

export class Stream implements Content {
  #channel: Channel | null = null;
  #pieces = new Map<number, Octets>();
  #heldBytes = 0;
  #early = new Map<number, { from: string; data: Octets }>();
  #tickets = new Map<string, GivenTicket>();
  #changed: (() => void)[] = [];
  #timer: ReturnType<typeof setInterval>;
  #jobs = new Map<number, AbortController>();
  #lags: number[] = [];
  #pendingAssignment: Assignment | null = null;
  /** Entries of one message go in one after the other. */
  #entering: Promise<unknown> = Promise.resolve();
  #fastest = 0;
  #second = { at: 0, bytes: 0 };
  closed = false;

  #aloneSince = clock();
  #newestAt = clock();
  #logTimer: ReturnType<typeof setInterval> | undefined;

  /** Why nothing comes, in words. */
  problem: string | null = null;
  /** What it is, where that is not what was asked for. */
  standIn: StandIn | null = null;

  constructor(readonly node: Node, public name: Name, public content: Octets, readonly token: string | undefined) {
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
    if (name.log !== null) this.#logTimer = setInterval(() => void this.#readLog(name.log as string), LOG_EVERY_MS);
    this.#join();
  }

  /** Microseconds since players were last told of something new. */
  get stale(): number { return clock() - this.#newestAt; }
  /** What its log says; `null` before it came. */
  get track(): LiveTrack | null { return this.#channel?.track ?? null; }
  /** The highest rate at which bytes came in from the network, bytes per second. */
  get fastestDown(): number { return this.#fastest; }

  statistics(): StreamStatistics {
    const c = this.#channel;
    const edges = c?.feeds.edges().filter((e) => e.open) ?? [];
    const lags = [...this.#lags].sort((a, b) => a - b);
    return {
      name: this.name.name, standIn: this.standIn,
      peerBytes: c?.peerBytes ?? 0, originBytes: c?.originBytes ?? 0, wastedBytes: c?.wastedBytes ?? 0,
      parents: edges.length, sources: edges.map(({ node, bytes }) => ({ node, bytes })),
      unfedSubstreams: c?.feeds.unfed() ?? 0, missingPieces: c?.awaited() ?? 0, lostPieces: c?.window.lostPieces ?? 0,
      heldBytes: this.#heldBytes, lagP95Ms: lags.length ? lags[Math.floor(lags.length * 0.95)] ?? null : null,
    };
  }

  /** Ends it. */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    clearInterval(this.#timer);
    clearInterval(this.#logTimer);
    this.#jobs.forEach((job) => job.abort());
    const version = this.#version();
    for (const { node } of this.#channel?.feeds.edges() ?? []) this.#closeEdge(node, version);
    this.node.control.say({ case: 'leave', value: create(LeaveSchema, { version }) });
    this.node.forget(this);
    this.#wake();
  }

  // ---- the control center ----

  #version(): WireVersion {
    const epoch = this.#channel?.track.version.epoch ?? 0n;
    return create(VersionSchema, { content: this.content, epoch });
  }

  #join(): void {
    if (!this.node.control.connected || this.closed) return;
    const subscribed = this.#channel?.feeds.subscribed() ?? [];
    const value = create(JoinSchema, {
      version: this.#version(), viewerToken: this.token ?? '',
      parents: subscribed.map(([node]) => this.node.idOf(node)), parentsGive: subscribed.map(([, gives]) => gives),
    });
    this.node.control.say({ case: 'join', value });
  }

  session(connected: boolean): void {
    if (connected) this.#join();
  }

  refused(why: string): void {
    this.problem = why;
    this.#wake();
  }

  async goOver(to: string, why: string): Promise<void> {
    if (this.standIn || to === this.name.name) return this.refused(`${why}, and there is nothing else for it`);
    const next = await standInFor(this.name, to, why);
    // It may have been said twice.
    if (this.standIn || this.closed) return;
    this.#forget();
    [this.name, this.content, this.standIn, this.problem] = [next.name, next.content, next.standIn, null];
    this.node.told('stand-in');
    this.#join();
    this.#wake();
  }

  /** What came of it, without a control center, is another stream's. */
  #forget(): void {
    clearInterval(this.#logTimer);
    this.#jobs.forEach((job) => job.abort());
    for (const { node } of this.#channel?.feeds.edges() ?? []) this.#closeEdge(node, this.#version());
    [this.#channel, this.#pendingAssignment, this.#heldBytes, this.#lags] = [null, null, 0, []];
    [this.#pieces, this.#early, this.#tickets].forEach((all) => all.clear());
  }

  async info({ log }: { log?: Log }): Promise<void> {
    if (this.#channel || !log || this.closed) return;
    const { content } = this;
    try {
      const track = await verifyLiveLog(log, this.name.name, this.name.key);
      if (this.#channel || this.closed || this.content !== content) return;
      // What is older than this page may hold goes first.
      const window = Math.min(track.window, (this.node.memoryBytes / track.rate) * 1_000_000);
      this.#channel = new Channel(clock(), { ...track, window });
      this.problem = null;
      if (this.#pendingAssignment) this.assigned(this.#pendingAssignment);
    } catch (e) {
      if (this.content === content) this.refused(e instanceof Error ? e.message : String(e));
    }
  }

  /** The stream's published log: who reaches no control center, and has nobody to hear entries from, reads it there. */
  async #readLog(url: string): Promise<void> {
    const c = this.#channel;
    if (c && !c.feeds.isAlone()) this.#aloneSince = clock();
    const waits = this.node.control.connected && clock() - this.#aloneSince < ALONE_FOR;
    if (waits || c?.window.ended || (c && !c.feeds.isAlone())) return;
    try {
      const newest = c?.window.newestEntry() ?? null;
      const asked = newest === null ? url : `${url}${url.includes('?') ? '&' : '?'}after=${newest}`;
      const answer = await fetch(asked, { credentials: 'omit', signal: AbortSignal.timeout(5_000) });
      if (!answer.ok) throw new Error(`the stream's log: status ${answer.status}`);
      const bytes = new Uint8Array(await answer.arrayBuffer());
      if (bytes.length > MAX_LOG_BYTES) throw new Error('the stream\'s log is too long');
      const said = fromBinary(StaticLogSchema, bytes);
      if (this.name.log !== url) return;
      await this.info(said.log ? { log: said.log } : {});
      this.#entriesCame(null, said.entries);
    } catch (e) {
      console.debug('headwater: the published log cannot be read:', e);
    }
  }

  assigned(assignment: Assignment): void {
    if (!this.#channel) {
      this.#pendingAssignment = assignment;
      return;
    }
    const all = [...assignment.parents, ...assignment.spares];
    for (const { node, ticket, ticketSecret } of all) {
      if (ticket) this.#tickets.set(hex(node), { ticket, secret: ticketSecret });
    }
    const known = new Set(all.map((p) => hex(p.node)));
    for (const node of this.#tickets.keys()) if (!known.has(node) && !this.#channel.feeds.has(node)) this.#tickets.delete(node);
    const { epoch, counter } = assignment.generation ?? { epoch: 0n, counter: 0n };
    this.#happened({
      is: 'assigned', generation: { epoch: whole(epoch), counter: whole(counter) },
      parents: assignment.parents.map(parentOf), spares: assignment.spares.map(parentOf),
    });
  }

  report(): ContentReport | null {
    const c = this.#channel;
    if (!c) return null;
    const lags = c.lags.splice(0).sort((a, b) => a - b);
    this.#lags = this.#lags.concat(lags).slice(-2000);
    return create(ContentReportSchema, {
      version: this.#version(), priority: Priority.HIGH, originBytes: BigInt(c.originBytes), wastedBytes: BigInt(c.wastedBytes),
      from: c.feeds.edges().filter((e) => e.open).map((e) => create(EdgeSchema, {
        node: this.node.idOf(e.node), pieces: BigInt(e.pieces), bytes: BigInt(e.bytes),
      })),
      live: create(LiveReportSchema, {
        newestEntry: BigInt(c.window.newestEntry() ?? 0), missing: c.awaited(), lost: BigInt(c.window.lostPieces),
        lagUs: BigInt(Math.round((lags[Math.floor(lags.length * 0.95)] ?? 0) * 1000)),
      }),
    });
  }

  // ---- peers ----

  connected(node: string): void { this.#happened({ is: 'connected', node }); }
  lost(node: string, why: string): void { this.#happened({ is: 'lost', node, why }); }

  isOf(version: WireVersion | undefined): boolean {
    return version !== undefined && equal(version.content, this.content) && version.epoch === this.#channel?.track.version.epoch;
  }

  message(link: Link, body: PeerMessage['body']): void {
    const node = link.node;
    switch (body.case) {
      case 'edgeAnswer': {
        const { refusal, why } = body.value;
        const refused = refusal === EdgeRefusal.ACCEPTED ? null : why || EdgeRefusal[refusal] || 'no';
        return this.#happened({ is: 'answered', parent: node, refused });
      }
      case 'closeEdge': return this.#happened({ is: 'feed-closed', node, why: body.value.why });
      case 'liveEntries': return this.#entriesCame(link, body.value.entries);
      case 'livePosition': {
        const { newestEntry, substreams, next } = body.value;
        const lacks: [number, number][] = [];
        for (let s = 0, i = 0; s < 32; s += 1) {
          if (((substreams >>> s) & 1) === 0) continue;
          const piece = next[i];
          if (piece !== undefined) lacks.push([s, whole(piece)]);
          i += 1;
        }
        return this.#happened({ is: 'position', node, newest: whole(newestEntry), lacks });
      }
      default:
    }
  }

  /** Entries are verified one after the other; those that are known need not be. From the published log without a link. */
  #entriesCame(link: Link | null, entries: WireLiveEntry[]): void {
    this.#entering = this.#entering.then(async () => {
      const c = this.#channel;
      if (!c || this.closed) return;
      const good: LiveEntry[] = [];
      for (const e of entries) {
        if (c.window.entries.has(Number(e.number))) continue;
        const entry = await verifyLiveEntry(e, c.track);
        if (entry) good.push(entry);
        else if (link) return link.close('an entry of a stream is not its publisher\'s');
      }
      if (this.#channel !== c) return;
      // At once, so that no player takes a part of what a newcomer learns for the whole.
      this.#happened({ is: 'entries', from: link?.node ?? null, entries: good });
      if (good.some((e) => e.listed)) this.#newestAt = clock();
      this.#earlyPieces();
    });
  }

  #earlyPieces(): void {
    for (const [piece, { from, data }] of [...this.#early]) {
      if (!this.#channel?.window.entryOf(piece)) continue;
      this.#early.delete(piece);
      void this.#take(from, piece, data);
    }
  }

  async pieceCame(link: Link, piece: number, data: Octets): Promise<void> {
    if (this.#channel?.feeds.has(link.node) && data.length <= this.#channel.track.pieceBytes) {
      await this.#take(link.node, piece, data);
    }
  }

  /** Verified, kept, told. */
  async #take(from: string | null, piece: number, data: Octets): Promise<void> {
    this.#measure(data.length);
    const hash = await leaf(data);
    const c = this.#channel;
    if (!c || this.closed) return;
    const verdict: Verdict = c.window.judge(piece, hash, data.length);
    if (verdict === 'good') {
      this.#pieces.set(piece, data);
      this.#heldBytes += data.length;
    } else if (verdict === 'early' && from !== null) {
      const oldest = this.#early.size >= MAX_EARLY ? this.#early.keys().next().value : undefined;
      if (oldest !== undefined) this.#early.delete(oldest);
      this.#early.set(piece, { from, data });
    }
    this.#happened({ is: 'piece', from, piece, verdict, bytes: data.length });
  }

  /** What a player is told of the network is what the network did. */
  #measure(bytes: number): void {
    const now = clock();
    if (now - this.#second.at > 1_000_000) {
      this.#fastest = Math.max(this.#fastest * 0.95, this.#second.bytes);
      this.#second = { at: now, bytes: 0 };
    }
    this.#second.bytes += bytes;
  }

  // ---- the channel ----

  #tick(): void {
    const c = this.#channel;
    const now = clock();
    if (!c || now < c.tickAt) return;
    const ms = this.node.control.controlUnixMs();
    if (ms !== null) this.#happened({ is: 'control-time', ms });
    this.#happened({ is: 'tick' });
  }

  #happened(input: Input): void {
    const c = this.#channel;
    if (!c || this.closed) return;
    const now = clock();
    const out: Output[] = [];
    c.handle(now, input, out);
    // Timers of background tabs come late; what comes from the network does not.
    if (input.is !== 'tick' && now > c.tickAt + 4 * TICK_MS * 1000) c.handle(now, { is: 'tick' }, out);
    for (const output of out) this.#carryOut(output);
  }

  #carryOut(output: Output): void {
    const version = this.#version();
    const tell = (node: string, body: PeerMessage['body']) => this.node.link(node)?.say(body);
    switch (output.do) {
      case 'dial': return this.node.dial(output.parent);
      case 'open-edge': return this.#openEdge(output.node);
      case 'close-edge': return this.#closeEdge(output.node, version);
      case 'subscribe': {
        const from = output.from === null ? {} : { from: BigInt(output.from) };
        return tell(output.node, { case: 'subscribe', value: create(SubscribeSchema, { version, substreams: output.substreams, ...from }) });
      }
      case 'ask':
        return chunks(output.pieces).forEach((pieces) =>
          tell(output.node, { case: 'liveRequest', value: create(LiveRequestSchema, { version, pieces }) }));
      case 'cancel':
        return chunks(output.pieces).forEach((pieces) =>
          tell(output.node, { case: 'liveCancel', value: create(LiveCancelSchema, { version, pieces }) }));
      case 'ask-entries':
        return tell(output.node, { case: 'entriesWanted', value: create(EntriesWantedSchema, { version, after: BigInt(output.after) }) });
      case 'fetch-origin': return void this.#fetchOrigin(output);
      case 'alarm': {
        const id = this.node.idOf(output.alarm.parent);
        const what = ((): NonNullable<Parameters<typeof create<typeof AlarmMessageSchema>>[1]>['what'] => {
          switch (output.alarm.what) {
            case 'lost': return { case: 'parentLost', value: create(ParentLostSchema, { parent: id, why: output.alarm.why.slice(0, 200) }) };
            case 'silent': return { case: 'silent', value: id };
            case 'bad': return { case: 'badPieces', value: id };
            case 'behind': return { case: 'behind', value: create(BehindSchema, { parent: id, substreams: output.alarm.substreams }) };
          }
        })();
        return this.node.control.say({ case: 'alarm', value: create(AlarmMessageSchema, what ? { version, what } : { version }) });
      }
      case 'changed': return this.#wake();
      case 'forget':
        for (const [piece, data] of this.#pieces) {
          if (this.#channel?.window.has(piece)) continue;
          this.#pieces.delete(piece);
          this.#heldBytes -= data.length;
        }
        for (const piece of this.#early.keys()) if (piece < (this.#channel?.window.firstPiece() ?? 0)) this.#early.delete(piece);
    }
  }

  #closeEdge(node: string, version: WireVersion): void {
    this.node.link(node)?.say({ case: 'closeEdge', value: create(CloseEdgeSchema, { version, asChild: true }) });
  }

  #openEdge(node: string): void {
    const given = this.#tickets.get(node);
    if (given) this.node.link(node)?.openEdge(this.#version(), given);
  }

  async #fetchOrigin({ job, url, from, pieces }: Extract<Output, { do: 'fetch-origin' }>): Promise<void> {
    const abort = new AbortController();
    this.#jobs.set(job, abort);
    try {
      for await (const [piece, data] of fetchRange(url, from, pieces, abort.signal)) await this.#take(null, piece, data);
    } catch (e) {
      console.debug('headwater: the origin did not give a part of a stream:', e);
    }
    this.#jobs.delete(job);
    this.#happened({ is: 'origin-ended', job });
  }

  // ---- players ----

  #wake(): void {
    this.#changed.splice(0).forEach((done) => done());
  }

  /** Ready when something changes that players may wait for. */
  changed(): Promise<void> {
    return new Promise((done) => { this.#changed.push(done); });
  }

  /** What players may ask for, rising by number in the stream. */
  segments(): { segments: Segment[]; ended: boolean } {
    const c = this.#channel;
    if (!c) return { segments: [], ended: false };
    const listed = new Map<number, Segment[]>();
    for (const [number, object, l] of c.window.listed()) {
      listed.set(l.sequence, [...(listed.get(l.sequence) ?? []), { number, object, listed: l }]);
    }
    // Of those under one number the last whose source had all of it: one that began anew lists what it was interrupted in.
    const whole = (all: Segment[]) => all.findLast((s) => s.object.bytes !== null && !s.object.lost);
    const segments: Segment[] = [];
    let newer = [...listed.values()].filter(whole).length;
    // Many come at once after a source stood still: how many are newer does not tell then how long ago that was.
    const awaitsEntries = c.window.awaitsEntries();
    let expected: number | null = null;
    for (const [sequence, all] of [...listed].sort(([a], [b]) => a - b)) {
      const mayCome = newer < OVERTAKEN || awaitsEntries;
      // Entries come over several ways: one that is missing may be about to come.
      if (expected !== null && expected < sequence && mayCome) break;
      expected = sequence + 1;
      const found = whole(all);
      if (found) {
        newer -= 1;
        segments.push((all.length > 1 && all.find((s) => c.window.isHere(s.number))) || found);
      } else if (mayCome && !all.every((s) => s.object.lost)) {
        // What still comes is waited for: players would take a later one for the next.
        break;
      }
    }
    return { segments, ended: c.window.ended };
  }

  /** All of an object, in order, as it comes; `null` where there is none such. `reader` tells players apart. */
  open(number: number, reader: number): { bytes: number; chunks: AsyncGenerator<Octets> } | null {
    const object = this.#channel?.window.objects.get(number);
    if (!object || object.lost || object.bytes === null) return null;
    this.#happened({ is: 'reads', reader, object: number });
    return { bytes: object.bytes, chunks: this.#read(number, object.bytes, reader) };
  }

  async *#read(number: number, bytes: number, reader: number): AsyncGenerator<Octets> {
    let at = 0;
    try {
      while (at < bytes) {
        const c = this.#channel;
        const object = c?.window.objects.get(number);
        if (!c || !object || object.lost || this.closed) throw new Error('a part of it is not to be had any more');
        const found = c.window.pieceAt(number, at);
        const data = found && this.#pieces.get(found.piece);
        if (found && data) {
          const rest = data.subarray(at - found.at);
          at += rest.length;
          yield rest;
        } else {
          await this.changed();
        }
      }
    } finally {
      // A player that goes away in the middle needs nothing more.
      if (at < bytes) this.#happened({ is: 'reader-left', reader });
    }
  }
}

/** Whom to dial, and how; a child's entry says as much. */
export function parentOf(p: WireParent | WireChild): Parent {
  return {
    node: hex(p.node), substreams: p.substreams, addresses: p.reach?.addresses ?? [],
    certificate: hex(p.reach?.certificate ?? new Uint8Array()), pageCertificates: p.pageCertificates?.hashes ?? [],
  };
}

function chunks(pieces: number[]): bigint[][] {
  const out: bigint[][] = [];
  for (let at = 0; at < pieces.length; at += MAX_LIVE_REQUEST) out.push(pieces.slice(at, at + MAX_LIVE_REQUEST).map(BigInt));
  return out;
}

