/** The session with the control center: when to dial, how long to wait, what time it is there. As `peer-core/session.rs`. */

const FIRST_PAUSE = 200_000;
/** Every heartbeat is answered; an answer that is late by more means that the session is lost. */
const REPLY_PATIENCE = 5_000_000;

export type SessionOutput = { do: 'dial' } | { do: 'heartbeat'; interval: number } | { do: 'redial' };

const clamp = (n: number, low: number, high: number) => Math.min(high, Math.max(low, n));

/** Decides only; times are microseconds. `random` gives numbers from 0 to below 1. */
export class ControlSession {
  connected = false;
  #dialling = false;
  #dialAt: number;
  #failures = 0;
  #heartbeat = 2_000_000;
  #backoffCap = 2_000_000;
  /** Control time, Unix microseconds, when the local clock showed `at`; and its error. */
  #clock: { at: number; control: number; error: number } | null = null;
  #nextInterval = 0;
  #unansweredSince: number | null = null;

  constructor(now: number, readonly random: () => number) {
    this.#dialAt = now;
  }

  /** Control time in Unix milliseconds; `null` before the first contact. */
  controlUnixMs(now: number): number | null {
    return this.#clock ? Math.floor((this.#clock.control + now - this.#clock.at) / 1000) : null;
  }

  /** The control center welcomed this page. `dialledAt` is when the hello went out. */
  welcomed(now: number, dialledAt: number, controlUnixMs: number, heartbeatMs: number, backoffCapMs: number): void {
    [this.connected, this.#dialling, this.#failures] = [true, false, 0];
    this.#heartbeat = clamp(heartbeatMs, 100, 60_000) * 1000;
    this.#backoffCap = clamp(backoffCapMs, 200, 300_000) * 1000;
    this.#unansweredSince = null;
    this.#clock = null;
    this.heard(now, dialledAt, controlUnixMs);
    this.#nextInterval = this.#interval(now) + 1;
  }

  /** A reply that carries control time; `askedAt` is when the question left. */
  heard(now: number, askedAt: number, controlUnixMs: number): void {
    this.#unansweredSince = null;
    const error = Math.floor(Math.max(0, now - askedAt) / 2);
    // Keep the reading with the smaller error, which grows by 100 µs per second (clocks drift).
    const old = this.#clock ? this.#clock.error + (now - this.#clock.at) / 10_000 : Infinity;
    if (error <= old) this.#clock = { at: now - error, control: controlUnixMs * 1000, error };
  }

  /** The dial failed, or the session broke. Changes nothing when that is known. */
  lost(now: number): void {
    if (!this.connected && !this.#dialling) return;
    this.connected = this.#dialling = false;
    this.#unansweredSince = null;
    const pause = Math.min(FIRST_PAUSE * 2 ** Math.min(this.#failures, 12), this.#backoffCap);
    this.#failures += 1;
    // Between half and all of the pause, so that many who lost it do not come back at one moment.
    this.#dialAt = now + Math.floor(pause / 2 + this.random() * (pause / 2 + 1));
  }

  /** The control center said not to come back before `pause`. */
  wait(now: number, pause: number): void {
    this.lost(now);
    this.#dialAt = now + pause;
  }

  /** What is due. */
  poll(now: number): SessionOutput | null {
    if (!this.connected) {
      if (this.#dialling || now < this.#dialAt) return null;
      this.#dialling = true;
      return { do: 'dial' };
    }
    if (this.#unansweredSince !== null && now - this.#unansweredSince > REPLY_PATIENCE) {
      this.lost(now);
      return { do: 'redial' };
    }
    const interval = this.#interval(now);
    if (interval < this.#nextInterval) return null;
    this.#nextInterval = interval + 1;
    this.#unansweredSince ??= now;
    return { do: 'heartbeat', interval };
  }

  /** When `poll` should be asked next. */
  nextTimeout(now: number): number {
    if (!this.connected) return this.#dialling ? now + 1_000_000 : this.#dialAt;
    const into = this.#controlUs(now) % this.#heartbeat;
    const beat = now + this.#heartbeat - into + 1;
    if (this.#unansweredSince === null) return beat;
    return Math.min(beat, Math.max(this.#unansweredSince + REPLY_PATIENCE + 1, now + 1));
  }

  #controlUs(now: number): number { return this.#clock ? this.#clock.control + now - this.#clock.at : now; }
  #interval(now: number): number { return Math.floor(this.#controlUs(now) / this.#heartbeat); }
}
