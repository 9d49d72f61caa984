//! What operators see happen: the last events, numbered.

use headwater_center_core::Event;
use headwater_center_core::network_monitor::Trouble;
use headwater_center_core::trust::{Offence, Standing, Verdict};
use headwater_model::Accepts;
use headwater_model::report::Alarm;
use serde::Serialize;
use std::collections::VecDeque;
use utoipa::ToSchema;

/// Events kept.
const MAX_EVENTS: usize = 4096;
/// Events in one answer.
pub(crate) const MAX_LISTED_EVENTS: usize = 1000;

/// Something that happened.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct EventItem {
    /// Rises by one with each event since the start.
    pub number: u64,
    /// When, Unix milliseconds.
    pub unix_ms: u64,
    /// What.
    pub text: String,
}

/// A ring of events.
#[derive(Default)]
pub(crate) struct EventLog {
    events: VecDeque<EventItem>,
    last: u64,
}

impl EventLog {
    /// Adds an event, also to the log of the process.
    pub(crate) fn say(&mut self, unix_ms: u64, text: String) {
        // Some words are a node's own: they must not look like further lines of a log.
        let text = text.replace(char::is_control, " ");
        tracing::info!("{text}");
        if self.events.len() >= MAX_EVENTS {
            self.events.pop_front();
        }
        self.last += 1;
        self.events.push_back(EventItem { number: self.last, unix_ms, text });
    }

    /// Events after number `after`, oldest first, and the number to ask after next.
    pub(crate) fn after(&self, after: u64) -> (u64, Vec<EventItem>) {
        let start = self.events.partition_point(|e| e.number <= after);
        let found: Vec<EventItem> = self.events.iter().skip(start).take(MAX_LISTED_EVENTS).cloned().collect();
        // A reader from before a restart is ahead of the numbers: it starts again.
        let next = found.last().map_or(after.min(self.last), |e| e.number);
        (next, found)
    }
}

/// An event of the core in words.
pub(crate) fn words(event: &Event) -> String {
    match event {
        Event::Trouble(content, parent, child, what) => {
            let what = match what {
                Trouble::Silent => "sent nothing for several intervals to",
                Trouble::Slow => "was too slow for several intervals for",
                Trouble::Congested => "has a congested link to",
                Trouble::Empty => "offers nothing of what it claims to hold to",
                Trouble::Attack => "has the address from which rules were broken towards",
            };
            format!("{parent:.8} {what} {child:.8} (content {content:.8})")
        }
        Event::Alarm(content, child, alarm) => {
            let what = match alarm {
                Alarm::ParentLost { parent, why } => format!("lost its parent {parent:.8}: {why}"),
                Alarm::Silent { parent } => format!("hears nothing from its parent {parent:.8}"),
                Alarm::Behind { parent, substreams } => {
                    format!("gets {} substreams late from its parent {parent:.8}", substreams.len())
                }
                Alarm::Slow { parent } => format!("gets a trickle from its parent {parent:.8}"),
                Alarm::BadPieces { parent } => format!("got wrong bytes from its parent {parent:.8}"),
                Alarm::Attacked { from } => format!("is attacked from {from}"),
                Alarm::Reading { runs } => {
                    format!("reads, and finds {} runs that it needs next at no parent", runs.len())
                }
                Alarm::Starving { runs } => format!("finds {} runs at no parent", runs.len()),
            };
            format!("{child:.8} {what} (content {content:.8})")
        }
        Event::Reachability(node, v) => format!("{node:.8} is {}: {}", accepts_words(v.accepts.value), v.why),
        Event::Congested(content, parent, child, between) => {
            let between = between.as_ref().map_or(String::new(), |(from, to)| format!(", from {from} to {to}"));
            format!("the link from {parent:.8} to {child:.8} is congested{between} (content {content:.8})")
        }
        Event::Link { from, to, congested_pairs, pairs, congested: true } => {
            format!("{from} → {to} congested: {congested_pairs} of {pairs} pairs")
        }
        Event::Link { from, to, congested: false, .. } => format!("{from} → {to} is no longer congested"),
        Event::Verdict(verdict) => verdict_words(verdict),
        Event::Takeover(node) => format!("a second process came with the identity of {node:.8}"),
    }
}

/// What a node accepts, in words.
fn accepts_words(accepts: Accepts) -> &'static str {
    match accepts {
        Accepts::Open => "open",
        Accepts::Punchable => "punchable",
        Accepts::DialOnly => "dial-only",
    }
}

fn verdict_words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Standing { node, standing, accusers, praisers, offence, lasts } => {
            let of = offence.map_or("", Offence::words);
            let networks = |n: &usize| if *n == 1 { "1 network".to_owned() } else { format!("{n} networks") };
            let (by, well) = (networks(accusers), networks(praisers));
            let seconds = lasts.0 / 1_000_000;
            match standing {
                Standing::Banned if *accusers == 0 => {
                    format!("{node:.8} is banned as a parent for {seconds} s: its own words prove it guilty of {of}")
                }
                Standing::Banned => format!(
                    "{node:.8} is banned as a parent for {seconds} s: {by} accuse it, most of {of}; {well} are served well"
                ),
                Standing::OnTrial { .. } if of.is_empty() => {
                    format!("{node:.8} is on trial as a parent until it serves another child well")
                }
                Standing::OnTrial { .. } => {
                    format!("{node:.8} is on trial as a parent, accused of {of} by {by}; {well} are served well")
                }
                Standing::Good => format!("{node:.8} is in good standing as a parent again"),
            }
        }
        Verdict::Slanderer { node, contradicted, upheld, lasts } => format!(
            "{node:.8} slanders: others contradict {contradicted} of its accusations and share {upheld}; its word is void for {} s",
            lasts.0 / 1_000_000
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_in_parts() {
        let mut log = EventLog::default();
        assert_eq!(log.after(0).0, 0);
        (0..MAX_EVENTS + 10).for_each(|i| log.say(1, i.to_string()));
        let (next, found) = log.after(0);
        assert_eq!((found.len(), found[0].number, next), (MAX_LISTED_EVENTS, 11, 1010));
        let (next, found) = log.after(MAX_EVENTS as u64 + 8);
        assert_eq!((next, found.len()), (MAX_EVENTS as u64 + 10, 2));
        assert_eq!(log.after(u64::MAX), (MAX_EVENTS as u64 + 10, vec![]));
    }

    impl PartialEq for EventItem {
        fn eq(&self, other: &Self) -> bool {
            self.number == other.number
        }
    }
}
