//! Sending to one child, as badly as the kind wants.

use crate::kind::Sends;
use crate::story::Story;
use crate::wires::{Event, Events};
use headwater_model::log::Track;
use headwater_model::{NodeId, Version};
use headwater_transport::PeerConnection;
use headwater_wire::DataHeader;
use headwater_wire::frame::{PEER_DATA_STREAM, PieceHeader};
use quinn::SendStream;
use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Between two pieces of a trickle.
const TRICKLE_PIECE: Duration = Duration::from_secs(2);
/// Between two handfuls of bytes of a trickle, and how many.
const TRICKLE_BYTES: (Duration, usize) = (Duration::from_millis(500), 512);

/// A child that waits longer for a piece is worse off than without the liar that promised it.
const TOO_LONG: Duration = Duration::from_secs(3);

/// What a child asked for and was not sent yet, and when it asked.
#[derive(Clone, Default)]
pub struct Queue(Arc<(Mutex<Asked>, Notify)>);
type Asked = VecDeque<(u32, Instant)>;

impl Queue {
    /// The child asks.
    pub fn ask(&self, pieces: &[u32]) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).extend(pieces.iter().map(|p| (*p, Instant::now())));
        self.0.1.notify_one();
    }
    /// The child asks no more.
    pub fn unask(&self, pieces: &[u32]) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|(p, _)| !pieces.contains(p));
    }
    async fn next(&self) -> (u32, Instant) {
        loop {
            let next = self.0.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            match next {
                Some(next) => return next,
                None => self.0.1.notified().await,
            }
        }
    }
}

/// All that sending to a child takes.
pub struct Serving {
    /// How badly.
    pub sends: Sends,
    /// Whether it claimed what it cannot send, so that waiting for it is the harm.
    pub promises_much: bool,
    /// To whom.
    pub child: NodeId,
    /// Over what.
    pub connection: PeerConnection,
    /// Of what.
    pub version: Version,
    /// Its geometry.
    pub track: Arc<Track>,
    /// Its bytes.
    pub file: Arc<File>,
    /// What is wanted.
    pub queue: Queue,
    /// Bytes per second to this child at most; 0 for no limit.
    pub bytes_per_s: u64,
    /// Where what was sent is told.
    pub events: Events,
    /// Where harm is told.
    pub story: Story,
}

impl Serving {
    /// Sends until the connection breaks.
    pub async fn run(self) {
        // The task of a child that left ends with its connection.
        let _ = self.send().await;
    }

    async fn send(&self) -> Result<(), quinn::WriteError> {
        let mut stream = self.connection.open_uni().await?;
        stream.write_all(&[PEER_DATA_STREAM]).await?;
        stream.write_all(&DataHeader { version: self.version }.encode()).await?;
        loop {
            let (piece, asked) = self.queue.next().await;
            if self.promises_much && asked.elapsed() > TOO_LONG {
                self.story.harm(self.child, "waits long for what a claim of 10 Gbit/s promised");
            }
            let len = self.track.layout.piece_len(piece);
            let data = match self.sends {
                Sends::Nothing => {
                    self.story.harm(self.child, "was asked for a piece and keeps silent");
                    continue;
                }
                Sends::True | Sends::Trickle => self.read(piece, len),
                Sends::Flipped => {
                    let mut data = self.read(piece, len);
                    let at = piece as usize % data.len().max(1);
                    if let Some(byte) = data.get_mut(at) {
                        *byte ^= 1;
                    }
                    data
                }
                Sends::Other => {
                    let pieces = self.track.layout.pieces();
                    let other = (1..pieces).map(|i| (piece + i) % pieces);
                    let same_length = |p: &u32| self.track.layout.piece_len(*p) == len;
                    // Where the neighbour is not here, its place in the file holds zeros: wrong bytes as well.
                    self.read(other.into_iter().find(same_length).unwrap_or(piece), len)
                }
            };
            match self.sends {
                Sends::Flipped => self.story.harm(self.child, "was sent a piece with a flipped bit"),
                Sends::Other => self.story.harm(self.child, "was sent another piece under the number"),
                Sends::Trickle => self.story.harm(self.child, "is sent a trickle"),
                Sends::True | Sends::Nothing => {}
            }
            let head = PieceHeader { piece, len }.encode();
            if self.sends == Sends::Trickle {
                self.trickle(&mut stream, &head, &data).await?;
            } else {
                stream.write_all(&head).await?;
                stream.write_all(&data).await?;
                if let Some(ms) = (data.len() as u64 * 1000).checked_div(self.bytes_per_s) {
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                }
            }
            let _ = self.events.send(Event::Sent(self.child, u64::from(len)));
        }
    }

    async fn trickle(&self, stream: &mut SendStream, head: &[u8], data: &[u8]) -> Result<(), quinn::WriteError> {
        stream.write_all(head).await?;
        if self.child.0[31].is_multiple_of(2) {
            stream.write_all(data).await?;
            tokio::time::sleep(TRICKLE_PIECE).await;
        } else {
            for some in data.chunks(TRICKLE_BYTES.1) {
                stream.write_all(some).await?;
                tokio::time::sleep(TRICKLE_BYTES.0).await;
            }
        }
        Ok(())
    }

    fn read(&self, piece: u32, len: u32) -> Vec<u8> {
        let mut data = vec![0; len as usize];
        // What is not here reads as zeros.
        let _ = self.file.read_at(&mut data, u64::from(piece) * u64::from(self.track.layout.piece_bytes()));
        data
    }
}
