/** This page as a node: its session, its connections with peers, and its contents. */

import { create } from '@bufbuild/protobuf';
import {
  DialResultSchema, type ControlMessage, type ParentKey, type PeerMessage, RefusalCode, UplinkOfferSchema, type Version,
} from './wire/headwater_pb.ts';
import { Control, type ControlConfig } from './control.ts';
import type { Identity } from './identity.ts';
import { Link } from './link.ts';
import type { Parent } from './live/channel.ts';
import { type Octets, equal, unhex } from './octets.ts';
import type { Content } from './content.ts';
import { Pace } from './pace.ts';
import { lightweight } from './stand-in.ts';

/** So many dials in vain and none that was not: WebTransport does not get through here, for as long as is waited then. */
const DIALS_IN_VAIN = 4;
const DIAL_AGAIN_MS = 300_000;
/** Connections with peers at once, whatever the control center says. */
const MAX_LINKS = 64;

export class Node {
  readonly control: Control;
  #links = new Map<string, Link>();
  #dialling = new Set<string>();
  #reached = false;
  #inVain = 0;
  #again: ReturnType<typeof setTimeout> | undefined;
  #contents = new Set<Content>();
  /** Under these tickets for this page are made. */
  parentKeys: readonly ParentKey[] = [];
  /** All that leaves this page for others. */
  readonly pace: Pace | null;
  #mayServe = true;
  #offered = 0;

  /** `up` is what others may have of this page's uplink, bytes per second: 0 for nothing. */
  constructor(
    config: ControlConfig, readonly identity: Identity, readonly memoryBytes: number, readonly up: number,
    readonly told: (what: string) => void,
  ) {
    this.pace = up > 0 ? new Pace(up) : null;
    this.control = new Control(config, identity, {
      session: (connected) => {
        told(connected ? 'session' : 'no-session');
        // A hello offers nothing.
        this.#offered = 0;
        this.#contents.forEach((s) => s.session(connected));
        this.offer();
      },
      keys: (keys) => { this.parentKeys = keys; },
      heard: (message) => this.#heard(message),
      reports: () => [...this.#contents].flatMap((s) => s.report() ?? []),
      sentAway: (why) => this.#contents.forEach((s) => s.refused(why)),
    });
  }

  idOf(node: string): Octets { return unhex(node) ?? new Uint8Array(32); }
  link(node: string): Link | undefined { return this.#links.get(node); }
  add(content: Content): void {
    this.#contents.add(content);
    this.offer();
  }
  forget(content: Content): void { this.#contents.delete(content); }

  close(): void {
    [...this.#contents].forEach((s) => s.close());
    clearTimeout(this.#again);
    this.control.close();
    [...this.#links.values()].forEach((l) => l.close('the page leaves'));
  }

  /** Whether others may be served now. */
  get serves(): boolean { return this.pace !== null && this.#mayServe; }

  /** In the background, or where each byte is paid for, a page serves nobody. */
  allow(mayServe: boolean): void {
    if (mayServe === this.#mayServe) return;
    this.#mayServe = mayServe;
    if (!mayServe) this.#contents.forEach((s) => s.stopServing?.());
    this.offer();
  }

  /** Tells the control center what it may give out; where that changes, contents are joined again. */
  offer(): void {
    const all = [...this.#contents];
    // The control center gives an uplink out for all contents of a node, and streams are not served yet.
    const up = this.serves && all.every((s) => s.isServed) && all.some((s) => s.isServed?.()) ? this.up : 0;
    if (!this.control.connected || up === this.#offered) return;
    this.#offered = up;
    this.control.say({ case: 'uplinkOffer', value: create(UplinkOfferSchema, { upBytesPerS: BigInt(up) }) });
    this.#contents.forEach((s) => s.session(true));
  }

  /** Makes a connection with a peer, if there is none; those who wait for it are told. */
  dial(parent: Parent): void {
    const { node } = parent;
    if (this.#links.has(node)) return queueMicrotask(() => this.#contents.forEach((s) => s.connected(node)));
    if (this.#dialling.has(node) || this.#links.size + this.#dialling.size >= MAX_LINKS) return;
    this.#dialling.add(node);
    const result = (error: string | null) => this.control.say({
      case: 'dialResult',
      value: create(DialResultSchema, { node: this.idOf(node), failed: error !== null, error: (error ?? '').slice(0, 200) }),
    });
    Link.dial(this.identity, parent, {
      message: (link, body) => this.#message(link, body),
      piece: async (link, version, piece, data) => this.#of(version)?.pieceCame(link, piece, data),
      ended: (link, why) => {
        if (this.#links.get(node) !== link) return;
        this.#links.delete(node);
        this.#contents.forEach((s) => s.lost(node, why));
      },
    }).then((link) => {
      this.#dialling.delete(node);
      this.#reached = true;
      this.#links.set(node, link);
      result(null);
      this.#contents.forEach((s) => s.connected(node));
    }, (e: unknown) => {
      this.#dialling.delete(node);
      const why = e instanceof Error ? e.message : String(e);
      console.debug(`headwater: no connection with ${node.slice(0, 8)}: ${why}`);
      result(why);
      this.#failed();
      this.#contents.forEach((s) => s.lost(node, why));
    });
  }

  /** Found out by test: a network or a page's policy lets no connection with peers through, and they are not waited for. */
  #failed(): void {
    this.#inVain += 1;
    if (this.#reached || this.#inVain < DIALS_IN_VAIN || !this.control.config.webTransport) return;
    this.told('limited');
    this.control.reaches(false);
    this.#again = setTimeout(() => {
      this.#inVain = 0;
      this.control.reaches(true);
    }, DIAL_AGAIN_MS);
  }

  #of(version: Version | undefined): Content | undefined {
    return [...this.#contents].find((s) => s.isOf(version));
  }

  #message(link: Link, body: PeerMessage['body']): void {
    if (body.value && 'version' in body.value) this.#of(body.value.version)?.message(link, body);
  }

  #heard({ body }: ControlMessage): void {
    const about = (content: Uint8Array | undefined) => [...this.#contents].find((s) => content && equal(s.content, content));
    switch (body.case) {
      case 'content': {
        // A log does not say its id: it is whose name it is, and its verification looks at the key.
        const all = [...this.#contents].filter((s) => s.name.name === body.value.log?.name);
        const { log } = body.value;
        return all.forEach((s) => void s.info(log ? { log } : {}));
      }
      case 'assignment': return about(body.value.version?.content)?.assigned(body.value);
      case 'refused': {
        const { version, code, why, standIn, lacks } = body.value;
        const content = about(version?.content);
        if (code === RefusalCode.LIGHTWEIGHT) return void content?.goOver(standIn, lightweight(lacks));
        return content?.refused(why || RefusalCode[code] || 'refused');
      }
      case 'lease': return about(body.value.version?.content)?.leased?.(body.value);
      case 'leaseRevoked': return about(body.value.version?.content)?.leaseRevoked?.(body.value.run);
      case 'page': {
        const { page } = body.value;
        return page ? about(body.value.version?.content)?.page?.(page.number, page) : undefined;
      }
      case 'pageUnavailable': return about(body.value.version?.content)?.page?.(body.value.page, null);
      case 'withdrawn': return about(body.value.content)?.refused(body.value.why);
      default:
    }
  }
}
