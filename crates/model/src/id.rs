//! Identities: hashes of keys and names.

use sha2::{Digest, Sha256};
use std::fmt;

/// A SHA-256 value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hash(pub [u8; 32]);

/// SHA-256 of a node's TLS public key (SubjectPublicKeyInfo, DER): stays when certificates are renewed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NodeId(pub [u8; 32]);

/// SHA-256(fingerprint of the publisher's first key ‖ name).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ContentId(pub [u8; 32]);

/// One version of a content: its log's epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Version {
    /// Which content.
    pub content: ContentId,
    /// Epoch of the log; a later version has a higher one.
    pub epoch: u64,
}

impl Hash {
    /// SHA-256 of the parts, one after the other.
    pub fn of(parts: &[&[u8]]) -> Hash {
        let mut h = Sha256::new();
        for p in parts {
            h.update(p);
        }
        Hash(h.finalize().into())
    }
}

impl NodeId {
    /// First eight bytes as a number, for spreading ties.
    pub fn prefix64(&self) -> u64 {
        prefix64(&self.0)
    }
}

impl ContentId {
    /// The id of `name` under the publisher's key with this fingerprint: all that an `hw://` name gives.
    pub fn of(fingerprint: &Hash, name: &str) -> ContentId {
        ContentId(Hash::of(&[&fingerprint.0, name.as_bytes()]).0)
    }
    /// First eight bytes as a number, for spreading ties.
    pub fn prefix64(&self) -> u64 {
        prefix64(&self.0)
    }
}

fn prefix64(bytes: &[u8; 32]) -> u64 {
    bytes.iter().take(8).fold(0, |n, b| (n << 8) | u64::from(*b))
}

/// Why a printed id is not one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("an id is 64 hexadecimal digits (8 or more of them where a prefix is enough)")]
pub struct NotAnId;

/// 32 bytes from 64 hexadecimal digits.
///
/// # Errors
/// [`NotAnId`] for any other text.
pub fn from_hex(text: &str) -> Result<[u8; 32], NotAnId> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return Err(NotAnId);
    }
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let text = std::str::from_utf8(pair).map_err(|_| NotAnId)?;
        if !pair.iter().all(u8::is_ascii_hexdigit) {
            return Err(NotAnId);
        }
        *byte = u8::from_str_radix(text, 16).map_err(|_| NotAnId)?;
    }
    Ok(out)
}

/// Lower-case hexadecimal.
pub fn to_hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut s, b| {
        let _ = write!(s, "{b:02x}");
        s
    })
}

macro_rules! printed {
    ($t:ty) => {
        impl fmt::Display for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // `{:.8}` prints the first eight digits, as people read ids.
                f.pad(&to_hex(&self.0))
            }
        }
        impl fmt::Debug for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", to_hex(&self.0[..4]))
            }
        }
        impl std::str::FromStr for $t {
            type Err = NotAnId;
            fn from_str(text: &str) -> Result<Self, NotAnId> {
                from_hex(text).map(Self)
            }
        }
    };
}
printed!(Hash);
printed!(NodeId);
printed!(ContentId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_and_parse() {
        let id = NodeId(Hash::of(&[b"x"]).0);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(format!("{id:.8}").len(), 8);
        for bad in ["", "zz", &"+f".repeat(32), &"g".repeat(64), "é"] {
            assert_eq!(bad.parse::<NodeId>(), Err(NotAnId));
        }
    }
}
