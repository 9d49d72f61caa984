// What a page says to a peer.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create, fromBinary } from '@bufbuild/protobuf';
import { Link, type LinkUser } from '../src/link.ts';
import { OpenEdgeSchema, type PeerMessage, PeerMessageSchema, SubscribeSchema } from '../src/wire/headwater_pb.ts';

type Body = PeerMessage['body'];

/** A link whose words are kept, and ends with what ended it. */
function linkOf(): { link: Link; said: string[]; ended: string[] } {
  const [said, ended]: [string[], string[]] = [[], []];
  const write = async (frame: Uint8Array) => void said.push(fromBinary(PeerMessageSchema, frame.subarray(4)).body.case ?? '');
  const user = { ended: (_: Link, why: string) => void ended.push(why) } as unknown as LinkUser;
  const Made = Link as unknown as new (...parts: unknown[]) => Link;
  const none = new Uint8Array(32);
  return { link: new Made('', none, none, none, { close() {} }, { write }, user), said, ended };
}

const openEdge: Body = { case: 'openEdge', value: create(OpenEdgeSchema, {}) };
const subscribe: Body = { case: 'subscribe', value: create(SubscribeSchema, {}) };

test('a parent sees the ticket before what it allows is asked for, however long its proof takes', async () => {
  const { link, said } = linkOf();
  let made = (_: Body) => {};
  link.say(new Promise<Body>((done) => { made = done; }));
  link.say(subscribe);
  await new Promise((done) => setImmediate(done));
  assert.deepEqual(said, []);
  made(openEdge);
  await new Promise((done) => setImmediate(done));
  assert.deepEqual(said, ['openEdge', 'subscribe']);
});

test('what cannot be made ends the link, once', async () => {
  const { link, said, ended } = linkOf();
  link.say(Promise.reject(new Error('no key')));
  link.say(subscribe);
  await new Promise((done) => setImmediate(done));
  assert.deepEqual([said, ended], [['subscribe'], ['Error: no key']]);
});
