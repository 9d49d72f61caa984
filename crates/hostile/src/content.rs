//! The content as a hostile peer has it: what it fetched, in a sparse file, and the hashes to know true pieces by.

use bytes::Bytes;
use headwater_model::log::{Log, Track};
use headwater_model::merkle::{self, Page};
use headwater_model::{Bits, Hash, Name};
use headwater_peer::origin::{Access, Expected, OriginClient};
use headwater_peer::publish::object_url;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use url::Url;

/// A content.
pub struct Content {
    /// What the publisher signed.
    pub track: Arc<Track>,
    /// The signed log.
    pub log: Log,
    /// Pieces that are here.
    pub have: Bits,
    /// Runs that are here whole.
    pub runs: Bits,
    /// The bytes, each piece at its number times the piece size.
    pub file: Arc<File>,
    /// Bytes that came from the origin.
    pub origin_bytes: u64,
    access: Access,
    leaves: Vec<Hash>,
    pages: Bits,
}

impl Content {
    /// Verifies `log` and makes the file in `folder`.
    pub fn open(log: Log, name: &Name, access: Access, folder: &Path) -> anyhow::Result<Content> {
        let track = log.verify(&name.name, Some(&name.key))?;
        let file = File::options().read(true).write(true).create(true).truncate(true).open(folder.join("pieces"))?;
        let pieces = track.layout.pieces();
        Ok(Content {
            have: Bits::new(pieces),
            runs: Bits::new(track.layout.runs()),
            file: Arc::new(file),
            origin_bytes: 0,
            access,
            leaves: vec![Hash::default(); pieces as usize],
            pages: Bits::new(merkle::pages(pieces)),
            track: Arc::new(track),
            log,
        })
    }
    /// Pages of hashes that are missing.
    pub fn missing_pages(&self) -> Vec<u32> {
        (0..self.pages.len()).filter(|p| !self.pages.get(*p)).collect()
    }
    /// A page came.
    pub fn put_page(&mut self, page: &Page) {
        if page.is_true(self.track.layout.pieces(), &self.track.root, self.track.sums.as_ref()) {
            let first = (page.number * merkle::PAGE_LEAVES) as usize;
            self.leaves[first..first + page.leaves.len()].copy_from_slice(&page.leaves);
            self.pages.set(page.number);
        }
    }
    /// Whether pieces of others can be checked.
    pub fn knows_hashes(&self) -> bool {
        self.pages.is_full()
    }
    /// Keeps a true piece; false for one that is not, or is here already.
    pub fn put(&mut self, piece: u32, data: &[u8]) -> bool {
        let layout = &self.track.layout;
        if piece >= layout.pieces() || self.have.get(piece) || data.len() != layout.piece_len(piece) as usize {
            return false;
        }
        if self.knows_hashes() && merkle::leaf(data) != self.leaves[piece as usize] {
            return false;
        }
        if self.file.write_all_at(data, u64::from(piece) * u64::from(layout.piece_bytes())).is_err() {
            return false;
        }
        self.have.set(piece);
        let run = layout.run_of(piece);
        if layout.pieces_of_run(run).all(|p| self.have.get(p)) {
            self.runs.set(run);
        }
        true
    }
    /// Fetches a run from the origin.
    pub fn fetch_run(
        &self,
        run: u32,
        origin: OriginClient,
    ) -> impl Future<Output = Result<Vec<(u32, Bytes)>, String>> + Send + use<> {
        let (track, access) = (self.track.clone(), self.access.clone());
        async move {
            let layout = &track.layout;
            let (mut all, mut pieces) = (Vec::new(), layout.pieces_of_run(run));
            while let Some(at) = layout.at(pieces.start).filter(|_| !pieces.is_empty()) {
                let some = pieces.start..pieces.end.min(layout.pieces_of_object(at.object).end);
                let object = &track.objects[at.object];
                let from = track.origins.get(at.object % track.origins.len().max(1)).ok_or("no origin")?;
                let from = Url::parse(from).map_err(|e| e.to_string())?;
                let url = object_url(&from, track.objects.len(), &object.path);
                let expected = Expected { length: object.size_bytes, validator: None };
                let mut data = Vec::new();
                let range = at.offset..at.offset + layout.len_of(some.clone());
                let sink = |_, chunk: Bytes| data.extend_from_slice(&chunk);
                origin.fetch_all(&url, &access, range, &expected, sink).await.map_err(|e| e.to_string())?;
                let mut rest = Bytes::from(data);
                for piece in some.clone() {
                    all.push((piece, rest.split_to((layout.piece_len(piece) as usize).min(rest.len()))));
                }
                pieces.start = some.end;
            }
            Ok(all)
        }
    }
}
