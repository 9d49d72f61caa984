/** The session with the control center. */

import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import {
  Accepts, type ContentReport, type ControlMessage, ControlMessageSchema, Forwards, HeartbeatSchema, HelloSchema,
  NodeMessageSchema, type NodeMessage, type ParentKey, Role, Sources, WebAnswerSchema, WebHelloSchema, WebProofSchema,
} from './wire/headwater_pb.ts';
import { type Carrier, Carriers, type SessionWay } from './carrier.ts';
import { type Identity, keyOfCertificate, verifySigned } from './identity.ts';
import { type Octets, concat, equal, hex, random, sha256, text, whole } from './octets.ts';
import { ControlSession } from './session.ts';

export const PROTOCOL = 1;
const CLIENT = `headwater-sdk/0.1`;
/** Proofs and a welcome that take longer have failed. */
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
  /** Where its API is, `http:` or `https:`, without a path. */
  api: string;
  /** Node id that it must have, hexadecimal. */
  controlId: string | null;
  /** Whether peers are reached by WebTransport: else pieces come from the origin only. */
  webTransport: boolean;
}

/** Microseconds since the page began. */
export const clock = (): number => Math.floor(performance.now() * 1000);

export class Control {
  #session = new ControlSession(clock(), Math.random);
  #carriers: Carriers;
  #carrier: Carrier | null = null;
  /** Number of the present dial, and of the session that came of it. */
  #current = 0;
  #open = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #ended = false;
  #epochSeen = 0n;

  constructor(readonly config: ControlConfig, readonly identity: Identity, readonly user: ControlUser) {
    this.#carriers = new Carriers(config.api);
    this.#poll();
  }

  get connected(): boolean { return this.#session.connected; }
  /** How the session runs; `null` when there is none. */
  get way(): SessionWay | null { return this.#open && this.#carrier ? this.#carrier.way : null; }
  controlUnixMs(): number | null { return this.#session.controlUnixMs(clock()); }

  /** Says something, if there is a session. */
  say(body: NodeMessage['body']): void {
    if (this.#open) this.#carrier?.send(toBinary(NodeMessageSchema, create(NodeMessageSchema, { body })));
  }

  /** Whether peers are reached from here: the session begins anew, as one of a node that is, or is not. */
  reaches(peers: boolean): void {
    if (this.config.webTransport === peers) return;
    this.config.webTransport = peers;
    this.#lost(this.#current);
  }

  /** Leaves for good. */
  close(): void {
    this.say({ case: 'bye', value: { $typeName: 'headwater.v1.Bye' } });
    this.#ended = true;
    clearTimeout(this.#timer);
    this.#carrier?.close();
  }

  #poll(): void {
    if (this.#ended) return;
    clearTimeout(this.#timer);
    const due = this.#session.poll(clock());
    if (due?.do === 'dial') void this.#dial();
    if (due?.do === 'redial') this.#lost(this.#current);
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
    const dial = (this.#current += 1);
    let patience: ReturnType<typeof setTimeout> | undefined;
    try {
      const carrier = await this.#carriers.open();
      if (dial !== this.#current || this.#ended) return carrier.close();
      this.#carrier = carrier;
      patience = setTimeout(() => carrier.close(), DIAL_PATIENCE_MS);
      await this.#prove(carrier);
      const saidAt = clock();
      carrier.send(toBinary(NodeMessageSchema, this.#hello()));
      const first = fromBinary(ControlMessageSchema, await carrier.next()).body;
      clearTimeout(patience);
      if (first.case === 'goodbye') return this.#goodbye(dial, first.value.why, first.value.comeBack);
      if (first.case !== 'welcome') throw new Error('it did not begin with a welcome');
      if (dial !== this.#current) return;
      const { controlUnixMs, heartbeatMs, backoffCapMs, controlEpoch, parentKeys } = first.value;
      this.user.keys(parentKeys?.keys ?? []);
      if (controlEpoch > this.#epochSeen) this.#epochSeen = controlEpoch;
      this.#session.welcomed(clock(), saidAt, whole(controlUnixMs), heartbeatMs, backoffCapMs);
      this.#carriers.began(carrier.way);
      this.#open = true;
      this.user.session(true);
      this.#poll();
      for (;;) {
        const message = fromBinary(ControlMessageSchema, await carrier.next());
        if (dial !== this.#current) return;
        if (message.body.case === 'goodbye') return this.#goodbye(dial, message.body.value.why, message.body.value.comeBack);
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
    this.#lost(dial);
  }

  #goodbye(dial: number, why: string, comeBack: boolean): void {
    this.#lost(dial);
    if (comeBack) return;
    this.#session.wait(clock(), SENT_AWAY);
    this.user.sentAway(why);
  }

  /** What came of this dial is over. Changes nothing when that is known. */
  #lost(dial: number): void {
    if (dial !== this.#current) return;
    this.#current += 1;
    this.#carrier?.close();
    this.#carrier = null;
    const was = this.#open;
    this.#open = false;
    this.#session.lost(clock());
    if (was && !this.#ended) this.user.session(false);
    this.#poll();
  }

  /**
   * Both ends prove who they are. Over a WebSocket the page cannot see which certificate TLS showed, and signs what it is told
   * of that; over WebTransport it is one of those that it was ready to accept.
   */
  async #prove(carrier: Carrier): Promise<void> {
    const [nonce, key] = [random(32), this.identity.key];
    carrier.send(toBinary(WebHelloSchema, create(WebHelloSchema, { nonce, key })));
    const proof = fromBinary(WebProofSchema, await carrier.next());
    const control = keyOfCertificate(proof.certificate);
    if (!control) throw new Error('the control center shows no certificate of a P-256 key');
    if (this.config.controlId !== null && hex(await sha256(control)) !== this.config.controlId) {
      throw new Error('another control center than the expected one answers');
    }
    if (carrier.certificates && !carrier.certificates.some((c) => equal(c, proof.tls))) {
      throw new Error('the control center shows another certificate than the one that arrives here');
    }
    const [ofPage, ofControl] = [await sha256(key), await sha256(proof.certificate)];
    const covered = (who: string): Octets =>
      concat(text(`headwater websocket ${who}/1\0`), nonce, proof.nonce, proof.tls, ofPage, ofControl);
    if (!await verifySigned(control, covered('control'), proof.signature)) {
      throw new Error('the control center does not prove who it is');
    }
    const signature = await this.identity.sign(covered('node'));
    carrier.send(toBinary(WebAnswerSchema, create(WebAnswerSchema, { signature })));
    // "Go on" has nothing in it.
    await carrier.next();
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
