/**
 * Lightweight clients, as every page is one, get another content of the same publisher in a content's place, where the
 * publisher says so: they go over to it, and no further.
 */

import { type Name, contentOf } from './name.ts';
import type { Octets } from './octets.ts';
import { Lacks } from './wire/headwater_pb.ts';

/** What a page has in place of the content that it asked for. */
export interface StandIn {
  /** Name of the content that it has. */
  name: string;
  /** Name of the one that it asked for. */
  for: string;
  /** Why, in words. */
  why: string;
}

const LACKS: Record<Lacks, string> = {
  [Lacks.CONNECTIONS]: 'nobody can connect to this page',
  [Lacks.SOURCES]: 'this page may fetch from the origin and the operator\'s nodes only',
  [Lacks.FORWARDING]: 'this page passes nothing on',
};

/** Why a page is lightweight, in words. */
export const lightweight = (lacks: Lacks): string => LACKS[lacks] ?? 'this page is lightweight';

/** The content `to` of the publisher of `asked`: its key is the one that the page's name pins. */
export async function standInFor(asked: Name, to: string, why: string): Promise<{ name: Name; content: Octets; standIn: StandIn }> {
  const content = await contentOf(asked.key, to);
  return { name: { ...asked, name: to, log: null }, content, standIn: { name: to, for: asked.name, why } };
}
