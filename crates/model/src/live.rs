//! Live tracks: what holds for a stream from beginning to end, and what its publisher says of it as it comes.
//!
//! The log of a live content has one entry, never the last, with [`LiveTerms`]. What follows are [`LiveEntry`]s, each
//! signed by itself: an object (a segment, an initialisation section) grows by pieces whose hashes the entry lists, and is
//! listed for players when the playlist lists it. Pieces are numbered along the track; `piece mod substreams` is the
//! substream that carries it.

use crate::id::{ContentId, Hash, Version};
use crate::log::{LogError, MAX_URL_BYTES};
use crate::merkle;
use crate::time::{Micros, Rate};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use std::num::NonZeroU8;

/// A publisher's Ed25519 key.
pub use ed25519_dalek::VerifyingKey as PublisherKey;

/// Format of the signed bytes of a live entry.
pub const LIVE_ENTRY_VERSION: u32 = 1;
/// Substreams of one stream.
pub const MAX_SUBSTREAMS: u8 = 32;
/// Substreams where the publisher does not say.
pub const SUBSTREAMS: u8 = 8;
/// Bytes of a live piece where the publisher does not say: at 8 substreams of 2 Mbit/s a hop takes a quarter of a second.
pub const LIVE_PIECE_BYTES: u32 = 8 << 10;
/// Pieces of one entry.
pub const MAX_ENTRY_PIECES: usize = 128;
/// Pieces of one object.
pub const MAX_OBJECT_PIECES: u64 = 1 << 16;
/// How long nodes may be asked to keep pieces.
pub const MAX_WINDOW: Micros = Micros::from_secs(6 * 3600);
/// The fastest stream.
pub const MAX_LIVE_RATE: Rate = Rate::from_mbit(200);

/// A set of substreams of one stream; in an assignment of a file it is empty.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Substreams(pub u32);

impl Substreams {
    /// The first `count` of them, at most [`MAX_SUBSTREAMS`].
    pub fn all(count: u8) -> Self {
        Self(if count >= 32 { u32::MAX } else { (1 << count) - 1 })
    }
    /// Only this one.
    pub fn one(substream: u8) -> Self {
        Self(1u32.checked_shl(u32::from(substream)).unwrap_or(0))
    }
    /// Whether `substream` is among them.
    pub fn contains(self, substream: u8) -> bool {
        self.0 & Self::one(substream).0 != 0
    }
    /// Adds one.
    pub fn insert(&mut self, substream: u8) {
        self.0 |= Self::one(substream).0;
    }
    /// Takes one out.
    pub fn remove(&mut self, substream: u8) {
        self.0 &= !Self::one(substream).0;
    }
    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// How many.
    pub fn len(self) -> u32 {
        self.0.count_ones()
    }
    /// Those in both.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
    /// Those in either.
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    /// Those that are not in `other`.
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
    /// In rising order.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (0..MAX_SUBSTREAMS).filter(move |s| self.contains(*s))
    }
}

impl std::fmt::Debug for Substreams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// What holds for a live track from beginning to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LiveTerms {
    /// Substreams, each of which has a tree of its own.
    pub substreams: NonZeroU8,
    /// Payload of the whole stream, at its peaks: places in the trees are made for it.
    pub rate: Rate,
    /// How long nodes keep pieces: how far back players can seek.
    pub window: Micros,
}

impl LiveTerms {
    /// Rate of one substream.
    pub fn substream_rate(&self) -> Rate {
        Rate(self.rate.0.div_ceil(u64::from(self.substreams.get())))
    }
    /// The substream that carries `piece`.
    #[inline]
    pub fn substream_of(&self, piece: u64) -> u8 {
        (piece % u64::from(self.substreams.get())) as u8
    }
    /// All substreams.
    pub fn all(&self) -> Substreams {
        Substreams::all(self.substreams.get())
    }
    /// The first piece of `substream` that is not before `piece`.
    pub fn next_of(&self, substream: u8, piece: u64) -> u64 {
        let k = u64::from(self.substreams.get());
        let ahead = (u64::from(substream) + k - piece % k) % k;
        piece.saturating_add(ahead)
    }
    /// Whether the limits are kept.
    pub(crate) fn is_sane(&self) -> bool {
        self.substreams.get() <= MAX_SUBSTREAMS
            && (1..=MAX_LIVE_RATE.0).contains(&self.rate.0)
            && self.window <= MAX_WINDOW
    }
}

/// What a verified log says of a live track.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LiveTrack {
    /// Content and version.
    pub version: Version,
    /// Name of the content.
    pub name: String,
    /// What holds for it.
    pub terms: LiveTerms,
    /// Size of all pieces but the last of an entry.
    pub piece_bytes: u32,
    /// The playlist at the origin, where there is one.
    pub origins: Vec<String>,
    /// Signs its entries.
    pub key: VerifyingKey,
}

/// The place of a listed segment's bytes at the origin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OriginPlace {
    /// Address, without credentials.
    pub url: String,
    /// The object's first byte in it.
    pub from: u64,
}

/// An object that players may ask for from now on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// Its number in the stream (EXT-X-MEDIA-SEQUENCE).
    pub sequence: u64,
    /// How long it plays.
    pub duration: Micros,
    /// The playlist's target duration.
    pub target_duration: Micros,
    /// Timestamps and coding may begin anew with it.
    pub discontinuity: bool,
    /// Object of the initialisation section that it needs.
    pub map: Option<u64>,
    /// When its first moment was recorded, in Unix microseconds.
    pub recorded_unix_us: Option<u64>,
    /// Where its bytes begin at the origin, if they are there.
    pub origin: Option<OriginPlace>,
}

/// What an object is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ObjectKind {
    /// A segment in an MPEG transport stream.
    Ts,
    /// A segment in fragmented MP4.
    Mp4,
    /// What a segment in fragmented MP4 needs first.
    Mp4Init,
    /// Packed AAC audio.
    Aac,
    /// Subtitles.
    Vtt,
}

/// One signed statement of a live track.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LiveEntry {
    /// Version of the content.
    pub epoch: u64,
    /// Rises with every entry, not always by one: a source that begins anew leaves a gap.
    pub number: u64,
    /// Number of the entry before it, where its source knows: nothing lies between.
    pub previous: Option<u64>,
    /// Unix milliseconds at the publisher when its last byte had come.
    pub time_unix_ms: u64,
    /// Object that it is about.
    pub object: u64,
    /// What that is.
    pub kind: ObjectKind,
    /// Bytes of the object before this entry.
    pub offset: u64,
    /// Number of the first piece.
    pub first_piece: u64,
    /// Bytes of all its pieces; each but the last has the track's piece size.
    pub bytes: u32,
    /// Hash of each piece ([`merkle::leaf`]).
    pub leaves: Vec<Hash>,
    /// The object ends here.
    pub complete: bool,
    /// Players may ask for the object from now on.
    pub listed: Option<Listed>,
    /// The stream ends here.
    pub last: bool,
}

/// An entry and its signature.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedLiveEntry {
    /// What is said.
    pub entry: LiveEntry,
    /// Ed25519 over [`LiveEntry::signed_bytes`].
    pub signature: [u8; 64],
}

impl LiveEntry {
    /// The bytes that are signed.
    pub fn signed_bytes(&self, content: ContentId) -> Vec<u8> {
        let mut out = content.0.to_vec();
        out.extend_from_slice(b"headwater live entry\0");
        let number = |out: &mut Vec<u8>, n: u64| out.extend_from_slice(&n.to_be_bytes());
        let option = |out: &mut Vec<u8>, n: Option<u64>| {
            out.push(u8::from(n.is_some()));
            out.extend_from_slice(&n.unwrap_or(0).to_be_bytes());
        };
        number(&mut out, u64::from(LIVE_ENTRY_VERSION));
        number(&mut out, self.epoch);
        number(&mut out, self.number);
        option(&mut out, self.previous);
        number(&mut out, self.time_unix_ms);
        number(&mut out, self.object);
        out.push(self.kind as u8);
        number(&mut out, self.offset);
        number(&mut out, self.first_piece);
        number(&mut out, u64::from(self.bytes));
        number(&mut out, self.leaves.len() as u64);
        self.leaves.iter().for_each(|l| out.extend_from_slice(&l.0));
        out.extend_from_slice(&[u8::from(self.complete), u8::from(self.last), u8::from(self.listed.is_some())]);
        if let Some(l) = &self.listed {
            number(&mut out, l.sequence);
            number(&mut out, l.duration.0);
            number(&mut out, l.target_duration.0);
            out.push(u8::from(l.discontinuity));
            option(&mut out, l.map);
            option(&mut out, l.recorded_unix_us);
            let (url, from) = l.origin.as_ref().map_or(("", 0), |o| (o.url.as_str(), o.from));
            number(&mut out, from);
            number(&mut out, url.len() as u64);
            out.extend_from_slice(url.as_bytes());
        }
        out
    }

    /// Number of the piece that follows its last one.
    pub fn end_piece(&self) -> u64 {
        self.first_piece.saturating_add(self.leaves.len() as u64)
    }

    /// Length of `piece` and its place in the object; `None` for one of another entry.
    pub fn place_of(&self, piece: u64, piece_bytes: u32) -> Option<(u64, u32)> {
        let index = piece.checked_sub(self.first_piece).filter(|i| *i < self.leaves.len() as u64)?;
        let before = index * u64::from(piece_bytes);
        let len = u64::from(self.bytes).checked_sub(before)?.min(u64::from(piece_bytes));
        Some((self.offset.checked_add(before)?, len as u32))
    }

    /// Whether `data` is `piece`.
    pub fn has(&self, piece: u64, data: &[u8]) -> bool {
        let index = piece.checked_sub(self.first_piece).and_then(|i| usize::try_from(i).ok());
        index.and_then(|i| self.leaves.get(i)).is_some_and(|leaf| *leaf == merkle::leaf(data))
    }

    /// Signs it.
    pub fn sign(self, content: ContentId, key: &SigningKey) -> SignedLiveEntry {
        let signature = key.sign(&self.signed_bytes(content)).to_bytes();
        SignedLiveEntry { entry: self, signature }
    }

    fn keeps_limits(&self, piece_bytes: u32) -> bool {
        let pieces = self.leaves.len();
        let listed = self.listed.as_ref();
        pieces <= MAX_ENTRY_PIECES
            && (self.bytes as usize).div_ceil(piece_bytes as usize) == pieces
            && self.offset / u64::from(piece_bytes) + pieces as u64 <= MAX_OBJECT_PIECES
            && self.first_piece.checked_add(pieces as u64).is_some()
            && self.number < u64::MAX
            && self.previous.is_none_or(|p| p < self.number)
            && listed.and_then(|l| l.origin.as_ref()).is_none_or(|o| {
                o.url.len() <= MAX_URL_BYTES && (o.url.starts_with("http://") || o.url.starts_with("https://"))
            })
            && listed.is_none_or(|l| l.duration.0.max(l.target_duration.0) <= Micros::from_secs(3600).0)
    }
}

impl SignedLiveEntry {
    /// Checks signature, version and limits.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn verify(&self, track: &LiveTrack) -> Result<(), LogError> {
        if self.entry.epoch != track.version.epoch {
            return Err(LogError::Limit("an entry of another version"));
        }
        if !self.entry.keeps_limits(track.piece_bytes) {
            return Err(LogError::Limit("an entry of a stream"));
        }
        let bytes = self.entry.signed_bytes(track.version.content);
        let signature = Signature::from_bytes(&self.signature);
        track.key.verify_strict(&bytes, &signature).map_err(|_| LogError::Signature("an entry"))
    }
}

/// What a publisher's node signs, so that the control center takes it for the stream's source.
pub fn source_claim(version: Version, node: &crate::id::NodeId) -> Vec<u8> {
    [&version.content.0[..], b"headwater live source\0", &version.epoch.to_be_bytes(), &node.0].concat()
}

/// Whether `signature` over [`source_claim`] is by the stream's publisher.
pub fn is_source(track: &LiveTrack, node: &crate::id::NodeId, signature: &[u8; 64]) -> bool {
    let claim = source_claim(track.version, node);
    track.key.verify_strict(&claim, &Signature::from_bytes(signature)).is_ok()
}

#[cfg(test)]
#[path = "live_tests.rs"]
mod tests;
