//! Logs, and the file that a publisher writes beside the content: log and leaf hashes, for clients that reach no
//! control center.

use super::live::{live_entry, live_entry_to_proto};
use super::*;
use crate::limits::*;
use crate::shape;
use headwater_model::live::{LiveTerms, SignedLiveEntry};
use headwater_model::log::{Entry, KeyChange, Log, LogError, Object, Said, SignedEntry, Track};
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint};
use std::num::NonZeroU8;

/// Format of [`StaticLog`]s without sums.
const FORMAT: u32 = 1;
/// Format of those with sums.
const FORMAT_WITH_SUMS: u32 = 2;
/// Format of those of live streams, the last one that is known here.
const FORMAT_LIVE: u32 = 3;

/// A log, all leaf hashes of its tree, and all sums that it commits to; of a live stream, its newest entries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StaticLog {
    /// The log.
    pub log: Log,
    /// Leaf hashes of all pieces, in order.
    pub leaves: Vec<Hash>,
    /// Rolling sums of all pieces, in order; none where the log has none.
    pub sums: Vec<Sum>,
    /// Entries of a live stream, oldest first, at most [`MAX_LOGGED_ENTRIES`]; not verified with the rest, see
    /// [`SignedLiveEntry::verify`].
    pub entries: Vec<SignedLiveEntry>,
}

/// Why a static log is not believed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StaticLogError {
    /// The log itself.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Another number of leaf hashes than the log's layout has pieces.
    #[error("{found} leaf hashes for {wanted} pieces: the file was cut off or belongs to another log")]
    Leaves {
        /// Pieces of the layout.
        wanted: u32,
        /// Leaf hashes in the file.
        found: usize,
    },
    /// The leaf hashes are not those of the signed root.
    #[error("the leaf hashes do not fit the signed root: the file was changed")]
    Root,
    /// Entries of a live stream where the log is of files.
    #[error("it has entries of a live stream, and is of none")]
    Entries,
    /// The sums are not those of the signed root, or there are some where the log has none.
    #[error("the rolling sums do not fit what is signed: the file was changed")]
    Sums,
}

impl StaticLog {
    /// The file's bytes, at most [`MAX_STATIC_LOG_BYTES`] for a log of at most [`MAX_LOG_BYTES`].
    pub fn encode(&self) -> Vec<u8> {
        let (log, leaves) = (Some(log_to_proto(&self.log)), join_hashes(&self.leaves));
        let format = match (self.sums.is_empty(), self.entries.is_empty()) {
            (_, false) => FORMAT_LIVE,
            (false, true) => FORMAT_WITH_SUMS,
            (true, true) => FORMAT,
        };
        let entries = self.entries.iter().map(live_entry_to_proto).collect();
        proto::StaticLog { format, log, leaves, sums: sums::to_bytes(&self.sums).into(), entries }.encode_to_vec()
    }

    /// Reads a file; nothing is verified yet.
    ///
    /// # Errors
    /// [`WireError`] for anything that is not a static log within its limits; [`WireError::Newer`] for a later format.
    pub fn decode(file: &[u8]) -> Result<Self, WireError> {
        if file.len() > MAX_STATIC_LOG_BYTES {
            return Err(WireError::Length { field: "static log", got: file.len(), limit: MAX_STATIC_LOG_BYTES });
        }
        check_format(file)?;
        shape::check(file, &shape::STATIC_LOG)?;
        let message = proto::StaticLog::decode(file)?;
        let log = log_from_proto(message.log.ok_or(WireError::Missing("log"))?)?;
        let entries = message.entries.into_iter().map(live_entry).collect::<Result<_, _>>()?;
        Ok(Self { log, leaves: hashes("leaves", &message.leaves)?, sums: sums("sums", &message.sums)?, entries })
    }

    /// Checks everything: the log as [`Log::verify_either`] does, and that the leaf hashes are those that its root is over.
    ///
    /// # Errors
    /// [`StaticLogError`] says what is wrong first.
    pub fn verify(&self, name: &str, pinned: Option<&Hash>) -> Result<Said, StaticLogError> {
        let said = self.log.verify_either(name, pinned)?;
        match &said {
            Said::Closed(_) if !self.entries.is_empty() => return Err(StaticLogError::Entries),
            Said::Closed(track) => self.verify_leaves(track)?,
            Said::Live(_) if self.leaves.is_empty() && self.sums.is_empty() => {}
            Said::Live(_) => return Err(StaticLogError::Leaves { wanted: 0, found: self.leaves.len() }),
        }
        Ok(said)
    }

    fn verify_leaves(&self, track: &Track) -> Result<(), StaticLogError> {
        let wanted = track.layout.pieces();
        if self.leaves.len() != wanted as usize {
            return Err(StaticLogError::Leaves { wanted, found: self.leaves.len() });
        }
        if merkle::root(&self.leaves) != track.root {
            return Err(StaticLogError::Root);
        }
        let sums_are_true = match track.sums {
            Some(root) => self.sums.len() == self.leaves.len() && sums::root(&self.sums) == root,
            None => self.sums.is_empty(),
        };
        if !sums_are_true {
            return Err(StaticLogError::Sums);
        }
        Ok(())
    }
}

/// The format stands first in the file, so that later ones can change all the rest.
fn check_format(mut file: &[u8]) -> Result<(), WireError> {
    let not_one = |_| WireError::Missing("format");
    if decode_key(&mut file).map_err(not_one)? != (1, WireType::Varint) {
        return Err(WireError::Missing("format"));
    }
    match decode_varint(&mut file).map_err(not_one)? {
        0 => Err(WireError::Value("format")),
        found if found <= u64::from(FORMAT_LIVE) => Ok(()),
        found => Err(WireError::Newer { found, known: FORMAT_LIVE }),
    }
}

/// A log alone, as protobuf. More than [`MAX_LOG_BYTES`] cannot be sent: publishers refuse such contents.
pub fn encode_log(log: &Log) -> Vec<u8> {
    log_to_proto(log).encode_to_vec()
}

/// Reads what [`encode_log`] wrote; nothing is verified yet.
///
/// # Errors
/// [`WireError`] for anything that is not a log within its limits.
pub fn decode_log(bytes: &[u8]) -> Result<Log, WireError> {
    if bytes.len() > MAX_LOG_BYTES {
        return Err(WireError::Length { field: "log", got: bytes.len(), limit: MAX_LOG_BYTES });
    }
    shape::check(bytes, &shape::LOG)?;
    log_from_proto(proto::Log::decode(bytes)?)
}

pub(crate) fn log_from_proto(l: proto::Log) -> Result<Log, WireError> {
    let change = |c: proto::KeyChange| {
        Ok(KeyChange { next: array("next", &c.next)?, signature: array("signature", &c.signature)? })
    };
    Ok(Log {
        name: l.name,
        first_key: array("first_key", &l.first_key)?,
        key_changes: l.key_changes.into_iter().map(change).collect::<Result<_, WireError>>()?,
        entries: l.entries.into_iter().map(entry).collect::<Result<_, _>>()?,
    })
}

fn entry(e: proto::Entry) -> Result<SignedEntry, WireError> {
    let object = |o: proto::Object| Object { path: o.path, media_type: o.media_type, size_bytes: o.size_bytes };
    Ok(SignedEntry {
        signature: array("signature", &e.signature)?,
        entry: Entry {
            track: e.track,
            epoch: e.epoch,
            number: e.number,
            previous: hash("previous", &e.previous)?,
            time_unix_ms: e.time_unix_ms,
            piece_bytes: e.piece_bytes,
            objects: e.objects.into_iter().map(object).collect(),
            first_leaf: e.first_leaf,
            leaves: e.leaves,
            root: hash("root", &e.root)?,
            origins: e.origins,
            last: e.last,
            sums: if e.sums.is_empty() { None } else { Some(hash("sums", &e.sums)?) },
            live: e.live.map(live_terms).transpose()?,
        },
    })
}

fn live_terms(l: proto::LiveTerms) -> Result<LiveTerms, WireError> {
    let substreams = u8::try_from(l.substreams).ok().and_then(NonZeroU8::new).ok_or(WireError::Value("substreams"))?;
    Ok(LiveTerms { substreams, rate: Rate(l.rate_bytes_per_s), window: Micros(l.window_us) })
}

pub(crate) fn log_to_proto(l: &Log) -> proto::Log {
    let change = |c: &KeyChange| proto::KeyChange { next: copy(&c.next), signature: copy(&c.signature) };
    proto::Log {
        name: l.name.clone(),
        first_key: copy(&l.first_key),
        key_changes: l.key_changes.iter().map(change).collect(),
        entries: l.entries.iter().map(entry_to_proto).collect(),
    }
}

fn entry_to_proto(signed: &SignedEntry) -> proto::Entry {
    let e = &signed.entry;
    let object =
        |o: &Object| proto::Object { path: o.path.clone(), media_type: o.media_type.clone(), size_bytes: o.size_bytes };
    proto::Entry {
        track: e.track.clone(),
        epoch: e.epoch,
        number: e.number,
        previous: copy(&e.previous.0),
        time_unix_ms: e.time_unix_ms,
        piece_bytes: e.piece_bytes,
        objects: e.objects.iter().map(object).collect(),
        first_leaf: e.first_leaf,
        leaves: e.leaves,
        root: copy(&e.root.0),
        origins: e.origins.clone(),
        last: e.last,
        signature: copy(&signed.signature),
        sums: e.sums.map(|s| copy(&s.0)).unwrap_or_default(),
        live: e.live.map(|l| proto::LiveTerms {
            substreams: l.substreams.get().into(),
            rate_bytes_per_s: l.rate.0,
            window_us: l.window.0,
        }),
    }
}
