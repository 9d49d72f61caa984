//! Progress of one step, on standard error: a bar on a terminal, a line now and then in a pipe.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, ProgressBar, ProgressStyle};

const LINE_EVERY: Duration = Duration::from_secs(2);
const TEMPLATE: &str = "{prefix:10} {bar:30} {percent:>3} %  {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left";

/// Progress in bytes; may be told from any thread and in any order. What it drew is gone when it is dropped.
#[derive(Debug)]
pub struct Progress {
    what: &'static str,
    most: AtomicU64,
    look: Look,
}

#[derive(Debug)]
enum Look {
    Bar(ProgressBar),
    /// With the time of the last line.
    Lines(Mutex<Instant>),
    Silent,
}

impl Progress {
    /// For the step `what`. Lines are left out when `json` output is for a program.
    pub fn new(what: &'static str, json: bool) -> Progress {
        let look = match (std::io::stderr().is_terminal(), json) {
            (true, _) => {
                let bar = ProgressBar::no_length().with_prefix(what);
                // A bar without its look is still a bar.
                bar.set_style(ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar()));
                Look::Bar(bar)
            }
            (false, false) => Look::Lines(Mutex::new(Instant::now())),
            (false, true) => Look::Silent,
        };
        Progress { what, most: AtomicU64::new(0), look }
    }

    /// `done` of `total` bytes.
    pub fn set(&self, done: u64, total: u64) {
        let done = self.most.fetch_max(done, Ordering::Relaxed).max(done);
        match &self.look {
            Look::Bar(bar) => {
                bar.set_length(total);
                bar.set_position(done);
            }
            Look::Lines(last) => {
                let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                if last.elapsed() >= LINE_EVERY {
                    *last = Instant::now();
                    let percent = 100 * u128::from(done) / u128::from(total.max(1));
                    // Nobody reads any more; the step itself goes on.
                    let _ = writeln!(std::io::stderr(), "{}: {percent} % of {}", self.what, BinaryBytes(total));
                }
            }
            Look::Silent => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Look::Bar(bar) = &self.look {
            bar.finish_and_clear();
        }
    }
}
