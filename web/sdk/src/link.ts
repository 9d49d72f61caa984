/** A connection with a native peer, by WebTransport: the page dials, and proves in band who it is. */

import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import {
  DataHeaderSchema, OpenEdgeSchema, PeerHelloSchema, type PeerMessage, PeerMessageSchema, type Ticket, type Version,
} from './wire/headwater_pb.ts';
import {
  ByteReader, MAX_DATA_HEADER_BYTES, MAX_PEER_FRAME_BYTES, MAX_PIECE_BYTES, PEER_CONTROL_STREAM,
  PEER_DATA_STREAM, PEER_LIVE_STREAM, framed,
} from './frame.ts';
import { type Identity, proveTicket } from './identity.ts';
import type { Parent } from './live/channel.ts';
import { type Octets, concat, random, text, unhex, whole } from './octets.ts';
import { PAGE_PATH, within } from './carrier.ts';
import { PROTOCOL, clock } from './control.ts';

/** A dial that takes longer has failed; a hello likewise. */
const DIAL_PATIENCE_MS = 6_000;
/** Differs between two runs of one page. */
const INSTANCE = new DataView(random(8).buffer).getBigUint64(0);
const PROBE = 1;
const ECHO = 2;

/** What lets this page be a child of one parent. */
export interface GivenTicket { ticket: Ticket; secret: Uint8Array }

export interface LinkUser {
  message(link: Link, body: PeerMessage['body']): void;
  /** A piece of a file or of a stream; the promise holds the next one of its stream back. */
  piece(link: Link, version: Version, piece: number, data: Octets): Promise<void>;
  ended(link: Link, why: string): void;
}

export class Link {
  #over = false;
  /** One write after the other. */
  #writing: Promise<unknown> = Promise.resolve();

  private constructor(
    readonly node: string,
    /** Nonce that the peer gave: tickets are proved over it. */
    readonly nonce: Octets,
    /** SHA-256 of its node's certificate, for the same. */
    readonly certificate: Octets,
    /** Nonce that this page gave: a child proves its ticket over it. */
    readonly ownNonce: Octets,
    readonly transport: WebTransport,
    readonly writer: WritableStreamDefaultWriter<Uint8Array>,
    readonly user: LinkUser,
  ) {}

  /** Dials all addresses of a parent at once; the first that answers counts. */
  static async dial(identity: Identity, parent: Parent, user: LinkUser): Promise<Link> {
    const [id, certificate] = [unhex(parent.node), unhex(parent.certificate)];
    if (!id || !certificate) throw new Error('no node');
    if (!parent.pageCertificates.length) throw new Error('it shows pages no certificate');
    const hashes = parent.pageCertificates.map((value) => ({ algorithm: 'sha-256', value: concat(value) }));
    const all = parent.addresses.map((address) =>
      new WebTransport(`https://${address}${PAGE_PATH}`, { serverCertificateHashes: hashes }));
    // Whoever is not waited for any more may fail as it likes.
    all.forEach((t) => t.closed.catch(() => {}));
    const ready = Promise.any(all.map((t) => t.ready.then(() => t)));
    const transport = await within(DIAL_PATIENCE_MS, ready, 'no answer').catch((e) => {
      all.forEach((t) => t.close());
      throw e instanceof AggregateError ? new Error(String(e.errors[0])) : e;
    });
    all.filter((t) => t !== transport).forEach((t) => t.close());
    try {
      return await within(DIAL_PATIENCE_MS, Link.#greet(identity, parent.node, id, certificate, transport, user), 'no hello');
    } catch (e) {
      transport.close();
      throw e;
    }
  }

  /** The peer says hello first; the page answers over its nonce. */
  static async #greet(
    identity: Identity, node: string, id: Octets, certificate: Octets, transport: WebTransport, user: LinkUser,
  ): Promise<Link> {
    const streams = (transport.incomingUnidirectionalStreams as ReadableStream<ReadableStream<Uint8Array>>).getReader();
    const { value: first } = await streams.read();
    if (!first) throw new Error('it opened no stream');
    const reader = new ByteReader(first);
    if ((await reader.take(1))?.[0] !== PEER_CONTROL_STREAM) throw new Error('the first stream is not the control stream');
    const body = await reader.frame(MAX_PEER_FRAME_BYTES);
    const hello = body && fromBinary(PeerMessageSchema, body).body;
    if (hello?.case !== 'hello' || hello.value.nonce.length !== 32) throw new Error('it did not begin with a hello');
    if (hello.value.protocol !== PROTOCOL) throw new Error(`it speaks protocol ${hello.value.protocol}, this page ${PROTOCOL}`);
    const [nonce, theirs] = [random(32), concat(hello.value.nonce)];
    const signature = await identity.sign(concat(text('headwater page/1\0'), theirs, nonce, id));
    const writer = (await transport.createUnidirectionalStream()).getWriter() as WritableStreamDefaultWriter<Uint8Array>;
    const link = new Link(node, theirs, certificate, nonce, transport, writer, user);
    const own = create(PeerHelloSchema, { protocol: PROTOCOL, nonce, instance: INSTANCE, key: identity.key, signature });
    link.#write(Uint8Array.of(PEER_CONTROL_STREAM));
    link.say({ case: 'hello', value: own });
    link.#run(reader, streams);
    return link;
  }

  /** Another stream to the peer. */
  async stream(): Promise<WritableStreamDefaultWriter<Uint8Array>> {
    return (await this.transport.createUnidirectionalStream()).getWriter() as WritableStreamDefaultWriter<Uint8Array>;
  }

  /** Says one thing after the other, though one may still be in the making. */
  say(body: PeerMessage['body'] | Promise<PeerMessage['body']>): void {
    const made = async () => framed(toBinary(PeerMessageSchema, create(PeerMessageSchema, { body: await body })));
    this.#write(made());
  }

  /** Shows a parent a ticket. What is said next may count on it: it waits until the proof is made. */
  openEdge(version: Version, { ticket, secret }: GivenTicket): void {
    this.say(proveTicket(secret, this.nonce, this.certificate).then((proof) => (
      { case: 'openEdge', value: create(OpenEdgeSchema, { version, ticket, proof }) })));
  }

  #write(bytes: Uint8Array | Promise<Uint8Array>): void {
    const made = Promise.resolve(bytes);
    // It may fail before its turn.
    made.catch(() => {});
    const written = this.#writing.then(async () => this.writer.write(await made));
    this.#writing = written.catch((e) => this.close(String(e)));
  }

  /** Ends it; whoever uses it hears of it, once. */
  close(why: string): void {
    if (this.#over) return;
    this.#over = true;
    this.transport.close();
    this.user.ended(this, why);
  }

  #run(messages: ByteReader, streams: ReadableStreamDefaultReader<ReadableStream<Uint8Array>>): void {
    const failed = (e: unknown) => this.close(e instanceof Error ? e.message : String(e));
    this.transport.closed.then(() => this.close('it closed the connection'), failed);
    this.#readMessages(messages).catch(failed);
    this.#readStreams(streams).catch(failed);
    this.#echo().catch(failed);
  }

  async #readMessages(reader: ByteReader): Promise<void> {
    for (;;) {
      const body = await reader.frame(MAX_PEER_FRAME_BYTES);
      if (!body) return this.close('closed');
      this.user.message(this, fromBinary(PeerMessageSchema, body).body);
    }
  }

  async #readStreams(streams: ReadableStreamDefaultReader<ReadableStream<Uint8Array>>): Promise<void> {
    for (;;) {
      const { value: stream, done } = await streams.read();
      if (done) return;
      // A stream that is reset ends an edge, not the connection.
      this.#readPieces(new ByteReader(stream)).catch((e) => {
        if (e instanceof RangeError) this.close(e.message);
      });
    }
  }

  async #readPieces(reader: ByteReader): Promise<void> {
    const kind = (await reader.take(1))?.[0];
    const header = await reader.frame(MAX_DATA_HEADER_BYTES);
    const version = header && fromBinary(DataHeaderSchema, header).version;
    const live = kind === PEER_LIVE_STREAM;
    if (!version || !(live || kind === PEER_DATA_STREAM)) return reader.cancel();
    for (;;) {
      const head = await reader.take(live ? 12 : 8);
      if (!head) return;
      const view = new DataView(head.buffer);
      const [piece, bytes] = live
        ? [whole(view.getBigUint64(0)), view.getUint32(8)] : [view.getUint32(0), view.getUint32(4)];
      if (bytes === 0 || bytes > MAX_PIECE_BYTES) throw new RangeError(`a piece with ${bytes} bytes`);
      const data = await reader.take(bytes);
      if (!data) return;
      await this.user.piece(this, version, piece, data);
    }
  }

  /** Echoes the parent's probes, by which it sees its own uplink's queue. */
  async #echo(): Promise<void> {
    const datagrams = this.transport.datagrams;
    const reader = (datagrams.readable as ReadableStream<Uint8Array>).getReader();
    const writer = (datagrams.writable as WritableStream<Uint8Array>).getWriter();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      if (value.length !== 9 || value[0] !== PROBE) continue;
      const echo = concat(Uint8Array.of(ECHO), value.subarray(1), new Uint8Array(8));
      new DataView(echo.buffer).setBigUint64(9, BigInt(clock()));
      // One that does not go out is a lost one.
      writer.write(echo).catch(() => {});
    }
  }
}
