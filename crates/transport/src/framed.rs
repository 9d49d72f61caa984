//! Messages on QUIC streams.

use bytes::Bytes;
use headwater_wire::frame::{FrameDecoder, FrameError};
use quinn::{RecvStream, SendStream};

/// Why no message came.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The stream broke.
    #[error("the connection broke: {0}")]
    Stream(#[from] quinn::ReadError),
    /// A frame is over its limit.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The stream ended in the middle of a message.
    #[error("the connection ended in the middle of a message")]
    Cut,
}

/// Reads frames from a stream.
#[derive(Debug)]
pub struct Reader {
    stream: RecvStream,
    frames: FrameDecoder,
}

impl Reader {
    /// Frames of at most `max_bytes`.
    pub fn new(stream: RecvStream, max_bytes: u32) -> Self {
        Self { stream, frames: FrameDecoder::new(max_bytes) }
    }
    /// The next frame's body; `None` at the end of the stream.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        loop {
            if let Some(frame) = self.frames.next_frame()? {
                return Ok(Some(frame));
            }
            match self.stream.read_chunk(64 << 10, true).await? {
                Some(chunk) => self.frames.push(&chunk.bytes),
                None if self.frames.is_empty() => return Ok(None),
                None => return Err(ReadError::Cut),
            }
        }
    }
}

/// Writes frames to a stream.
#[derive(Debug)]
pub struct Writer(pub SendStream);

impl Writer {
    /// Writes a frame that `wire` encoded.
    ///
    /// # Errors
    /// When the stream broke.
    pub async fn send(&mut self, frame: Bytes) -> Result<(), quinn::WriteError> {
        self.0.write_chunk(frame).await
    }
}
