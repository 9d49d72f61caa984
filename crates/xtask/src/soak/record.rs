//! What was measured during a soak, and whether it grew.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use super::process::Process;

/// Growth is told for so long a time.
const PER: f64 = 1800.0;
/// Growth of memory that is none: the lesser of this share, and bytes.
const RSS_SHARE: f64 = 0.05;
const RSS_BYTES: f64 = 8.0 * 1024.0 * 1024.0;
/// Growth of handles and threads that is none: one more every quarter of an hour.
const COUNT: f64 = 2.0;
/// The noise of a slope, in standard errors: samples that follow one another are not independent.
const NOISE_ERRORS: f64 = 4.0;
/// A quota is kept up to what is being written and the files that list what there is.
const QUOTA_SLACK_BYTES: u64 = 4 << 20;

#[derive(Clone, Copy)]
struct Sample {
    at_s: f64,
    /// RSS, handles, threads, disk.
    values: [f64; 4],
}

const NAMES: [&str; 4] = ["memory", "handles", "threads", "disk"];
const DISK: usize = 3;

/// All measures, by process.
#[derive(Default)]
pub struct Record {
    samples: BTreeMap<&'static str, Vec<Sample>>,
}

/// A straight line through samples.
#[derive(Debug, PartialEq)]
struct Trend {
    mean: f64,
    /// Over [`PER`].
    growth: f64,
    noise: f64,
}

impl Trend {
    /// Least squares.
    fn of(points: &[(f64, f64)]) -> Trend {
        let n = points.len().max(1) as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
        let (x, y) = (mean(|p| p.0), mean(|p| p.1));
        let spread: f64 = points.iter().map(|p| (p.0 - x).powi(2)).sum();
        if points.len() < 3 || spread <= 0.0 {
            return Trend { mean: y, growth: 0.0, noise: f64::INFINITY };
        }
        let slope = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum::<f64>() / spread;
        let rest: f64 = points.iter().map(|p| (p.1 - y - slope * (p.0 - x)).powi(2)).sum();
        let error = (rest / (n - 2.0) / spread).sqrt();
        Trend { mean: y, growth: slope * PER, noise: NOISE_ERRORS * error * PER }
    }

    fn is_flat(&self, allowed: f64) -> bool {
        self.growth - self.noise < allowed
    }
}

impl Record {
    pub fn measure(&mut self, at: Duration, staying: &[(&'static str, &Process, PathBuf)]) -> Result<()> {
        for (name, process, folder) in staying {
            let m = process.measure()?;
            let values = [m.rss_bytes, m.handles, m.threads, disk_bytes(folder)].map(|v| v as f64);
            self.samples.entry(name).or_default().push(Sample { at_s: at.as_secs_f64(), values });
        }
        Ok(())
    }

    /// Writes all samples as comma-separated values.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = String::from("process,seconds,memory_bytes,handles,threads,disk_bytes\n");
        for (name, samples) in &self.samples {
            for Sample { at_s, values: [memory, handles, threads, disk] } in samples {
                writeln!(text, "{name},{at_s:.0},{memory},{handles},{threads},{disk}")?;
            }
        }
        Ok(std::fs::write(path, text)?)
    }

    /// What the second half says of one value.
    fn trend(samples: &[Sample], value: usize) -> Trend {
        let half = &samples[samples.len() / 2..];
        Trend::of(&half.iter().map(|s| (s.at_s, s.values[value])).collect::<Vec<_>>())
    }

    fn most_on_disk(samples: &[Sample]) -> u64 {
        samples.iter().map(|s| s.values[DISK] as u64).max().unwrap_or(0)
    }

    /// For people.
    pub fn table(&self, quota_bytes: Option<u64>) -> String {
        let mib = |bytes: f64| bytes / f64::from(1 << 20);
        let mut text = String::from("second half of the run; growth is per 30 min, ± noise\n");
        for (name, samples) in &self.samples {
            let [memory, handles, threads] = [0, 1, 2].map(|v| Self::trend(samples, v));
            let _ = writeln!(
                text,
                "{name:11} memory {:6.1} MiB {:+6.2} ± {:5.2}   handles {:5.1} {:+5.1} ± {:4.1}   threads {:5.1} {:+5.1} ± {:4.1}   \
                 disk at most {:6.1} MiB{}",
                mib(memory.mean),
                mib(memory.growth),
                mib(memory.noise),
                handles.mean,
                handles.growth,
                handles.noise,
                threads.mean,
                threads.growth,
                threads.noise,
                mib(Self::most_on_disk(samples) as f64),
                quota_bytes
                    .filter(|_| *name != "control")
                    .map_or(String::new(), |q| format!(" of {:.0}", mib(q as f64))),
            );
        }
        text
    }

    /// What grew, in words.
    pub fn growth(&self, quota_bytes: Option<u64>) -> Vec<String> {
        let mut grew = Vec::new();
        for (name, samples) in &self.samples {
            for (value, what) in NAMES.iter().enumerate().take(DISK) {
                let trend = Self::trend(samples, value);
                let allowed = if value == 0 { RSS_BYTES.min(RSS_SHARE * trend.mean) } else { COUNT };
                if !trend.is_flat(allowed) {
                    let (growth, noise) = (trend.growth, trend.noise);
                    grew.push(format!("{name}: {what} grow by {growth:.1} ± {noise:.1} in 30 min, over {allowed:.1}"));
                }
            }
            let most = Self::most_on_disk(samples);
            if *name != "control" && quota_bytes.is_some_and(|quota| most > quota + QUOTA_SLACK_BYTES) {
                grew.push(format!("{name}: {most} bytes on disk are over its quota"));
            }
        }
        grew
    }
}

/// What a folder takes on disk; files that go meanwhile count nothing.
fn disk_bytes(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(m) if m.is_dir() => disk_bytes(&entry.path()),
        Ok(m) => allocated_bytes(&m),
        Err(_) => 0,
    };
    entries.filter_map(Result::ok).map(of).sum()
}

#[cfg(unix)]
fn allocated_bytes(metadata: &std::fs::Metadata) -> u64 {
    // Files of pieces are sparse.
    std::os::unix::fs::MetadataExt::blocks(metadata) * 512
}

#[cfg(not(unix))]
fn allocated_bytes(metadata: &std::fs::Metadata) -> u64 {
    metadata.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_told_from_noise() {
        let series = |of: fn(f64) -> f64| -> Trend {
            Trend::of(&(0..90).map(|i| (f64::from(i) * 10.0, of(f64::from(i)))).collect::<Vec<_>>())
        };
        // Value at sample i, every 10 s; growth allowed in 30 min; flat?
        type Case = (fn(f64) -> f64, f64, bool);
        let cases: [Case; 5] = [
            (|_| 100.0, 5.0, true),
            (|i| 100.0 + i / 180.0 * 4.0, 5.0, true),
            (|i| 100.0 + i / 180.0 * 6.0, 5.0, false),
            (|i| 100.0 + 8.0 * (i % 2.0), 5.0, true),
            (|i| 100.0 + 8.0 * (i % 2.0) + i / 180.0 * 40.0, 5.0, false),
        ];
        for (index, (of, allowed, flat)) in cases.into_iter().enumerate() {
            let trend = series(of);
            assert_eq!(trend.is_flat(allowed), flat, "case {index}: {trend:?}");
        }
    }
}
