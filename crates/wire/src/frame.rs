//! Frames: a length of four bytes, big-endian, and as many bytes. And what stands before each piece of a data stream, and
//! in datagrams.

use crate::WireError;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use headwater_model::layout::{MAX_PIECE_BYTES, MAX_PIECES};

/// First byte of a unidirectional stream between peers that carries [`FromPeer`](crate::FromPeer) frames.
pub const PEER_CONTROL_STREAM: u8 = 1;
/// First byte of one that carries a framed [`DataHeader`](crate::DataHeader) and then pieces.
pub const PEER_DATA_STREAM: u8 = 2;
/// First byte of one that carries a framed [`DataHeader`](crate::DataHeader) and then pieces of a live stream.
pub const PEER_LIVE_STREAM: u8 = 3;

const LENGTH_BYTES: usize = 4;

/// Frames `message`, which its sender keeps within `limit_bytes`: the receiver would refuse more.
pub(crate) fn encode(message: &impl prost::Message, limit_bytes: u32) -> Bytes {
    let len = message.encoded_len();
    debug_assert!(len <= limit_bytes as usize, "a frame of {len} bytes where {limit_bytes} is the limit");
    let mut out = BytesMut::with_capacity(LENGTH_BYTES + len);
    out.put_u32(len as u32);
    out.put(message.encode_to_vec().as_slice());
    out.freeze()
}

/// A frame is longer than its conversation allows; the stream cannot be read on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a frame of {got_bytes} bytes where {limit_bytes} is the limit")]
pub struct FrameError {
    /// Announced length.
    pub got_bytes: u32,
    /// Limit of the conversation.
    pub limit_bytes: u32,
}

/// Cuts a stream into frames.
#[derive(Debug)]
pub struct FrameDecoder {
    buffer: BytesMut,
    limit_bytes: u32,
}

impl FrameDecoder {
    /// Refuses frames of more than `limit_bytes`, see [`limits`](crate::limits).
    pub fn new(limit_bytes: u32) -> Self {
        Self { buffer: BytesMut::new(), limit_bytes }
    }
    /// Adds what was read. Take all frames out before the next `push`, then at most one frame is buffered.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }
    /// The body of the next frame; `None` while it is incomplete.
    ///
    /// # Errors
    /// [`FrameError`] as soon as an oversized length is read, and from then on.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let got_bytes = u32::from_be_bytes(*length);
        if got_bytes > self.limit_bytes {
            return Err(FrameError { got_bytes, limit_bytes: self.limit_bytes });
        }
        if self.buffer.len() - LENGTH_BYTES < got_bytes as usize {
            return Ok(None);
        }
        self.buffer.advance(LENGTH_BYTES);
        Ok(Some(self.buffer.split_to(got_bytes as usize).freeze()))
    }
    /// Whether the stream may end here: no frame has begun.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

/// What stands before each piece of a data stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PieceHeader {
    /// Number of the piece.
    pub piece: u32,
    /// Bytes that follow: 1 to [`MAX_PIECE_BYTES`].
    pub len: u32,
}

impl PieceHeader {
    /// Encoded length in bytes.
    pub const BYTES: usize = 8;
    /// Piece, then length, big-endian.
    pub fn encode(self) -> [u8; Self::BYTES] {
        (u64::from(self.piece) << 32 | u64::from(self.len)).to_be_bytes()
    }
    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// [`WireError`] for a number or length that no layout has.
    pub fn decode(bytes: [u8; Self::BYTES]) -> Result<Self, WireError> {
        let both = u64::from_be_bytes(bytes);
        let (piece, len) = ((both >> 32) as u32, both as u32);
        if piece >= MAX_PIECES {
            return Err(WireError::Value("piece"));
        }
        if len == 0 || len > MAX_PIECE_BYTES {
            let (got, limit) = (len as usize, MAX_PIECE_BYTES as usize);
            return Err(WireError::Length { field: "len", got, limit });
        }
        Ok(Self { piece, len })
    }
}

/// What stands before each piece of a live stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LivePieceHeader {
    /// Number of the piece.
    pub piece: u64,
    /// Bytes that follow: 1 to [`MAX_PIECE_BYTES`].
    pub len: u32,
}

impl LivePieceHeader {
    /// Encoded length in bytes.
    pub const BYTES: usize = 12;
    /// Piece, then length, big-endian.
    pub fn encode(self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        out[..8].copy_from_slice(&self.piece.to_be_bytes());
        out[8..].copy_from_slice(&self.len.to_be_bytes());
        out
    }
    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// [`WireError`] for a length that no piece has.
    pub fn decode(bytes: [u8; Self::BYTES]) -> Result<Self, WireError> {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
        let (piece, len) = (u64::from_be_bytes([a, b, c, d, e, f, g, h]), u32::from_be_bytes([i, j, k, l]));
        if len == 0 || len > MAX_PIECE_BYTES {
            let (got, limit) = (len as usize, MAX_PIECE_BYTES as usize);
            return Err(WireError::Length { field: "len", got, limit });
        }
        Ok(Self { piece, len })
    }
}

/// A datagram between peers that tells how long packets are under way. Others are not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DelayDatagram {
    /// To be echoed at once.
    Probe {
        /// Which; the receiver knows nothing of it.
        number: u64,
    },
    /// A probe arrived.
    Echo {
        /// Which.
        number: u64,
        /// What the receiver's clock showed, in microseconds since any time.
        arrived_us: u64,
    },
}

impl DelayDatagram {
    const PROBE: u8 = 1;
    const ECHO: u8 = 2;

    /// The kind, then the numbers, big-endian.
    pub fn encode(self) -> Bytes {
        let mut out = BytesMut::with_capacity(17);
        match self {
            DelayDatagram::Probe { number } => {
                out.put_u8(Self::PROBE);
                out.put_u64(number);
            }
            DelayDatagram::Echo { number, arrived_us } => {
                out.put_u8(Self::ECHO);
                out.put_u64(number);
                out.put_u64(arrived_us);
            }
        }
        out.freeze()
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// [`WireError`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let number = |at: usize| {
            let eight = bytes.get(at..at + 8).and_then(|b| b.first_chunk::<8>());
            eight.map(|b| u64::from_be_bytes(*b)).ok_or(WireError::Value("datagram"))
        };
        match (bytes.first(), bytes.len()) {
            (Some(&Self::PROBE), 9) => Ok(DelayDatagram::Probe { number: number(1)? }),
            (Some(&Self::ECHO), 17) => Ok(DelayDatagram::Echo { number: number(1)?, arrived_us: number(9)? }),
            _ => Err(WireError::Value("datagram")),
        }
    }
}
