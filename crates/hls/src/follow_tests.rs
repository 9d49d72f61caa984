use super::*;
use Trouble::*;

const TARGET: Micros = Micros::from_secs(2);
/// It begins with all that is listed.
const ALL: Micros = Micros(u64::MAX);

/// A playlist of these numbers; every segment takes two seconds.
fn list(sequences: std::ops::RangeInclusive<u64>) -> MediaPlaylist {
    let segment =
        |sequence| Segment { sequence, uri: format!("{sequence}.ts"), duration: TARGET, ..Segment::default() };
    MediaPlaylist {
        target_duration: TARGET,
        media_sequence: *sequences.start(),
        ended: false,
        encrypted: false,
        can_block: false,
        segments: sequences.map(segment).collect(),
    }
}

/// As [`list`], of an origin that holds its answers back.
fn blocking(sequences: std::ops::RangeInclusive<u64>) -> MediaPlaylist {
    MediaPlaylist { can_block: true, ..list(sequences) }
}

struct Story {
    follower: Follower,
    now: Time,
    /// Of the last load.
    held: Option<Held>,
}

impl Story {
    fn new(hold_back: Micros) -> Self {
        let now = Time(7_000_000);
        Story { follower: Follower::new(now, hold_back), now, held: None }
    }

    fn resumes(next: u64) -> Self {
        let now = Time(7_000_000);
        Story { follower: Follower::resume(now, TARGET, next), now, held: None }
    }

    /// Loads when it is due, and that fails after so long: until which segment the answer was to be held back, and how long
    /// it waits before the next load, in ms.
    fn fails(&mut self, after: Micros) -> (Option<u64>, u64) {
        self.now = self.now.max(self.follower.next_load().unwrap());
        let held = self.follower.loading(self.now);
        self.now = self.now + after;
        self.follower.failed(self.now);
        (held.map(|h| h.until), self.follower.next_load().unwrap().since(self.now).0 / 1000)
    }

    /// As [`Story::loads`]: until which segment the answer was to be held back, how many segments are new, and the pause.
    fn asks(&mut self, brought: &MediaPlaylist) -> (Option<u64>, usize, Option<u64>) {
        let (segments, _, pause) = self.loads(brought);
        (self.held.map(|h| h.until), segments.len(), pause)
    }

    /// Loads when it is due; what is to be fetched then, the troubles, and how long it waits before the next load, in ms.
    fn loads(&mut self, brought: &MediaPlaylist) -> (Vec<u64>, Vec<Trouble>, Option<u64>) {
        self.now = self.now.max(self.follower.next_load().unwrap());
        self.held = self.follower.loading(self.now);
        // It takes a while.
        let came = self.now + Micros::from_millis(100);
        let troubles = self.follower.loaded(came, brought);
        let segments = std::iter::from_fn(|| self.follower.next_segment()).map(|s| s.sequence).collect();
        (segments, troubles, self.follower.next_load().map(|t| t.since(self.now).0 / 1000))
    }
}

#[test]
fn it_begins_where_it_should() {
    let hold_back = Micros::from_secs;
    let ended = MediaPlaylist { ended: true, ..list(1..=9) };
    for (begin, list, expected) in [
        (ALL, list(1..=9), 1..=9),
        (hold_back(6), list(1..=9), 7..=9),
        (hold_back(5), list(1..=9), 7..=9),
        (hold_back(1), list(1..=9), 9..=9),
        (hold_back(600), list(1..=9), 1..=9),
        (hold_back(6), ended, 1..=9),
    ] {
        let (segments, troubles, next) = Story::new(begin).loads(&list);
        assert_eq!((segments, troubles), (expected.collect(), vec![]), "{begin:?}");
        assert_eq!(next, (!list.ended).then_some(2000));
    }
}

#[test]
fn it_follows() {
    let mut s = Story::new(TARGET);
    assert_eq!(s.loads(&list(1..=5)), (vec![5], vec![], Some(2000)));
    assert_eq!(s.loads(&list(2..=6)), (vec![6], vec![], Some(2000)));
    // Nothing new: sooner.
    assert_eq!(s.loads(&list(2..=6)), (vec![], vec![], Some(1000)));
    assert_eq!(s.loads(&list(4..=8)), (vec![7, 8], vec![], Some(2000)));
    // The window went on without us.
    assert_eq!(s.loads(&list(12..=14)), (vec![12, 13, 14], vec![Missed(3)], Some(2000)));
    let ended = MediaPlaylist { ended: true, ..list(12..=15) };
    assert_eq!(s.loads(&ended), (vec![15], vec![], None));
    assert!(s.follower.is_over());
}

#[test]
fn an_old_copy_is_not_believed_and_a_new_beginning_is() {
    let mut s = Story::new(ALL);
    s.loads(&list(10..=15));
    assert_eq!(s.loads(&list(9..=13)), (vec![], vec![Backwards], Some(1000)));
    assert_eq!(s.loads(&list(11..=16)), (vec![16], vec![], Some(2000)));
    for _ in 0..2 {
        assert_eq!(s.loads(&list(0..=1)), (vec![], vec![Backwards], Some(1000)));
    }
    s.now = s.follower.next_load().unwrap();
    s.follower.loading(s.now);
    assert_eq!(s.follower.loaded(s.now, &list(0..=2)), [Restarted]);
    let all: Vec<(u64, bool)> =
        std::iter::from_fn(|| s.follower.next_segment()).map(|s| (s.sequence, s.discontinuity)).collect();
    assert_eq!(all, [(0, true), (1, false), (2, false)]);
    assert_eq!(s.loads(&list(1..=3)), (vec![3], vec![], Some(2000)));
}

#[test]
fn a_stalled_encoder_is_told_of_once() {
    let mut s = Story::new(ALL);
    s.loads(&list(1..=3));
    let mut told = Vec::new();
    for n in 0..12 {
        if n % 2 == 0 {
            told.extend(s.loads(&list(1..=3)).1);
        } else {
            s.now = s.now.max(s.follower.next_load().unwrap());
            told.extend(s.follower.failed(s.now));
        }
    }
    assert!(matches!(told[..], [Stalled(t)] if t >= TARGET.times(3) && t < TARGET.times(4)), "{told:?}");
    assert_eq!(s.loads(&list(1..=4)).1, [GoesOn]);
}

#[test]
fn what_was_listed_stays_as_it_was() {
    let mut s = Story::new(ALL);
    s.loads(&list(1..=4));
    let mut other = list(2..=5);
    other.segments[1].uri = "other.ts".into();
    other.target_duration = Micros::from_secs(4);
    let told = vec![Changed(3), TargetDuration(Micros::from_secs(4))];
    assert_eq!(s.loads(&other), (vec![5], told, Some(4000)));
    assert_eq!(s.loads(&other).1, []);
    // An empty one is no news.
    assert_eq!(s.loads(&MediaPlaylist { segments: vec![], ..other }).1, []);
}

#[test]
fn it_goes_on_after_a_restart() {
    // All that is new, more than it would hold back.
    let mut s = Story::resumes(4);
    assert_eq!(s.loads(&list(1..=9)), ((4..=9).collect(), vec![], Some(2000)));
    assert_eq!(s.loads(&list(1..=10)), (vec![10], vec![], Some(2000)));
    // Nothing is new yet.
    let mut s = Story::resumes(10);
    assert_eq!(s.loads(&list(1..=9)), (vec![], vec![], Some(1000)));
    assert_eq!(s.loads(&list(1..=10)), (vec![10], vec![], Some(2000)));
    // It was away for too long: as a newcomer.
    let mut s = Story::resumes(4);
    assert_eq!(s.loads(&list(6..=9)), (vec![9], vec![Missed(5)], Some(2000)));
    // Only at first.
    assert_eq!(s.loads(&list(12..=14)), (vec![12, 13, 14], vec![Missed(2)], Some(2000)));
    // The packager was restarted too.
    let mut s = Story::resumes(50);
    assert_eq!(s.loads(&list(1..=3)).1, [Backwards]);
    assert_eq!(s.loads(&list(1..=3)).1, [Backwards]);
    assert_eq!(s.loads(&list(1..=3)), (vec![3], vec![Restarted], Some(2000)));
}

#[test]
fn an_answer_is_held_back_until_there_is_something_new() {
    let mut s = Story::new(ALL);
    assert_eq!(s.asks(&blocking(1..=5)), (None, 5, Some(200)));
    assert_eq!(s.asks(&blocking(1..=6)), (Some(6), 1, Some(200)));
    assert_eq!(s.held, Some(Held { until: 6, most: Micros::from_secs(7) }));
    assert_eq!(s.asks(&blocking(2..=8)), (Some(7), 2, Some(200)));
    // It no longer says that it can.
    assert_eq!(s.asks(&list(2..=9)), (Some(9), 1, Some(2000)));
    assert_eq!(s.asks(&list(2..=9)), (None, 0, Some(1000)));
    let ended = MediaPlaylist { ended: true, ..blocking(2..=10) };
    assert_eq!(s.asks(&ended), (None, 1, None));
}

#[test]
fn an_origin_that_only_says_that_it_holds_back_is_asked_as_others() {
    let mut s = Story::new(ALL);
    s.loads(&blocking(1..=5));
    // Answered at once without anything new: no busy loop, and after three in a row it is not believed any more.
    assert_eq!(s.asks(&blocking(1..=5)), (Some(6), 0, Some(1000)));
    assert_eq!(s.asks(&blocking(1..=6)), (Some(6), 1, Some(200)), "once proves nothing");
    for _ in 0..3 {
        assert_eq!(s.asks(&blocking(1..=6)), (Some(7), 0, Some(1000)));
    }
    assert_eq!(s.asks(&blocking(1..=7)), (None, 1, Some(2000)));
    assert_eq!(s.asks(&blocking(1..=7)), (None, 0, Some(1000)));
}

#[test]
fn an_origin_that_holds_back_for_ever_is_asked_as_others() {
    let mut s = Story::new(ALL);
    let long = TARGET.times(3);
    s.loads(&blocking(1..=5));
    // Nothing is new: the encoder stands still, and the origin was right.
    for _ in 0..9 {
        assert_eq!(s.fails(long), (Some(6), 1000));
        assert_eq!(s.asks(&blocking(1..=5)), (None, 0, Some(1000)));
    }
    // There was something that it did not say.
    for n in 6..9 {
        assert_eq!(s.fails(long), (Some(n), 1000));
        assert_eq!(s.asks(&blocking(1..=n)), (None, 1, Some(if n < 8 { 200 } else { 2000 })));
    }
    assert_eq!(s.asks(&blocking(1..=9)), (None, 1, Some(2000)));
}

#[test]
fn while_a_playlist_is_old_or_segments_wait_nothing_is_held_back() {
    let mut s = Story::new(ALL);
    s.loads(&blocking(10..=15));
    assert_eq!(s.asks(&blocking(0..=1)), (Some(16), 0, Some(1000)));
    assert_eq!(s.asks(&blocking(0..=1)), (None, 0, Some(1000)));
    assert_eq!(s.asks(&blocking(0..=1)), (None, 2, Some(200)));
    assert_eq!(s.asks(&blocking(0..=2)), (Some(2), 1, Some(200)));
    s.now = s.follower.next_load().unwrap();
    s.follower.loading(s.now);
    s.follower.loaded(s.now, &blocking(0..=3));
    assert_eq!(s.follower.loading(s.now + TARGET), None, "the last one was not fetched yet");
}

#[test]
fn what_was_listed_before_it_was_whole_may_get_another_duration() {
    let mut s = Story::new(ALL);
    s.loads(&list(1..=4));
    let mut later = list(1..=5);
    later.segments[3].duration = Micros::from_millis(800);
    assert_eq!(s.loads(&later).1, []);
    later.segments[4].discontinuity = true;
    assert_eq!(s.loads(&later).1, [Discontinuity(5)]);
    assert_eq!(s.loads(&later).1, []);
}

proptest::proptest! {
    #[test]
    fn loads_never_come_in_a_rush(loads in proptest::collection::vec((0u64..40, 0u64..8, 0u8..4), 1..40)) {
        let mut s = Story::new(ALL);
        for (first, more, kind) in loads {
            let begun = s.follower.next_load().unwrap();
            s.now = begun;
            s.follower.loading(begun);
            // Answers without any delay are the worst case.
            match kind {
                0 => drop(s.follower.failed(begun)),
                1 => drop(s.follower.loaded(begun, &list(first..=first + more))),
                _ => drop(s.follower.loaded(begun, &blocking(first..=first + more))),
            }
            while s.follower.next_segment().is_some() {}
            proptest::prop_assert!(s.follower.next_load().unwrap().since(begun) >= LEAST_PAUSE);
        }
    }

    #[test]
    fn every_number_comes_once_and_in_order(loads in proptest::collection::vec((0u64..40, 0u64..8, proptest::bool::ANY), 1..40)) {
        let mut s = Story::new(ALL);
        let mut last: Option<u64> = None;
        for (first, more, can_block) in loads {
            let (segments, troubles, _) = s.loads(&MediaPlaylist { can_block, ..list(first..=first + more) });
            if troubles.contains(&Restarted) {
                last = None;
            }
            for n in segments {
                proptest::prop_assert!(last.is_none_or(|l| n > l));
                last = Some(n);
            }
        }
    }
}
