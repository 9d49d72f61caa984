//! What is to be fetched, what is being fetched, and how far that has come.

use std::collections::VecDeque;
use std::time::Duration;

use headwater_hls::playlist::ByteRange;
use headwater_model::live::{Listed, ObjectKind};
use tokio::time::Instant;
use url::Url;

use super::{KnownMap, LastSegment, Resume};

/// Segments that wait; more are not taken from the playlist.
const MAX_QUEUED: usize = 256;

/// Where bytes are.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) url: Url,
    pub(super) range: Option<ByteRange>,
}

/// Up to where a stream is done.
#[derive(Clone, Debug)]
pub(super) struct Point {
    pub(super) last: LastSegment,
    pub(super) map: Option<KnownMap>,
}

/// A segment to be fetched.
#[derive(Debug)]
pub(super) struct Job {
    /// Rises by one with each.
    pub(super) order: u64,
    pub(super) object: u64,
    /// `None`: its first bytes tell.
    pub(super) kind: Option<ObjectKind>,
    /// What is said of it once its kind is known.
    pub(super) listed: Option<Listed>,
    /// How often the packager had begun anew.
    pub(super) generation: u64,
    pub(super) place: Place,
    /// What must be fetched before it.
    pub(super) fetch_map: Option<(u64, Place)>,
    /// The object that it needs.
    pub(super) map: Option<u64>,
    pub(super) before: Option<Point>,
    pub(super) point: Point,
}

/// What the playlist lists now.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Window {
    pub(super) generation: u64,
    pub(super) first: u64,
    pub(super) target: Duration,
    /// So long all its segments play.
    pub(super) lasts: Duration,
    pub(super) ended: bool,
}

struct Active {
    order: u64,
    begun: Instant,
    /// When its last bytes came.
    progress: Instant,
    before: Option<Point>,
}

/// All of them.
pub(super) struct Jobs {
    next_object: u64,
    queue: VecDeque<Job>,
    active: Vec<Active>,
    pub(super) window: Window,
    /// The initialisation section that did not come, of the latest.
    pub(super) lost_map: Option<u64>,
    /// The segment that did not come, of the latest: its number for viewers.
    pub(super) lost_segment: Option<u64>,
    /// What first bytes told last: segments with the same kind of name are listed before theirs are there.
    pub(super) learnt: Option<ObjectKind>,
    /// No more will be added.
    pub(super) is_whole: bool,
    done: Option<(u64, Point)>,
}

/// What one who has time is to do.
pub(super) enum Next {
    Fetch(Box<Job>),
    /// Nothing now; at that time, or after news, perhaps.
    Wait(Option<Instant>),
    Over,
}

impl Jobs {
    pub(super) fn new(next_object: u64) -> Self {
        Jobs {
            next_object,
            queue: VecDeque::new(),
            active: Vec::new(),
            window: Window::default(),
            lost_map: None,
            lost_segment: None,
            learnt: None,
            is_whole: false,
            done: None,
        }
    }

    /// A number for an object.
    pub(super) fn number(&mut self) -> u64 {
        let number = self.next_object;
        self.next_object = number.saturating_add(1);
        number
    }

    pub(super) fn has_room(&self) -> bool {
        self.queue.len() < MAX_QUEUED
    }

    pub(super) fn add(&mut self, job: Job) {
        self.queue.push_back(job);
    }

    /// The next job for one of two. The second gets none while bytes of the first one's come.
    pub(super) fn next(&mut self, now: Instant, alone: Duration) -> Next {
        if self.queue.is_empty() {
            return if self.is_whole { Next::Over } else { Next::Wait(None) };
        }
        if let Some(other) = self.active.first() {
            // One whose bytes drip does not keep the rest for ever.
            let slow = other.begun + (self.window.target * 2).max(alone * 2);
            let at = slow.min(other.progress + alone);
            if now < at {
                return Next::Wait(Some(at));
            }
        }
        let Some(mut job) = self.queue.pop_front() else { return Next::Wait(None) };
        self.active.push(Active { order: job.order, begun: now, progress: now, before: job.before.take() });
        Next::Fetch(Box::new(job))
    }

    /// Bytes of it came.
    pub(super) fn progress(&mut self, order: u64, now: Instant) {
        self.active.iter_mut().filter(|a| a.order == order).for_each(|a| a.progress = now);
    }

    /// It is complete or left out. How far that brings the stream, if it is known.
    pub(super) fn finished(&mut self, order: u64, point: Point) -> Option<Resume> {
        self.active.retain(|a| a.order != order);
        if self.done.as_ref().is_none_or(|(before, _)| *before < order) {
            self.done = Some((order, point));
        }
        // Jobs are begun in order: all before the earliest that is left are done.
        let earliest = self.active.iter().min_by_key(|a| a.order);
        let point = match earliest {
            Some(left) => left.before.clone()?,
            None => self.done.as_ref()?.1.clone(),
        };
        let map = point.map.filter(|m| self.lost_map != Some(m.object));
        Some(Resume { next_object: self.next_object, last: Some(point.last), map })
    }

    /// Whether the playlist lists it no more.
    pub(super) fn is_gone(&self, job: &Job) -> bool {
        let w = &self.window;
        !w.ended && (job.generation < w.generation || job.point.last.sequence < w.first)
    }
}
