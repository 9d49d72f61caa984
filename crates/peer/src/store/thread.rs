//! The async face of a store: one thread hashes and writes, one reads what the system has not in memory, so that serving
//! goes on meanwhile, and one makes checkpoints, so that no piece waits for the disk to sync. Each is there while it has
//! something to do.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::Bytes;
use headwater_model::merkle::Page;
use headwater_model::{Bits, Hash, Layout};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::error::{StoreError, failed};
use super::worker::Worker;
use super::{CHECKPOINT_EVERY, Store, Written, locked};
use crate::buffer_pool::{Pool, Pooled};

/// Commands that may wait for each thread; who has one more waits to hand it over.
const MAX_WAITING: usize = 256;
/// Fewer where pieces are large: bytes that may wait to be written.
const MAX_WAITING_BYTES: usize = 16 << 20;
/// But so many in any case.
const MIN_WAITING: usize = 4;

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// Told of bytes done and bytes in all, from the writing thread.
type SentProgress = Box<dyn FnMut(u64, u64) + Send>;

enum WriteCommand {
    Piece(u32, Bytes, Answer<Written>),
    Page(Box<Page>, Answer<Written>),
    Recheck(u32, Answer<bool>),
    Import(SentProgress, Answer<u32>),
    Close(Answer<()>),
    /// Nobody is there any more.
    Abandon,
}

struct ReadCommand {
    piece: u32,
    into: Pooled,
    answer: Answer<Option<Pooled>>,
}

/// Room before a piece for what a sender writes ahead of it.
const HEAD_BYTES: usize = 16;

/// A thread's queue, bounded by permits that go with the commands.
struct Queue<C> {
    worker: Worker<(Option<OwnedSemaphorePermit>, C)>,
    slots: Arc<Semaphore>,
}

impl<C: Send + 'static> Queue<C> {
    fn new(name: &'static str, slots: usize, work: impl Fn(C) + Send + Sync + 'static) -> Queue<C> {
        let worker = Worker::new(name, move |(_permit, command)| work(command));
        Queue { worker, slots: Arc::new(Semaphore::new(slots)) }
    }

    async fn ask<T>(&self, store: &Store, command: impl FnOnce(Answer<T>) -> C) -> Result<T, StoreError> {
        let permit = self.slots.clone().acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let (answer, reply) = oneshot::channel();
        let given = self.worker.give((Some(permit), command(answer)));
        given.map_err(|e| failed("start a thread for", &store.state_dir, e))?;
        reply.await.map_err(|_| StoreError::Closed)?
    }
}

/// A store at work on its threads, for any number of tasks. When the last clone goes the store is closed.
#[derive(Clone)]
pub struct StoreHandle {
    pub(super) store: Arc<Store>,
    work: Arc<Work>,
}

struct Work {
    writer: Queue<WriteCommand>,
    reader: Queue<ReadCommand>,
    pool: Arc<Pool>,
}

impl Drop for Work {
    fn drop(&mut self) {
        if self.writer.worker.give((None, WriteCommand::Abandon)).is_err() {
            tracing::warn!("the system has no thread to close a piece store with");
        }
    }
}

impl StoreHandle {
    /// Puts `store` to work.
    pub(crate) fn start(store: Store, pool: Arc<Pool>) -> StoreHandle {
        let store = Arc::new(store);
        let piece_bytes = store.layout().piece_bytes() as usize;
        let slots = (MAX_WAITING_BYTES / piece_bytes).clamp(MIN_WAITING, MAX_WAITING);
        let (of_writer, saver) = (store.clone(), Saver::new(store.clone()));
        let writer = Queue::new("store-writer", slots, move |command| {
            write(&of_writer, command);
            saver.nudge();
        });
        let of_reader = store.clone();
        let reader = Queue::new("store-reader", slots, move |ReadCommand { piece, mut into, answer }| {
            if !answer.is_closed() {
                let data = into.whole().get_mut(HEAD_BYTES..).unwrap_or_default();
                let read = of_reader.read(piece, data);
                tell(answer, read.map(|len| (len > 0).then_some(into)));
            }
        });
        StoreHandle { store, work: Arc::new(Work { writer, reader, pool }) }
    }

    /// The track's geometry.
    pub fn layout(&self) -> &Layout {
        self.store.layout()
    }

    /// A snapshot of which pieces are held.
    pub fn have(&self) -> Bits {
        self.store.have()
    }

    /// Whether `piece` is held.
    pub fn has(&self, piece: u32) -> bool {
        self.store.has(piece)
    }

    /// As [`Store::is_complete`].
    pub fn is_complete(&self) -> bool {
        self.store.is_complete()
    }

    /// As [`Store::has_page`]; does not wait for the disk.
    pub fn has_page(&self, number: u32) -> bool {
        self.store.has_page(number)
    }

    /// As [`Store::page`]; does not wait for the disk.
    pub fn page(&self, number: u32) -> Option<Arc<Page>> {
        self.store.page(number)
    }

    /// As [`Store::leaf`]; does not wait for the disk.
    pub fn leaf(&self, piece: u32) -> Option<Hash> {
        self.store.leaf(piece)
    }

    /// As [`Store::write`].
    ///
    /// # Errors
    /// As [`Store::write`].
    pub async fn write(&self, piece: u32, data: Bytes) -> Result<Written, StoreError> {
        self.work.writer.ask(&self.store, |answer| WriteCommand::Piece(piece, data, answer)).await
    }

    /// The data of `piece`; `None` when it is not held. Its buffer is used again when the last clone of it is dropped.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub async fn read(&self, piece: u32) -> Result<Option<Bytes>, StoreError> {
        self.read_after(piece, []).await
    }

    /// As [`StoreHandle::read`], with `head`, of at most 16 bytes, before the data in the same buffer.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub async fn read_after<const N: usize>(&self, piece: u32, head: [u8; N]) -> Result<Option<Bytes>, StoreError> {
        const { assert!(N <= HEAD_BYTES) }
        let mut buffer = self.work.pool.take(HEAD_BYTES + self.store.layout().piece_bytes() as usize);
        // What the system has in memory is there at once: to wake another thread would take longer.
        let data = buffer.whole().get_mut(HEAD_BYTES..).unwrap_or_default();
        let read = match self.store.read_at_once(piece, data) {
            Some(_) => Some(buffer),
            None => self.work.reader.ask(&self.store, |answer| ReadCommand { piece, into: buffer, answer }).await?,
        };
        Ok(read.map(|mut buffer| {
            let begin = HEAD_BYTES - N;
            buffer.whole()[begin..HEAD_BYTES].copy_from_slice(&head);
            buffer.freeze(begin..HEAD_BYTES + self.layout().piece_len(piece) as usize)
        }))
    }

    /// As [`Store::put_page`].
    ///
    /// # Errors
    /// As [`Store::put_page`].
    pub async fn put_page(&self, page: Page) -> Result<Written, StoreError> {
        self.work.writer.ask(&self.store, |answer| WriteCommand::Page(Box::new(page), answer)).await
    }

    /// As [`Store::recheck`].
    ///
    /// # Errors
    /// As [`Store::recheck`].
    pub async fn recheck(&self, piece: u32) -> Result<bool, StoreError> {
        self.work.writer.ask(&self.store, |answer| WriteCommand::Recheck(piece, answer)).await
    }

    /// As [`Store::import`]; writes wait until it is done.
    ///
    /// # Errors
    /// As [`Store::import`].
    pub async fn import(&self, progress: impl FnMut(u64, u64) + Send + 'static) -> Result<u32, StoreError> {
        self.work.writer.ask(&self.store, |answer| WriteCommand::Import(Box::new(progress), answer)).await
    }

    /// Does what was asked before, then closes the store: what is asked to write later is [`StoreError::Closed`].
    ///
    /// # Errors
    /// As [`Store::close`]; [`StoreError::Closed`] the second time.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.work.writer.ask(&self.store, WriteCommand::Close).await
    }
}

/// Who asked may have gone meanwhile: then nobody wants the answer.
fn tell<T>(answer: Answer<T>, result: Result<T, StoreError>) {
    let _ = answer.send(result);
}

fn write(store: &Store, command: WriteCommand) {
    match command {
        WriteCommand::Piece(piece, data, answer) => tell(answer, store.write(piece, &data)),
        WriteCommand::Page(page, answer) => tell(answer, store.put_page(*page)),
        WriteCommand::Recheck(piece, answer) => tell(answer, store.recheck(piece)),
        WriteCommand::Import(mut progress, answer) => tell(answer, store.import(&mut *progress)),
        WriteCommand::Close(answer) => {
            let open = store.writer().map(drop);
            tell(answer, open.and_then(|()| store.close()));
        }
        WriteCommand::Abandon => {
            if let Err(error) = store.close() {
                tracing::warn!(%error, "the piece store was not closed cleanly");
            }
        }
    }
}

/// Makes a checkpoint some time after something was written.
struct Saver {
    worker: Worker<()>,
    is_due: Arc<AtomicBool>,
}

impl Saver {
    fn new(store: Arc<Store>) -> Self {
        let is_due = Arc::new(AtomicBool::new(false));
        let (due, told) = (is_due.clone(), Mutex::new(String::new()));
        let worker = Worker::new("store-saver", move |()| {
            loop {
                thread::sleep(CHECKPOINT_EVERY);
                due.store(false, Ordering::Relaxed);
                if save(&store, &told) {
                    return;
                }
            }
        });
        Self { worker, is_due }
    }

    fn nudge(&self) {
        // Where the system has no thread to give now it may have one for the next piece.
        if !self.is_due.swap(true, Ordering::Relaxed) && self.worker.give(()).is_err() {
            self.is_due.store(false, Ordering::Relaxed);
        }
    }
}

/// Whether all is saved. `told` is what was said of the last failure, so that it is said once.
fn save(store: &Store, told: &Mutex<String>) -> bool {
    let mut told = locked(told);
    let Err(error) = store.checkpoint() else {
        told.clear();
        return true;
    };
    let says = error.to_string();
    if says != *told {
        tracing::warn!(%error, "what was written is not yet sure to outlive a loss of power");
    }
    *told = says;
    locked(&store.writer).trouble = Some(error);
    false
}
