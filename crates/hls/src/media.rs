//! Continuity of media: whether a stream's segments go on where the ones before ended, told from their timestamps and
//! counters alone. Nothing is decoded. MPEG-TS and fragmented MP4 (CMAF) are understood; other kinds (packed audio,
//! WebVTT) are named once and let through.
//!
//! Only audio and video are followed: subtitles and timed metadata may be sparse. Edit lists are not read, as they move
//! a track as a whole. Times inside a report are those of the container.

mod fmp4;
#[cfg(test)]
mod tests;
mod ts;

use headwater_model::time::Micros;

/// How many breaks one report holds: a segment of noise must not grow without bound, and nobody reads more.
pub const MAX_BREAKS: usize = 64;

/// How far a track may begin from the known end of the one before: less than one AAC frame at 48 kHz (21.3 ms), more
/// than timestamps in milliseconds and a guessed duration of a last frame are off.
pub(crate) const END_TOLERANCE: Micros = Micros::from_millis(20);

/// Where media does not go on as it should. `track` is the PID of MPEG-TS or the track id of MP4.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Break {
    /// Media is missing between the segment before and this one, or inside it.
    Gap {
        /// The track.
        track: u32,
        /// How much is missing.
        missing: Micros,
    },
    /// Media comes twice: the track begins before the end of what came before.
    Repeat {
        /// The track.
        track: u32,
        /// From where it begins again to the former end.
        again: Micros,
    },
    /// Packets are missing: continuity counters of MPEG-TS jump without a `discontinuity_indicator`, or the numbers of
    /// a segment's MP4 fragments cease to rise by one. Once a track and segment, and not beside its `Gap` or `Repeat`,
    /// which say more. A counter may begin each segment anew at the same number.
    Lost {
        /// The track; for MP4 the first one of the fragment.
        track: u32,
    },
    /// The bytes are no media of the kind that came before, or are cut off. Once a fault and segment.
    Broken(Fault),
}

/// What is wrong with a segment's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// Neither MPEG-TS nor MP4. Told once where nothing else came before, each time where something did.
    #[error("neither MPEG-TS nor MP4")]
    Unknown,
    /// MPEG-TS after MP4 or the reverse, without an announced discontinuity.
    #[error("of another kind than the segment before")]
    OtherKind,
    /// It ends inside a packet, inside a box or before the media of a fragment; or it is empty.
    #[error("cut off")]
    CutOff,
    /// A packet does not begin with the sync byte; what lies before the next one that does is left out.
    #[error("packets out of sync")]
    NoSync,
    /// A box contradicts itself or lacks what it must hold; its fragment is left out.
    #[error("a box that cannot be read")]
    BadBox,
    /// A fragment of a track that no initialization described.
    #[error("a track that was not announced")]
    NoInit,
    /// No audio and no video in it.
    #[error("no audio and no video")]
    NoMedia,
}

/// What one segment was found to be.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Report {
    /// Where it does not go on, in order of finding; at most [`MAX_BREAKS`].
    pub breaks: Vec<Break>,
    /// How much media the longest track of this segment holds. In MPEG-TS audio other than AAC is counted in whole PES
    /// packets of the usual length.
    pub duration: Micros,
    /// The decode time of the first frame of the first video track, else of the first audio track. As the container
    /// has it: in MPEG-TS it wraps around after 2³³ ticks of 90 kHz (26.5 h).
    pub begins: Option<Micros>,
}

/// Follows one rendition of a stream, segment by segment. Needs memory in proportion to the number of tracks, and while
/// it reads a segment to its number of frames.
#[derive(Default, Debug)]
pub struct Continuity {
    ts: ts::Ts,
    fmp4: fmp4::Fmp4,
    container: Option<Container>,
    told_unknown: bool,
}

impl Continuity {
    /// Before the first segment.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next segment. `init`: the bytes of `EXT-X-MAP` when it is another one than before; `fresh`:
    /// `EXT-X-DISCONTINUITY` stands before the segment, so timestamps and counters may begin anew.
    pub fn segment(&mut self, init: Option<&[u8]>, bytes: &[u8], fresh: bool) -> Report {
        let mut findings = Findings::default();
        if fresh {
            self.container = None;
            self.ts.begin_anew();
            self.fmp4.begin_anew();
        }
        // An EXT-X-MAP of MPEG-TS holds only tables.
        if let Some(init) = init.filter(|init| !ts::is_ts(init)) {
            self.fmp4.walk(init, &mut findings);
        }
        match Container::of(bytes) {
            Some(container) => {
                if self.container.replace(container).is_some_and(|former| former != container) {
                    findings.broken(Fault::OtherKind);
                }
                match container {
                    Container::Ts => self.ts.segment(bytes, &mut findings),
                    Container::Fmp4 => self.fmp4.segment(bytes, &mut findings),
                }
            }
            None if bytes.is_empty() => findings.broken(Fault::CutOff),
            None => {
                if self.container.is_some() || !std::mem::replace(&mut self.told_unknown, true) {
                    findings.broken(Fault::Unknown);
                }
            }
        }
        findings.into_report()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Container {
    Ts,
    Fmp4,
}

impl Container {
    fn of(bytes: &[u8]) -> Option<Self> {
        if fmp4::is_mp4(bytes) { Some(Self::Fmp4) } else { ts::is_ts(bytes).then_some(Self::Ts) }
    }
}

/// A track that is followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Video,
    Audio,
}

/// A report in the making.
#[derive(Default)]
struct Findings {
    breaks: Vec<Break>,
    duration: Micros,
    video: Option<Micros>,
    audio: Option<Micros>,
}

impl Findings {
    fn push(&mut self, found: Break) {
        let once = matches!(found, Break::Lost { .. } | Break::Broken(_));
        if self.breaks.len() < MAX_BREAKS && !(once && self.breaks.contains(&found)) {
            self.breaks.push(found);
        }
    }

    fn broken(&mut self, fault: Fault) {
        self.push(Break::Broken(fault));
    }

    /// What a track holds in this segment.
    fn track(&mut self, kind: Kind, begins: Micros, duration: Micros) {
        match kind {
            Kind::Video => self.video.get_or_insert(begins),
            Kind::Audio => self.audio.get_or_insert(begins),
        };
        self.duration = self.duration.max(duration);
    }

    fn holds_media(&self) -> bool {
        self.video.or(self.audio).is_some()
    }

    fn into_report(self) -> Report {
        let timed = |lost| {
            self.breaks.iter().any(|found| match found {
                Break::Gap { track, .. } | Break::Repeat { track, .. } => *track == lost,
                Break::Lost { .. } | Break::Broken(_) => false,
            })
        };
        let breaks =
            self.breaks.iter().copied().filter(|found| !matches!(found, Break::Lost { track } if timed(*track)));
        Report { breaks: breaks.collect(), duration: self.duration, begins: self.video.or(self.audio) }
    }
}
