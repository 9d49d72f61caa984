//! Round trips of every kind of message, and bytes that are not messages.

mod framing;
mod limits;
mod logs;
mod samples;
mod web;

use crate::*;
use bytes::Bytes;
use headwater_model::live::MAX_SUBSTREAMS;
use headwater_model::report;
use headwater_model::{Bits, Rng, Version};
use proptest::prelude::*;
use prost::Message;
use std::collections::BTreeSet;
use std::fmt::Debug;

/// A conversation, for tests that all of them must pass.
trait Conversation: Sized + PartialEq + Debug {
    fn samples() -> Vec<Self>;
    fn kind(&self) -> usize;
    fn read(body: Bytes) -> Result<Self, WireError>;
    fn frame(&self) -> Bytes;
    fn body(&self) -> Bytes {
        self.frame().slice(4..)
    }
}

macro_rules! conversation {
    ($t:ty, $samples:path, $kind:path) => {
        impl Conversation for $t {
            fn samples() -> Vec<Self> {
                $samples()
            }
            fn kind(&self) -> usize {
                $kind(self)
            }
            fn read(body: Bytes) -> Result<Self, WireError> {
                Self::decode(body)
            }
            fn frame(&self) -> Bytes {
                self.encode()
            }
        }
    };
}
conversation!(FromNode, samples::from_node, samples::kind_of_node);
conversation!(FromControl, samples::from_control, samples::kind_of_control);
conversation!(FromPeer, samples::from_peer, samples::kind_of_peer);

fn round_trips<T: Conversation>(kinds: usize) {
    for m in T::samples() {
        let frame = m.frame();
        assert_eq!(frame[..4], (frame.len() as u32 - 4).to_be_bytes());
        assert_eq!(T::read(m.body()), Ok(m));
    }
    let seen: BTreeSet<usize> = T::samples().iter().map(T::kind).collect();
    assert_eq!(seen, (0..kinds).collect(), "every kind has a sample");
}

#[test]
fn every_message_round_trips() {
    round_trips::<FromNode>(17);
    round_trips::<FromControl>(16);
    round_trips::<FromPeer>(17);
    let header = DataHeader { version: samples::version() };
    assert_eq!(DataHeader::decode(header.encode().slice(4..)), Ok(header));
}

/// Either refused, or read and then written so that it is read the same.
fn is_read_or_refused<T: Conversation>(body: &[u8]) -> bool {
    let Ok(m) = T::read(Bytes::copy_from_slice(body)) else { return false };
    assert_eq!(T::read(m.body()), Ok(m));
    true
}

fn survives_damage<T: Conversation>() {
    for m in T::samples() {
        let body = m.body();
        for len in 0..body.len() {
            is_read_or_refused::<T>(&body[..len]);
        }
        for bit in 0..body.len() * 8 {
            let mut spoilt = body.to_vec();
            spoilt[bit / 8] ^= 1 << (bit % 8);
            is_read_or_refused::<T>(&spoilt);
        }
    }
}

#[test]
fn cut_messages_and_single_flips_do_no_harm() {
    survives_damage::<FromNode>();
    survives_damage::<FromControl>();
    survives_damage::<FromPeer>();
}

/// One to eight random edits.
fn mutate(bytes: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    for _ in 0..=rng.below(8) {
        let at = rng.below(bytes.len() as u64 + 1) as usize;
        let end = (at + rng.below(9) as usize).min(bytes.len());
        match rng.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            1 if at < bytes.len() => bytes[at] = rng.next_u64() as u8,
            2 => drop(bytes.drain(at..end)),
            3 => bytes.insert(at, [0, 1, 0x7F, 0x80, 0xFF][rng.below(5) as usize]),
            4 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
            _ => {
                let from = rng.below(other.len() as u64 + 1) as usize;
                drop(bytes.splice(at..end, other[from..].iter().take(40).copied()));
            }
        }
    }
}

const MUTATIONS: u32 = 20_000;

/// How many of [`MUTATIONS`] mutated samples `read` accepts.
fn mutations(purpose: &str, samples: &[Vec<u8>], read: impl Fn(&[u8]) -> bool) -> u32 {
    let mut rng = Rng::new(1, purpose);
    let some = |rng: &mut Rng| samples[rng.below(samples.len() as u64) as usize].clone();
    (0..MUTATIONS)
        .map(|_| {
            let (mut bytes, other) = (some(&mut rng), some(&mut rng));
            mutate(&mut bytes, &other, &mut rng);
            u32::from(read(&bytes))
        })
        .sum()
}

fn survives_mutations<T: Conversation>(purpose: &str) {
    let bodies: Vec<Vec<u8>> = T::samples().iter().map(|m| m.body().to_vec()).collect();
    let read = mutations(purpose, &bodies, is_read_or_refused::<T>);
    assert!((100..MUTATIONS).contains(&read), "{read} read: the mutations are too gentle or too harsh");
}

#[test]
fn random_damage_does_no_harm() {
    survives_mutations::<FromNode>("node");
    survives_mutations::<FromControl>("control");
    survives_mutations::<FromPeer>("peer");
}

fn hides_secrets<T: Conversation>() {
    for m in T::samples() {
        let printed = format!("{m:?} {m:#?}");
        assert!(!printed.contains(samples::SECRET), "{printed}");
        assert!(!printed.contains(&samples::SECRET_BYTE.to_string()), "{printed}");
        assert!(!printed.to_lowercase().contains(&format!("{:x}", samples::SECRET_BYTE).repeat(2)), "{printed}");
    }
}

#[test]
fn secrets_are_not_printed() {
    hides_secrets::<FromNode>();
    hides_secrets::<FromControl>();
    hides_secrets::<FromPeer>();
}

#[test]
fn runs_are_counted_by_who_knows_the_layout() {
    let (join, heartbeat) = (samples::join(), samples::heartbeat());
    let sent = || Join::new(join.clone(), Token::default());
    assert_eq!(sent().version(), join.version);
    assert_eq!(sent().with_runs(|_| Some(samples::RUNS), false), Ok(join.clone()));
    assert_eq!(sent().with_runs(|_| None, false).unwrap().runs, None);
    let too_many = Err(WireError::Value("a bitmap past the content's end"));
    assert_eq!(sent().with_runs(|_| Some(samples::RUNS - 1), false), too_many);

    let sent = || Heartbeat::new(heartbeat.clone(), 1);
    assert_eq!(sent().with_runs(|_| Some(samples::RUNS)), Ok(heartbeat.clone()));
    assert!(sent().with_runs(|_| Some(1)).is_err());
    let known = |v: Version| (v.epoch == 77).then_some(samples::RUNS);
    let some = sent().with_runs(known).unwrap();
    assert_eq!(some.contents[0], heartbeat.contents[0]);
    assert_eq!(some.contents[2].runs, None, "of a version that is not known here");
}

#[test]
fn a_bitmap_is_of_its_content() {
    let bits = samples::bits(samples::PIECES);
    assert_eq!(Bitmap::new(&bits).bits(samples::PIECES), Ok(bits));
    assert!(Bitmap::new(&Bits::full(9)).bits(8).is_err());
}

#[test]
fn texts_for_people_are_cut_between_letters() {
    let why = "ä".repeat(2000);
    let FromControl::Goodbye { why, .. } =
        FromControl::decode(FromControl::Goodbye { why, come_back: true }.body()).unwrap()
    else {
        unreachable!()
    };
    assert_eq!(why, "ä".repeat(512));
}

#[test]
fn a_parent_that_is_also_a_spare_has_one_ticket() {
    let Some(FromControl::Assignment { mut assignment, tickets, page_certificates }) =
        samples::from_control().into_iter().find(|m| m.kind() == 3)
    else {
        unreachable!()
    };
    assignment.spares.push(assignment.parents[0].clone());
    let m = FromControl::Assignment { assignment, tickets, page_certificates };
    assert_eq!(FromControl::decode(m.body()), Ok(m));
}

#[test]
fn values_without_meaning_are_refused() {
    let version = samples::version();
    let node = |m: FromNode| FromNode::decode(m.body());
    assert_eq!(node(FromNode::LeaseDone { version, run: 2048 }), Err(WireError::Value("run")));
    assert_eq!(node(FromNode::PageRequest { version, page: 8192 }), Err(WireError::Value("page")));
    let peer = |m: FromPeer| FromPeer::decode(m.body());
    assert_eq!(peer(FromPeer::BadPiece { version, piece: 1 << 22 }), Err(WireError::Value("piece")));
    assert_eq!(peer(FromPeer::Request { version, pieces: vec![0, 1 << 22] }), Err(WireError::Value("piece")));
    for empty in [FromNode::decode(Bytes::new()).err(), FromControl::decode(Bytes::new()).err()] {
        assert_eq!(empty, Some(WireError::Missing("body")));
    }
    // Hello with role 7.
    assert_eq!(FromNode::decode(Bytes::from_static(&[0x0A, 2, 0x10, 7])), Err(WireError::Value("role")));
    // A group, which this schema has none of.
    assert_eq!(FromNode::decode(Bytes::from_static(&[0x0B, 0x0C])), Err(WireError::Value("group")));
}

#[test]
fn fields_of_later_versions_are_passed_over() {
    let mut body = FromNode::Bye.body().to_vec();
    body.extend([0xFA, 0x7F, 2, b'h', b'i', 0xF8, 0x7F, 1]);
    assert_eq!(FromNode::decode(body.into()), Ok(FromNode::Bye));
}

/// A heartbeat in which one edge tells of these pieces, sent and read.
fn with_last_pieces(last_pieces: Vec<(u8, u64)>) -> Result<Vec<(u8, u64)>, WireError> {
    let mut heartbeat = samples::heartbeat();
    heartbeat.contents[0].from[0].last_pieces = last_pieces;
    let body = FromNode::Heartbeat(Heartbeat::new(heartbeat, 1)).body();
    let FromNode::Heartbeat(read) = FromNode::decode(body)? else { unreachable!() };
    let report::Heartbeat { mut contents, .. } = read.with_runs(|_| None)?;
    Ok(contents.remove(0).from.remove(0).last_pieces)
}

proptest! {
    #[test]
    fn last_pieces_round_trip(pieces in prop::collection::btree_map(0..MAX_SUBSTREAMS, any::<u64>(), 0..=32)) {
        let pieces: Vec<(u8, u64)> = pieces.into_iter().collect();
        prop_assert_eq!(with_last_pieces(pieces.clone()), Ok(pieces));
    }

    /// Whatever a node would say, it is understood: what keeps no limit is not sent.
    #[test]
    fn last_pieces_out_of_order_are_put_right(pieces in prop::collection::vec((0u8..40, any::<u64>()), 0..80)) {
        let read = with_last_pieces(pieces.clone()).unwrap();
        prop_assert!(read.is_sorted_by(|a, b| a.0 < b.0) && read.len() <= 32);
        prop_assert!(read.iter().all(|(s, _)| *s < MAX_SUBSTREAMS));
        for (s, _) in pieces.iter().filter(|(s, _)| *s < MAX_SUBSTREAMS) {
            let first = pieces.iter().find(|(other, _)| other == s);
            prop_assert_eq!(read.iter().find(|(other, _)| other == s), first);
        }
    }
}

/// The body of a heartbeat with one edge.
fn of_edge(substreams: u32, last_pieces: Vec<u64>) -> Bytes {
    let (id, version) = (Bytes::copy_from_slice(&[1; 32]), samples::version());
    let content = Bytes::copy_from_slice(&version.content.0);
    let edge = proto::Edge { node: id, bytes: 7, substreams, last_pieces, ..proto::Edge::default() };
    let version = Some(proto::Version { content, epoch: version.epoch });
    let content = proto::ContentReport { version, from: vec![edge], ..proto::ContentReport::default() };
    let heartbeat = proto::Heartbeat { contents: vec![content], ..proto::Heartbeat::default() };
    let body = Some(proto::node_message::Body::Heartbeat(heartbeat));
    proto::NodeMessage { body }.encode_to_vec().into()
}

#[test]
fn last_pieces_are_one_for_each_substream() {
    let read = |substreams, pieces: &[u64]| FromNode::decode(of_edge(substreams, pieces.to_vec()));
    assert!(read(0, &[]).is_ok(), "older nodes say nothing of them");
    assert!(read(u32::MAX, &[9; 32]).is_ok());
    let refused = Err(WireError::Value("last_pieces"));
    for (substreams, pieces) in [(0, &[1][..]), (1, &[]), (5, &[1, 2, 3]), (5, &[1])] {
        assert_eq!(read(substreams, pieces), refused, "{substreams:b} {pieces:?}");
    }
    let over = WireError::Length { field: "last_pieces", got: 33, limit: 32 };
    assert_eq!(read(u32::MAX, &[9; 33]), Err(over));
}
