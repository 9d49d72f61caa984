//! Geometry of a track: where each piece lies in which object, and the *runs* in which pieces are leased and reported.

use crate::log::Object;

/// Smallest and largest piece of a file.
pub const MIN_PIECE_BYTES: u32 = 4 << 10;
/// See [`MIN_PIECE_BYTES`].
pub const MAX_PIECE_BYTES: u32 = 4 << 20;
/// Pieces of one track: 16 TiB of 4 MiB pieces.
pub const MAX_PIECES: u32 = 1 << 22;
/// Runs of one track: what a heartbeat's bitmap of complete runs holds (256 bytes).
pub const MAX_RUNS: u32 = 2048;
/// A run is about this long, longer where [`MAX_RUNS`] asks for it.
pub const RUN_BYTES: u32 = 1 << 20;

/// The piece size for a content of `bytes`: 64 KiB to 1 GiB, then larger so that pieces stay about 16,384.
pub fn default_piece_bytes(bytes: u64) -> u32 {
    let mut piece = 64 << 10;
    while piece < MAX_PIECE_BYTES && bytes.div_ceil(u64::from(piece)) > 16_384 {
        piece *= 2;
    }
    piece
}

/// Where the pieces of a track lie.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    piece_bytes: u32,
    pieces: u32,
    run_pieces: u32,
    bytes: u64,
    /// (first piece, size in bytes) per object, in order.
    objects: Vec<(u32, u64)>,
}

/// A piece's place in its object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PieceAt {
    /// Index of the object.
    pub object: usize,
    /// First byte in the object.
    pub offset: u64,
    /// Length in bytes; shorter than the piece size only for an object's last piece.
    pub len: u32,
}

/// Why objects cannot be laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LayoutError {
    /// Piece size not a power of two within limits.
    #[error("piece size {0} is not a power of two from {MIN_PIECE_BYTES} to {MAX_PIECE_BYTES}")]
    PieceSize(u32),
    /// More than [`MAX_PIECES`].
    #[error("more than {MAX_PIECES} pieces: use larger pieces")]
    TooManyPieces,
}

impl Layout {
    /// Lays `objects` out one after the other; a piece never spans two objects.
    ///
    /// # Errors
    /// [`LayoutError`] when a limit is passed.
    pub fn new(piece_bytes: u32, objects: &[Object]) -> Result<Layout, LayoutError> {
        if !piece_bytes.is_power_of_two() || !(MIN_PIECE_BYTES..=MAX_PIECE_BYTES).contains(&piece_bytes) {
            return Err(LayoutError::PieceSize(piece_bytes));
        }
        let (mut pieces, mut bytes, mut placed) = (0u64, 0u64, Vec::with_capacity(objects.len()));
        for o in objects {
            placed.push((pieces as u32, o.size_bytes));
            pieces += o.size_bytes.div_ceil(u64::from(piece_bytes));
            if pieces > u64::from(MAX_PIECES) {
                return Err(LayoutError::TooManyPieces);
            }
            bytes += o.size_bytes;
        }
        let pieces = pieces as u32;
        let run_pieces = (RUN_BYTES / piece_bytes).max(pieces.div_ceil(MAX_RUNS)).max(1);
        Ok(Layout { piece_bytes, pieces, run_pieces, bytes, objects: placed })
    }
    /// One object of `bytes`, as the simulator needs it.
    ///
    /// # Errors
    /// As [`Layout::new`].
    pub fn single(piece_bytes: u32, bytes: u64) -> Result<Layout, LayoutError> {
        Layout::new(piece_bytes, &[Object { path: String::new(), media_type: String::new(), size_bytes: bytes }])
    }
    /// Nominal piece size in bytes.
    pub fn piece_bytes(&self) -> u32 {
        self.piece_bytes
    }
    /// Number of pieces.
    pub fn pieces(&self) -> u32 {
        self.pieces
    }
    /// Bytes of all objects.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
    /// Number of runs.
    pub fn runs(&self) -> u32 {
        self.pieces.div_ceil(self.run_pieces)
    }
    /// The run that `piece` belongs to.
    pub fn run_of(&self, piece: u32) -> u32 {
        piece / self.run_pieces
    }
    /// The pieces of `run`; empty past the end.
    pub fn pieces_of_run(&self, run: u32) -> std::ops::Range<u32> {
        let first = run.saturating_mul(self.run_pieces).min(self.pieces);
        first..first.saturating_add(self.run_pieces).min(self.pieces)
    }
    /// Where `piece` lies; `None` past the end.
    pub fn at(&self, piece: u32) -> Option<PieceAt> {
        if piece >= self.pieces {
            return None;
        }
        // Empty objects share their first piece number with the next object, which is the one meant.
        let object = self.objects.partition_point(|(first, _)| *first <= piece) - 1;
        let (first, size) = self.objects[object];
        let offset = u64::from(piece - first) * u64::from(self.piece_bytes);
        Some(PieceAt { object, offset, len: (size - offset).min(u64::from(self.piece_bytes)) as u32 })
    }
    /// Length of `piece` in bytes; 0 past the end.
    pub fn piece_len(&self, piece: u32) -> u32 {
        self.at(piece).map_or(0, |at| at.len)
    }
    /// Bytes in `pieces`.
    pub fn len_of(&self, pieces: std::ops::Range<u32>) -> u64 {
        pieces.map(|p| u64::from(self.piece_len(p))).sum()
    }
    /// First piece of object `index`, and the piece after its last.
    pub fn pieces_of_object(&self, index: usize) -> std::ops::Range<u32> {
        let first = self.objects.get(index).map_or(self.pieces, |o| o.0);
        first..self.objects.get(index + 1).map_or(self.pieces, |o| o.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_tile_the_objects(sizes in prop::collection::vec(0u64..40_000, 0..12)) {
            let objects: Vec<Object> = sizes.iter().map(|s| Object { path: "p".into(), media_type: String::new(), size_bytes: *s }).collect();
            let l = Layout::new(4096, &objects).unwrap();
            let mut seen = vec![0u64; sizes.len()];
            for p in 0..l.pieces() {
                let at = l.at(p).unwrap();
                prop_assert_eq!(at.offset, seen[at.object]);
                prop_assert!(at.len > 0 && at.len <= 4096);
                seen[at.object] += u64::from(at.len);
                prop_assert!(l.pieces_of_run(l.run_of(p)).contains(&p));
                prop_assert!(l.pieces_of_object(at.object).contains(&p));
            }
            prop_assert_eq!(seen, sizes);
            prop_assert_eq!(l.at(l.pieces()), None);
            prop_assert!(l.runs() <= MAX_RUNS);
        }
    }

    #[test]
    fn large_contents_stay_within_limits() {
        for gib in [1u64, 10, 100, 1000] {
            let bytes = gib << 30;
            let l = Layout::single(default_piece_bytes(bytes), bytes).unwrap();
            assert!(l.runs() <= MAX_RUNS && l.pieces() <= MAX_PIECES);
        }
        assert_eq!(Layout::single(100, 1), Err(LayoutError::PieceSize(100)));
        assert_eq!(Layout::single(4096, 1 << 40), Err(LayoutError::TooManyPieces));
    }
}
