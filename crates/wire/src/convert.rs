//! Between the messages of the schema and the nouns of `model`, a file per conversation.

pub(crate) mod from_control;
pub(crate) mod from_node;
pub(crate) mod from_peer;
mod live;
pub(crate) mod static_log;
pub mod web;

use crate::limits::{MAX_ADDRESSES, MAX_PAGE_CERTIFICATES};
use crate::{WireError, proto};
use bytes::Bytes;
use headwater_model::layout::{MAX_PIECES, MAX_RUNS};
use headwater_model::merkle::{self, Page};
use headwater_model::sums::{self, PageSums, Sum};
use headwater_model::{Accepts, Bits, ContentId, Hash, Micros, NodeId, Rate, SourceClass, Substreams, Ticket, Version};
use std::fmt;
use std::net::SocketAddr;

/// A token that lets its bearer in. Not printed.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Token(pub String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "Token(none)" } else { "Token(..)" })
    }
}

/// A bitmap whose length only the content's layout tells.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Bitmap(Bytes);

impl Bitmap {
    /// For sending.
    pub fn new(bits: &Bits) -> Self {
        Self(bits.to_bytes().into())
    }
    /// The set, `len` being the number of the layout's runs or pieces.
    ///
    /// # Errors
    /// [`WireError::Value`] when it goes past `len`.
    pub fn bits(&self, len: u32) -> Result<Bits, WireError> {
        Bits::from_bytes(len, &self.0).ok_or(WireError::Value("a bitmap past the content's end"))
    }
}

/// The same enum in the schema and in `model`.
macro_rules! same_words {
    ($to:ident, $from:ident, $field:literal, $proto:ty, $model:ty, $($p:ident = $m:ident),*) => {
        pub(crate) fn $to(value: $model) -> i32 {
            match value { $(<$model>::$m => <$proto>::$p as i32),* }
        }
        pub(crate) fn $from(value: i32) -> Result<$model, WireError> {
            match <$proto>::try_from(value) {
                $(Ok(<$proto>::$p) => Ok(<$model>::$m),)*
                _ => Err(WireError::Value($field)),
            }
        }
    };
}
pub(crate) use same_words;

same_words!(
    accepts_to_proto,
    accepts_from_proto,
    "accepts",
    proto::Accepts,
    Accepts,
    Open = Open,
    Punchable = Punchable,
    DialOnly = DialOnly
);
same_words!(
    class_to_proto,
    class_from_proto,
    "class",
    proto::SourceClass,
    SourceClass,
    FromPeer = Peer,
    FromWaypoint = Waypoint,
    FromOrigin = Origin
);

fn array<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], WireError> {
    if bytes.is_empty() {
        return Err(WireError::Missing(field));
    }
    bytes.try_into().map_err(|_| WireError::Length { field, got: bytes.len(), limit: N })
}

fn node(field: &'static str, bytes: &[u8]) -> Result<NodeId, WireError> {
    array(field, bytes).map(NodeId)
}

fn nodes(field: &'static str, all: &[Bytes]) -> Result<Vec<NodeId>, WireError> {
    all.iter().map(|n| node(field, n)).collect()
}

fn content(bytes: &[u8]) -> Result<ContentId, WireError> {
    array("content", bytes).map(ContentId)
}

fn hash(field: &'static str, bytes: &[u8]) -> Result<Hash, WireError> {
    array(field, bytes).map(Hash)
}

fn copy(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// Hashes, one after the other.
fn hashes(field: &'static str, bytes: &[u8]) -> Result<Vec<Hash>, WireError> {
    let (whole, rest) = bytes.as_chunks::<32>();
    if !rest.is_empty() {
        return Err(WireError::Length { field, got: bytes.len(), limit: whole.len() * 32 });
    }
    Ok(whole.iter().map(|h| Hash(*h)).collect())
}

fn join_hashes(hashes: &[Hash]) -> Bytes {
    let mut out = Vec::with_capacity(hashes.len() * 32);
    hashes.iter().for_each(|h| out.extend_from_slice(&h.0));
    out.into()
}

/// Sums, one after the other.
fn sums(field: &'static str, bytes: &[u8]) -> Result<Vec<Sum>, WireError> {
    let limit = bytes.len() / sums::SUM_BYTES * sums::SUM_BYTES;
    sums::from_bytes(bytes).ok_or(WireError::Length { field, got: bytes.len(), limit })
}

fn page_certificates(m: proto::PageCertificates) -> Result<Vec<Hash>, WireError> {
    m.hashes.iter().map(|h| hash("hashes", h)).collect()
}

fn page_certificates_to_proto(hashes: &[Hash]) -> proto::PageCertificates {
    proto::PageCertificates { hashes: hashes.iter().take(MAX_PAGE_CERTIFICATES).map(|h| copy(&h.0)).collect() }
}

fn some_page_certificates(hashes: &[Hash]) -> Option<proto::PageCertificates> {
    (!hashes.is_empty()).then(|| page_certificates_to_proto(hashes))
}

fn version(version: Option<proto::Version>) -> Result<Version, WireError> {
    let v = version.ok_or(WireError::Missing("version"))?;
    Ok(Version { content: content(&v.content)?, epoch: v.epoch })
}

fn version_to_proto(v: Version) -> Option<proto::Version> {
    Some(proto::Version { content: copy(&v.content.0), epoch: v.epoch })
}

fn piece(number: u32) -> Result<u32, WireError> {
    if number < MAX_PIECES { Ok(number) } else { Err(WireError::Value("piece")) }
}

fn pieces(numbers: Vec<u32>) -> Result<Vec<u32>, WireError> {
    numbers.into_iter().map(piece).collect()
}

fn run(number: u32) -> Result<u32, WireError> {
    if number < MAX_RUNS { Ok(number) } else { Err(WireError::Value("run")) }
}

fn page_number(number: u32) -> Result<u32, WireError> {
    if number < merkle::pages(MAX_PIECES) { Ok(number) } else { Err(WireError::Value("page")) }
}

fn page(page: Option<proto::Page>) -> Result<Page, WireError> {
    let p = page.ok_or(WireError::Missing("page"))?;
    let sums = match (p.sums.is_empty(), p.sums_proof.is_empty()) {
        (true, true) => None,
        (true, false) => return Err(WireError::Missing("sums")),
        _ => Some(PageSums { sums: sums("sums", &p.sums)?, proof: hashes("sums_proof", &p.sums_proof)? }),
    };
    let (leaves, proof) = (hashes("leaves", &p.leaves)?, hashes("proof", &p.proof)?);
    Ok(Page { number: page_number(p.number)?, leaves, proof, sums })
}

fn page_to_proto(p: &Page) -> Option<proto::Page> {
    let (sums, sums_proof) = match &p.sums {
        Some(s) => (sums::to_bytes(&s.sums).into(), join_hashes(&s.proof)),
        None => (Bytes::new(), Bytes::new()),
    };
    let (leaves, proof) = (join_hashes(&p.leaves), join_hashes(&p.proof));
    Some(proto::Page { number: p.number, leaves, proof, sums, sums_proof })
}

fn address(field: &'static str, text: &str) -> Result<SocketAddr, WireError> {
    text.parse().map_err(|_| WireError::Value(field))
}

fn optional_address(field: &'static str, text: &str) -> Result<Option<SocketAddr>, WireError> {
    if text.is_empty() { Ok(None) } else { address(field, text).map(Some) }
}

fn optional_address_to_proto(address: Option<SocketAddr>) -> String {
    address.map_or_else(String::new, |a| a.to_string())
}

fn addresses(field: &'static str, texts: &[String]) -> Result<Vec<SocketAddr>, WireError> {
    texts.iter().map(|t| address(field, t)).collect()
}

/// The best of them: a node with many networks must not become unable to speak.
fn addresses_to_proto(addresses: &[SocketAddr]) -> Vec<String> {
    addresses.iter().take(MAX_ADDRESSES).map(SocketAddr::to_string).collect()
}

/// As much of a text for people as its limit allows.
fn cut(text: &str, most_bytes: usize) -> String {
    let mut end = text.len().min(most_bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

fn ticket(t: proto::Ticket) -> Result<Ticket, WireError> {
    Ok(Ticket {
        child: node("child", &t.child)?,
        parent: node("parent", &t.parent)?,
        version: version(t.version)?,
        highest_piece: t.highest_piece,
        substreams: Substreams(t.substreams),
        key_number: t.key_number,
        control_epoch: t.control_epoch,
        expires_unix_ms: t.expires_unix_ms,
        mac: array("mac", &t.mac)?,
    })
}

fn ticket_to_proto(t: &Ticket) -> proto::Ticket {
    proto::Ticket {
        child: copy(&t.child.0),
        parent: copy(&t.parent.0),
        version: version_to_proto(t.version),
        highest_piece: t.highest_piece,
        substreams: t.substreams.0,
        key_number: t.key_number,
        control_epoch: t.control_epoch,
        expires_unix_ms: t.expires_unix_ms,
        mac: copy(&t.mac),
    }
}
