use super::*;
use headwater_model::live::Listed;

const PIECE: usize = 4096;

fn bytes(object: u64, n: usize) -> Ingested {
    Ingested::Bytes { object, kind: ObjectKind::Ts, data: vec![7; n].into() }
}

fn listed(object: u64) -> Ingested {
    let listed = Listed {
        sequence: object,
        duration: Micros::from_secs(2),
        target_duration: Micros::from_secs(2),
        discontinuity: false,
        map: None,
        recorded_unix_us: None,
        origin: None,
    };
    Ingested::Listed { object, kind: ObjectKind::Ts, listed }
}

/// What is said of what comes, as (number, previous, object, offset, first piece, bytes, complete).
type Said = (u64, Option<u64>, u64, u64, u64, usize, bool);

fn said(entries: Vec<(LiveEntry, Bytes)>) -> Vec<Said> {
    let of =
        |(e, d): (LiveEntry, Bytes)| (e.number, e.previous, e.object, e.offset, e.first_piece, d.len(), e.complete);
    entries.into_iter().map(of).collect()
}

#[test]
fn a_segment_is_said_while_it_comes() {
    let mut c = Cutter::new(PIECE as u32, 100);
    assert_eq!(said(c.take(1, listed(5))), [(100, None, 5, 0, 100, 0, false)]);
    assert_eq!(said(c.take(2, bytes(5, 3 * PIECE + 1))), [], "it waits for more");
    assert_eq!(said(c.flush(3)), [(101, Some(100), 5, 0, 100, 3 * PIECE + 1, false)], "not for long");
    assert_eq!(said(c.flush(3)), []);
    let full = SAY_PIECES * PIECE;
    let at = 3 * PIECE as u64 + 1;
    let two = said(c.take(4, bytes(5, 2 * full + 9)));
    assert_eq!(
        two,
        [
            (102, Some(101), 5, at, 104, full, false),
            (103, Some(102), 5, at + full as u64, 104 + SAY_PIECES as u64, full, false),
        ]
    );
    let end = said(c.take(5, Ingested::Complete { object: 5 }));
    assert_eq!(end, [(104, Some(103), 5, at + 2 * full as u64, 104 + 2 * SAY_PIECES as u64, 9, true)]);
}

#[test]
fn two_objects_come_by_turns_and_one_is_given_up() {
    let mut c = Cutter::new(PIECE as u32, 0);
    c.take(1, bytes(1, 10));
    c.take(1, bytes(2, 20));
    assert_eq!(said(c.flush(1)), [(0, None, 1, 0, 0, 10, false), (1, Some(0), 2, 0, 1, 20, false)]);
    c.take(2, bytes(1, 10));
    c.take(2, Ingested::Abandoned { object: 1 });
    assert_eq!(said(c.flush(2)), []);
    assert_eq!(said(c.take(3, Ingested::Complete { object: 2 })), [(2, Some(1), 2, 20, 2, 0, true)]);
    let end = c.take(4, Ingested::Ended);
    assert!(end.len() == 1 && end[0].0.last && end[0].0.kind == ObjectKind::Ts);
}

#[test]
fn an_empty_object_is_complete_too() {
    let mut c = Cutter::new(PIECE as u32, 0);
    c.take(1, listed(1));
    assert_eq!(said(c.take(1, Ingested::Complete { object: 1 })), [(1, Some(0), 1, 0, 0, 0, true)]);
    assert_eq!(said(c.take(1, Ingested::Complete { object: 9 })), [], "nothing was ever said of it");
}

#[test]
fn how_far_it_has_come_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("progress.json");
    assert_eq!(LiveProgress::read(&path), None);
    let resume = Resume { next_object: 4, ..Resume::default() };
    let progress = LiveProgress { resume, ..LiveProgress::new(7) };
    progress.write(&path).unwrap();
    assert_eq!(LiveProgress::read(&path), Some(progress));
    std::fs::write(&path, "{\"format\":2}").unwrap();
    assert_eq!(LiveProgress::read(&path), None);
}
