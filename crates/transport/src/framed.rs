//! Messages on QUIC streams, and for sessions with the control center on WebSockets too.

use crate::page::PeerConnection;
use crate::web::{WebReader, WebWriter};
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
    /// The WebSocket broke.
    #[error("the connection broke: {0}")]
    Web(String),
    /// A message of a WebSocket that is too large or no binary one.
    #[error("{0}")]
    WebMessage(String),
}

impl ReadError {
    /// Whether the connection broke, so that nobody is left to tell.
    pub fn is_broken(&self) -> bool {
        matches!(self, ReadError::Stream(_) | ReadError::Web(_))
    }
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
    /// Frames of another size from here on; nothing may have been sent ahead.
    pub(crate) fn allow(self, max_bytes: u32) -> Self {
        Self::new(self.stream, max_bytes)
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

/// The connection broke while something was sent.
#[derive(Debug, thiserror::Error)]
#[error("the connection broke: {0}")]
pub struct Broken(pub(crate) String);

/// The reading half of a session between a node and its control center.
#[derive(Debug)]
pub enum ControlReader {
    /// Over QUIC, or WebTransport.
    Quic(Reader),
    /// Over a WebSocket.
    Web(WebReader),
}

impl ControlReader {
    /// The next message's body; `None` at the end of the session.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        match self {
            ControlReader::Quic(reader) => reader.next().await,
            ControlReader::Web(reader) => reader.next().await,
        }
    }
}

/// The writing half of a session between a node and its control center.
#[derive(Debug)]
pub enum ControlWriter {
    /// Over QUIC, or WebTransport; with the connection.
    Quic(Writer, PeerConnection),
    /// Over a WebSocket, which is closed when both halves are dropped.
    Web(WebWriter),
}

impl ControlWriter {
    /// Writes a frame that `wire` encoded.
    ///
    /// # Errors
    /// When the connection broke.
    pub async fn send(&mut self, frame: Bytes) -> Result<(), Broken> {
        match self {
            ControlWriter::Quic(writer, _) => writer.send(frame).await.map_err(|e| Broken(e.to_string())),
            ControlWriter::Web(writer) => writer.send(frame).await,
        }
    }
    /// Nothing more follows: waits until all of it went out, and over QUIC until the other end has it.
    ///
    /// # Errors
    /// When the connection broke.
    pub async fn finish(&mut self) -> Result<(), Broken> {
        match self {
            ControlWriter::Quic(writer, _) => {
                writer.0.finish().map_err(|e| Broken(e.to_string()))?;
                writer.0.stopped().await.map(drop).map_err(|e| Broken(e.to_string()))
            }
            ControlWriter::Web(writer) => writer.finish().await,
        }
    }
    /// Closes a QUIC connection at once, with a code and words. A WebSocket ends when both halves are dropped.
    pub fn close(&self, code: quinn::VarInt, why: &[u8]) {
        if let ControlWriter::Quic(_, connection) = self {
            connection.close(code, why);
        }
    }
}
