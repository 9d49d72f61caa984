/** Names of contents: `hw://CONTROL/NAME#key=FP&log=URL&cc=FP`. Trust starts here: a name pins the publisher's key. */

import { type Octets, hex, sha256, text, unhex } from './octets.ts';

const DEFAULT_CONTROL_PORT = 7400;
const MAX_BYTES = 8192;

export interface Name {
  /** Control center, `host:port`. */
  control: string;
  name: string;
  /** Fingerprint of the publisher's key. */
  key: Octets;
  /** URL of the static log. */
  log: string | null;
  /** Node id of the control center, hexadecimal. */
  controlId: string | null;
}

/** Reads a name; throws what is wrong with it. */
export function parseName(said: string): Name {
  const no = (problem: string) => new TypeError(`${problem} in "${said.slice(0, 200)}"; a name looks like `
    + 'hw://control.example:7400/NAME#key=FINGERPRINT (the line that `headwater publish` printed)');
  if (said.length > MAX_BYTES) throw no('more than 8,192 bytes');
  const whole = /^hw:\/\/([^/#\s]+)\/([^#]+)#(.*)$/.exec(said);
  if (!whole) throw no('no hw://CONTROL/NAME#key=');
  const unescape = (s: string) => {
    try { return decodeURIComponent(s); } catch { throw no('a broken % escape'); }
  };
  const digits = (s: string, what: string) => {
    const bytes = unhex(s);
    if (bytes?.length !== 32) throw no(`${what}= is not 64 hexadecimal digits`);
    return bytes;
  };
  let [control, name] = [whole[1] as string, unescape(whole[2] as string)];
  let key: Octets | null = null;
  let log: string | null = null;
  let controlId: string | null = null;
  for (const part of (whole[3] as string).split('&')) {
    const [what, value = ''] = [part.slice(0, part.indexOf('=')), part.slice(part.indexOf('=') + 1)];
    if (what === 'key') key = digits(value, 'key');
    if (what === 'log') log = unescape(value);
    if (what === 'cc') controlId = hex(digits(value, 'cc'));
  }
  if (!key) throw no('no key=');
  if (!/:\d+$/.test(control)) control += `:${DEFAULT_CONTROL_PORT}`;
  return { control, name, key, log, controlId };
}

/** Content id: SHA-256 of the fingerprint and the name. */
export const contentOf = (fingerprint: Uint8Array, name: string): Promise<Octets> => sha256(fingerprint, text(name));
