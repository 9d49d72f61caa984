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
        segments: sequences.map(segment).collect(),
    }
}

struct Story {
    follower: Follower,
    now: Time,
}

impl Story {
    fn new(hold_back: Micros) -> Self {
        let now = Time(7_000_000);
        Story { follower: Follower::new(now, hold_back), now }
    }

    fn resumes(next: u64) -> Self {
        let now = Time(7_000_000);
        Story { follower: Follower::resume(now, TARGET, next), now }
    }

    /// Loads when it is due; what is to be fetched then, the troubles, and how long it waits before the next load, in ms.
    fn loads(&mut self, brought: &MediaPlaylist) -> (Vec<u64>, Vec<Trouble>, Option<u64>) {
        self.now = self.now.max(self.follower.next_load().unwrap());
        self.follower.loading(self.now);
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

proptest::proptest! {
    #[test]
    fn every_number_comes_once_and_in_order(loads in proptest::collection::vec((0u64..40, 0u64..8), 1..40)) {
        let mut s = Story::new(ALL);
        let mut last: Option<u64> = None;
        for (first, more) in loads {
            let (segments, troubles, _) = s.loads(&list(first..=first + more));
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
