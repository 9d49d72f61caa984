//! From the playlist's segments to numbered objects, and what viewers are told of them.

use headwater_hls::playlist::{ByteRange, Map, Segment};
use headwater_model::Micros;
use headwater_model::live::{Listed, OriginPlace};
use headwater_model::log::MAX_URL_BYTES;
use url::Url;

use super::jobs::{Job, Jobs, Place, Point};
use super::{KnownMap, LastSegment, Resume, kind, without_credentials};

/// Numbers segments.
pub(super) struct Lister {
    /// What viewers' numbers are ahead of the playlist's.
    offset: u64,
    /// Theirs never go back behind one that came.
    next_listed: u64,
    order: u64,
    generation: u64,
    /// A discontinuity stood before a segment that was left out.
    fresh: bool,
    last: Option<LastSegment>,
    map: Option<KnownMap>,
}

impl Lister {
    pub(super) fn new(resume: &Resume) -> Self {
        let last = resume.last;
        Lister {
            offset: last.map_or(0, |l| l.listed.saturating_sub(l.sequence)),
            next_listed: last.map_or(0, |l| l.listed.saturating_add(1)),
            order: 0,
            generation: 0,
            fresh: false,
            last,
            map: resume.map.clone(),
        }
    }

    /// The packager began anew, and its initialisation section may be another one. If it was interrupted in the last
    /// segment, players wait for that one: the first new one takes its number.
    pub(super) fn begins_anew(&mut self, jobs: &Jobs) {
        self.generation += 1;
        self.map = None;
        if let Some(last) = self.last.filter(|last| jobs.lost_segment == Some(last.listed)) {
            self.next_listed = last.listed;
        }
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Makes a job of a segment.
    ///
    /// # Errors
    /// It is left out, for this reason.
    pub(super) fn list(
        &mut self,
        segment: &Segment,
        base: &Url,
        target_duration: Micros,
        jobs: &mut Jobs,
    ) -> Result<Job, String> {
        self.fresh |= segment.discontinuity;
        let sequence = segment.sequence;
        if segment.gap {
            return Err(format!("segment {sequence} is listed as missing"));
        }
        let place = place(base, &segment.uri, segment.range)?;
        let before = self.last.map(|last| Point { last, map: self.map.clone() });
        let fetch_map = match &segment.map {
            Some(map) => self.map(map, base, jobs)?,
            None => None,
        };
        let map = segment.map.as_ref().and(self.map.as_ref()).map(|m| m.object);
        let listed = self.listed_as(sequence);
        let last = LastSegment { sequence, listed };
        self.last = Some(last);
        self.order += 1;
        let listed = Listed {
            sequence: listed,
            duration: segment.duration,
            target_duration,
            discontinuity: std::mem::take(&mut self.fresh),
            map,
            recorded_unix_us: segment.recorded_unix_us,
            origin: at_origin(&place),
        };
        Ok(Job {
            order: self.order,
            object: jobs.number(),
            kind: kind::by_name(&place.url, map.is_some()).or(jobs.learnt),
            listed: Some(listed),
            generation: self.generation,
            place,
            fetch_map,
            map,
            before,
            point: Point { last, map: self.map.clone() },
        })
    }

    fn listed_as(&mut self, sequence: u64) -> u64 {
        if sequence.saturating_add(self.offset) < self.next_listed {
            self.offset = self.next_listed.saturating_sub(sequence);
        }
        let listed = sequence.saturating_add(self.offset);
        self.next_listed = listed.saturating_add(1);
        listed
    }

    /// What is to be fetched of an initialisation section: nothing if it is the one that is here.
    fn map(&mut self, map: &Map, base: &Url, jobs: &mut Jobs) -> Result<Option<(u64, Place)>, String> {
        let place = place(base, &map.uri, map.range)?;
        let url = without_credentials(&place.url).to_string();
        let (from, bytes) = (map.range.map_or(0, |r| r.from), map.range.map(|r| r.bytes));
        let is_known = |known: &KnownMap| {
            (&known.url, known.from, known.bytes) == (&url, from, bytes) && jobs.lost_map != Some(known.object)
        };
        if self.map.as_ref().is_some_and(is_known) {
            return Ok(None);
        }
        let object = jobs.number();
        self.map = Some(KnownMap { url, from, bytes, object });
        Ok(Some((object, place)))
    }
}

fn place(base: &Url, uri: &str, range: Option<ByteRange>) -> Result<Place, String> {
    match base.join(uri) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(Place { url, range }),
        _ => Err(format!("the playlist names {:?}, which is no address on the web", shortened(uri))),
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

/// For viewers' nodes, if the address is one that they may be given.
fn at_origin(place: &Place) -> Option<OriginPlace> {
    let url = without_credentials(&place.url).to_string();
    let from = place.range.map_or(0, |r| r.from);
    (url.len() <= MAX_URL_BYTES).then_some(OriginPlace { url, from })
}
