//! Brings a live stream in: follows its HLS playlist at an HTTP origin and gives its objects as they come.
//!
//! Segments are listed as soon as the playlist lists them, and their bytes go out as they arrive, so that an origin may
//! still be writing them. They are fetched in order, one after the other; only while one keeps the origin waiting is the
//! next fetched beside it. Nothing that an origin says ends the stream, except that it is over or cannot be published.

mod fetch;
mod follow;
mod jobs;
mod kind;
mod list;
mod load;
mod outlet;
#[cfg(test)]
#[path = "ingest_tests.rs"]
mod tests;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use headwater_model::live::{Listed, ObjectKind};
use headwater_model::{Micros, Time};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::origin::{Access, OriginClient, OriginError};

use self::follow::Following;
use self::jobs::Jobs;

/// Most bytes of one [`Ingested::Bytes`].
pub const MAX_CHUNK_BYTES: usize = 64 << 10;
/// A longer segment is left out.
pub const MAX_OBJECT_BYTES: u64 = 64 << 20;
/// Messages that a receiver should let wait: 4 MiB at most.
pub const CHANNEL_MESSAGES: usize = 64;

/// What is to be brought in. No `Debug`: the address may have a password in it.
#[derive(Clone)]
pub struct IngestConfig {
    /// The playlist; of several renditions that with the highest rate is taken.
    pub url: Url,
    /// Goes to the playlist's scheme, host and port only.
    pub access: Access,
    /// What an earlier run had done.
    pub resume: Option<Resume>,
    /// It begins so long before the end of the playlist, and three segments before it at least.
    pub hold_back: Micros,
}

/// How far a run has come: enough for a later one to go on behind it.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Resume {
    /// Number of the next object. Who keeps this must raise it above all objects that it has heard of since.
    pub next_object: u64,
    /// Up to this segment all are done.
    pub last: Option<LastSegment>,
    /// The initialisation section that held for it.
    pub map: Option<KnownMap>,
}

/// Both numbers of a segment. They differ once a packager has counted anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LastSegment {
    /// In the origin's playlist.
    pub sequence: u64,
    /// As it was listed for viewers.
    pub listed: u64,
}

/// An initialisation section that was fetched.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KnownMap {
    /// Where it is, without credentials.
    pub url: String,
    /// Its first byte there.
    pub from: u64,
    /// How many there are; to the end where `None`.
    pub bytes: Option<u64>,
    /// The object that it became.
    pub object: u64,
}

/// What comes of a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ingested {
    /// Players may ask for the object. It comes before the object's bytes, and before they are there.
    Listed {
        /// Its number.
        object: u64,
        /// What it is.
        kind: ObjectKind,
        /// What the playlist says of it.
        listed: Listed,
    },
    /// The next bytes of an object, [`MAX_CHUNK_BYTES`] at most. Two objects may come by turns.
    Bytes {
        /// Its number.
        object: u64,
        /// What it is.
        kind: ObjectKind,
        /// They follow those that came before.
        data: Bytes,
    },
    /// The object has all its bytes.
    Complete {
        /// Its number.
        object: u64,
    },
    /// The object will never have all its bytes: forget it. A discontinuity that it was listed with holds for the segment
    /// after it; of an initialisation section, segments that name it cannot be played.
    Abandoned {
        /// Its number; nothing else may have been said of it.
        object: u64,
    },
    /// How far it has come. Only the latest one counts.
    Progress(Resume),
    /// What the stream's owner should know.
    Trouble(String),
    /// The stream is over; the last message.
    Ended,
}

/// Why a stream cannot be brought in.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IngestError {
    /// The playlist has not come once.
    #[error(
        "no playlist from {url} for {} s ({last}): check the address, that the encoder runs, and what the origin needs to let \
         this machine in",
        .waited.as_secs()
    )]
    NeverLoaded {
        /// Its address.
        url: String,
        /// For so long.
        waited: Duration,
        /// What went wrong last.
        last: String,
    },
    /// Nobody but who has the key could play it.
    #[error("{url} has encrypted segments: not supported yet; publish the stream without EXT-X-KEY")]
    Encrypted {
        /// The playlist's address.
        url: String,
    },
    /// The origin cannot be asked at all.
    #[error(transparent)]
    Origin(#[from] OriginError),
}

/// How long what is waited for.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// For the first playlist.
    first: Duration,
    /// For a byte.
    idle: Duration,
    /// Between two tries, at first; doubled each time.
    least_pause: Duration,
    most_pause: Duration,
    /// For a segment's next byte, before the one after it is fetched beside it.
    alone: Duration,
    /// For a whole object.
    object: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(30),
            idle: Duration::from_secs(5),
            least_pause: Duration::from_millis(200),
            most_pause: Duration::from_secs(2),
            alone: Duration::from_secs(1),
            object: Duration::from_secs(60),
        }
    }
}

/// Why the work is over before its end.
enum Over {
    /// Nobody receives any more.
    Closed,
    Failed(IngestError),
}

/// A stream that is brought in.
pub struct Ingest {
    client: OriginClient,
    url: Url,
    access: Access,
    no_access: Access,
    patience: Patience,
    tx: mpsc::Sender<Ingested>,
    begun: Instant,
    jobs: Mutex<Jobs>,
    /// The jobs changed.
    news: Notify,
}

impl Ingest {
    /// Brings the stream in until it ends, `stop` is cancelled or nobody receives any more. The channel should hold
    /// [`CHANNEL_MESSAGES`]; while it is full nothing is read from the origin.
    ///
    /// # Errors
    /// [`IngestError`].
    pub async fn run(
        client: OriginClient,
        config: IngestConfig,
        tx: mpsc::Sender<Ingested>,
        stop: CancellationToken,
    ) -> Result<(), IngestError> {
        Self::run_with(client, config, tx, stop, Patience::default()).await
    }

    async fn run_with(
        client: OriginClient,
        config: IngestConfig,
        tx: mpsc::Sender<Ingested>,
        stop: CancellationToken,
        patience: Patience,
    ) -> Result<(), IngestError> {
        let resume = config.resume.unwrap_or_default();
        let ingest = Ingest {
            client,
            url: config.url,
            access: config.access,
            no_access: Access::default(),
            patience,
            tx,
            begun: Instant::now(),
            jobs: Mutex::new(Jobs::new(resume.next_object)),
            news: Notify::new(),
        };
        let all = async {
            let following = Following::new(&ingest, config.hold_back, &resume);
            tokio::try_join!(following.run(), ingest.work(), ingest.work())?;
            ingest.send(Ingested::Ended).await
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            done = all => match done {
                Ok(()) | Err(Over::Closed) => Ok(()),
                Err(Over::Failed(error)) => Err(error),
            },
        }
    }

    async fn send(&self, what: Ingested) -> Result<(), Over> {
        self.tx.send(what).await.map_err(|_| Over::Closed)
    }

    async fn tell(&self, trouble: String) -> Result<(), Over> {
        tracing::debug!("{trouble}");
        self.send(Ingested::Trouble(trouble)).await
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Time {
        Time(u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// The credentials, for who may have them.
    fn access_for(&self, url: &Url) -> &Access {
        if url.origin() == self.url.origin() { &self.access } else { &self.no_access }
    }
}

/// The address as viewers may know it.
fn without_credentials(url: &Url) -> Url {
    let mut bare = url.clone();
    // Both fail only for URLs that cannot carry a user.
    let _ = bare.set_username("");
    let _ = bare.set_password(None);
    bare.set_fragment(None);
    bare
}
