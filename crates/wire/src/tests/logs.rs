//! Logs and static logs.

use super::*;
use crate::limits::{MAX_LOG_BYTES, MAX_STATIC_LOG_BYTES};
use ed25519_dalek::SigningKey;
use headwater_model::layout::Layout;
use headwater_model::log::{Entry, Log, LogError, Object, fingerprint, sign};
use headwater_model::{Hash, Sum, merkle, sums};

/// A log of one object of `pieces` pieces, that verifies.
fn signed(pieces: u32) -> StaticLog {
    let key = SigningKey::from_bytes(&[1; 32]);
    let objects = vec![Object { path: "a".into(), media_type: String::new(), size_bytes: u64::from(pieces) * 4096 }];
    let leaves: Vec<Hash> = (0..pieces).map(|n| merkle::leaf(&n.to_be_bytes())).collect();
    let sums: Vec<Sum> = (0..u64::from(pieces)).map(|n| Sum(n * 77)).collect();
    let mut log =
        Log { name: "n".into(), first_key: key.verifying_key().to_bytes(), key_changes: vec![], entries: vec![] };
    let entry = Entry {
        track: "main".into(),
        epoch: 7,
        number: 0,
        previous: Hash::default(),
        time_unix_ms: 1,
        piece_bytes: 4096,
        leaves: Layout::new(4096, &objects).unwrap().pieces(),
        objects,
        first_leaf: 0,
        root: merkle::root(&leaves),
        origins: vec!["https://o.example/a".into()],
        last: true,
        sums: Some(sums::root(&sums)),
        live: None,
    };
    log.entries.push(sign(log.content(), entry, &key));
    StaticLog { log, leaves, sums, entries: vec![] }
}

#[test]
fn a_static_log_comes_back_and_is_believed() {
    let sent = signed(1000);
    let got = StaticLog::decode(&sent.encode()).unwrap();
    assert_eq!(got, sent);
    let said = got.verify("n", Some(&fingerprint(&sent.log.first_key))).unwrap();
    let track = said.closed().unwrap();
    assert_eq!((track.layout.pieces(), track.root), (1000, merkle::root(&sent.leaves)));
    assert_eq!(decode_log(&encode_log(&sent.log)), Ok(sent.log));
}

#[test]
fn the_log_of_a_live_stream_has_its_newest_entries() {
    let live = StaticLog { log: samples::log(), leaves: vec![], sums: vec![], entries: samples::live_entries() };
    assert!(!live.entries.is_empty());
    assert_eq!(StaticLog::decode(&live.encode()), Ok(live));
}

#[test]
fn spoilt_static_logs_are_not_believed() {
    let good = signed(5);
    let said = |spoil: &dyn Fn(&mut StaticLog)| {
        let mut bad = good.clone();
        spoil(&mut bad);
        bad.verify("n", None).unwrap_err()
    };
    assert_eq!(said(&|s| s.leaves[2].0[0] ^= 1), StaticLogError::Root);
    assert_eq!(said(&|s| s.leaves.swap(0, 1)), StaticLogError::Root);
    assert_eq!(said(&|s| s.sums[2].0 ^= 1), StaticLogError::Sums);
    assert_eq!(said(&|s| s.sums.clear()), StaticLogError::Sums);
    assert_eq!(said(&|s| s.entries = samples::live_entries()), StaticLogError::Entries);
    assert_eq!(said(&|s| s.leaves.truncate(4)), StaticLogError::Leaves { wanted: 5, found: 4 });
    assert_eq!(said(&|s| s.log.entries.clear()), StaticLogError::Log(LogError::Open));
    assert!(matches!(good.verify("m", None), Err(StaticLogError::Log(LogError::WrongName { .. }))));
}

#[test]
fn other_files_are_refused_with_the_reason() {
    let file = signed(5).encode();
    let mut newer = file.clone();
    newer[1] = 4;
    let said = StaticLog::decode(&newer).unwrap_err();
    assert_eq!(said, WireError::Newer { found: 4, known: 3 });
    assert!(said.to_string().contains("made by a newer version"), "{said}");
    assert!(StaticLog::decode(b"\x08\x04 whatever format 4 is").unwrap_err() == said);
    assert_eq!(StaticLog::decode(b"<html>404</html>"), Err(WireError::Missing("format")));
    assert_eq!(StaticLog::decode(b""), Err(WireError::Missing("format")));
    assert_eq!(StaticLog::decode(b"\x08\x00"), Err(WireError::Value("format")));
    assert_eq!(StaticLog::decode(b"\x08\x01"), Err(WireError::Missing("log")));
    let mut odd = signed(5);
    odd.leaves.clear();
    odd.sums.clear();
    let mut odd = odd.encode();
    odd.extend([0x1A, 33]);
    odd.extend([0; 33]);
    assert_eq!(StaticLog::decode(&odd), Err(WireError::Length { field: "leaves", got: 33, limit: 32 }));
}

#[test]
fn oversized_files_are_refused() {
    let file = vec![0; MAX_STATIC_LOG_BYTES + 1];
    let limit = |field, got, limit| Err(WireError::Length { field, got, limit });
    let got = StaticLog::decode(&file).map(drop);
    assert_eq!(got, limit("static log", MAX_STATIC_LOG_BYTES + 1, MAX_STATIC_LOG_BYTES));
    let got = decode_log(&file[..MAX_LOG_BYTES + 1]).map(drop);
    assert_eq!(got, limit("log", MAX_LOG_BYTES + 1, MAX_LOG_BYTES));
    let mut long = signed(1);
    long.log.entries[0].entry.objects =
        vec![Object { path: "x".repeat(1024), media_type: "y".repeat(1024), size_bytes: 1 }; 1024];
    long.log.entries = vec![long.log.entries[0].clone(); 3];
    assert!(matches!(StaticLog::decode(&long.encode()), Err(WireError::Length { field: "log", .. })));
}

fn read(file: &[u8]) -> bool {
    let Ok(log) = StaticLog::decode(file) else { return false };
    // What is not as it was signed is not believed, and nothing is so strange that checking it does harm.
    if log.verify("n", None).is_ok() {
        assert_eq!(log, signed(5));
    }
    assert_eq!(StaticLog::decode(&log.encode()), Ok(log));
    true
}

#[test]
fn damage_does_no_harm() {
    let file = signed(5).encode();
    for len in 0..file.len() {
        read(&file[..len]);
    }
    for bit in 0..file.len() * 8 {
        let mut spoilt = file.clone();
        spoilt[bit / 8] ^= 1 << (bit % 8);
        read(&spoilt);
    }
    let other =
        StaticLog { log: samples::log(), leaves: vec![Hash([1; 32])], sums: vec![Sum(5)], entries: vec![] }.encode();
    let live = StaticLog { entries: samples::live_entries(), ..StaticLog::decode(&other).unwrap() }.encode();
    let accepted = mutations("static log", &[file, other, live], read);
    assert!((100..MUTATIONS).contains(&accepted), "{accepted}");
}
