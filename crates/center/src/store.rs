//! Durable state: SQLite in one file, owned by one thread; the async side hands it jobs and never waits on the disk.

use crate::identity::{make_private_folder, private_file};
use headwater_center_core::history::Transfer;
use headwater_model::{ContentId, NodeId, Version};
use headwater_wire::OriginAccess;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Jobs that wait for the thread; who has one more waits, or (a transfer's record) is dropped and counted.
const MAX_JOBS: usize = 1024;
/// Records of transfers kept; the oldest go first.
const MAX_TRANSFERS: i64 = 200_000;
/// Version of the tables.
const SCHEMA: i64 = 2;
const FILE: &str = "headwater.db";
/// An earlier process may be about to end.
const BUSY: Duration = Duration::from_secs(3);

const TABLES: &str = "
CREATE TABLE contents (
    content BLOB PRIMARY KEY, name TEXT NOT NULL, epoch INTEGER NOT NULL, log BLOB NOT NULL, leaves BLOB,
    origin_access TEXT NOT NULL, share_origin_credentials INTEGER NOT NULL, restricted INTEGER NOT NULL,
    published_unix_ms INTEGER NOT NULL, lightweight TEXT);
CREATE TABLE withdrawn (content BLOB PRIMARY KEY, epoch INTEGER NOT NULL, unix_ms INTEGER NOT NULL);
CREATE TABLE transfers (
    number INTEGER PRIMARY KEY, node BLOB NOT NULL, content BLOB NOT NULL, title TEXT NOT NULL,
    peer_bytes INTEGER NOT NULL, waypoint_bytes INTEGER NOT NULL, origin_bytes INTEGER NOT NULL,
    start_unix_ms INTEGER NOT NULL, end_unix_ms INTEGER NOT NULL, max_bytes_per_s INTEGER NOT NULL,
    complete INTEGER NOT NULL);
";

/// From the first version's tables to these.
const FROM_FIRST: &str = "ALTER TABLE contents ADD COLUMN lightweight TEXT";

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder.
    #[error(
        "cannot write to the state folder {path}: {source}; it must be writable by this user, or choose another one"
    )]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Another process has it open.
    #[error("{path} is in use: another control center runs on this state folder")]
    InUse {
        /// Which file.
        path: PathBuf,
    },
    /// Made by a later version.
    #[error(
        "{path} was written by a newer version of Headwater (format {found}, this one knows {SCHEMA}): update this one, or choose another state folder"
    )]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its format.
        found: i64,
    },
    /// SQLite.
    #[error("cannot use {path}: {source}")]
    Sql {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: rusqlite::Error,
    },
    /// A job failed.
    #[error("the state could not be written: {0}")]
    Job(#[from] rusqlite::Error),
    /// The thread has ended.
    #[error("the control center is stopping")]
    Closed,
}

/// A content as it is kept. Not printed: it holds credentials.
#[derive(Clone)]
pub(crate) struct ContentRow {
    pub(crate) version: Version,
    pub(crate) name: String,
    /// Of [`headwater_wire::encode_log`].
    pub(crate) log: Vec<u8>,
    pub(crate) access: OriginAccess,
    pub(crate) share_origin_credentials: bool,
    pub(crate) restricted: bool,
    pub(crate) lightweight: Option<String>,
    pub(crate) published_unix_ms: u64,
}

/// A transfer that ended.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct TransferRow {
    pub(crate) transfer: Transfer,
    pub(crate) start_unix_ms: u64,
    pub(crate) end_unix_ms: u64,
}

/// What was kept.
#[derive(Default)]
pub(crate) struct Loaded {
    pub(crate) contents: Vec<ContentRow>,
    pub(crate) withdrawn: Vec<(ContentId, u64)>,
    /// Where a corrupt database was moved to.
    pub(crate) moved_aside: Option<PathBuf>,
}

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// The thread's queue.
pub(crate) struct Store {
    jobs: mpsc::Sender<Job>,
    dropped: AtomicU64,
}

#[derive(Serialize, Deserialize)]
struct AccessJson {
    headers: Vec<(String, String)>,
    query: String,
}

impl Store {
    /// Opens the state in `folder` and starts its thread, which ends when the store is dropped. Blocks.
    pub(crate) fn open(
        folder: &Path,
        now_unix_ms: u64,
    ) -> Result<(Store, std::thread::JoinHandle<()>, Loaded), StoreError> {
        let no_folder = |source| StoreError::Folder { path: folder.into(), source };
        make_private_folder(folder).map_err(no_folder)?;
        let path = folder.join(FILE);
        let opened = private_file(&path, false).map_err(no_folder).and_then(|_| open(&path));
        let (mut connection, loaded) = match opened {
            Err(StoreError::Sql { source, .. }) if is_corrupt(&source) => {
                let aside = move_aside(&path, now_unix_ms).map_err(no_folder)?;
                private_file(&path, false).map_err(no_folder)?;
                let (connection, loaded) = open(&path)?;
                (connection, Loaded { moved_aside: Some(aside), ..loaded })
            }
            other => other?,
        };
        let (jobs, mut queue) = mpsc::channel::<Job>(MAX_JOBS);
        let work = move || {
            while let Some(job) = queue.blocking_recv() {
                job(&mut connection);
            }
        };
        let thread = std::thread::Builder::new().name("headwater-state".into()).spawn(work).map_err(no_folder)?;
        Ok((Store { jobs, dropped: AtomicU64::new(0) }, thread, loaded))
    }

    /// Records of transfers that were dropped because the disk was slow.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    async fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |c| {
            // Nobody waits any more: the request was given up.
            let _ = answer.send(job(c));
        });
        self.jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        Ok(answered.await.map_err(|_| StoreError::Closed)??)
    }

    /// Keeps a content with its leaf hashes, as far as they are known, and forgets that it was withdrawn.
    pub(crate) async fn publish(&self, row: ContentRow, leaves: Option<Vec<u8>>) -> Result<(), StoreError> {
        self.ask(move |c| publish(c, &row, leaves.as_deref())).await
    }

    /// Forgets a content, and remembers that it was withdrawn.
    pub(crate) async fn withdraw(&self, version: Version, now_unix_ms: u64) -> Result<(), StoreError> {
        self.ask(move |c| {
            let t = c.transaction()?;
            t.execute("DELETE FROM contents WHERE content = ?1", [&version.content.0[..]])?;
            t.execute(
                "INSERT OR REPLACE INTO withdrawn VALUES (?1, ?2, ?3)",
                params![&version.content.0[..], version.epoch as i64, now_unix_ms as i64],
            )?;
            t.commit()
        })
        .await
    }

    /// The leaf hashes of a version, one after the other; `None` when they are not known.
    pub(crate) async fn leaves(&self, version: Version) -> Result<Option<Vec<u8>>, StoreError> {
        self.ask(move |c| {
            c.query_row(
                "SELECT leaves FROM contents WHERE content = ?1 AND epoch = ?2",
                params![&version.content.0[..], version.epoch as i64],
                |r| r.get(0),
            )
            .optional()
            .map(Option::flatten)
        })
        .await
    }

    /// Keeps the leaf hashes of a version, if it is still the published one.
    pub(crate) async fn set_leaves(&self, version: Version, leaves: Vec<u8>) -> Result<(), StoreError> {
        self.ask(move |c| {
            c.execute(
                "UPDATE contents SET leaves = ?3 WHERE content = ?1 AND epoch = ?2",
                params![&version.content.0[..], version.epoch as i64, leaves],
            )
            .map(drop)
        })
        .await
    }

    /// Keeps a transfer's record, unless too much waits already. Does not wait.
    pub(crate) fn record(&self, row: TransferRow) {
        let job: Job = Box::new(move |c| {
            if let Err(e) = record(c, &row) {
                tracing::warn!("a transfer's record was not kept: {e}");
            }
        });
        if self.jobs.try_send(job).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The newest transfers, newest first.
    pub(crate) async fn transfers(&self, limit: u32) -> Result<Vec<TransferRow>, StoreError> {
        self.ask(move |c| {
            let mut query = c.prepare_cached("SELECT * FROM transfers ORDER BY number DESC LIMIT ?1")?;
            query.query_map([limit], transfer_of)?.collect()
        })
        .await
    }
}

fn is_corrupt(e: &rusqlite::Error) -> bool {
    matches!(e.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Moves the database and what belongs to it out of the way.
fn move_aside(path: &Path, now_unix_ms: u64) -> std::io::Result<PathBuf> {
    let with = |end: &str| PathBuf::from(format!("{}{end}", path.display()));
    let aside = with(&format!(".corrupt-{now_unix_ms}"));
    std::fs::rename(path, &aside)?;
    for end in ["-wal", "-shm"] {
        match std::fs::rename(with(end), format!("{}{end}", aside.display())) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(aside)
}

fn open(path: &Path) -> Result<(Connection, Loaded), StoreError> {
    let sql = |source: rusqlite::Error| match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::InUse { path: path.into() },
        _ => StoreError::Sql { path: path.into(), source },
    };
    let mut c = Connection::open(path).map_err(sql)?;
    c.busy_timeout(BUSY).map_err(sql)?;
    // Exclusive: a second control center on this folder fails at once instead of deciding differently.
    c.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(sql)?;
    c.pragma_update(None, "journal_mode", "WAL").map_err(sql)?;
    c.pragma_update(None, "synchronous", "FULL").map_err(sql)?;
    let found: i64 = c.pragma_query_value(None, "user_version", |r| r.get(0)).map_err(sql)?;
    let to_do = match found {
        SCHEMA => None,
        0 => Some(TABLES),
        1 => Some(FROM_FIRST),
        found => return Err(StoreError::Newer { path: path.into(), found }),
    };
    if found > 0 {
        let said: String = c.pragma_query_value(None, "quick_check", |r| r.get(0)).map_err(sql)?;
        if said != "ok" {
            return Err(sql(corrupt(said)));
        }
    }
    if let Some(to_do) = to_do {
        let t = c.transaction().map_err(sql)?;
        t.execute_batch(to_do).map_err(sql)?;
        t.pragma_update(None, "user_version", SCHEMA).map_err(sql)?;
        t.commit().map_err(sql)?;
    }
    let loaded = load(&c).map_err(sql)?;
    Ok((c, loaded))
}

fn corrupt(said: String) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT), Some(said))
}

fn load(c: &Connection) -> Result<Loaded, rusqlite::Error> {
    let mut contents = c.prepare(
        "SELECT content, epoch, name, log, origin_access, share_origin_credentials, restricted, published_unix_ms,
         lightweight FROM contents",
    )?;
    let mut withdrawn = c.prepare("SELECT content, epoch FROM withdrawn")?;
    let contents = contents.query_map([], |r| {
        let access: AccessJson = serde_json::from_str(&r.get::<_, String>(4)?).map_err(|e| corrupt(e.to_string()))?;
        Ok(ContentRow {
            version: Version { content: ContentId(id(r, 0)?), epoch: number(r, 1)? },
            name: r.get(2)?,
            log: r.get(3)?,
            access: OriginAccess { headers: access.headers, query: access.query },
            share_origin_credentials: r.get(5)?,
            restricted: r.get(6)?,
            published_unix_ms: number(r, 7)?,
            lightweight: r.get(8)?,
        })
    })?;
    let withdrawn = withdrawn.query_map([], |r| Ok((ContentId(id(r, 0)?), number(r, 1)?)))?;
    Ok(Loaded {
        contents: contents.collect::<Result<_, _>>()?,
        withdrawn: withdrawn.collect::<Result<_, _>>()?,
        moved_aside: None,
    })
}

fn id(r: &Row<'_>, column: usize) -> Result<[u8; 32], rusqlite::Error> {
    r.get::<_, Vec<u8>>(column)?.try_into().map_err(|_| corrupt("an id that has not 32 bytes".into()))
}

/// SQLite has signed numbers only.
fn number(r: &Row<'_>, column: usize) -> Result<u64, rusqlite::Error> {
    Ok(r.get::<_, i64>(column)? as u64)
}

fn publish(c: &mut Connection, row: &ContentRow, leaves: Option<&[u8]>) -> Result<(), rusqlite::Error> {
    let access = AccessJson { headers: row.access.headers.clone(), query: row.access.query.clone() };
    let access = serde_json::to_string(&access).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
    let id = &row.version.content.0[..];
    let t = c.transaction()?;
    t.execute(
        "INSERT OR REPLACE INTO contents VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        params![
            id,
            row.name,
            row.version.epoch as i64,
            row.log,
            leaves,
            access,
            row.share_origin_credentials,
            row.restricted,
            row.published_unix_ms as i64,
            row.lightweight
        ],
    )?;
    t.execute("DELETE FROM withdrawn WHERE content = ?1", [id])?;
    t.commit()
}

fn record(c: &mut Connection, row: &TransferRow) -> Result<(), rusqlite::Error> {
    let t = &row.transfer;
    c.prepare_cached("INSERT INTO transfers VALUES (NULL, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")?.execute(
        params![
            &t.node.0[..],
            &t.content.0[..],
            t.title,
            t.peer_bytes as i64,
            t.waypoint_bytes as i64,
            t.origin_bytes as i64,
            row.start_unix_ms as i64,
            row.end_unix_ms as i64,
            t.max_rate as i64,
            t.complete
        ],
    )?;
    c.prepare_cached("DELETE FROM transfers WHERE number <= ?1")?
        .execute([c.last_insert_rowid() - MAX_TRANSFERS])
        .map(drop)
}

fn transfer_of(r: &Row<'_>) -> Result<TransferRow, rusqlite::Error> {
    let transfer = Transfer {
        node: NodeId(id(r, 1)?),
        content: ContentId(id(r, 2)?),
        title: r.get(3)?,
        peer_bytes: number(r, 4)?,
        waypoint_bytes: number(r, 5)?,
        origin_bytes: number(r, 6)?,
        start: Default::default(),
        end: Default::default(),
        max_rate: number(r, 9)?,
        complete: r.get(10)?,
    };
    Ok(TransferRow { transfer, start_unix_ms: number(r, 7)?, end_unix_ms: number(r, 8)? })
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
