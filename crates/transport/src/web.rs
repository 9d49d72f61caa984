//! Messages of a control session over a WebSocket, where UDP does not get through.

use crate::framed::{Broken, ReadError};
use crate::http::Io;
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

pub(crate) type Socket = WebSocketStream<Box<dyn Io>>;

/// What is read from the system at once.
const READ_BUFFER_BYTES: usize = 16 << 10;
/// Bytes before each frame that `wire` encodes, which WebSocket messages do without.
const LENGTH_BYTES: usize = 4;

/// Messages of at most `most_bytes`.
pub(crate) async fn socket(io: Box<dyn Io>, role: Role, most_bytes: usize) -> Socket {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(most_bytes))
        .max_frame_size(Some(most_bytes));
    WebSocketStream::from_raw_socket(io, role, Some(config)).await
}

pub(crate) fn halves(socket: Socket) -> (WebReader, WebWriter) {
    let (sink, stream) = socket.split();
    (WebReader(stream), WebWriter(sink))
}

pub(crate) async fn send(
    sink: &mut (impl futures_util::Sink<Message, Error = Error> + Unpin),
    body: Bytes,
) -> Result<(), Broken> {
    sink.send(Message::Binary(body)).await.map_err(|e| Broken(e.to_string()))
}

/// The next binary message; `None` at the end.
pub(crate) async fn next(
    stream: &mut (impl futures_util::Stream<Item = Result<Message, Error>> + Unpin),
) -> Result<Option<Bytes>, ReadError> {
    loop {
        match stream.next().await {
            None | Some(Ok(Message::Close(_)) | Err(Error::ConnectionClosed | Error::AlreadyClosed)) => {
                return Ok(None);
            }
            Some(Ok(Message::Binary(body))) => return Ok(Some(body)),
            // A ping is answered by the library.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Ok(Message::Text(_))) => {
                return Err(ReadError::WebMessage("a text where a binary message is due".into()));
            }
            Some(Err(e @ Error::Capacity(_))) => return Err(ReadError::WebMessage(e.to_string())),
            Some(Err(e)) => return Err(ReadError::Web(e.to_string())),
        }
    }
}

/// The reading half.
#[derive(Debug)]
pub struct WebReader(SplitStream<Socket>);

impl WebReader {
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        next(&mut self.0).await
    }
}

/// The writing half.
#[derive(Debug)]
pub struct WebWriter(SplitSink<Socket, Message>);

impl WebWriter {
    pub(crate) async fn send(&mut self, mut frame: Bytes) -> Result<(), Broken> {
        let body = frame.split_off(LENGTH_BYTES.min(frame.len()));
        send(&mut self.0, body).await
    }
    pub(crate) async fn finish(&mut self) -> Result<(), Broken> {
        self.0.send(Message::Close(None)).await.map_err(|e| Broken(e.to_string()))
    }
}
