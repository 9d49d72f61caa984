//! The async face of a store: one thread hashes and writes, one reads, so that serving goes on meanwhile, and one makes
//! checkpoints, so that no piece waits for the disk to sync.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;

use bytes::Bytes;
use headwater_model::merkle::Page;
use headwater_model::{Bits, Hash, Layout};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::error::{StoreError, failed};
use super::{CHECKPOINT_EVERY, Store, Written, locked};
use crate::buffer_pool::Pool;

/// Commands that may wait for each thread; who has one more waits to hand it over.
const MAX_WAITING: usize = 256;

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// Told of bytes done and bytes in all, from the writing thread.
type SentProgress = Box<dyn FnMut(u64, u64) + Send>;

enum WriteCommand {
    Piece(u32, Bytes, Answer<Written>),
    Page(Box<Page>, Answer<Written>),
    Recheck(u32, Answer<bool>),
    Import(SentProgress, Answer<u32>),
    Close(Answer<()>),
}

struct ReadCommand {
    piece: u32,
    answer: Answer<Option<Bytes>>,
}

/// A thread's queue, bounded by permits that go with the commands.
struct Queue<C> {
    sender: mpsc::Sender<(OwnedSemaphorePermit, C)>,
    slots: Arc<Semaphore>,
}

impl<C> Clone for Queue<C> {
    fn clone(&self) -> Self {
        Queue { sender: self.sender.clone(), slots: self.slots.clone() }
    }
}

type Commands<C> = mpsc::Receiver<(OwnedSemaphorePermit, C)>;

impl<C> Queue<C> {
    fn new() -> (Queue<C>, Commands<C>) {
        let (sender, receiver) = mpsc::channel();
        (Queue { sender, slots: Arc::new(Semaphore::new(MAX_WAITING)) }, receiver)
    }

    async fn ask<T>(&self, command: impl FnOnce(Answer<T>) -> C) -> Result<T, StoreError> {
        let permit = self.slots.clone().acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let (answer, reply) = oneshot::channel();
        self.sender.send((permit, command(answer))).map_err(|_| StoreError::Closed)?;
        reply.await.map_err(|_| StoreError::Closed)?
    }
}

/// A store at work on its three threads, for any number of tasks. When the last clone goes the store is closed.
#[derive(Clone)]
pub struct StoreHandle {
    store: Arc<Store>,
    writer: Queue<WriteCommand>,
    reader: Queue<ReadCommand>,
}

impl StoreHandle {
    /// Puts `store` to work.
    ///
    /// # Errors
    /// [`StoreError::Io`] when the system has no thread to give.
    pub fn start(store: Store) -> Result<StoreHandle, StoreError> {
        let store = Arc::new(store);
        let (writer, writes) = Queue::new();
        let (reader, reads) = Queue::new();
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let spawned = thread::Builder::new().name(name.into()).spawn(run);
            spawned.map(drop).map_err(|e| failed("start a thread for", &store.state_dir, e))
        };
        let (working, ended) = mpsc::channel();
        let of_writer = store.clone();
        spawn("store-writer", Box::new(move || run_writer(&of_writer, &writes, working)))?;
        let of_saver = store.clone();
        spawn("store-saver", Box::new(move || run_saver(&of_saver, &ended)))?;
        let of_reader = store.clone();
        spawn("store-reader", Box::new(move || run_reader(&of_reader, reads)))?;
        Ok(StoreHandle { store, writer, reader })
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
        self.writer.ask(|answer| WriteCommand::Piece(piece, data, answer)).await
    }

    /// The data of `piece`; `None` when it is not held. Its buffer is used again when the last clone of it is dropped.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub async fn read(&self, piece: u32) -> Result<Option<Bytes>, StoreError> {
        self.reader.ask(|answer| ReadCommand { piece, answer }).await
    }

    /// As [`Store::put_page`].
    ///
    /// # Errors
    /// As [`Store::put_page`].
    pub async fn put_page(&self, page: Page) -> Result<Written, StoreError> {
        self.writer.ask(|answer| WriteCommand::Page(Box::new(page), answer)).await
    }

    /// As [`Store::recheck`].
    ///
    /// # Errors
    /// As [`Store::recheck`].
    pub async fn recheck(&self, piece: u32) -> Result<bool, StoreError> {
        self.writer.ask(|answer| WriteCommand::Recheck(piece, answer)).await
    }

    /// As [`Store::import`]; writes wait until it is done.
    ///
    /// # Errors
    /// As [`Store::import`].
    pub async fn import(&self, progress: impl FnMut(u64, u64) + Send + 'static) -> Result<u32, StoreError> {
        self.writer.ask(|answer| WriteCommand::Import(Box::new(progress), answer)).await
    }

    /// Does what was asked before, then closes the store: what is asked to write later is [`StoreError::Closed`].
    ///
    /// # Errors
    /// As [`Store::close`]; [`StoreError::Closed`] the second time.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.writer.ask(WriteCommand::Close).await
    }
}

/// Who asked may have gone meanwhile: then nobody wants the answer.
fn tell<T>(answer: Answer<T>, result: Result<T, StoreError>) {
    let _ = answer.send(result);
}

/// `working` is dropped at the end.
fn run_writer(store: &Store, commands: &Commands<WriteCommand>, working: mpsc::Sender<()>) {
    for (_permit, command) in commands {
        match command {
            WriteCommand::Piece(piece, data, answer) => tell(answer, store.write(piece, &data)),
            WriteCommand::Page(page, answer) => tell(answer, store.put_page(*page)),
            WriteCommand::Recheck(piece, answer) => tell(answer, store.recheck(piece)),
            WriteCommand::Import(mut progress, answer) => tell(answer, store.import(&mut *progress)),
            WriteCommand::Close(answer) => return tell(answer, store.close()),
        }
    }
    drop(working);
    if let Err(error) = store.close() {
        tracing::warn!(%error, "the piece store was not closed cleanly");
    }
}

fn run_saver(store: &Store, ended: &mpsc::Receiver<()>) {
    let mut told = String::new();
    while ended.recv_timeout(CHECKPOINT_EVERY) == Err(RecvTimeoutError::Timeout) {
        let Err(error) = store.checkpoint() else {
            told.clear();
            continue;
        };
        let says = error.to_string();
        if says != told {
            tracing::warn!(%error, "what was written is not yet sure to outlive a loss of power");
        }
        told = says;
        locked(&store.writer).trouble = Some(error);
    }
}

fn run_reader(store: &Store, commands: Commands<ReadCommand>) {
    let pool = Arc::new(Pool::new(store.layout().piece_bytes() as usize));
    for (_permit, command) in commands {
        if !command.answer.is_closed() {
            tell(command.answer, read(store, command.piece, &pool));
        }
    }
}

fn read(store: &Store, piece: u32, pool: &Arc<Pool>) -> Result<Option<Bytes>, StoreError> {
    let mut pooled = pool.take();
    let len = store.read(piece, pooled.whole())?;
    Ok((len > 0).then(|| pooled.freeze(len)))
}
