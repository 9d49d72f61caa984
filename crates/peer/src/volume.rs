//! What was sent in this calendar month, kept on disk through restarts and kills.

use crate::circumstances::Month;
use std::io;
use std::path::PathBuf;

/// First line of the file.
const FORMAT: &str = "headwater month's volume, version 1";
/// The file says so much more than was sent, so that a process that is killed has sent no more than it says.
const AHEAD_BYTES: u64 = 16 << 20;

/// Bytes sent in a month.
#[derive(Debug)]
pub(crate) struct Volume {
    path: PathBuf,
    month: Month,
    sent: u64,
    /// What the file says.
    kept: u64,
}

impl Volume {
    /// Nothing sent yet, whatever the file says.
    pub(crate) fn new(path: PathBuf, month: Month) -> Volume {
        Volume { path, month, sent: 0, kept: 0 }
    }

    /// As the file says; nothing sent where there is none for this month.
    ///
    /// # Errors
    /// A file that cannot be read, or is none of ours: counting anew would pass the user's limit.
    pub(crate) fn open(path: PathBuf, month: Month) -> io::Result<Volume> {
        let sent = match std::fs::read_to_string(&path) {
            Ok(text) => {
                let other = || io::Error::new(io::ErrorKind::InvalidData, format!("{} is damaged", path.display()));
                let (of, sent) = parse(&text).ok_or_else(other)?;
                if of == month { sent } else { 0 }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
            Err(e) => return Err(e),
        };
        Ok(Volume { path, month, sent, kept: sent })
    }

    /// Bytes sent in the month.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// `bytes` more were sent, in `month`.
    ///
    /// # Errors
    /// They are counted, but could not be kept.
    pub(crate) fn add(&mut self, month: Month, bytes: u64) -> io::Result<()> {
        if month != self.month {
            (self.month, self.sent, self.kept) = (month, 0, 0);
        }
        self.sent += bytes;
        // Two seconds at a gigabit per second are 250 MB: what is ahead grows with the pace.
        if bytes > 0 && self.sent + AHEAD_BYTES / 2 > self.kept {
            self.write(self.sent + AHEAD_BYTES.max(bytes * 4))?;
        }
        Ok(())
    }

    /// The node stops: the file says what was sent.
    ///
    /// # Errors
    /// It could not be written.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        self.write(self.sent)
    }

    fn write(&mut self, sent: u64) -> io::Result<()> {
        if sent == self.kept {
            return Ok(());
        }
        let new = self.path.with_extension("new");
        std::fs::write(&new, format!("{FORMAT}\n{} {} {sent}\n", self.month.year, self.month.month))?;
        std::fs::rename(&new, &self.path)?;
        self.kept = sent;
        Ok(())
    }
}

fn parse(text: &str) -> Option<(Month, u64)> {
    let mut words = text.strip_prefix(FORMAT)?.split_whitespace();
    let month = Month { year: words.next()?.parse().ok()?, month: words.next()?.parse().ok()? };
    let sent = words.next()?.parse().ok()?;
    words.next().is_none().then_some((month, sent))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAY: Month = Month { year: 2027, month: 5 };
    const JUNE: Month = Month { year: 2027, month: 6 };

    #[test]
    fn a_restart_goes_on_and_a_kill_counts_no_less_than_was_sent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("volume");
        let mut v = Volume::open(path.clone(), MAY).unwrap();
        v.add(MAY, 1000).unwrap();
        v.close().unwrap();
        let mut v = Volume::open(path.clone(), MAY).unwrap();
        assert_eq!(v.sent(), 1000);
        for _ in 0..50 {
            v.add(MAY, 1 << 20).unwrap();
        }
        // Killed.
        let v = Volume::open(path.clone(), MAY).unwrap();
        let (least, most) = (1000 + (50 << 20), 1000 + (50 << 20) + AHEAD_BYTES);
        assert!((least..=most).contains(&v.sent()), "{}", v.sent());
        assert_eq!(Volume::open(path, JUNE).unwrap().sent(), 0, "a new month begins");
    }

    #[test]
    fn months_turn_over_and_damage_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("volume");
        let mut v = Volume::open(path.clone(), MAY).unwrap();
        v.add(MAY, 77).unwrap();
        v.add(JUNE, 5).unwrap();
        assert_eq!(v.sent(), 5);
        for damaged in
            ["", "headwater month's volume, version 2\n2027 5 1\n", "headwater month's volume, version 1\n2027 5"]
        {
            std::fs::write(&path, damaged).unwrap();
            assert!(Volume::open(path.clone(), MAY).is_err(), "{damaged:?}");
        }
    }
}
