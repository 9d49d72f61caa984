use super::*;
use crate::id::NodeId;
use crate::log::{Entry, Log, fingerprint, sign};
use proptest::prelude::*;

fn key() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

fn terms() -> LiveTerms {
    LiveTerms { substreams: NonZeroU8::new(8).unwrap(), rate: Rate::from_mbit(2), window: Micros::from_secs(60) }
}

fn log(change: impl Fn(&mut Entry)) -> Log {
    let first_key = key().verifying_key().to_bytes();
    let mut entry = Entry {
        track: "main".into(),
        epoch: 7,
        number: 0,
        previous: Hash::default(),
        time_unix_ms: 1,
        piece_bytes: LIVE_PIECE_BYTES,
        objects: vec![],
        first_leaf: 0,
        leaves: 0,
        root: Hash::default(),
        origins: vec!["http://o/live.m3u8".into()],
        last: false,
        sums: None,
        live: Some(terms()),
    };
    change(&mut entry);
    let content = ContentId::of(&fingerprint(&first_key), "n");
    Log { name: "n".into(), first_key, key_changes: vec![], entries: vec![sign(content, entry, &key())] }
}

fn track() -> LiveTrack {
    log(|_| {}).verify_live("n", None).unwrap()
}

fn entry() -> LiveEntry {
    let data = vec![5; 20_000];
    LiveEntry {
        epoch: 7,
        number: 41,
        previous: Some(40),
        time_unix_ms: 2,
        object: 3,
        kind: ObjectKind::Ts,
        offset: 8192,
        first_piece: 100,
        bytes: data.len() as u32,
        leaves: data.chunks(LIVE_PIECE_BYTES as usize).map(merkle::leaf).collect(),
        complete: true,
        listed: Some(Listed {
            sequence: 9,
            duration: Micros::from_secs(2),
            target_duration: Micros::from_secs(2),
            discontinuity: false,
            map: None,
            recorded_unix_us: None,
            origin: Some(OriginPlace { url: "http://o/9.ts".into(), from: 0 }),
        }),
        last: false,
    }
}

#[test]
fn a_stream_s_log_says_what_it_is() {
    let t = track();
    assert_eq!((t.terms, t.version.epoch, t.piece_bytes), (terms(), 7, LIVE_PIECE_BYTES));
    let said = |log: Log| log.verify_live("n", None).unwrap_err();
    assert!(matches!(log(|_| {}).verify("n", None), Err(LogError::Kind(_))), "a stream is no file");
    assert!(matches!(said(log(|e| e.live = None)), LogError::Kind(_)), "a file is no stream");
    assert!(matches!(said(log(|e| e.last = true)), LogError::Chain(0)));
    assert!(matches!(said(log(|e| e.leaves = 1)), LogError::Chain(0)));
    let with = |change: fn(&mut LiveTerms)| said(log(|e| e.live.iter_mut().for_each(change)));
    assert!(matches!(with(|l| l.substreams = NonZeroU8::MAX), LogError::Limit(_)));
    assert!(matches!(with(|l| l.rate = Rate(0)), LogError::Limit(_)));
    assert!(matches!(with(|l| l.window = Micros(u64::MAX)), LogError::Limit(_)));
    let mut forged = log(|_| {});
    forged.entries[0].entry.live = Some(LiveTerms { rate: Rate(9), ..terms() });
    assert!(matches!(said(forged), LogError::Signature(_)), "the terms are signed");
}

/// What is changed in a good entry, and whether it is signed anew.
fn check(change: impl Fn(&mut LiveEntry), sign_again: bool, believed: bool) {
    let t = track();
    let mut signed = entry().sign(t.version.content, &key());
    change(&mut signed.entry);
    if sign_again {
        signed = signed.entry.sign(t.version.content, &key());
    }
    assert_eq!(signed.verify(&t).is_ok(), believed, "{:?}", signed.entry);
}

#[test]
fn entries_are_believed_when_they_are_signed_and_sane() {
    check(|_| {}, false, true);
    check(|e| e.listed = None, true, true);
    let changes: [fn(&mut LiveEntry); 11] = [
        |e| e.number += 1,
        |e| e.previous = None,
        |e| e.time_unix_ms += 1,
        |e| e.object += 1,
        |e| e.kind = ObjectKind::Mp4,
        |e| e.offset += 1,
        |e| e.first_piece += 1,
        |e| e.leaves[2].0[0] ^= 1,
        |e| e.complete = false,
        |e| e.last = true,
        |e| e.listed.iter_mut().for_each(|l| l.origin.iter_mut().for_each(|o| o.from = 1)),
    ];
    for change in changes {
        check(change, false, false);
        check(change, true, true);
    }
    check(|e| e.epoch = 8, true, false);
    check(|e| e.bytes += 8192, true, false);
    check(|e| e.leaves.push(Hash::default()), true, false);
    check(|e| e.first_piece = u64::MAX, true, false);
    check(|e| e.previous = Some(41), true, false);
    check(|e| e.offset = u64::MAX, true, false);
    check(|e| e.listed.iter_mut().for_each(|l| l.duration = Micros(u64::MAX)), true, false);
    let bad_url = |e: &mut LiveEntry| {
        e.listed.iter_mut().for_each(|l| l.origin = Some(OriginPlace { url: "file:///etc/passwd".into(), from: 0 }));
    };
    check(bad_url, true, false);
}

#[test]
fn pieces_have_their_place() {
    let e = entry();
    assert_eq!(e.place_of(99, 8192), None);
    assert_eq!(e.place_of(100, 8192), Some((8192, 8192)));
    assert_eq!(e.place_of(102, 8192), Some((8192 + 16_384, 20_000 - 16_384)));
    assert_eq!(e.place_of(103, 8192), None);
    assert!(e.has(102, &[5; 20_000 - 16_384]) && !e.has(102, &[5; 20_000 - 16_385]) && !e.has(103, &[]));
}

#[test]
fn only_the_publisher_s_node_is_a_source() {
    let t = track();
    let by = |k: SigningKey, node: u8| k.sign(&source_claim(t.version, &NodeId([node; 32]))).to_bytes();
    assert!(is_source(&t, &NodeId([4; 32]), &by(key(), 4)));
    assert!(!is_source(&t, &NodeId([4; 32]), &by(key(), 5)), "another node's claim");
    assert!(!is_source(&t, &NodeId([4; 32]), &by(SigningKey::from_bytes(&[2; 32]), 4)));
}

proptest! {
    #[test]
    fn every_piece_has_one_substream(k in 1u8..=MAX_SUBSTREAMS, piece in 0..u64::MAX - 64) {
        let terms = LiveTerms { substreams: NonZeroU8::new(k).unwrap(), ..terms() };
        let own = terms.substream_of(piece);
        prop_assert!(terms.all().contains(own));
        prop_assert_eq!(terms.next_of(own, piece), piece);
        for other in terms.all().iter() {
            let next = terms.next_of(other, piece);
            prop_assert!(next >= piece && next < piece + u64::from(k) && terms.substream_of(next) == other);
        }
    }

    #[test]
    fn sets_of_substreams(a in any::<u32>(), b in any::<u32>()) {
        let (a, b) = (Substreams(a), Substreams(b));
        prop_assert_eq!(a.or(b).len() + a.and(b).len(), a.len() + b.len());
        prop_assert_eq!(a.without(b).iter().collect::<Vec<_>>(), a.iter().filter(|s| !b.contains(*s)).collect::<Vec<_>>());
    }
}
