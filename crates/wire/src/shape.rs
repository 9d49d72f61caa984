//! The limits of each message, checked on the encoded bytes before anything is decoded: a protobuf decoder allocates
//! hundreds of bytes for a repeated message that takes two on the wire.

use crate::WireError;
use crate::limits::*;
use headwater_model::live::{MAX_ENTRY_PIECES, MAX_SUBSTREAMS};
use headwater_model::log::{
    MAX_ENTRIES, MAX_ENTRY_OBJECTS, MAX_KEY_CHANGES, MAX_ORIGINS, MAX_PATH_BYTES, MAX_URL_BYTES,
};
use prost::encoding::{WireType, decode_key, decode_varint};

/// Limits of one message: each of its fields that is repeated or has a length.
pub(crate) struct Shape {
    /// As the schema calls it.
    pub message: &'static str,
    /// What cannot be left out, in encoded bytes.
    pub least_bytes: usize,
    /// Fields with limits.
    pub fields: &'static [Field],
}

pub(crate) struct Field {
    pub number: u32,
    pub name: &'static str,
    /// How often it may occur; for numbers, how many of them.
    pub most: usize,
    /// Of each occurrence.
    pub most_bytes: usize,
    pub holds: Holds,
}

pub(crate) enum Holds {
    /// Text or bytes.
    Bytes,
    /// Varints, packed or not.
    Numbers,
    /// A message.
    Message(&'static Shape),
}

/// Checks `bytes`, an encoded message, against the limits of `shape`. Unknown fields pass: later versions add some.
pub(crate) fn check(mut bytes: &[u8], shape: &'static Shape) -> Result<(), WireError> {
    if bytes.len() < shape.least_bytes {
        return Err(WireError::Missing(shape.message));
    }
    let mut seen = [0usize; MOST_FIELDS];
    while !bytes.is_empty() {
        let (number, wire_type) = decode_key(&mut bytes)?;
        let value = match wire_type {
            WireType::Varint => {
                decode_varint(&mut bytes)?;
                None
            }
            WireType::SixtyFourBit => Some(take(&mut bytes, 8)?),
            WireType::ThirtyTwoBit => Some(take(&mut bytes, 4)?),
            WireType::LengthDelimited => {
                let len = decode_varint(&mut bytes)?;
                Some(take(&mut bytes, len)?)
            }
            WireType::StartGroup | WireType::EndGroup => return Err(WireError::Value("group")),
        };
        let Some((field, seen)) = shape.fields.iter().zip(&mut seen).find(|(f, _)| f.number == number) else {
            continue;
        };
        *seen += match (&field.holds, value) {
            // The last byte of each varint has its top bit clear.
            (Holds::Numbers, Some(packed)) => packed.iter().filter(|b| **b < 0x80).count(),
            _ => 1,
        };
        within(field.name, *seen, field.most)?;
        if let Some(value) = value {
            within(field.name, value.len(), field.most_bytes)?;
            if let Holds::Message(inner) = field.holds {
                check(value, inner)?;
            }
        }
    }
    Ok(())
}

fn take<'a>(bytes: &mut &'a [u8], len: u64) -> Result<&'a [u8], WireError> {
    let len = usize::try_from(len).map_err(|_| WireError::Value("length past the message's end"))?;
    bytes.split_off(..len).ok_or(WireError::Value("length past the message's end"))
}

fn within(field: &'static str, got: usize, limit: usize) -> Result<(), WireError> {
    if got > limit { Err(WireError::Length { field, got, limit }) } else { Ok(()) }
}

/// Most fields with limits that one shape has.
const MOST_FIELDS: usize = 24;

const HASH_BYTES: usize = 32;
const SIGNATURE_BYTES: usize = 64;
const PROBE_NUMBER_BYTES: usize = 16;
/// A hash with its tag and length.
const HASH_FIELD_BYTES: usize = 2 + HASH_BYTES;
/// A version with its tag and length.
const VERSION_FIELD_BYTES: usize = 2 + HASH_FIELD_BYTES;

const fn bytes(number: u32, name: &'static str, most_bytes: usize) -> Field {
    list(number, name, 1, most_bytes)
}
const fn hash(number: u32, name: &'static str) -> Field {
    bytes(number, name, HASH_BYTES)
}
const fn list(number: u32, name: &'static str, most: usize, most_bytes: usize) -> Field {
    Field { number, name, most, most_bytes, holds: Holds::Bytes }
}
const fn numbers(number: u32, name: &'static str, most: usize) -> Field {
    Field { number, name, most, most_bytes: usize::MAX, holds: Holds::Numbers }
}
const fn one(number: u32, name: &'static str, inner: &'static Shape) -> Field {
    many(number, name, 1, inner)
}
const fn many(number: u32, name: &'static str, most: usize, inner: &'static Shape) -> Field {
    Field { number, name, most, most_bytes: usize::MAX, holds: Holds::Message(inner) }
}
const fn log(number: u32) -> Field {
    Field { number, name: "log", most: 1, most_bytes: MAX_LOG_BYTES, holds: Holds::Message(&LOG) }
}
const fn shape(message: &'static str, least_bytes: usize, fields: &'static [Field]) -> Shape {
    assert!(fields.len() <= MOST_FIELDS);
    Shape { message, least_bytes, fields }
}

static OBJECT: Shape = shape("Object", 3, &[bytes(1, "path", MAX_PATH_BYTES), bytes(2, "media_type", MAX_PATH_BYTES)]);
static LIVE_TERMS: Shape = shape("LiveTerms", 0, &[]);
static LISTED: Shape = shape("Listed", 0, &[bytes(7, "origin_url", MAX_URL_BYTES)]);
static LIVE_ENTRY: Shape = shape(
    "LiveEntry",
    SIGNATURE_BYTES,
    &[
        bytes(10, "leaves", MAX_ENTRY_PIECES * HASH_BYTES),
        one(12, "listed", &LISTED),
        bytes(14, "signature", SIGNATURE_BYTES),
    ],
);
static ENTRY: Shape = shape(
    "Entry",
    2 * HASH_FIELD_BYTES + SIGNATURE_BYTES,
    &[
        bytes(1, "track", MAX_PATH_BYTES),
        hash(4, "previous"),
        many(7, "objects", MAX_ENTRY_OBJECTS, &OBJECT),
        hash(10, "root"),
        list(11, "origins", MAX_ORIGINS, MAX_URL_BYTES),
        bytes(13, "signature", SIGNATURE_BYTES),
        hash(14, "sums"),
        one(15, "live", &LIVE_TERMS),
    ],
);
static KEY_CHANGE: Shape =
    shape("KeyChange", HASH_FIELD_BYTES, &[hash(1, "next"), bytes(2, "signature", SIGNATURE_BYTES)]);
pub(crate) static LOG: Shape = shape(
    "Log",
    HASH_FIELD_BYTES,
    &[
        bytes(1, "name", MAX_PATH_BYTES),
        hash(2, "first_key"),
        many(3, "key_changes", MAX_KEY_CHANGES, &KEY_CHANGE),
        many(4, "entries", MAX_ENTRIES, &ENTRY),
    ],
);
static PAGE: Shape = shape(
    "Page",
    0,
    &[
        bytes(2, "leaves", MAX_PAGE_BYTES),
        bytes(3, "proof", MAX_PROOF_BYTES),
        bytes(4, "sums", MAX_PAGE_SUMS_BYTES),
        bytes(5, "sums_proof", MAX_PROOF_BYTES),
    ],
);
pub(crate) static STATIC_LOG: Shape = shape(
    "StaticLog",
    0,
    &[
        log(2),
        bytes(3, "leaves", MAX_LEAVES_BYTES),
        bytes(4, "sums", MAX_SUMS_BYTES),
        many(5, "entries", MAX_LOGGED_ENTRIES, &LIVE_ENTRY),
    ],
);
static HEADER: Shape =
    shape("Header", 0, &[bytes(1, "name", MAX_HEADER_NAME_BYTES), bytes(2, "value", MAX_HEADER_VALUE_BYTES)]);
static ORIGIN_ACCESS: Shape =
    shape("OriginAccess", 0, &[many(1, "headers", MAX_HEADERS, &HEADER), bytes(2, "query", MAX_QUERY_BYTES)]);

static VERSION: Shape = shape("Version", HASH_FIELD_BYTES, &[hash(1, "content")]);
static GENERATION: Shape = shape("Generation", 0, &[]);
static TICKET: Shape = shape(
    "Ticket",
    3 * HASH_FIELD_BYTES + VERSION_FIELD_BYTES,
    &[hash(1, "child"), hash(2, "parent"), one(3, "version", &VERSION), hash(8, "mac")],
);

/// A message of which only the version has a length.
const fn of_version(message: &'static str) -> Shape {
    shape(message, VERSION_FIELD_BYTES, &OF_VERSION)
}
static OF_VERSION: [Field; 1] = [one(1, "version", &VERSION)];
static LEAVE: Shape = of_version("Leave");
static LEASE_DONE: Shape = of_version("LeaseDone");
static PAGE_REQUEST: Shape = of_version("PageRequest");
static LEASE_REVOKED: Shape = of_version("LeaseRevoked");
static PAGE_UNAVAILABLE: Shape = of_version("PageUnavailable");
static BAD_PIECE: Shape = of_version("BadPiece");
pub(crate) static DATA_HEADER: Shape = of_version("DataHeader");

static PAGE_CERTIFICATES: Shape = shape("PageCertificates", 0, &[list(1, "hashes", MAX_PAGE_CERTIFICATES, HASH_BYTES)]);
static HELLO: Shape = shape(
    "Hello",
    0,
    &[
        bytes(8, "client", MAX_CLIENT_BYTES),
        list(9, "local_addresses", MAX_ADDRESSES, MAX_ADDRESS_BYTES),
        bytes(10, "join_token", MAX_TOKEN_BYTES),
        one(22, "page_certificates", &PAGE_CERTIFICATES),
    ],
);
static JOIN: Shape = shape(
    "Join",
    VERSION_FIELD_BYTES,
    &[
        one(1, "version", &VERSION),
        bytes(3, "runs", MAX_RUNS_BITMAP_BYTES),
        list(5, "parents", MAX_PARENTS, HASH_BYTES),
        numbers(6, "leases", MAX_LEASES),
        bytes(7, "viewer_token", MAX_TOKEN_BYTES),
        numbers(9, "parents_give", MAX_PARENTS),
        bytes(10, "source", SIGNATURE_BYTES),
    ],
);
static LEASE_FAILED: Shape =
    shape("LeaseFailed", VERSION_FIELD_BYTES, &[one(1, "version", &VERSION), bytes(3, "why", MAX_WHY_BYTES)]);
static EDGE: Shape =
    shape("Edge", HASH_FIELD_BYTES, &[hash(1, "node"), numbers(10, "last_pieces", MAX_SUBSTREAMS as usize)]);
static LIVE_REPORT: Shape = shape("LiveReport", 0, &[]);
static CONTENT_REPORT: Shape = shape(
    "ContentReport",
    VERSION_FIELD_BYTES,
    &[
        one(1, "version", &VERSION),
        bytes(3, "runs", MAX_RUNS_BITMAP_BYTES),
        many(7, "from", MAX_REPORTED_EDGES, &EDGE),
        many(8, "to", MAX_REPORTED_EDGES, &EDGE),
        one(10, "live", &LIVE_REPORT),
    ],
);
static HEARTBEAT: Shape = shape("Heartbeat", 0, &[many(6, "contents", MAX_REPORTED_CONTENTS, &CONTENT_REPORT)]);
static PARENT_LOST: Shape = shape("ParentLost", HASH_FIELD_BYTES, &[hash(1, "parent"), bytes(2, "why", MAX_WHY_BYTES)]);
static STARVING: Shape = shape("Starving", 0, &[numbers(1, "runs", MAX_STARVING_RUNS)]);
static BEHIND: Shape = shape("Behind", HASH_FIELD_BYTES, &[hash(1, "parent")]);
static ALARM_MESSAGE: Shape = shape(
    "AlarmMessage",
    VERSION_FIELD_BYTES,
    &[
        one(1, "version", &VERSION),
        one(2, "parent_lost", &PARENT_LOST),
        hash(3, "silent"),
        hash(4, "bad_pieces"),
        one(5, "starving", &STARVING),
        hash(6, "slow"),
        bytes(7, "attacked_from", MAX_ADDRESS_BYTES),
        one(8, "reading", &STARVING),
        one(9, "behind", &BEHIND),
    ],
);
static DIAL_RESULT: Shape = shape("DialResult", HASH_FIELD_BYTES, &[hash(1, "node"), bytes(3, "error", MAX_WHY_BYTES)]);
static ANNOUNCE: Shape = shape("Announce", 0, &[log(1)]);
static PAGE_REPLY: Shape =
    shape("PageReply", VERSION_FIELD_BYTES, &[one(1, "version", &VERSION), one(2, "page", &PAGE)]);
static BYE: Shape = shape("Bye", 0, &[]);
static PROBE_ARRIVED: Shape = shape(
    "ProbeArrived",
    2 + PROBE_NUMBER_BYTES,
    &[bytes(1, "number", PROBE_NUMBER_BYTES), bytes(2, "seen_from", MAX_ADDRESS_BYTES)],
);
static PROBE_FAILED: Shape = shape(
    "ProbeFailed",
    2 + PROBE_NUMBER_BYTES,
    &[bytes(1, "number", PROBE_NUMBER_BYTES), bytes(2, "why", MAX_WHY_BYTES)],
);
static UPLINK_OFFER: Shape = shape("UplinkOffer", 0, &[]);
static MAPPED_ADDRESS: Shape = shape("MappedAddress", 0, &[bytes(1, "address", MAX_ADDRESS_BYTES)]);
pub(crate) static NODE_MESSAGE: Shape = shape(
    "NodeMessage",
    0,
    &[
        one(1, "hello", &HELLO),
        one(2, "join", &JOIN),
        one(3, "leave", &LEAVE),
        one(4, "heartbeat", &HEARTBEAT),
        one(5, "lease_done", &LEASE_DONE),
        one(6, "lease_failed", &LEASE_FAILED),
        one(7, "alarm", &ALARM_MESSAGE),
        one(8, "dial_result", &DIAL_RESULT),
        one(9, "page_request", &PAGE_REQUEST),
        one(10, "announce", &ANNOUNCE),
        one(11, "page", &PAGE_REPLY),
        one(12, "bye", &BYE),
        one(20, "probe_arrived", &PROBE_ARRIVED),
        one(21, "probe_failed", &PROBE_FAILED),
        one(22, "mapped_address", &MAPPED_ADDRESS),
        one(23, "uplink_offer", &UPLINK_OFFER),
        one(24, "page_certificates", &PAGE_CERTIFICATES),
    ],
);

static PARENT_KEY: Shape = shape("ParentKey", HASH_FIELD_BYTES, &[hash(2, "key")]);
static PARENT_KEYS: Shape = shape("ParentKeys", 0, &[many(1, "keys", MAX_PARENT_KEYS, &PARENT_KEY)]);
static WELCOME: Shape =
    shape("Welcome", 0, &[bytes(6, "observed_address", MAX_ADDRESS_BYTES), one(7, "parent_keys", &PARENT_KEYS)]);
static CONTENT_INFO: Shape = shape("ContentInfo", 0, &[log(1), one(2, "access", &ORIGIN_ACCESS)]);
static REFUSED: Shape = shape(
    "Refused",
    VERSION_FIELD_BYTES,
    &[one(1, "version", &VERSION), bytes(3, "why", MAX_WHY_BYTES), bytes(5, "stand_in", MAX_PATH_BYTES)],
);
static REACH: Shape =
    shape("Reach", HASH_FIELD_BYTES, &[list(1, "addresses", MAX_ADDRESSES, MAX_ADDRESS_BYTES), hash(2, "certificate")]);
static PARENT: Shape = shape(
    "Parent",
    HASH_FIELD_BYTES,
    &[
        hash(1, "node"),
        one(5, "reach", &REACH),
        one(6, "ticket", &TICKET),
        hash(7, "ticket_secret"),
        one(20, "page_certificates", &PAGE_CERTIFICATES),
    ],
);
static LEASE: Shape = shape("Lease", VERSION_FIELD_BYTES, &[one(1, "version", &VERSION), one(4, "from", &PARENT)]);
static CHILD: Shape = shape(
    "Child",
    HASH_FIELD_BYTES,
    &[hash(1, "node"), one(3, "reach", &REACH), one(21, "page_certificates", &PAGE_CERTIFICATES)],
);
static ASSIGNMENT: Shape = shape(
    "Assignment",
    VERSION_FIELD_BYTES,
    &[
        one(1, "version", &VERSION),
        one(2, "generation", &GENERATION),
        many(3, "parents", MAX_PARENTS, &PARENT),
        many(4, "spares", MAX_PARENTS, &PARENT),
        many(7, "helpers", MAX_PARENTS, &PARENT),
        many(5, "children", MAX_CHILDREN, &CHILD),
    ],
);
static CHILDREN_CHANGE: Shape = shape(
    "ChildrenChange",
    VERSION_FIELD_BYTES,
    &[
        one(1, "version", &VERSION),
        one(2, "generation", &GENERATION),
        many(3, "came", MAX_CHILDREN, &CHILD),
        list(4, "left", MAX_CHILDREN, HASH_BYTES),
    ],
);
static HOLDERS: Shape = shape("Holders", HASH_FIELD_BYTES, &[hash(1, "content")]);
static FOUND: Shape = shape(
    "Found",
    0,
    &[bytes(3, "observed", MAX_ADDRESS_BYTES), bytes(4, "via", MAX_ADDRESS_BYTES), bytes(5, "why", MAX_WHY_BYTES)],
);
static HEARTBEAT_REPLY: Shape =
    shape("HeartbeatReply", 0, &[many(3, "holders", MAX_REPORTED_CONTENTS, &HOLDERS), one(4, "found", &FOUND)]);
static FETCH: Shape = shape("Fetch", HASH_FIELD_BYTES, &[hash(1, "content")]);
static WITHDRAWN: Shape = shape("Withdrawn", HASH_FIELD_BYTES, &[hash(1, "content"), bytes(2, "why", MAX_WHY_BYTES)]);
static PROBE: Shape = shape(
    "Probe",
    2 + PROBE_NUMBER_BYTES + HASH_FIELD_BYTES,
    &[bytes(1, "number", PROBE_NUMBER_BYTES), hash(2, "node"), bytes(3, "address", MAX_ADDRESS_BYTES)],
);
static GOODBYE: Shape = shape("Goodbye", 0, &[bytes(1, "why", MAX_WHY_BYTES)]);
pub(crate) static CONTROL_MESSAGE: Shape = shape(
    "ControlMessage",
    0,
    &[
        one(1, "welcome", &WELCOME),
        one(2, "content", &CONTENT_INFO),
        one(3, "refused", &REFUSED),
        one(4, "assignment", &ASSIGNMENT),
        one(5, "lease", &LEASE),
        one(6, "lease_revoked", &LEASE_REVOKED),
        one(7, "heartbeat_reply", &HEARTBEAT_REPLY),
        one(8, "parent_keys", &PARENT_KEYS),
        one(9, "page", &PAGE_REPLY),
        one(10, "page_unavailable", &PAGE_UNAVAILABLE),
        one(11, "page_request", &PAGE_REQUEST),
        one(12, "fetch", &FETCH),
        one(13, "withdrawn", &WITHDRAWN),
        one(14, "goodbye", &GOODBYE),
        one(15, "change_children", &CHILDREN_CHANGE),
        one(20, "probe", &PROBE),
    ],
);

const NONCE_BYTES: usize = 32;
pub(crate) static WEB_HELLO: Shape = shape(
    "WebHello",
    0,
    &[bytes(1, "nonce", NONCE_BYTES), bytes(2, "certificate", MAX_CERTIFICATE_BYTES), bytes(3, "key", MAX_KEY_BYTES)],
);
pub(crate) static WEB_PROOF: Shape = shape(
    "WebProof",
    0,
    &[
        bytes(1, "nonce", NONCE_BYTES),
        bytes(2, "certificate", MAX_CERTIFICATE_BYTES),
        hash(3, "tls"),
        bytes(4, "signature", SIGNATURE_BYTES),
    ],
);
pub(crate) static WEB_ANSWER: Shape = shape("WebAnswer", 0, &[bytes(1, "signature", SIGNATURE_BYTES)]);
pub(crate) static HTTPS_TICKET: Shape = shape("HttpsTicket", 0, &[one(1, "ticket", &TICKET), hash(2, "proof")]);

static PEER_HELLO: Shape = shape(
    "PeerHello",
    HASH_FIELD_BYTES,
    &[hash(2, "nonce"), bytes(22, "key", MAX_KEY_BYTES), bytes(23, "signature", SIGNATURE_BYTES)],
);
static OPEN_EDGE: Shape =
    shape("OpenEdge", VERSION_FIELD_BYTES, &[one(1, "version", &VERSION), one(2, "ticket", &TICKET), hash(3, "proof")]);
static EDGE_ANSWER: Shape =
    shape("EdgeAnswer", VERSION_FIELD_BYTES, &[one(1, "version", &VERSION), bytes(3, "why", MAX_WHY_BYTES)]);
static HAVE: Shape = shape(
    "Have",
    VERSION_FIELD_BYTES,
    &[one(1, "version", &VERSION), bytes(3, "bitmap", MAX_PIECES_BITMAP_BYTES), numbers(4, "pieces", MAX_NAMED_PIECES)],
);
/// A message about some pieces of a live stream.
const fn of_live_pieces(message: &'static str) -> Shape {
    shape(message, VERSION_FIELD_BYTES, &OF_LIVE_PIECES)
}
static OF_LIVE_PIECES: [Field; 2] = [one(1, "version", &VERSION), numbers(2, "pieces", MAX_LIVE_REQUEST)];
/// A message about some pieces of a version.
const fn of_pieces(message: &'static str) -> Shape {
    shape(message, VERSION_FIELD_BYTES, &OF_PIECES)
}
static OF_PIECES: [Field; 2] = [one(1, "version", &VERSION), numbers(2, "pieces", MAX_NAMED_PIECES)];
static REQUEST: Shape = of_pieces("Request");
static CANCEL: Shape = of_pieces("Cancel");
static CLOSE_EDGE: Shape =
    shape("CloseEdge", VERSION_FIELD_BYTES, &[one(1, "version", &VERSION), bytes(3, "why", MAX_WHY_BYTES)]);
static SUBSCRIBE: Shape = of_version("Subscribe");
static LIVE_ENTRIES: Shape = shape(
    "LiveEntries",
    VERSION_FIELD_BYTES,
    &[one(1, "version", &VERSION), many(2, "entries", MAX_LIVE_ENTRIES, &LIVE_ENTRY)],
);
static ENTRIES_WANTED: Shape = of_version("EntriesWanted");
static LIVE_REQUEST: Shape = of_live_pieces("LiveRequest");
static LIVE_CANCEL: Shape = of_live_pieces("LiveCancel");
static LIVE_POSITION: Shape = shape(
    "LivePosition",
    VERSION_FIELD_BYTES,
    &[one(1, "version", &VERSION), numbers(4, "next", MAX_SUBSTREAMS as usize)],
);
pub(crate) static PEER_MESSAGE: Shape = shape(
    "PeerMessage",
    0,
    &[
        one(1, "hello", &PEER_HELLO),
        one(2, "open_edge", &OPEN_EDGE),
        one(3, "edge_answer", &EDGE_ANSWER),
        one(4, "have", &HAVE),
        one(5, "request", &REQUEST),
        one(6, "cancel", &CANCEL),
        one(7, "close_edge", &CLOSE_EDGE),
        one(8, "page_request", &PAGE_REQUEST),
        one(9, "page", &PAGE_REPLY),
        one(10, "bad_piece", &BAD_PIECE),
        one(11, "subscribe", &SUBSCRIBE),
        one(12, "live_entries", &LIVE_ENTRIES),
        one(13, "entries_wanted", &ENTRIES_WANTED),
        one(14, "live_request", &LIVE_REQUEST),
        one(15, "live_position", &LIVE_POSITION),
        one(16, "live_cancel", &LIVE_CANCEL),
    ],
);
