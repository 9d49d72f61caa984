//! MPEG-TS (ISO/IEC 13818-1): counters of packets, times of PES packets. Tables are not read: what an elementary stream
//! is, its PES packets say.

use std::collections::BTreeMap;

use headwater_model::time::Micros;

use super::{Break, END_TOLERANCE, Fault, Findings, Kind};

const PACKET: usize = 188;
const SYNC: u8 = 0x47;
const NULL_PID: u16 = 0x1fff;
/// Ticks of 90 kHz wrap around here.
const WRAP: u64 = 1 << 33;
/// Where the end of a PES packet is not known but guessed from the usual distance: the larger of this and 1.5
/// distances may be missing. Frames may be left out by an encoder, and PES packets of audio hold several frames, at a
/// segment's end fewer than elsewhere.
const DISTANCE_TOLERANCE: u64 = 90 * 50;

/// Whether packets begin here, or three follow each other somewhere near the beginning.
pub(super) fn is_ts(bytes: &[u8]) -> bool {
    let near = 1..bytes.len().saturating_sub(2 * PACKET).min(16 * PACKET);
    synced(bytes, 0) || near.into_iter().any(|at| synced(bytes, at))
}

/// Whether a whole packet lies at `at`, with sync bytes in it and in the two that follow as far as there are bytes.
fn synced(bytes: &[u8], at: usize) -> bool {
    let sync = |n: usize| bytes.get(at.saturating_add(n * PACKET)).is_none_or(|byte| *byte == SYNC);
    bytes.len().saturating_sub(at) >= PACKET && sync(0) && sync(1) && sync(2)
}

/// The elementary streams of one program, by PID.
#[derive(Default, Debug)]
pub(super) struct Ts {
    tracks: BTreeMap<u16, Track>,
}

impl Ts {
    /// After a discontinuity: nothing of before says anything.
    pub(super) fn begin_anew(&mut self) {
        self.tracks.clear();
    }

    pub(super) fn segment(&mut self, bytes: &[u8], findings: &mut Findings) {
        let mut at = 0;
        while let Some(packet) = bytes.get(at..).and_then(|rest| rest.first_chunk::<PACKET>()) {
            if packet[0] == SYNC {
                self.packet(packet, findings);
                at += PACKET;
            } else {
                findings.broken(Fault::NoSync);
                at = (at + 1..bytes.len()).find(|at| synced(bytes, *at)).unwrap_or(bytes.len());
            }
        }
        if at < bytes.len() {
            findings.broken(Fault::CutOff);
        }
        for (pid, track) in &mut self.tracks {
            track.judge((*pid).into(), findings);
        }
        if !findings.holds_media() {
            findings.broken(Fault::NoMedia);
        }
    }

    fn packet(&mut self, packet: &[u8; PACKET], findings: &mut Findings) {
        let pid = u16::from_be_bytes([packet[1] & 0x1f, packet[2]]);
        let damaged = packet[1] & 0x80 != 0;
        if pid == NULL_PID || damaged {
            return;
        }
        let track = self.tracks.entry(pid).or_default();
        let (adapted, loaded) = (packet[3] & 0x20 != 0, packet[3] & 0x10 != 0);
        let announced = adapted && packet[4] > 0 && packet[5] & 0x80 != 0;
        if announced {
            track.counter = None;
        }
        if !loaded {
            return;
        }
        match track.step(packet[3] & 0x0f) {
            0 => return,
            1 => {}
            _ if track.kind.is_none() => {}
            _ => findings.push(Break::Lost { track: pid.into() }),
        }
        let scrambled = packet[3] & 0xc0 != 0;
        let begins = if adapted { 5 + usize::from(packet[4]) } else { 4 };
        match packet.get(begins..) {
            Some(payload) if !scrambled => track.payload(payload, packet[1] & 0x40 != 0),
            _ => {}
        }
    }
}

#[derive(Default, Debug)]
struct Track {
    kind: Option<Kind>,
    /// The former packet's, unless any may follow.
    counter: Option<u8>,
    /// The one that this segment's first packet had; of the segment before until that came.
    first_counter: Option<u8>,
    begun: bool,
    doubled: bool,
    /// Of this segment.
    pes: Vec<Pes>,
    /// The last one of the segments before.
    last: Option<Pes>,
    /// The usual distance of PES packets in the segment before, in ticks.
    usual: Option<u64>,
}

impl Track {
    /// By how much the counter rises: 1 as it should, also where that cannot be told, 0 for a packet sent twice, which
    /// is allowed once.
    fn step(&mut self, counter: u8) -> u8 {
        let first = !std::mem::replace(&mut self.begun, true);
        let step = self.counter.replace(counter).map_or(1, |former| counter.wrapping_sub(former) & 0x0f);
        if first && self.first_counter.replace(counter) == Some(counter) {
            return 1;
        }
        let doubled = step == 0 && !first && !self.doubled;
        self.doubled = doubled;
        if step == 0 && !doubled { 16 } else { step }
    }

    fn payload(&mut self, payload: &[u8], starts: bool) {
        let mut data = payload;
        if starts {
            let Some(header) = PesHeader::of(payload) else { return };
            self.kind = self.kind.or(header.kind);
            self.pes.extend(header.at.map(|at| Pes { at, data: Vec::new(), aac: None }));
            data = header.data;
        }
        if let (Some(Kind::Audio), Some(pes)) = (self.kind, self.pes.last_mut()) {
            pes.data.extend_from_slice(data);
        }
    }

    /// At the end of a segment: whether its PES packets go on from one to the next.
    fn judge(&mut self, track: u32, findings: &mut Findings) {
        self.begun = false;
        let pes = std::mem::take(&mut self.pes);
        let (Some(kind), Some(begins)) = (self.kind, pes.first().map(|pes| pes.at)) else { return };
        let usual = usual_distance(&pes).or(self.usual);
        let mut duration = 0u64;
        let mut between = self.usual.or(usual);
        for (n, mut pes) in pes.into_iter().enumerate() {
            pes.aac = aac(&std::mem::take(&mut pes.data));
            if let Some(former) = &self.last {
                let found = former.compare(&pes, between, track);
                let passed = match found {
                    Some(_) => former.length(between),
                    None => distance(former.at, pes.at).max(0).unsigned_abs(),
                };
                duration = duration.saturating_add(if n == 0 { 0 } else { passed });
                found.into_iter().for_each(|found| findings.push(found));
            }
            self.last = Some(pes);
            between = usual;
        }
        duration = duration.saturating_add(self.last.as_ref().map_or(0, |last| last.length(usual)));
        self.usual = usual;
        findings.track(kind, micros(begins), micros(duration));
    }
}

/// What the beginning of a PES packet says.
struct PesHeader<'a> {
    kind: Option<Kind>,
    /// Its decode time, else its presentation time.
    at: Option<u64>,
    data: &'a [u8],
}

impl<'a> PesHeader<'a> {
    /// `None` for a section, another kind of packet, or a header that one TS packet does not hold.
    fn of(payload: &'a [u8]) -> Option<Self> {
        let [0, 0, 1, stream, _, _, marked, flags, length, rest @ ..] = payload else { return None };
        let data = rest.get(usize::from(*length)..)?;
        let kind = match stream {
            0xe0..=0xef => Some(Kind::Video),
            0xc0..=0xdf => Some(Kind::Audio),
            // Private streams may be anything; AC-3 is known by its sync word.
            0xbd | 0xfd => data.starts_with(&[0x0b, 0x77]).then_some(Kind::Audio),
            _ => return None,
        };
        if marked & 0xc0 != 0x80 {
            return None;
        }
        let at = match flags >> 6 {
            0b11 => rest.get(5..).and_then(timestamp),
            0b10 => timestamp(rest),
            _ => None,
        };
        Some(Self { kind, at, data })
    }
}

fn timestamp(bytes: &[u8]) -> Option<u64> {
    let [a, b, c, d, e] = bytes.first_chunk::<5>()?.map(u64::from);
    Some((a >> 1 & 0x07) << 30 | b << 22 | (c >> 1) << 15 | d << 7 | e >> 1)
}

/// A PES packet with a time.
#[derive(Debug)]
struct Pes {
    at: u64,
    /// Of audio, until the segment ends.
    data: Vec<u8>,
    /// See [`aac`].
    aac: Option<(u64, u64)>,
}

impl Pes {
    /// In ticks; the `usual` distance where its frames do not say.
    fn length(&self, usual: Option<u64>) -> u64 {
        self.aac.map(|(ticks, _)| ticks).or(usual).unwrap_or(0)
    }

    fn compare(&self, next: &Pes, usual: Option<u64>, track: u32) -> Option<Break> {
        let passed = distance(self.at, next.at);
        let off = passed.saturating_sub_unsigned(self.length(usual));
        let (missing, again) = match (self.aac, usual) {
            (Some((_, frame)), _) => {
                let tolerance = (END_TOLERANCE.0 * 9 / 100).max(frame / 2).cast_signed();
                (off > tolerance, off < -tolerance)
            }
            (None, Some(usual)) => {
                let tolerance = DISTANCE_TOLERANCE.max(usual.saturating_mul(3) / 2);
                // A PES packet shorter than usual is none that comes twice.
                (off > tolerance.cast_signed(), passed <= 0 && off < -DISTANCE_TOLERANCE.cast_signed())
            }
            (None, None) => (false, passed < 0),
        };
        let off = micros(off.unsigned_abs());
        match (missing, again) {
            (true, _) => Some(Break::Gap { track, missing: off }),
            (_, true) => Some(Break::Repeat { track, again: off }),
            _ => None,
        }
    }
}

/// How long the frames of AAC in a PES packet last, and one of them, in ticks, if it holds nothing else and is whole.
/// Their headers (ISO/IEC 14496-3, ADTS) say so exactly, where the PES packets that ffmpeg writes lie one to sixteen
/// frames apart.
fn aac(mut data: &[u8]) -> Option<(u64, u64)> {
    const RATES_HZ: [u64; 13] =
        [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];
    const FRAME_TICKS: u64 = 1024 * 90_000;
    let (mut frames, mut rate_hz) = (0u64, 1);
    while !data.is_empty() {
        let [0xff, b, c, d, e, f, g] = *data.first_chunk::<7>()? else { return None };
        let size = usize::from(d & 0x03) << 11 | usize::from(e) << 3 | usize::from(f >> 5);
        if b & 0xf6 != 0xf0 || size < 7 {
            return None;
        }
        rate_hz = *RATES_HZ.get(usize::from(c >> 2 & 0x0f))?;
        frames += u64::from(g & 0x03) + 1;
        data = data.get(size..)?;
    }
    (frames > 0).then(|| (frames.saturating_mul(FRAME_TICKS) / rate_hz, FRAME_TICKS / rate_hz))
}

/// The median of the distances forward.
fn usual_distance(pes: &[Pes]) -> Option<u64> {
    let steps = pes.iter().zip(pes.iter().skip(1)).map(|(a, b)| distance(a.at, b.at));
    let mut forward: Vec<u64> = steps.filter(|step| *step > 0).map(i64::unsigned_abs).collect();
    forward.sort_unstable();
    forward.get(forward.len() / 2).copied()
}

/// Ticks from one timestamp to another, the shorter way around.
fn distance(from: u64, to: u64) -> i64 {
    let forward = to.wrapping_sub(from) % WRAP;
    if forward < WRAP / 2 { forward.cast_signed() } else { forward.cast_signed() - WRAP.cast_signed() }
}

fn micros(ticks: u64) -> Micros {
    Micros(ticks.saturating_mul(100) / 9)
}
