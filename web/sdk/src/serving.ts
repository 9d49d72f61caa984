/** A page as a sender: native peers that the control center names get from it what they ask for. It dials, they do not. */

import { create, toBinary } from '@bufbuild/protobuf';
import {
  CloseEdgeSchema, DataHeaderSchema, EdgeAnswerSchema, EdgeRefusal, EdgeSchema, type Edge, HaveSchema, type OpenEdge, type Page,
  PageReplySchema, type PeerMessage, type Version,
} from './wire/headwater_pb.ts';
import { Children } from './children.ts';
import { clock } from './control.ts';
import { PEER_DATA_STREAM, framed } from './frame.ts';
import { checkTicket } from './identity.ts';
import type { Link } from './link.ts';
import type { Node } from './node.ts';
import { type Octets, concat, u32 } from './octets.ts';
import { Pace } from './pace.ts';

/** A file that is here whole. */
export interface Served {
  version: Version;
  pieces: number;
  read(piece: number): Promise<Octets>;
  /** A page of hashes as it came, where it did. */
  page(number: number): Page | undefined;
}

export class Serving {
  #children: Children;
  #links = new Map<string, Link>();
  #sending = new Set<string>();
  #over = false;
  uploadedBytes = 0;

  constructor(readonly node: Node, readonly file: Served, readonly pace: Pace) {
    this.#children = new Children(file.pieces);
  }

  /** Of a child, or of one that wants to be; what it was said on is gone when `link` is not the node's any more. */
  message(link: Link, body: PeerMessage['body']): void {
    switch (body.case) {
      case 'openEdge': return void this.#open(link, body.value);
      case 'closeEdge': return body.value.asChild ? this.lost(link.node) : undefined;
      case 'cancel': return this.#children.unasked(link.node, body.value.pieces);
      case 'request':
        this.#children.asked(clock(), link.node, body.value.pieces);
        return void this.#send(link);
      case 'pageRequest': {
        const page = this.#children.has(link.node) ? this.file.page(body.value.page) : undefined;
        if (page) link.say({ case: 'page', value: create(PageReplySchema, { version: this.file.version, page }) });
        return;
      }
      default:
    }
  }

  async #open(link: Link, { ticket, proof }: OpenEdge): Promise<void> {
    const why = await checkTicket(this.node.parentKeys, ticket, proof, link, this.node.identity, this.node.control.controlUnixMs());
    const { version } = this.file;
    const answer = (refusal: EdgeRefusal, why: string) =>
      link.say({ case: 'edgeAnswer', value: create(EdgeAnswerSchema, { version, refusal, why }) });
    if (why !== null) return answer(EdgeRefusal.BAD_TICKET, why);
    if (this.#over || !this.node.serves) return answer(EdgeRefusal.LEAVING, 'the page serves nobody now');
    if (!this.#children.opened(link.node)) return answer(EdgeRefusal.TOO_MANY_CHILDREN, '');
    this.#links.set(link.node, link);
    answer(EdgeRefusal.ACCEPTED, '');
    const bitmap = new Uint8Array(Math.ceil(this.file.pieces / 8)).fill(0xff);
    const rest = this.file.pieces % 8;
    if (rest) bitmap[bitmap.length - 1] = (1 << rest) - 1;
    link.say({ case: 'have', value: create(HaveSchema, { version, all: true, bitmap }) });
  }

  /** One piece after the other, on one stream for each child. */
  async #send(link: Link): Promise<void> {
    const { node } = link;
    if (this.#sending.has(node) || this.#links.get(node) !== link) return;
    this.#sending.add(node);
    let stream: WritableStreamDefaultWriter<Uint8Array> | null = null;
    const goesOn = () => !this.#over && this.#links.get(node) === link;
    try {
      for (let piece = this.#children.next(clock(), node); piece !== null && goesOn(); piece = this.#children.next(clock(), node)) {
        const data = await this.file.read(piece);
        const wait = this.pace.take(clock(), data.length);
        if (wait > 0) await new Promise((done) => setTimeout(done, wait / 1000));
        if (!goesOn()) break;
        if (!stream) {
          stream = await link.stream();
          const header = toBinary(DataHeaderSchema, create(DataHeaderSchema, { version: this.file.version }));
          await stream.write(concat(Uint8Array.of(PEER_DATA_STREAM), framed(header)));
        }
        await stream.write(concat(u32(piece), u32(data.length), data));
        this.uploadedBytes += data.length;
        this.#children.sent(node, data.length);
      }
      await stream?.close();
    } catch (e) {
      console.debug('headwater: a child is lost:', e);
      await stream?.abort().catch(() => {});
      this.#children.closed(node);
      this.#links.delete(node);
    } finally {
      this.#sending.delete(node);
    }
  }

  lost(node: string): void {
    this.#children.closed(node);
    this.#links.delete(node);
  }

  report(): Edge[] {
    return this.#children.report(clock()).map((c) => create(EdgeSchema, {
      node: this.node.idOf(c.node), pieces: BigInt(c.pieces), bytes: BigInt(c.bytes), waitedUs: BigInt(Math.round(c.waited)),
    }));
  }

  /** Children are told that there is no more. */
  stop(why: string): void {
    const { version } = this.file;
    for (const [node, link] of this.#links) {
      link.say({ case: 'closeEdge', value: create(CloseEdgeSchema, { version, asChild: false, why }) });
      this.lost(node);
    }
  }

  close(): void {
    this.stop('the page leaves');
    this.#over = true;
  }
}
