//! Fragmented MP4 (ISO/IEC 14496-12) as CMAF has it: where each fragment of a track begins, and how long its samples
//! last.

use std::collections::BTreeMap;

use headwater_model::time::Micros;

use super::{Break, END_TOLERANCE, Fault, Findings, Kind};

/// Of one initialization. More than any stream has.
const MAX_TRACKS: usize = 64;

/// What may stand first in an initialization or a segment.
const FIRST_BOXES: [&[u8; 4]; 12] =
    [b"ftyp", b"styp", b"moov", b"moof", b"sidx", b"ssix", b"emsg", b"prft", b"mdat", b"free", b"skip", b"uuid"];

/// Whether `bytes` begin with a box.
pub(super) fn is_mp4(bytes: &[u8]) -> bool {
    bytes.get(4..8).is_some_and(|name| FIRST_BOXES.iter().any(|known| known.as_slice() == name))
}

/// The tracks of the last initialization, by id.
#[derive(Default, Debug)]
pub(super) struct Fmp4 {
    tracks: BTreeMap<u32, Track>,
}

#[derive(Default, Debug)]
struct Track {
    kind: Option<Kind>,
    timescale_hz: u32,
    sample_duration: u32,
    end: Option<End>,
    /// Where it begins in this segment, and how much there is of it.
    begins: Option<Micros>,
    duration: Micros,
}

/// Where a track ended, and its last sample's duration, which may be a guess of the muxer.
#[derive(Clone, Copy, Debug)]
struct End {
    at: Micros,
    sample: Micros,
}

impl Fmp4 {
    /// After a discontinuity: times of before say nothing, the initialization still does.
    pub(super) fn begin_anew(&mut self) {
        self.tracks.values_mut().for_each(|track| track.end = None);
    }

    pub(super) fn segment(&mut self, bytes: &[u8], findings: &mut Findings) {
        self.walk(bytes, findings);
        let mut fragments = false;
        for track in self.tracks.values_mut() {
            let duration = std::mem::take(&mut track.duration);
            if let Some(begins) = track.begins.take() {
                fragments = true;
                track.kind.into_iter().for_each(|kind| findings.track(kind, begins, duration));
            }
        }
        if !fragments {
            findings.broken(Fault::NoMedia);
        }
    }

    /// An initialization, or a segment's boxes. ffmpeg may write first fragments into the initialization; they count as
    /// part of the segment.
    pub(super) fn walk(&mut self, bytes: &[u8], findings: &mut Findings) {
        let mut boxes = Boxes(bytes);
        let mut numbers = Numbers::default();
        let mut awaits_media = false;
        for (name, body) in boxes.by_ref() {
            let read = match &name {
                b"moov" => self.moov(body).ok_or(Fault::BadBox),
                b"moof" => self.moof(body, &mut numbers, findings),
                _ => Ok(()),
            };
            read.unwrap_or_else(|fault| findings.broken(fault));
            if awaits_media && &name == b"moof" {
                findings.broken(Fault::CutOff);
            }
            awaits_media = &name == b"moof" || awaits_media && &name != b"mdat";
        }
        if awaits_media || !boxes.0.is_empty() {
            findings.broken(Fault::CutOff);
        }
    }

    /// Replaces the tracks; one of the same id has to go on where it ended.
    fn moov(&mut self, moov: &[u8]) -> Option<()> {
        let mut tracks = BTreeMap::new();
        for (_, trak) in Boxes(moov).filter(|(name, _)| name == b"trak").take(MAX_TRACKS) {
            let (id, mut track) = Track::of(trak)?;
            track.end = self.tracks.get(&id).and_then(|former| former.end);
            tracks.insert(id, track);
        }
        for (_, trex) in Boxes(within(moov, b"mvex")?).filter(|(name, _)| name == b"trex") {
            let (id, duration) = (u32_at(trex, 4)?, u32_at(trex, 12)?);
            tracks.entry(id).and_modify(|track| track.sample_duration = duration);
        }
        self.tracks = tracks;
        Some(())
    }

    fn moof(&mut self, moof: &[u8], numbers: &mut Numbers, findings: &mut Findings) -> Result<(), Fault> {
        let number = within(moof, b"mfhd").and_then(|mfhd| u32_at(mfhd, 4)).ok_or(Fault::BadBox)?;
        let mut jumps = numbers.jump(number);
        let mut boxes = Boxes(moof);
        for (_, traf) in boxes.by_ref().filter(|(name, _)| name == b"traf") {
            let tfhd = within(traf, b"tfhd").ok_or(Fault::BadBox)?;
            let id = u32_at(tfhd, 4).ok_or(Fault::BadBox)?;
            let track = self.tracks.get_mut(&id).ok_or(Fault::NoInit)?;
            let found = track.fragment(id, tfhd, traf).ok_or(Fault::BadBox)?;
            let lost = std::mem::take(&mut jumps).then_some(Break::Lost { track: id });
            found.into_iter().chain(lost).for_each(|found| findings.push(found));
        }
        boxes.0.is_empty().then_some(()).ok_or(Fault::BadBox)
    }
}

/// The numbers of a segment's fragments. From one segment to the next packagers go on, begin anew or keep to one
/// number, and times tell better.
#[derive(Default)]
struct Numbers {
    former: Option<u32>,
    rises: bool,
}

impl Numbers {
    fn jump(&mut self, number: u32) -> bool {
        let rises = self.former.is_some_and(|former| former.wrapping_add(1) == number);
        self.former = Some(number);
        std::mem::replace(&mut self.rises, rises) && !rises
    }
}

impl Track {
    fn of(trak: &[u8]) -> Option<(u32, Self)> {
        let tkhd = within(trak, b"tkhd")?;
        let mdia = within(trak, b"mdia")?;
        let mdhd = within(mdia, b"mdhd")?;
        let kind = match within(mdia, b"hdlr")?.get(8..12)? {
            b"vide" => Some(Kind::Video),
            b"soun" => Some(Kind::Audio),
            _ => None,
        };
        let timescale_hz = u32_at(mdhd, after_dates(mdhd)?).filter(|hz| *hz > 0)?;
        Some((u32_at(tkhd, after_dates(tkhd)?)?, Self { kind, timescale_hz, ..Self::default() }))
    }

    /// `None` when it cannot be read.
    fn fragment(&mut self, track: u32, tfhd: &[u8], traf: &[u8]) -> Option<Option<Break>> {
        let usual = default_duration(tfhd).unwrap_or(self.sample_duration);
        let (mut ticks, mut last, mut begins) = (0u64, 0, None);
        for (name, body) in Boxes(traf) {
            match &name {
                b"tfdt" if body.first()? == &0 => begins = Some(u32_at(body, 4)?.into()),
                b"tfdt" => begins = Some(u64_at(body, 4)?),
                b"trun" => {
                    let run = run(body, usual)?;
                    (ticks, last) = (ticks.saturating_add(run.0), run.1);
                }
                _ => {}
            }
        }
        if ticks == 0 {
            return Some(None);
        }
        let span = self.micros(ticks);
        let former = self.end.filter(|_| self.kind.is_some());
        // Without a time of its own a fragment goes on where the one before ended.
        let at = begins.map(|begins| self.micros(begins)).or(former.map(|end| end.at)).unwrap_or_default();
        self.end = Some(End { at: Micros(at.0.saturating_add(span.0)), sample: self.micros(last.into()) });
        self.begins.get_or_insert(at);
        self.duration = Micros(self.duration.0.saturating_add(span.0));
        Some(former.and_then(|former| former.compare(at, track)))
    }

    fn micros(&self, ticks: u64) -> Micros {
        let micros = (u128::from(ticks) * 1_000_000).checked_div(self.timescale_hz.into()).unwrap_or(0);
        Micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }
}

impl End {
    fn compare(self, begins: Micros, track: u32) -> Option<Break> {
        let off = Micros(begins.0.abs_diff(self.at.0));
        if off <= END_TOLERANCE.max(Micros(self.sample.0 / 2)) {
            None
        } else if begins > self.at {
            Some(Break::Gap { track, missing: off })
        } else {
            Some(Break::Repeat { track, again: off })
        }
    }
}

/// How long a run of samples lasts, and the last one of them.
fn run(trun: &[u8], usual: u32) -> Option<(u64, u32)> {
    let (flags, count) = (u32_at(trun, 0)?, u32_at(trun, 4)?);
    let fields = 4 * (flags & 0xf00).count_ones() as usize;
    let begins = 8 + 4 * (flags & 0x005).count_ones() as usize;
    let samples = trun.get(begins..)?.get(..usize::try_from(count).ok()?.checked_mul(fields)?)?;
    if flags & 0x100 == 0 {
        return Some((u64::from(count).saturating_mul(usual.into()), usual));
    }
    // Where samples have durations, these come first.
    let durations = samples.chunks_exact(fields.max(1)).filter_map(|sample| u32_at(sample, 0));
    Some(durations.fold((0, 0), |(ticks, _), duration| (ticks.saturating_add(duration.into()), duration)))
}

/// What `tfhd` says of its samples' duration, if anything.
fn default_duration(tfhd: &[u8]) -> Option<u32> {
    let flags = u32_at(tfhd, 0).filter(|flags| flags & 0x08 != 0)?;
    let base_offset = if flags & 0x01 == 0 { 0 } else { 8 };
    let description = if flags & 0x02 == 0 { 0 } else { 4 };
    u32_at(tfhd, 8 + base_offset + description)
}

/// Where the first field after the two dates of a `tkhd` or `mdhd` stands.
fn after_dates(body: &[u8]) -> Option<usize> {
    body.first().map(|version| if *version == 0 { 12 } else { 20 })
}

/// The first box of that name.
fn within<'a>(bytes: &'a [u8], name: &[u8; 4]) -> Option<&'a [u8]> {
    Boxes(bytes).find(|found| &found.0 == name).map(|found| found.1)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_be_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_be_bytes)
}

/// Boxes one after the other, as name and body. Ends before the first that does not fit in.
struct Boxes<'a>(&'a [u8]);

impl<'a> Iterator for Boxes<'a> {
    type Item = ([u8; 4], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.0;
        let (size, name) = (u32_at(bytes, 0)?, *bytes.get(4..)?.first_chunk()?);
        let (header, size) = match size {
            0 => (8, bytes.len()),
            1 => (16, usize::try_from(u64_at(bytes, 8)?).ok()?),
            size => (8, usize::try_from(size).ok()?),
        };
        let (whole, rest) = bytes.split_at_checked(size)?;
        let body = whole.get(header..)?;
        self.0 = rest;
        Some((name, body))
    }
}
