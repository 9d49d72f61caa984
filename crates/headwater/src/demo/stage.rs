//! What any demo has while it runs, and what is cleared away at its end, however it came to that.

use std::path::Path;

use anyhow::{Context, Result};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::board::Board;
use super::children::Children;

/// A demo's processes, its work, and its progress.
pub struct Stage {
    /// The processes.
    pub children: Children,
    /// Work beside the demo's own, which `stop` ends early.
    pub work: TaskTracker,
    /// See `work`.
    pub stop: CancellationToken,
    /// Where progress goes.
    pub board: Board,
}

impl Stage {
    /// For a demo in this folder.
    ///
    /// # Errors
    /// If the folder is not writable, or the program itself cannot be found.
    pub fn new(folder: &Path) -> Result<Stage> {
        let logs = folder.join("logs");
        std::fs::create_dir(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
        let program = std::env::current_exe().context("cannot find the program itself")?;
        Ok(Stage {
            children: Children::new(program, logs),
            work: TaskTracker::new(),
            stop: CancellationToken::new(),
            board: Board::new(),
        })
    }

    /// Kills and reaps all children, and ends what other threads do in the folder.
    pub async fn end(mut self) {
        self.board.finish();
        self.stop.cancel();
        self.children.kill_all().await;
        self.work.close();
        self.work.wait().await;
    }
}
