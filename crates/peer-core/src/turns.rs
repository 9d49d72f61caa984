//! Whose turn it is at a line that several contents share: live streams before all others, which are as good a moment
//! later; among these contents by their priority, and within one content those who wait in the order in which they came.
//! So a content with fifty children takes no more from another one's single child than its share.
//!
//! Start-time fair queueing (Goyal, Vin, Cheng 1996): what a content asks for begins, in a time of its own that counts
//! bytes over weight, where its last request ends; whoever begins first has the turn. A content that was idle begins now:
//! it has saved up nothing.

use headwater_model::id::ContentId;
use headwater_model::node::Priority;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes count so much finer, as weights divide them.
const SCALE: u64 = Priority::High.weight();

/// A place in the queue.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Turn {
    /// Of nothing live.
    later: bool,
    begins: u64,
    number: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Share {
    priority: Priority,
    live: bool,
    /// Where its last request ends.
    ends: u64,
}

/// The queue of a line.
#[derive(Clone, Debug, Default)]
pub struct Turns {
    /// Where the one that had the turn last begins: of live streams, and of the others.
    now: [u64; 2],
    contents: BTreeMap<ContentId, Share>,
    waiting: BTreeSet<Turn>,
    asked: u64,
}

impl Turns {
    /// A content matters so much from its next request on.
    pub fn set_priority(&mut self, content: ContentId, priority: Priority) {
        self.contents.entry(content).or_default().priority = priority;
    }

    /// A content is a live stream: what is to be sent of it goes before whatever is not live.
    pub fn set_live(&mut self, content: ContentId) {
        self.contents.entry(content).or_default().live = true;
    }

    /// A content has ended.
    pub fn forget(&mut self, content: &ContentId) {
        self.contents.remove(content);
    }

    /// Somebody wants to send `bytes` of a content.
    pub fn ask(&mut self, content: ContentId, bytes: u64) -> Turn {
        let share = self.contents.entry(content).or_default();
        let later = !share.live;
        let begins = share.ends.max(self.now[usize::from(later)]);
        share.ends = begins.saturating_add(bytes.saturating_mul(SCALE) / share.priority.weight());
        self.asked += 1;
        let turn = Turn { later, begins, number: self.asked };
        self.waiting.insert(turn);
        turn
    }

    /// Whose turn is next. Another one may come and be first as long as this one is not [taken](Turns::take).
    pub fn first(&self) -> Option<Turn> {
        self.waiting.first().copied()
    }

    /// It sends.
    pub fn take(&mut self, turn: Turn) {
        let now = &mut self.now[usize::from(turn.later)];
        *now = (*now).max(turn.begins);
        self.waiting.remove(&turn);
    }

    /// It wants nothing any more.
    pub fn leave(&mut self, turn: Turn) {
        self.waiting.remove(&turn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> ContentId {
        ContentId([n; 32])
    }

    /// Contents with so many that always want 100 bytes each; who gets how many of a thousand turns.
    fn shares(contents: &[(u32, Priority)]) -> Vec<u32> {
        let mut turns = Turns::default();
        let mut of: BTreeMap<Turn, usize> = BTreeMap::new();
        for (n, (senders, priority)) in contents.iter().enumerate() {
            turns.set_priority(id(n as u8), *priority);
            for _ in 0..*senders {
                of.insert(turns.ask(id(n as u8), 100), n);
            }
        }
        let mut got = vec![0; contents.len()];
        for _ in 0..1000 {
            let first = turns.first().unwrap();
            turns.take(first);
            let n = of.remove(&first).unwrap();
            got[n] += 1;
            of.insert(turns.ask(id(n as u8), 100), n);
        }
        got
    }

    #[test]
    fn contents_share_by_priority_however_many_want_some() {
        use Priority::{High, Low, Normal};
        type Case<'a> = (&'a [(u32, Priority)], &'a [u32]);
        let cases: &[Case<'_>] = &[
            (&[(1, Normal)], &[1000]),
            (&[(50, Normal), (1, Normal)], &[500, 500]),
            (&[(1, High), (50, Normal)], &[800, 200]),
            (&[(50, Low), (3, Normal)], &[200, 800]),
            (&[(2, High), (40, Normal), (9, Low)], &[762, 190, 48]),
        ];
        for (contents, expected) in cases {
            let got = shares(contents);
            let near = got.iter().zip(*expected).all(|(got, expected)| got.abs_diff(*expected) <= 10);
            assert!(near, "{contents:?}: {got:?}, not {expected:?}");
        }
    }

    #[test]
    fn what_is_live_goes_first_and_changes_nothing_among_the_others() {
        let mut turns = Turns::default();
        turns.set_live(id(9));
        let file = turns.ask(id(0), 1000);
        for _ in 0..100 {
            let live = turns.ask(id(9), 1000);
            assert_eq!(turns.first(), Some(live));
            turns.take(live);
        }
        let other = turns.ask(id(1), 1000);
        let next = turns.ask(id(0), 1000);
        assert_eq!(turns.first(), Some(file), "it has the line now");
        turns.take(file);
        assert_eq!(turns.first(), Some(other), "who came beside a stream is no later for it");
        turns.take(other);
        assert_eq!(turns.first(), Some(next));
    }

    #[test]
    fn who_comes_late_has_saved_up_nothing_and_who_gives_up_is_passed_over() {
        let mut turns = Turns::default();
        for _ in 0..100 {
            let turn = turns.ask(id(0), 1000);
            assert_eq!(turns.first(), Some(turn));
            turns.take(turn);
        }
        let [a, b, c] = [0, 0, 1].map(|n| turns.ask(id(n), 1000));
        assert_eq!(turns.first(), Some(c), "it begins where the last turn did");
        turns.take(c);
        let d = turns.ask(id(1), 1000);
        assert_eq!(turns.first(), Some(a), "a turn each");
        turns.leave(a);
        assert_eq!(turns.first(), Some(d), "what was given up counts all the same");
        turns.take(d);
        assert_eq!(turns.first(), Some(b));
        turns.take(b);
        assert_eq!(turns.first(), None);
    }
}
