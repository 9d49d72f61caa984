/** What a node asks of a content that it takes part in. */

import type { Assignment, ContentReport, Lease, Log, Page, PeerMessage, Version } from './wire/headwater_pb.ts';
import type { Link } from './link.ts';
import type { Name } from './name.ts';
import type { Octets } from './octets.ts';

export interface Content {
  readonly name: Name;
  readonly content: Octets;
  /** There is a session now, or there is none any more. */
  session(connected: boolean): void;
  /** The control center gives nothing of it, in words. */
  refused(why: string): void;
  /** Another content of the publisher is to be had in its place, for this reason. */
  goOver(to: string, why: string): Promise<void>;
  info(said: { log?: Log }): Promise<void>;
  assigned(assignment: Assignment): void;
  leased?(lease: Lease): void;
  leaseRevoked?(run: number): void;
  /** A page of hashes from the control center; `null` where it has none. */
  page?(number: number, page: Page | null): void;
  report(): ContentReport | null;
  connected(node: string): void;
  lost(node: string, why: string): void;
  isOf(version: Version | undefined): boolean;
  message(link: Link, body: PeerMessage['body']): void;
  pieceCame(link: Link, piece: number, data: Octets): Promise<void>;
  /** Whether others may have it from here. */
  isServed?(): boolean;
  /** Nobody is served any more, for now. */
  stopServing?(): void;
  close(): void;
}
