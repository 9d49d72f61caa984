//! Signed logs: what a publisher says about a track, entry by entry.
//!
//! A log starts at the key that the content's name pins, may hand over to a newer key, and lists objects whose pieces
//! are leaves of one Merkle tree over the whole track. The bytes that are signed are built here, field by field with
//! lengths, so that what is verified and what is read can never differ.

use crate::id::{ContentId, Hash, Version};
use crate::layout::{Layout, LayoutError};
use crate::live::{LiveTerms, LiveTrack};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

/// Format of the signed bytes of an entry without sums.
pub const LOG_VERSION: u32 = 1;
/// Format of those of an entry with sums.
pub const LOG_VERSION_WITH_SUMS: u32 = 2;
/// Format of that of a live track.
pub const LOG_VERSION_LIVE: u32 = 3;
/// Entries of one log.
pub const MAX_ENTRIES: usize = 4096;
/// Objects in one entry.
pub const MAX_ENTRY_OBJECTS: usize = 1024;
/// Bytes of an object's path, of a media type, of a name.
pub const MAX_PATH_BYTES: usize = 1024;
/// Bytes of a URL.
pub const MAX_URL_BYTES: usize = 4096;
/// Origins that a log may name.
pub const MAX_ORIGINS: usize = 8;
/// Key changes in one log.
pub const MAX_KEY_CHANGES: usize = 16;

/// A file of a content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Object {
    /// Relative path with `/`; for a single file its file name.
    pub path: String,
    /// Media type; empty where unknown.
    pub media_type: String,
    /// Size in bytes.
    pub size_bytes: u64,
}

/// One signed statement: these objects follow, and the tree so far has this root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Name of the track in its content (`main` for files and folders).
    pub track: String,
    /// Version of the content.
    pub epoch: u64,
    /// 0, 1, 2 …
    pub number: u32,
    /// SHA-256 of the previous entry's signed bytes; zeros for the first.
    pub previous: Hash,
    /// Unix milliseconds at the publisher.
    pub time_unix_ms: u64,
    /// Piece size in bytes; the same in every entry.
    pub piece_bytes: u32,
    /// Objects that this entry adds.
    pub objects: Vec<Object>,
    /// Leaves before this entry.
    pub first_leaf: u32,
    /// Leaves after this entry.
    pub leaves: u32,
    /// Root over all `leaves`.
    pub root: Hash,
    /// HTTP(S) places of the content, without credentials. For one object its URL, for several the folder's.
    pub origins: Vec<String>,
    /// No entry follows.
    pub last: bool,
    /// In the last entry, if the publisher made them: root over the rolling sums of all pieces
    /// ([`crate::sums::root`]).
    pub sums: Option<Hash>,
    /// The track is a live one, and this its only entry: see [`crate::live`].
    pub live: Option<LiveTerms>,
}

/// An entry and its signature.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedEntry {
    /// What is said.
    pub entry: Entry,
    /// Ed25519 over [`Entry::signed_bytes`].
    pub signature: [u8; 64],
}

/// The former key says which key follows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyChange {
    /// The next Ed25519 public key.
    pub next: [u8; 32],
    /// By the former key, over the change.
    pub signature: [u8; 64],
}

/// A track's log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Log {
    /// Name of the content.
    pub name: String,
    /// The first key, which the name pins.
    pub first_key: [u8; 32],
    /// Later keys in order; entries are signed by the last.
    pub key_changes: Vec<KeyChange>,
    /// The entries.
    pub entries: Vec<SignedEntry>,
}

/// What a verified log says of a closed track.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Track {
    /// Content and version.
    pub version: Version,
    /// Name of the content.
    pub name: String,
    /// All objects.
    pub objects: Vec<Object>,
    /// Their geometry.
    pub layout: Layout,
    /// Root over all leaves.
    pub root: Hash,
    /// Places of the content.
    pub origins: Vec<String>,
    /// Root over the rolling sums of all pieces, where the publisher made them.
    pub sums: Option<Hash>,
}

/// What a verified log says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// A file or folder.
    Closed(Track),
    /// A live stream.
    Live(LiveTrack),
}

impl Said {
    /// Content and version.
    pub fn version(&self) -> Version {
        match self {
            Said::Closed(t) => t.version,
            Said::Live(t) => t.version,
        }
    }
    /// Name of the content.
    pub fn name(&self) -> &str {
        match self {
            Said::Closed(t) => &t.name,
            Said::Live(t) => &t.name,
        }
    }
    /// Places of the content.
    pub fn origins(&self) -> &[String] {
        match self {
            Said::Closed(t) => &t.origins,
            Said::Live(t) => &t.origins,
        }
    }
    /// A file or folder, if it is one.
    pub fn closed(&self) -> Option<&Track> {
        match self {
            Said::Closed(t) => Some(t),
            Said::Live(_) => None,
        }
    }
    /// A live stream, if it is one.
    pub fn live(&self) -> Option<&LiveTrack> {
        match self {
            Said::Closed(_) => None,
            Said::Live(t) => Some(t),
        }
    }
}

/// Why a log is not believed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LogError {
    /// The name pins another key.
    #[error("the name pins key {pinned} but the log begins with key {found}: wrong link, or not this publisher's log")]
    WrongKey {
        /// Fingerprint in the name.
        pinned: Hash,
        /// Fingerprint of the log's first key.
        found: Hash,
    },
    /// The log is for another name.
    #[error("the log is for {found:?}, not for {wanted:?}")]
    WrongName {
        /// What was asked for.
        wanted: String,
        /// What the log says.
        found: String,
    },
    /// Bad key or signature.
    #[error("signature of {0} is wrong: the log was changed after it was signed, or signed with another key")]
    Signature(&'static str),
    /// An entry does not follow the one before it.
    #[error("entry {0} does not follow the one before it")]
    Chain(u32),
    /// A limit is passed.
    #[error("log over its limits: {0}")]
    Limit(&'static str),
    /// A path that could leave the folder it is written to.
    #[error("object path {0:?} is not a plain relative path")]
    Path(String),
    /// The log is not closed, or empty.
    #[error("the log has no last entry: it was cut off")]
    Open,
    /// A stream where a file or folder is meant, or the other way round.
    #[error("{0}")]
    Kind(&'static str),
    /// Geometry.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

/// Fingerprint of a publisher's key, as `key=` in a name: SHA-256 of the 32-byte public key.
pub fn fingerprint(key: &[u8; 32]) -> Hash {
    Hash::of(&[key])
}

impl Entry {
    /// The bytes that are signed and chained.
    pub fn signed_bytes(&self) -> Vec<u8> {
        let mut out = b"headwater log entry\0".to_vec();
        let number = |out: &mut Vec<u8>, n: u64| out.extend_from_slice(&n.to_be_bytes());
        let text = |out: &mut Vec<u8>, s: &str| {
            number(out, s.len() as u64);
            out.extend_from_slice(s.as_bytes());
        };
        let format = match (&self.live, &self.sums) {
            (Some(_), _) => LOG_VERSION_LIVE,
            (None, Some(_)) => LOG_VERSION_WITH_SUMS,
            (None, None) => LOG_VERSION,
        };
        number(&mut out, u64::from(format));
        text(&mut out, &self.track);
        number(&mut out, self.epoch);
        number(&mut out, u64::from(self.number));
        out.extend_from_slice(&self.previous.0);
        number(&mut out, self.time_unix_ms);
        number(&mut out, u64::from(self.piece_bytes));
        number(&mut out, self.objects.len() as u64);
        for o in &self.objects {
            text(&mut out, &o.path);
            text(&mut out, &o.media_type);
            number(&mut out, o.size_bytes);
        }
        number(&mut out, u64::from(self.first_leaf));
        number(&mut out, u64::from(self.leaves));
        out.extend_from_slice(&self.root.0);
        number(&mut out, self.origins.len() as u64);
        for o in &self.origins {
            text(&mut out, o);
        }
        out.push(u8::from(self.last));
        if let Some(sums) = &self.sums {
            out.extend_from_slice(&sums.0);
        }
        if let Some(live) = &self.live {
            out.push(live.substreams.get());
            number(&mut out, live.rate.0);
            number(&mut out, live.window.0);
        }
        out
    }
}

fn bound_to(content: ContentId, bytes: &[u8]) -> Vec<u8> {
    [&content.0[..], bytes].concat()
}

fn change_bytes(content: ContentId, next: &[u8; 32]) -> Vec<u8> {
    bound_to(content, &[b"headwater key change\0", &next[..]].concat())
}

/// Signs `entry` for `content`.
pub fn sign(content: ContentId, entry: Entry, key: &SigningKey) -> SignedEntry {
    let signature = key.sign(&bound_to(content, &entry.signed_bytes())).to_bytes();
    SignedEntry { entry, signature }
}

/// `former` hands `content` over to `next`.
pub fn change_key(content: ContentId, former: &SigningKey, next: [u8; 32]) -> KeyChange {
    KeyChange { next, signature: former.sign(&change_bytes(content, &next)).to_bytes() }
}

impl Log {
    /// The content's id.
    pub fn content(&self) -> ContentId {
        ContentId::of(&fingerprint(&self.first_key), &self.name)
    }

    /// Content and epoch as the log claims them (unverified); `None` for an empty log.
    pub fn version(&self) -> Option<Version> {
        self.entries.first().map(|e| Version { content: self.content(), epoch: e.entry.epoch })
    }

    /// Whether it says that the content is a live stream (unverified).
    pub fn is_live(&self) -> bool {
        self.entries.first().is_some_and(|e| e.entry.live.is_some())
    }

    /// [`Log::verify_live`] or [`Log::verify`], as the log is one or the other.
    ///
    /// # Errors
    /// [`LogError`] says what is wrong first.
    pub fn verify_either(&self, name: &str, pinned: Option<&Hash>) -> Result<Said, LogError> {
        match self.is_live() {
            true => self.verify_live(name, pinned).map(Said::Live),
            false => self.verify(name, pinned).map(Said::Closed),
        }
    }

    /// What the log of a live stream says, checked as [`Log::verify`] checks that of a file.
    ///
    /// # Errors
    /// [`LogError`] says what is wrong first.
    pub fn verify_live(&self, name: &str, pinned: Option<&Hash>) -> Result<LiveTrack, LogError> {
        let key = self.verify_key(name, pinned)?;
        let signed = self.entries.first().ok_or(LogError::Open)?;
        let e = &signed.entry;
        let terms = e.live.ok_or(LogError::Kind("this is a file or a folder, no live stream"))?;
        check_limits(e)?;
        let content = self.content();
        check_signature(&key, content, signed)?;
        let is_first = e.number == 0 && e.previous == Hash::default() && self.entries.len() == 1;
        let is_open = !e.last && e.objects.is_empty() && (e.first_leaf, e.leaves) == (0, 0) && e.sums.is_none();
        if !is_first || !is_open {
            return Err(LogError::Chain(e.number));
        }
        if !terms.is_sane() {
            return Err(LogError::Limit("substreams, rate or window of a stream"));
        }
        Layout::new(e.piece_bytes, &[])?;
        Ok(LiveTrack {
            version: Version { content, epoch: e.epoch },
            name: self.name.clone(),
            terms,
            piece_bytes: e.piece_bytes,
            origins: e.origins.clone(),
            key,
        })
    }

    /// Checks everything: key pinned by `pinned`, name, key changes, signatures, chain, limits, geometry.
    ///
    /// # Errors
    /// [`LogError`] says what is wrong first.
    pub fn verify(&self, name: &str, pinned: Option<&Hash>) -> Result<Track, LogError> {
        let key = self.verify_key(name, pinned)?;
        let content = self.content();
        if self.is_live() {
            return Err(LogError::Kind("this is a live stream, no file or folder"));
        }
        let first = &self.entries.first().ok_or(LogError::Open)?.entry;
        if self.entries.len() > MAX_ENTRIES {
            return Err(LogError::Limit("more than 4,096 entries"));
        }
        let (mut objects, mut previous, mut leaves) = (Vec::new(), Hash::default(), 0);
        for (i, signed) in self.entries.iter().enumerate() {
            let e = &signed.entry;
            check_limits(e)?;
            let bytes = e.signed_bytes();
            check_signature(&key, content, signed)?;
            let follows = e.number as usize == i
                && e.previous == previous
                && e.first_leaf == leaves
                && e.leaves >= leaves
                && (&e.track, e.epoch, e.piece_bytes) == (&first.track, first.epoch, first.piece_bytes)
                && e.last == (i + 1 == self.entries.len());
            if !follows {
                return Err(if e.last || i + 1 < self.entries.len() {
                    LogError::Chain(e.number)
                } else {
                    LogError::Open
                });
            }
            objects.extend(e.objects.iter().cloned());
            if Layout::new(e.piece_bytes, &objects[objects.len() - e.objects.len()..])?.pieces() != e.leaves - leaves {
                return Err(LogError::Chain(e.number));
            }
            previous = Hash::of(&[&bytes]);
            leaves = e.leaves;
        }
        let mut paths: Vec<&str> = objects.iter().map(|o| o.path.as_str()).collect();
        paths.sort_unstable();
        if paths.windows(2).any(|w| w[0] == w[1]) {
            return Err(LogError::Limit("two objects with one path"));
        }
        let layout = Layout::new(first.piece_bytes, &objects)?;
        let last = self.entries.last().map(|e| &e.entry);
        let (root, sums) = last.map_or((Hash::default(), None), |e| (e.root, e.sums));
        let version = Version { content, epoch: first.epoch };
        Ok(Track { version, name: self.name.clone(), objects, layout, root, origins: first.origins.clone(), sums })
    }

    /// The key that signs, of a log of this name under the pinned key.
    fn verify_key(&self, name: &str, pinned: Option<&Hash>) -> Result<VerifyingKey, LogError> {
        let found = fingerprint(&self.first_key);
        if let Some(pinned) = pinned.filter(|p| **p != found) {
            return Err(LogError::WrongKey { pinned: *pinned, found });
        }
        if self.name != name {
            return Err(LogError::WrongName { wanted: name.into(), found: self.name.clone() });
        }
        if name.is_empty() || name.len() > MAX_PATH_BYTES {
            return Err(LogError::Limit("name longer than 1,024 bytes or empty"));
        }
        self.signing_key()
    }

    fn signing_key(&self) -> Result<VerifyingKey, LogError> {
        if self.key_changes.len() > MAX_KEY_CHANGES {
            return Err(LogError::Limit("more than 16 key changes"));
        }
        let parse = |k: &[u8; 32]| VerifyingKey::from_bytes(k).map_err(|_| LogError::Signature("a key"));
        let mut key = parse(&self.first_key)?;
        for change in &self.key_changes {
            key.verify_strict(&change_bytes(self.content(), &change.next), &Signature::from_bytes(&change.signature))
                .map_err(|_| LogError::Signature("a key change"))?;
            key = parse(&change.next)?;
        }
        Ok(key)
    }
}

fn check_signature(key: &VerifyingKey, content: ContentId, signed: &SignedEntry) -> Result<(), LogError> {
    let bytes = bound_to(content, &signed.entry.signed_bytes());
    let signature = Signature::from_bytes(&signed.signature);
    key.verify_strict(&bytes, &signature).map_err(|_| LogError::Signature("an entry"))
}

fn check_limits(e: &Entry) -> Result<(), LogError> {
    if e.objects.len() > MAX_ENTRY_OBJECTS {
        return Err(LogError::Limit("more than 1,024 objects in an entry"));
    }
    if e.track.len() > MAX_PATH_BYTES || e.origins.len() > MAX_ORIGINS {
        return Err(LogError::Limit("track name or number of origins"));
    }
    if e.origins.iter().any(|o| o.len() > MAX_URL_BYTES || !(o.starts_with("http://") || o.starts_with("https://"))) {
        return Err(LogError::Limit("an origin that is no HTTP URL of at most 4,096 bytes"));
    }
    for o in &e.objects {
        if o.path.len() > MAX_PATH_BYTES || o.media_type.len() > MAX_PATH_BYTES {
            return Err(LogError::Limit("path or media type longer than 1,024 bytes"));
        }
        if !is_plain_path(&o.path) {
            return Err(LogError::Path(o.path.clone()));
        }
    }
    Ok(())
}

/// Whether `path` stays inside the folder it is joined to, on every system.
pub fn is_plain_path(path: &str) -> bool {
    !path.is_empty()
        && path.split('/').all(|part| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && !part.contains(['\\', ':', '\0'])
                && !part.contains(char::is_control)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle;

    fn key(n: u8) -> SigningKey {
        SigningKey::from_bytes(&[n; 32])
    }

    fn object(path: &str, size_bytes: u64) -> Object {
        Object { path: path.into(), media_type: String::new(), size_bytes }
    }

    fn log(objects: Vec<Vec<Object>>) -> Log {
        let k = key(1);
        let mut log =
            Log { name: "n".into(), first_key: k.verifying_key().to_bytes(), key_changes: vec![], entries: vec![] };
        let (mut leaves, mut previous, count) = (0, Hash::default(), objects.len());
        for (i, objects) in objects.into_iter().enumerate() {
            let after = leaves + Layout::new(4096, &objects).unwrap().pieces();
            let entry = Entry {
                track: "main".into(),
                epoch: 7,
                number: i as u32,
                previous,
                time_unix_ms: 1,
                piece_bytes: 4096,
                objects,
                first_leaf: leaves,
                leaves: after,
                root: merkle::root(&vec![merkle::leaf(b"x"); after as usize]),
                origins: vec!["http://o/f".into()],
                last: i + 1 == count,
                sums: None,
                live: None,
            };
            (leaves, previous) = (after, Hash::of(&[&entry.signed_bytes()]));
            log.entries.push(sign(log.content(), entry, &k));
        }
        log
    }

    /// What `spoil` does to a good log of two entries, and whether the signature is made anew.
    fn check(spoil: impl Fn(&mut Log), sign_again: bool, expected: &str) {
        let mut l = log(vec![vec![object("a", 5000), object("b/c", 0)], vec![object("d", 1)]]);
        spoil(&mut l);
        if sign_again {
            let content = l.content();
            for e in &mut l.entries {
                *e = sign(content, e.entry.clone(), &key(1));
            }
        }
        let said = l.verify("n", Some(&fingerprint(&key(1).verifying_key().to_bytes()))).unwrap_err().to_string();
        assert!(said.contains(expected), "{said:?} lacks {expected:?}");
    }

    #[test]
    fn a_good_log_is_believed() {
        let l = log(vec![vec![object("a", 5000), object("b/c", 0)], vec![object("d", 1)]]);
        let t = l.verify("n", None).unwrap();
        assert_eq!((t.layout.pieces(), t.layout.bytes(), t.objects.len()), (3, 5001, 3));
        assert_eq!(t.version, l.version().unwrap());
    }

    #[test]
    fn spoilt_logs_are_refused() {
        check(|l| l.entries[0].signature[3] ^= 1, false, "signature of an entry");
        check(|l| l.entries[1].entry.root.0[0] ^= 1, false, "signature of an entry");
        check(|l| l.entries[0].entry.epoch = 8, true, "does not follow");
        check(|l| l.entries.swap(0, 1), false, "does not follow");
        check(|l| drop(l.entries.pop()), false, "cut off");
        check(|l| l.entries.clear(), false, "cut off");
        check(|l| l.name = "m".into(), false, "not for \"n\"");
        check(|l| l.first_key = key(2).verifying_key().to_bytes(), false, "pins key");
        check(|l| l.entries[1].entry.leaves += 1, true, "does not follow");
        check(|l| l.entries[1].entry.objects[0].path = "../d".into(), true, "plain relative");
        check(|l| l.entries[1].entry.objects[0].path = "a".into(), true, "two objects with one path");
        check(|l| l.entries[1].entry.objects = vec![object("x", 1); 2000], true, "1,024 objects");
        check(|l| l.entries[0].entry.origins = vec!["file:///etc/passwd".into()], true, "no HTTP URL");
        check(|l| l.entries[0].entry.piece_bytes = 5000, true, "power of two");
        check(|l| l.entries = vec![l.entries[0].clone(); 5000], false, "4,096 entries");
    }

    #[test]
    fn sums_are_signed_too() {
        let mut l = log(vec![vec![object("a", 5000)], vec![object("d", 1)]]);
        assert_eq!(l.verify("n", None).unwrap().sums, None);
        let content = l.content();
        let entry = Entry { sums: Some(Hash([7; 32])), ..l.entries[1].entry.clone() };
        l.entries[1] = sign(content, entry, &key(1));
        assert_eq!(l.verify("n", None).unwrap().sums, Some(Hash([7; 32])));
        for other in [Some(Hash([8; 32])), None] {
            l.entries[1].entry.sums = other;
            assert_eq!(l.verify("n", None), Err(LogError::Signature("an entry")));
        }
    }

    #[test]
    fn a_key_can_be_handed_over() {
        let mut l = log(vec![vec![object("a", 1)]]);
        let content = l.content();
        l.key_changes.push(change_key(content, &key(1), key(2).verifying_key().to_bytes()));
        assert_eq!(l.verify("n", None), Err(LogError::Signature("an entry")), "signed by the former key");
        l.entries[0] = sign(content, l.entries[0].entry.clone(), &key(2));
        assert!(l.verify("n", Some(&fingerprint(&key(1).verifying_key().to_bytes()))).is_ok());
        l.key_changes[0].signature[0] ^= 1;
        assert_eq!(l.verify("n", None), Err(LogError::Signature("a key change")));
    }

    #[test]
    fn plain_paths() {
        for good in ["a", "a/b.c", "ä/…", "..a"] {
            assert!(is_plain_path(good), "{good}");
        }
        for bad in ["", "/a", "a/", "a//b", "..", "a/../b", ".", "C:x", "a\\b", "a\0", "a\nb"] {
            assert!(!is_plain_path(bad), "{bad}");
        }
    }
}
