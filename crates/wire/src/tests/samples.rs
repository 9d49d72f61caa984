//! At least one message of every kind, with every field set to something that is not its default.

use crate::{
    Bitmap, EdgeRefusal, Found, FromControl, FromNode, FromPeer, GivenTicket, Heartbeat, Held, Hello, Join,
    OriginAccess, TicketSecret, Token, Welcome,
};
use bytes::Bytes;
use headwater_model::assignment::{
    Assignment, Child, ChildrenChange, Generation, Lease, LeaseSource, Parent, Reach, Refusal,
};
use headwater_model::live::{Listed, LiveEntry, LiveTerms, ObjectKind, OriginPlace, SignedLiveEntry};
use headwater_model::log::{Entry, KeyChange, Log, Object, SignedEntry};
use headwater_model::merkle::Page;
use headwater_model::node::{Accepts, Capabilities, Forwards, Known, Lacks, Priority, Role, SourceAccess, SourceClass};
use headwater_model::reach::Probe;
use headwater_model::report::{self, Alarm, ContentReport, EdgeReport, Introduction, LiveReport};
use headwater_model::sums::{PageSums, Sum};
use headwater_model::ticket::ParentKey;
use headwater_model::{Bits, ContentId, Hash, Micros, NodeId, Rate, Substreams, Ticket, Version};
use std::num::NonZeroU8;

/// Stands in every secret text; secret bytes are all [`SECRET_BYTE`].
pub const SECRET: &str = "hush-hush";
pub const SECRET_BYTE: u8 = 0xA7;

/// Runs and pieces of the samples' content.
pub const RUNS: u32 = 21;
pub const PIECES: u32 = 900;

pub fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

pub fn version() -> Version {
    Version { content: ContentId([9; 32]), epoch: 77 }
}

pub fn bits(len: u32) -> Bits {
    let mut bits = Bits::new(len);
    (0..len).step_by(5).for_each(|i| assert!(bits.set(i)));
    bits
}

pub fn log() -> Log {
    let object = |path: &str| Object { path: path.into(), media_type: "video/mp4".into(), size_bytes: 123_456 };
    let entry = |number| SignedEntry {
        entry: Entry {
            track: "main".into(),
            epoch: 77,
            number,
            previous: Hash([1; 32]),
            time_unix_ms: 1_800_000_000_000,
            piece_bytes: 65_536,
            objects: vec![object("a/b"), object("c")],
            first_leaf: 3,
            leaves: 7,
            root: Hash([2; 32]),
            origins: vec!["https://origin.example/f".into(), "http://other.example/f".into()],
            last: number == 1,
            sums: (number == 1).then_some(Hash([7; 32])),
            live: (number == 1).then_some(LiveTerms { substreams: NonZeroU8::MIN, rate: Rate(5), window: Micros(6) }),
        },
        signature: [3; 64],
    };
    Log {
        name: "films/ä".into(),
        first_key: [4; 32],
        key_changes: vec![KeyChange { next: [5; 32], signature: [6; 64] }],
        entries: vec![entry(0), entry(1)],
    }
}

pub fn page() -> Page {
    let sums = PageSums { sums: vec![Sum(1), Sum(u64::MAX)], proof: vec![Hash([4; 32])] };
    Page { number: 4, leaves: vec![Hash([1; 32]), Hash([2; 32])], proof: vec![Hash([3; 32])], sums: Some(sums) }
}

pub fn ticket(parent: u8) -> Ticket {
    Ticket {
        child: node(1),
        parent: node(parent),
        version: version(),
        highest_piece: 500,
        substreams: Substreams(6),
        key_number: 81_000,
        control_epoch: 3,
        expires_unix_ms: 1_800_000_000_000,
        mac: [8; 32],
    }
}

pub fn join() -> report::Join {
    report::Join {
        version: version(),
        runs: Some(bits(RUNS)),
        complete: true,
        parents: vec![(node(1), Substreams(1)), (node(2), Substreams(6))],
        leases: vec![5, 6],
        looks_first: true,
        source: false,
    }
}

pub fn heartbeat() -> report::Heartbeat {
    let edge = |n| EdgeReport {
        node: node(n),
        pieces: 1,
        bytes: 2,
        waited: Micros(3),
        rtt: Micros(4),
        sent_packets: 5,
        lost_packets: 6,
        offers_nothing: true,
        last_pieces: vec![(0, 1 << 40), (5, 0), (31, u64::MAX)],
    };
    let content = |epoch, runs| ContentReport {
        version: Version { epoch, ..version() },
        runs,
        pieces_held: 10,
        origin_bytes: 11,
        wasted_bytes: 12,
        from: vec![edge(1), edge(2)],
        to: vec![edge(3)],
        priority: if epoch == 77 { Priority::High } else { Priority::Low },
        live: (epoch == 77).then_some(LiveReport { newest_entry: 1, lag: Micros(2), missing: 3, lost: 4 }),
    };
    report::Heartbeat {
        interval: 900,
        cpu_load_milli: 250,
        free_storage_bytes: 1 << 40,
        up_used: Rate(5),
        down_used: Rate(6),
        contents: vec![content(77, Some(bits(RUNS))), content(78, None), content(79, Some(Bits::new(RUNS)))],
    }
}

pub fn from_node() -> Vec<FromNode> {
    let hello = |role, accepts, sources, forwards| {
        FromNode::Hello(Hello {
            protocol: 1,
            introduction: Introduction {
                role,
                capabilities: Capabilities {
                    accepts: Known::claim(accepts),
                    listens: accepts != Accepts::DialOnly,
                    sources: Known::claim(sources),
                    forwards: Known::claim(forwards),
                    udp: Known::claim(true),
                },
                up: Rate(7),
                down: Rate(8),
                client: "headwater/0.1 linux".into(),
                local_addresses: vec!["10.1.2.3:4567".parse().unwrap(), "[fe80::1%3]:9".parse().unwrap()],
                https_port: (role == Role::Waypoint).then_some(443),
            },
            join_token: Token(SECRET.into()),
            control_epoch_seen: 3,
            local_unix_ms: 1_800_000_000_000,
            page_certificates: if role == Role::Peer { vec![Hash([8; 32]), Hash([9; 32])] } else { vec![] },
        })
    };
    let alarm = |alarm| FromNode::Alarm { version: version(), alarm };
    let version = version();
    vec![
        hello(Role::Peer, Accepts::Open, SourceAccess::Any, Forwards::Disk),
        hello(Role::Waypoint, Accepts::Punchable, SourceAccess::Listed, Forwards::Memory),
        hello(Role::Peer, Accepts::DialOnly, SourceAccess::Any, Forwards::No),
        FromNode::Join(Join::new(join(), Token(SECRET.into()))),
        FromNode::Join(Join::new(report::Join { runs: None, ..join() }, Token::default())),
        FromNode::Join(Join::new(join(), Token::default()).claiming(Some([6; 64]))),
        FromNode::Leave(version),
        FromNode::Heartbeat(Heartbeat::new(heartbeat(), 99)),
        FromNode::LeaseDone { version, run: 3 },
        FromNode::LeaseFailed { version, run: 3, why: "status 404".into(), content_changed: true, forbidden: true },
        alarm(Alarm::ParentLost { parent: node(1), why: "timed out".into() }),
        alarm(Alarm::Silent { parent: node(1) }),
        alarm(Alarm::Slow { parent: node(1) }),
        alarm(Alarm::BadPieces { parent: node(1) }),
        alarm(Alarm::Attacked { from: "2001:db8::1".parse().unwrap() }),
        alarm(Alarm::Starving { runs: vec![1, 2, 3] }),
        alarm(Alarm::Reading { runs: vec![4] }),
        alarm(Alarm::Behind { parent: node(1), substreams: Substreams(5) }),
        FromNode::DialResult(report::DialResult { node: node(1), error: None }),
        FromNode::DialResult(report::DialResult { node: node(1), error: Some("refused".into()) }),
        FromNode::DialResult(report::DialResult { node: node(1), error: Some(String::new()) }),
        FromNode::PageRequest { version, page: 4 },
        FromNode::Announce(log()),
        FromNode::Page { version, page: page() },
        FromNode::Bye,
        FromNode::ProbeArrived { number: [7; 16], seen_from: "192.0.2.9:5".parse().unwrap() },
        FromNode::ProbeFailed { number: [7; 16], why: "no answer".into() },
        FromNode::MappedAddress(Some("192.0.2.9:5".parse().unwrap())),
        FromNode::MappedAddress(None),
        FromNode::UplinkOffer(Rate(250_000)),
        FromNode::PageCertificates(vec![Hash([8; 32]), Hash([9; 32])]),
    ]
}

/// Fails to compile when a kind is added: then add a sample, and its number here.
pub fn kind_of_node(m: &FromNode) -> usize {
    match m {
        FromNode::Hello(_) => 0,
        FromNode::Join(_) => 1,
        FromNode::Leave(_) => 2,
        FromNode::Heartbeat(_) => 3,
        FromNode::LeaseDone { .. } => 4,
        FromNode::LeaseFailed { .. } => 5,
        FromNode::Alarm { .. } => 6,
        FromNode::DialResult(_) => 7,
        FromNode::PageRequest { .. } => 8,
        FromNode::Announce(_) => 9,
        FromNode::Page { .. } => 10,
        FromNode::Bye => 11,
        FromNode::ProbeArrived { .. } => 12,
        FromNode::ProbeFailed { .. } => 13,
        FromNode::MappedAddress(_) => 14,
        FromNode::UplinkOffer(_) => 15,
        FromNode::PageCertificates(_) => 16,
    }
}

pub fn from_control() -> Vec<FromControl> {
    let version = version();
    let reach = || Reach {
        addresses: ["192.0.2.1:7400".parse().unwrap(), "[2001:db8::1]:7400".parse().unwrap()].into(),
        certificate: Hash([6; 32]),
    };
    let substreams = Substreams(9);
    let parent =
        |n, class| Parent { node: node(n), class, dial: n == 2, promised: Rate(1000), reach: reach(), substreams };
    let given = |n: u8| GivenTicket { ticket: ticket(n), secret: TicketSecret([SECRET_BYTE; 32]) };
    let keys = vec![(81_000, ParentKey([SECRET_BYTE; 32])), (80_999, ParentKey([SECRET_BYTE; 32]))];
    let welcome = |observed_address| {
        FromControl::Welcome(Welcome {
            protocol: 1,
            control_epoch: 3,
            control_unix_ms: 1_800_000_000_000,
            heartbeat_ms: 2000,
            backoff_cap_ms: 2000,
            observed_address,
            parent_keys: keys.clone(),
        })
    };
    let lease = |source, ticket| FromControl::Lease {
        lease: Lease { version, run: 3, within: Micros(5_000_000), source },
        ticket,
    };
    let refused = |refusal| FromControl::Refused { version, refusal };
    let lightweight = |lacks| refused(Refusal::Lightweight { stand_in: "films/one-small".into(), lacks });
    vec![
        welcome(Some("192.0.2.9:5".parse().unwrap())),
        welcome(None),
        FromControl::Content {
            log: log(),
            access: OriginAccess {
                headers: vec![("authorization".into(), SECRET.into())],
                query: format!("signature={SECRET}"),
            },
        },
        refused(Refusal::UnknownContent),
        refused(Refusal::Unpublished),
        refused(Refusal::OtherVersion { current: 78 }),
        refused(Refusal::NotPermitted("no viewer token".into())),
        refused(Refusal::Limit("nodes".into())),
        lightweight(Lacks::Connections),
        lightweight(Lacks::Sources),
        lightweight(Lacks::Forwarding),
        FromControl::Assignment {
            assignment: Assignment {
                version,
                generation: Generation { epoch: 3, counter: 14 },
                parents: vec![parent(2, SourceClass::Peer), parent(3, SourceClass::Waypoint)],
                spares: vec![parent(4, SourceClass::Peer), parent(5, SourceClass::Origin)],
                helpers: vec![parent(4, SourceClass::Peer), parent(6, SourceClass::Peer)],
                children: vec![Child { node: node(6), dial: true, punch: true, reach: reach(), substreams }],
                source: true,
            },
            tickets: vec![given(2), given(3), given(4)],
            page_certificates: [2, 6].map(|n| (node(n), vec![Hash([n; 32])])).into(),
        },
        FromControl::ChangeChildren(ChildrenChange {
            version,
            generation: Generation { epoch: 3, counter: 15 },
            came: vec![Child { node: node(6), dial: true, punch: true, reach: reach(), substreams }],
            left: vec![node(7), node(8)],
        }),
        lease(LeaseSource::Origin, None),
        lease(LeaseSource::Waypoint { node: node(3), reach: reach() }, Some(Box::new(given(3)))),
        FromControl::LeaseRevoked { version, run: 3 },
        FromControl::HeartbeatReply {
            control_unix_ms: 5,
            echo_local_us: 6,
            holders: vec![(version.content, 7)],
            found: Some(Found {
                accepts: Accepts::Punchable,
                tested: true,
                observed: "192.0.2.9:5".parse().unwrap(),
                via: Some("192.0.2.9:6".parse().unwrap()),
                why: "not reached by strangers".into(),
            }),
        },
        FromControl::ParentKeys(keys.clone()),
        FromControl::Page { version, page: page() },
        FromControl::PageUnavailable { version, page: 4 },
        FromControl::PageRequest { version, page: 4 },
        FromControl::Fetch { content: version.content, keep: true },
        FromControl::Withdrawn { content: version.content, why: "by its publisher".into() },
        FromControl::Goodbye { why: "stops for an update".into(), come_back: true },
        FromControl::Probe(Probe {
            number: [7; 16],
            node: node(2),
            address: "[2001:db8::1]:7400".parse().unwrap(),
            fresh_socket: true,
        }),
    ]
}

/// As [`kind_of_node`].
pub fn kind_of_control(m: &FromControl) -> usize {
    match m {
        FromControl::Welcome(_) => 0,
        FromControl::Content { .. } => 1,
        FromControl::Refused { .. } => 2,
        FromControl::Assignment { .. } => 3,
        FromControl::Lease { .. } => 4,
        FromControl::LeaseRevoked { .. } => 5,
        FromControl::HeartbeatReply { .. } => 6,
        FromControl::ParentKeys(_) => 7,
        FromControl::Page { .. } => 8,
        FromControl::PageUnavailable { .. } => 9,
        FromControl::PageRequest { .. } => 10,
        FromControl::Fetch { .. } => 11,
        FromControl::Withdrawn { .. } => 12,
        FromControl::Goodbye { .. } => 13,
        FromControl::Probe(_) => 14,
        FromControl::ChangeChildren(_) => 15,
    }
}

pub fn live_entries() -> Vec<SignedLiveEntry> {
    let listed = Listed {
        sequence: 1,
        duration: Micros(2),
        target_duration: Micros(3),
        discontinuity: true,
        map: Some(0),
        recorded_unix_us: Some(5),
        origin: Some(OriginPlace { url: "https://origin.example/9.ts".into(), from: 6 }),
    };
    let entry = |kind, previous, listed| LiveEntry {
        epoch: 77,
        number: 3,
        previous,
        time_unix_ms: 4,
        object: 5,
        kind,
        offset: 6,
        first_piece: 7,
        bytes: 8,
        leaves: vec![Hash([1; 32]), Hash([2; 32])],
        complete: true,
        listed,
        last: true,
    };
    let kinds = [ObjectKind::Ts, ObjectKind::Mp4, ObjectKind::Mp4Init, ObjectKind::Aac, ObjectKind::Vtt];
    let all = kinds.into_iter().map(|kind| entry(kind, Some(2), Some(listed.clone())));
    let bare = Listed { map: None, recorded_unix_us: None, origin: None, ..listed.clone() };
    let more = [entry(ObjectKind::Ts, None, None), entry(ObjectKind::Ts, Some(0), Some(bare))];
    all.chain(more).map(|entry| SignedLiveEntry { entry, signature: [3; 64] }).collect()
}

pub fn from_peer() -> Vec<FromPeer> {
    let version = version();
    let answer = |refusal| FromPeer::EdgeAnswer { version, refusal };
    let no = |refusal: EdgeRefusal| answer(Some((refusal, refusal.to_string())));
    vec![
        FromPeer::Hello { protocol: 1, nonce: [1; 32], instance: 5, linked: true },
        FromPeer::PageHello {
            protocol: 1,
            nonce: [1; 32],
            instance: 5,
            key: Bytes::from_static(&[4; 91]),
            signature: [6; 64],
        },
        FromPeer::OpenEdge { version, ticket: ticket(2), proof: [2; 32] },
        answer(None),
        no(EdgeRefusal::NoSuchContent),
        no(EdgeRefusal::BadTicket),
        no(EdgeRefusal::TooManyChildren),
        no(EdgeRefusal::Leaving),
        FromPeer::Have { version, held: Held::All(Bitmap::new(&bits(PIECES))) },
        FromPeer::Have { version, held: Held::All(Bitmap::new(&Bits::new(PIECES))) },
        FromPeer::Have { version, held: Held::More(vec![1, 300, 4_000_000]) },
        FromPeer::Request { version, pieces: vec![9, 3, 7] },
        FromPeer::Cancel { version, pieces: vec![9] },
        FromPeer::CloseEdge { version, as_child: true, why: "complete".into() },
        FromPeer::PageRequest { version, page: 4 },
        FromPeer::Page { version, page: page() },
        FromPeer::BadPiece { version, piece: 12 },
        FromPeer::Subscribe { version, substreams: Substreams(3), from: Some(0) },
        FromPeer::Subscribe { version, substreams: Substreams(3), from: None },
        FromPeer::LiveEntries { version, entries: live_entries() },
        FromPeer::EntriesWanted { version, after: 8 },
        FromPeer::LiveRequest { version, pieces: vec![1 << 40, 3], patient: true },
        FromPeer::LiveCancel { version, pieces: vec![1 << 40, 4] },
        FromPeer::LivePosition { version, newest_entry: 8, next: vec![(0, 1 << 40), (5, 7)] },
    ]
}

/// As [`kind_of_node`].
pub fn kind_of_peer(m: &FromPeer) -> usize {
    match m {
        FromPeer::Hello { .. } => 0,
        FromPeer::OpenEdge { .. } => 1,
        FromPeer::EdgeAnswer { .. } => 2,
        FromPeer::Have { .. } => 3,
        FromPeer::Request { .. } => 4,
        FromPeer::Cancel { .. } => 5,
        FromPeer::CloseEdge { .. } => 6,
        FromPeer::PageRequest { .. } => 7,
        FromPeer::Page { .. } => 8,
        FromPeer::BadPiece { .. } => 9,
        FromPeer::Subscribe { .. } => 10,
        FromPeer::LiveEntries { .. } => 11,
        FromPeer::EntriesWanted { .. } => 12,
        FromPeer::LiveRequest { .. } => 13,
        FromPeer::LivePosition { .. } => 14,
        FromPeer::LiveCancel { .. } => 15,
        FromPeer::PageHello { .. } => 16,
    }
}
