//! Pages of hashes: they come before pieces, from parents that hold anything, else from the control center.

use crate::swarm::{Output, PageSource, Swarm};
use headwater_model::bits::Bits;
use headwater_model::time::{Micros, Time};
use std::collections::BTreeMap;

/// Pages asked for at once.
const MAX_ASKED_PAGES: usize = 8;
/// An answer that takes longer is asked for elsewhere.
const PATIENCE: Micros = Micros::from_secs(2);

/// Which pages are here, and which were asked of whom.
#[derive(Clone, Debug)]
pub(crate) struct Pages {
    known: Bits,
    asked: BTreeMap<u32, (Time, PageSource)>,
    /// Counts questions, so that sources take turns.
    turn: usize,
}

impl Pages {
    pub(crate) fn new(known: Bits) -> Self {
        Self { known, asked: BTreeMap::new(), turn: 0 }
    }
    pub(crate) fn complete(&self) -> bool {
        self.known.is_full()
    }
    /// Whether this was the last one.
    pub(crate) fn came(&mut self, page: u32) -> bool {
        self.asked.remove(&page);
        self.known.set(page) && self.complete()
    }
}

impl Swarm {
    pub(crate) fn ask_pages(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.pages.complete() || self.paused {
            return;
        }
        self.pages.asked.retain(|_, (at, _)| now.since(*at) < PATIENCE);
        // A parent that holds a piece has its page; the control center has all, but many ask it.
        let mut sources: Vec<PageSource> =
            self.parents.iter().filter(|(_, p)| p.has_anything()).map(|(n, _)| PageSource::Parent(*n)).collect();
        if self.control {
            sources.push(PageSource::Control);
        }
        if sources.is_empty() {
            return;
        }
        let missing: Vec<u32> = (0..self.pages.known.len())
            .filter(|p| !self.pages.known.get(*p) && !self.pages.asked.contains_key(p))
            .collect();
        for page in missing {
            if self.pages.asked.len() >= MAX_ASKED_PAGES {
                return;
            }
            let source = sources[self.pages.turn % sources.len()];
            self.pages.turn += 1;
            self.pages.asked.insert(page, (now, source));
            out.push(Output::AskPage(source, page));
        }
    }

    pub(crate) fn no_page(&mut self, now: Time, source: PageSource, page: u32) {
        if self.pages.asked.get(&page).is_some_and(|(_, s)| *s == source) {
            // Asked again at the next tick, of whoever is next in turn.
            self.pages.asked.insert(page, (Time(now.0.saturating_sub(PATIENCE.0 - 250_000)), source));
        }
    }
}
