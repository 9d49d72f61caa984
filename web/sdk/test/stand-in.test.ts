// A page is a lightweight client: where the publisher has something else for such, it goes over to that, once.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { Content } from '../src/content.ts';
import { FileContent, memorySink } from '../src/file.ts';
import type { Identity } from '../src/identity.ts';
import { type Name, contentOf } from '../src/name.ts';
import { Node } from '../src/node.ts';
import { type Octets, equal, hex } from '../src/octets.ts';
import { Stream } from '../src/stream.ts';
import {
  type ControlMessage, ControlMessageSchema, Lacks, type NodeMessage, RefusalCode, RefusedSchema, VersionSchema,
} from '../src/wire/headwater_pb.ts';

const octets = (n: number): Octets => new Uint8Array(randomBytes(n));
const asked: Name = { control: 'cc:7400', name: 'films/one', key: octets(32), log: 'https://cdn.example/log', controlId: null };
/** What comes about, or what is there after 5 s. */
const until = async <T>(what: () => Promise<T> | T): Promise<T> => {
  for (const end = performance.now() + 5_000; ;) {
    const is = await what();
    if (is || performance.now() > end) return is;
    await new Promise((done) => setTimeout(done, 1));
  }
};
const turns = async () => { for (let i = 0; i < 20; i += 1) await new Promise((done) => setImmediate(done)); };

/** A page whose control center is this test. */
class Page {
  said: NodeMessage['body'][] = [];
  told: string[] = [];
  node: Node;

  constructor() {
    // A socket that never opens: what the control center says is handed over below.
    class Never { addEventListener() {} close() {} send() {} }
    Object.assign(globalThis, { WebSocket: Never });
    const config = { api: 'http://cc:7400', controlId: null, webTransport: true };
    this.node = new Node(config, { node: hex(octets(32)) } as Identity, 1 << 20, 0, (what) => this.told.push(what));
    Object.defineProperty(this.node.control, 'connected', { value: true });
    this.node.control.say = (body) => void this.said.push(body);
  }

  hears(body: ControlMessage['body']): void {
    this.node.control.user.heard(fromBinary(ControlMessageSchema, toBinary(ControlMessageSchema, create(ControlMessageSchema, { body }))));
  }

  lightweight(content: Octets, standIn: string): void {
    const version = create(VersionSchema, { content });
    const value = create(RefusedSchema, { version, code: RefusalCode.LIGHTWEIGHT, standIn, lacks: Lacks.CONNECTIONS });
    this.hears({ case: 'refused', value });
  }

  joins(): Octets[] {
    return this.said.flatMap((s) => (s.case === 'join' ? [s.value.version?.content as Octets] : []));
  }
}

const kinds: [string, (page: Page, content: Octets) => Content & { problemOrEnd(): Promise<string | null> }][] = [
  ['a stream', (page, content) => {
    const stream = new Stream(page.node, asked, content, undefined);
    return Object.assign(stream, { problemOrEnd: async () => stream.problem });
  }],
  ['a file', (page, content) => {
    const file = new FileContent(page.node, asked, content, undefined, async () => memorySink(1), () => {});
    const ended = file.done.then(() => 'done', (e: Error) => e.message);
    return Object.assign(file, { problemOrEnd: () => Promise.race([ended, turns().then(() => null)]) });
  }],
];

for (const [what, made] of kinds) {
  test(`${what} goes over to what the publisher has for lightweight clients, once`, async () => {
    const [page, first, second] = [new Page(), await contentOf(asked.key, asked.name), await contentOf(asked.key, 'small')];
    const content = made(page, first);
    page.node.add(content);
    try {
      // Said twice, as after two joins.
      page.lightweight(first, 'small');
      page.lightweight(first, 'small');
      await until(() => page.joins().length > 1 && page.told.length > 0);
      await turns();
      assert.deepEqual(page.joins().map(hex), [hex(first), hex(second)]);
      assert.deepEqual(page.told, ['stand-in']);
      assert.ok(equal(content.content, second));
      assert.deepEqual([content.name.name, content.name.log, hex(content.name.key)], ['small', null, hex(asked.key)]);
      const said = content instanceof Stream ? content.statistics() : (content as unknown as FileContent).state();
      assert.deepEqual([said.name, said.standIn], ['small', {
        name: 'small', for: 'films/one', why: 'nobody can connect to this page',
      }]);
      assert.equal(await content.problemOrEnd(), null);
      // A new session asks for what it has.
      content.session(true);
      assert.equal(hex(page.joins().at(-1) as Octets), hex(second));
      // And nobody is sent on twice.
      const joins = page.joins().length;
      page.lightweight(second, 'third');
      assert.match(await until(() => content.problemOrEnd()) ?? 'none', /nobody can connect to this page/);
      assert.deepEqual([page.joins().length, page.told], [joins, ['stand-in']]);
    } finally {
      page.node.close();
    }
  });

  test(`${what} that is to go over to itself, or is refused otherwise, stays`, async () => {
    const [page, first] = [new Page(), await contentOf(asked.key, asked.name)];
    const content = made(page, first);
    page.node.add(content);
    try {
      page.lightweight(first, asked.name);
      assert.match(await until(() => content.problemOrEnd()) ?? 'none', /nothing else/);
      assert.deepEqual([page.joins().length, page.told, content.name.name], [1, [], asked.name]);
    } finally {
      page.node.close();
    }
  });
}
