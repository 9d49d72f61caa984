//! The file that the demo delivers: made or copied, and compared with what arrived.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use headwater_model::{Hash, Rng};
use tokio_util::sync::CancellationToken;

const BLOCK_BYTES: usize = 1 << 20;
/// Any will do; the same every time, so that two runs deliver the same bytes.
const SEED: u64 = 1;

/// What is to be delivered.
#[derive(Clone, Debug)]
pub enum Content {
    /// Pseudo-random bytes, so many.
    Generated(u64),
    /// A file of the user's.
    Given {
        /// Where it is.
        path: PathBuf,
        /// Its length in bytes.
        bytes: u64,
    },
}

impl Content {
    /// # Errors
    /// If there is no such file, or nothing in it.
    pub fn given(path: &Path) -> Result<Content> {
        let path = path.canonicalize().with_context(|| format!("cannot read {}", path.display()))?;
        let found = path.metadata().with_context(|| format!("cannot read {}", path.display()))?;
        ensure!(found.is_file(), "{} is not a file", path.display());
        ensure!(found.len() > 0, "{} is empty", path.display());
        Ok(Content::Given { path, bytes: found.len() })
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        match self {
            Content::Generated(bytes) | Content::Given { bytes, .. } => *bytes,
        }
    }

    /// What the file is called at the origin and at every receiver.
    pub fn file_name(&self) -> &str {
        let name = match self {
            Content::Generated(_) => None,
            Content::Given { path, .. } => path.file_name().and_then(|name| name.to_str()),
        };
        name.unwrap_or("demo.bin")
    }

    /// Puts it into the folder, and returns where. Links a given file if the system can, copies it else.
    ///
    /// # Errors
    /// If the file cannot be read or written, has become shorter, or `stop` was cancelled meanwhile.
    pub fn put_into(&self, folder: &Path, stop: &CancellationToken) -> Result<PathBuf> {
        let target = folder.join(self.file_name());
        let written = match self {
            Content::Generated(_) => copy(PseudoRandom(Rng::new(SEED, "demo")), &target, self.bytes(), stop),
            Content::Given { path, .. } if std::fs::hard_link(path, &target).is_ok() => Ok(()),
            Content::Given { path, bytes } => File::open(path).and_then(|file| copy(file, &target, *bytes, stop)),
        };
        written.with_context(|| format!("cannot write {}", target.display()))?;
        Ok(target)
    }
}

fn copy(mut from: impl Read, target: &Path, bytes: u64, stop: &CancellationToken) -> std::io::Result<()> {
    let mut to = File::create_new(target)?;
    let mut block = vec![0; BLOCK_BYTES];
    let mut left = bytes;
    while left > 0 {
        check(stop)?;
        let part = &mut block[..left.min(BLOCK_BYTES as u64) as usize];
        from.read_exact(part)?;
        to.write_all(part)?;
        left -= part.len() as u64;
    }
    Ok(())
}

/// SHA-256 over a file block by block, each hashed behind the digest of those before it: two files have the same value
/// if and only if they have the same bytes.
///
/// # Errors
/// If it cannot be read, or `stop` was cancelled meanwhile.
pub fn digest(path: &Path, stop: &CancellationToken) -> std::io::Result<Hash> {
    let mut file = File::open(path)?;
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    let mut digest = Hash::default();
    loop {
        check(stop)?;
        block.clear();
        if (&mut file).take(BLOCK_BYTES as u64).read_to_end(&mut block)? == 0 {
            return Ok(digest);
        }
        digest = Hash::of(&[&digest.0, &block]);
    }
}

fn check(stop: &CancellationToken) -> std::io::Result<()> {
    if stop.is_cancelled() { Err(ErrorKind::Interrupted.into()) } else { Ok(()) }
}

struct PseudoRandom(Rng);

impl Read for PseudoRandom {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        for word in buffer.chunks_mut(8) {
            word.copy_from_slice(&self.0.next_u64().to_le_bytes()[..word.len()]);
        }
        Ok(buffer.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_content_is_the_same_every_time() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let stop = CancellationToken::new();
        let content = Content::Generated(2 * BLOCK_BYTES as u64 + 5);
        let files = folders.each_ref().map(|folder| content.put_into(folder.path(), &stop).unwrap());
        let [one, other] = files.each_ref().map(|file| std::fs::read(file).unwrap());
        assert_eq!(one.len() as u64, content.bytes());
        assert!(one == other && one[..BLOCK_BYTES] != one[BLOCK_BYTES..2 * BLOCK_BYTES]);
        assert_eq!(digest(&files[0], &stop).unwrap(), digest(&files[1], &stop).unwrap());
    }

    #[test]
    fn a_changed_missing_or_moved_byte_changes_the_digest() {
        let folder = tempfile::tempdir().unwrap();
        let stop = CancellationToken::new();
        let bytes: Vec<u8> = (0..BLOCK_BYTES + 100).map(|i| (i % 251) as u8).collect();
        let mut changed = bytes.clone();
        changed[BLOCK_BYTES + 1] ^= 1;
        let mut moved = bytes.clone();
        moved.rotate_left(1);
        let variants = [&bytes[..], &changed, &moved, &bytes[..BLOCK_BYTES], &bytes[1..]];
        let digests = variants.map(|bytes| {
            let path = folder.path().join("file");
            std::fs::write(&path, bytes).unwrap();
            digest(&path, &stop).unwrap()
        });
        for (i, one) in digests.iter().enumerate() {
            assert!(digests[..i].iter().all(|other| other != one));
        }
    }

    #[test]
    fn a_given_file_keeps_its_name_and_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("my film.mp4");
        std::fs::write(&path, "moving pictures").unwrap();
        let content = Content::given(&path).unwrap();
        let origin = folder.path().join("origin");
        std::fs::create_dir(&origin).unwrap();
        let put = content.put_into(&origin, &CancellationToken::new()).unwrap();
        assert_eq!(put, origin.join("my film.mp4"));
        assert_eq!(std::fs::read(put).unwrap(), b"moving pictures");
        assert_eq!(content.bytes(), 15);
    }

    #[test]
    fn what_cannot_be_delivered_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty");
        std::fs::write(&empty, "").unwrap();
        for (path, expected) in
            [(empty, "is empty"), (folder.path().to_owned(), "is not a file"), (folder.path().join("x"), "cannot read")]
        {
            let error = Content::given(&path).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn an_interrupt_stops_the_writing() {
        let folder = tempfile::tempdir().unwrap();
        let stop = CancellationToken::new();
        stop.cancel();
        assert!(Content::Generated(1 << 30).put_into(folder.path(), &stop).is_err());
    }
}
