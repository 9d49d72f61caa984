/** The session with the control center, over a WebSocket. */

import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import {
  Accepts, type ContentReport, type ControlMessage, ControlMessageSchema, Forwards, HeartbeatSchema, HelloSchema,
  NodeMessageSchema, type NodeMessage, type ParentKey, Role, Sources, WebAnswerSchema, WebHelloSchema, WebProofSchema,
} from './wire/headwater_pb.ts';
import { type Identity, keyOfCertificate, verifySigned } from './identity.ts';
import { type Octets, concat, hex, random, sha256, text, whole } from './octets.ts';
import { ControlSession } from './session.ts';

export const PROTOCOL = 1;
const CLIENT = `headwater-sdk/0.1`;
/** A handshake that takes longer has failed. */
const DIAL_PATIENCE_MS = 5_000;
/** A control center that sent this page away is asked again after this time. */
const SENT_AWAY = 60_000_000;

/** What a session is to tell and hear. */
export interface ControlUser {
  /** There is a session now, or there is none any more. */
  session(connected: boolean): void;
  /** Under these keys tickets for this page are made. */
  keys(keys: ParentKey[]): void;
  heard(message: ControlMessage): void;
  /** What a heartbeat says of contents. */
  reports(): ContentReport[];
  /** The control center ended the session for good, in words. */
  sentAway(why: string): void;
}

export interface ControlConfig {
  /** `ws:` or `wss:`. */
  url: string;
  /** Node id that it must have, hexadecimal. */
  controlId: string | null;
  /** Whether this browser has WebTransport: else pieces come from the origin only. */
  webTransport: boolean;
}

/** Microseconds since the page began. */
export const clock = (): number => Math.floor(performance.now() * 1000);

export class Control {
  #session = new ControlSession(clock(), Math.random);
  #socket: WebSocket | null = null;
  #open = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #ended = false;
  #epochSeen = 0n;

  constructor(readonly config: ControlConfig, readonly identity: Identity, readonly user: ControlUser) {
    this.#poll();
  }

  get connected(): boolean { return this.#session.connected; }
  controlUnixMs(): number | null { return this.#session.controlUnixMs(clock()); }

  /** Says something, if there is a session. */
  say(body: NodeMessage['body']): void {
    if (this.#open) this.#socket?.send(toBinary(NodeMessageSchema, create(NodeMessageSchema, { body })));
  }

  /** Whether peers are reached from here: the session begins anew, as one of a node that is, or is not. */
  reaches(peers: boolean): void {
    if (this.config.webTransport === peers) return;
    this.config.webTransport = peers;
    this.#lost(this.#socket);
  }

  /** Leaves for good. */
  close(): void {
    this.say({ case: 'bye', value: { $typeName: 'headwater.v1.Bye' } });
    this.#ended = true;
    clearTimeout(this.#timer);
    this.#socket?.close();
  }

  #poll(): void {
    if (this.#ended) return;
    clearTimeout(this.#timer);
    const due = this.#session.poll(clock());
    if (due?.do === 'dial') void this.#dial();
    if (due?.do === 'redial') this.#lost(this.#socket);
    if (due?.do === 'heartbeat') this.#beat(due.interval);
    const now = clock();
    // Timers are late in background tabs: whatever is due then is done then.
    this.#timer = setTimeout(() => this.#poll(), Math.max(1, Math.ceil((this.#session.nextTimeout(now) - now) / 1000)));
  }

  #beat(interval: number): void {
    const value = create(HeartbeatSchema, {
      interval: BigInt(interval), localUs: BigInt(clock()), contents: this.user.reports(),
    });
    this.say({ case: 'heartbeat', value });
  }

  async #dial(): Promise<void> {
    const socket = new WebSocket(this.config.url);
    socket.binaryType = 'arraybuffer';
    this.#socket = socket;
    const patience = setTimeout(() => socket.close(), DIAL_PATIENCE_MS);
    const messages = queueOf(socket);
    try {
      await this.#prove(socket, messages);
      const saidAt = clock();
      socket.send(toBinary(NodeMessageSchema, this.#hello()));
      const first = fromBinary(ControlMessageSchema, await messages.next()).body;
      if (first.case === 'goodbye') return this.#goodbye(socket, first.value.why, first.value.comeBack);
      if (first.case !== 'welcome') throw new Error('it did not begin with a welcome');
      const { controlUnixMs, heartbeatMs, backoffCapMs, controlEpoch, parentKeys } = first.value;
      this.user.keys(parentKeys?.keys ?? []);
      if (controlEpoch > this.#epochSeen) this.#epochSeen = controlEpoch;
      this.#session.welcomed(clock(), saidAt, whole(controlUnixMs), heartbeatMs, backoffCapMs);
      this.#open = true;
      clearTimeout(patience);
      this.user.session(true);
      this.#poll();
      for (;;) {
        const message = fromBinary(ControlMessageSchema, await messages.next());
        if (message.body.case === 'goodbye') return this.#goodbye(socket, message.body.value.why, message.body.value.comeBack);
        if (message.body.case === 'heartbeatReply') {
          const reply = message.body.value;
          this.#session.heard(clock(), whole(reply.echoLocalUs), whole(reply.controlUnixMs));
        }
        if (message.body.case === 'parentKeys') this.user.keys(message.body.value.keys);
        this.user.heard(message);
      }
    } catch (e) {
      console.debug('headwater: no session with the control center:', e);
    }
    clearTimeout(patience);
    this.#lost(socket);
  }

  #goodbye(socket: WebSocket, why: string, comeBack: boolean): void {
    this.#lost(socket);
    if (comeBack) return;
    this.#session.wait(clock(), SENT_AWAY);
    this.user.sentAway(why);
  }

  #lost(socket: WebSocket | null): void {
    if (socket !== this.#socket) return;
    this.#socket = null;
    socket?.close();
    const was = this.#open;
    this.#open = false;
    this.#session.lost(clock());
    if (was && !this.#ended) this.user.session(false);
    this.#poll();
  }

  /** Both ends prove who they are. The page cannot see which certificate TLS showed: it signs what it is told of that. */
  async #prove(socket: WebSocket, messages: Messages): Promise<void> {
    await new Promise<void>((done, failed) => {
      socket.addEventListener('open', () => done());
      socket.addEventListener('close', () => failed(new Error('no WebSocket')));
    });
    const [nonce, key] = [random(32), this.identity.key];
    socket.send(toBinary(WebHelloSchema, create(WebHelloSchema, { nonce, key })));
    const proof = fromBinary(WebProofSchema, await messages.next());
    const control = keyOfCertificate(proof.certificate);
    if (!control) throw new Error('the control center shows no certificate of a P-256 key');
    if (this.config.controlId !== null && hex(await sha256(control)) !== this.config.controlId) {
      throw new Error('another control center than the expected one answers');
    }
    const [ofPage, ofControl] = [await sha256(key), await sha256(proof.certificate)];
    const covered = (who: string): Octets =>
      concat(text(`headwater websocket ${who}/1\0`), nonce, proof.nonce, proof.tls, ofPage, ofControl);
    if (!await verifySigned(control, covered('control'), proof.signature)) {
      throw new Error('the control center does not prove who it is');
    }
    const signature = await this.identity.sign(covered('node'));
    socket.send(toBinary(WebAnswerSchema, create(WebAnswerSchema, { signature })));
    // "Go on" has nothing in it.
    await messages.next();
  }

  #hello(): NodeMessage {
    const browser = /(?:Firefox|Edg|Chrome|Version)\/[\d.]+/.exec(navigator.userAgent)?.[0] ?? 'browser';
    const value = create(HelloSchema, {
      protocol: PROTOCOL, role: Role.PEER, accepts: Accepts.DIAL_ONLY,
      sources: this.config.webTransport ? Sources.ANY : Sources.LISTED, forwards: Forwards.NOTHING,
      client: `${CLIENT} ${browser}`, controlEpochSeen: this.#epochSeen, localUnixMs: BigInt(Date.now()),
    });
    return create(NodeMessageSchema, { body: { case: 'hello', value } });
  }
}

interface Messages { next(): Promise<Uint8Array> }

function queueOf(socket: WebSocket): Messages {
  const waiting: Uint8Array[] = [];
  let wanted: { done(m: Uint8Array): void; failed(e: Error): void } | null = null;
  let over = false;
  socket.addEventListener('message', ({ data }) => {
    const message = new Uint8Array(data as ArrayBuffer);
    if (wanted) wanted.done(message);
    else waiting.push(message);
    wanted = null;
  });
  socket.addEventListener('close', () => {
    over = true;
    wanted?.failed(new Error('the WebSocket closed'));
  });
  return {
    next: () => new Promise((done, failed) => {
      const message = waiting.shift();
      if (message) done(message);
      else if (over) failed(new Error('the WebSocket closed'));
      else wanted = { done, failed };
    }),
  };
}
