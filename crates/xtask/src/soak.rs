//! `cargo xtask soak`: a control center, an origin, a waypoint and resident peers go on for minutes or hours while other
//! peers come, leave, are killed and come back, and contents are published, replaced and withdrawn. What the processes
//! that stay take of memory, handles, threads and disk must not grow. What is random follows from the seed.

mod process;
mod record;
mod site;

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::chaos::SplitMix64;
use crate::shell::build_headwater;
use process::{Process, cpu_seconds};
use record::Record;
use site::{Site, Slot};

/// How often something random is done.
const STEP: Duration = Duration::from_millis(400);
/// How often the processes that stay are measured.
const MEASURE_EVERY: Duration = Duration::from_secs(10);
/// Contents there are at any time; two more stay from beginning to end, in new versions.
const CONTENTS: usize = 5;
/// Peers that come and go there are at once.
const VISITORS: usize = 7;
/// A download that takes longer is stuck: the largest file takes a few seconds.
const STUCK: Duration = Duration::from_secs(120);
/// Failures after which a run ends.
const FAILURES_MAX: usize = 20;

/// What a run is.
pub struct Plan {
    /// How long.
    pub minutes: u64,
    /// What is random follows from it.
    pub seed: u64,
    /// Program to run; built now where `None`.
    pub program: Option<std::path::PathBuf>,
    /// Where the measures go, a line of comma-separated values for each.
    pub measures: Option<std::path::PathBuf>,
}

/// Runs it; an error where something grew, a file was wrong, or a process ended by itself.
pub fn run(plan: Plan) -> Result<String> {
    ensure!(cfg!(target_os = "linux"), "processes are measured through /proc");
    let program = match &plan.program {
        Some(program) => std::path::absolute(program)?,
        None => build_headwater()?,
    };
    let begun = Instant::now();
    let mut run = Run {
        random: SplitMix64(plan.seed),
        site: Site::start(&program)?,
        visitors: Vec::new(),
        absent: Vec::new(),
        counts: Counts::default(),
        failures: Vec::new(),
        visits: 0,
    };
    run.settle()?;
    let mut record = Record::default();
    let length = Duration::from_secs(plan.minutes * 60);
    let mut measure_at = begun;
    while begun.elapsed() < length && run.failures.len() < FAILURES_MAX {
        run.step()?;
        if Instant::now() >= measure_at {
            measure_at += MEASURE_EVERY;
            record.measure(begun.elapsed(), &run.site.staying())?;
        }
        std::thread::sleep(STEP);
    }
    let took = begun.elapsed();
    let cpu = cpu_seconds(run.site.staying().iter().map(|(_, p, _)| *p).chain(run.visitors.iter().map(|v| &v.process)));
    if let Some(path) = &plan.measures {
        record.write(path)?;
    }
    println!("{}", record.table(run.site.quota_bytes));
    run.failures.extend(record.growth(run.site.quota_bytes));
    let counts = &run.counts;
    let summary = format!(
        "seed {}, {:.1} min: {} joins, {} right files, {} left, {} killed, {} came back; {} contents published, {} replaced, \
         {} withdrawn; {:.0} % of a core",
        plan.seed,
        took.as_secs_f64() / 60.0,
        counts.joins,
        counts.right,
        counts.left,
        counts.killed,
        counts.back,
        counts.published,
        counts.replaced,
        counts.withdrawn,
        100.0 * cpu / took.as_secs_f64(),
    );
    if !run.failures.is_empty() {
        let kept = run.site.keep();
        bail!(
            "{summary}\n{}\nreplay with: cargo xtask soak --minutes {} --seed {}; logs in {}",
            run.failures.join("\n"),
            plan.minutes,
            plan.seed,
            kept.display()
        );
    }
    ensure!(counts.right > 0, "{summary}\nnobody fetched a file");
    Ok(summary)
}

#[derive(Default)]
struct Counts {
    joins: u64,
    right: u64,
    left: u64,
    killed: u64,
    back: u64,
    published: u64,
    replaced: u64,
    withdrawn: u64,
}

/// A peer that came for one content.
struct Visitor {
    who: String,
    /// Its content, and which of its versions was the last one when it came first.
    slot: Slot,
    since_version: usize,
    came: Instant,
    process: Process,
    /// It has everything, and that was right.
    done: bool,
}

struct Run {
    random: SplitMix64,
    site: Site,
    visitors: Vec<Visitor>,
    /// Visitors that were killed and come back.
    absent: Vec<(Instant, String, Slot, usize)>,
    counts: Counts,
    failures: Vec<String>,
    visits: u64,
}

impl Run {
    fn settle(&mut self) -> Result<()> {
        for _ in 0..CONTENTS {
            self.publish_new()?;
        }
        Ok(())
    }

    fn publish_new(&mut self) -> Result<()> {
        let bytes = self.bytes();
        self.site.publish_new(bytes, self.random.below(u64::MAX))?;
        self.counts.published += 1;
        Ok(())
    }

    /// 1 to 16 MiB, and not whole pieces.
    fn bytes(&mut self) -> u64 {
        (1 << 20) + self.random.below(15 << 20)
    }

    /// One random thing happens.
    fn step(&mut self) -> Result<()> {
        self.look_after_visitors();
        self.look_after_staying();
        self.return_absent()?;
        match self.random.below(40) {
            0..14 if self.visitors.len() + self.absent.len() < VISITORS => self.comes(),
            14..18 => self.leaves(),
            18..20 => self.is_killed(),
            20 => self.replace(),
            21 => self.exchange(),
            _ => Ok(()),
        }
    }

    fn comes(&mut self) -> Result<()> {
        let slot = self.site.slot(self.random.below(self.site.slots() as u64) as usize);
        let since_version = slot.versions() - 1;
        self.visits += 1;
        self.counts.joins += 1;
        self.enters(format!("visitor-{}", self.visits), slot, since_version)
    }

    fn enters(&mut self, who: String, slot: Slot, since_version: usize) -> Result<()> {
        let dial_only = self.random.below(3) == 0;
        let process = self.site.visit(&who, &slot, dial_only)?;
        self.visitors.push(Visitor { who, slot, since_version, came: Instant::now(), process, done: false });
        Ok(())
    }

    fn return_absent(&mut self) -> Result<()> {
        let (due, absent) = std::mem::take(&mut self.absent).into_iter().partition(|(at, ..)| *at <= Instant::now());
        self.absent = absent;
        for (_, who, slot, since_version) in Vec::from_iter(due as Vec<_>) {
            self.counts.back += 1;
            self.enters(who, slot, since_version)?;
        }
        Ok(())
    }

    /// One that has everything stops as a user stops it, and hands its children over.
    fn leaves(&mut self) -> Result<()> {
        let done: Vec<usize> = (0..self.visitors.len()).filter(|ix| self.visitors[*ix].done).collect();
        if done.is_empty() {
            return Ok(());
        }
        let ix = done[self.random.below(done.len() as u64) as usize];
        let mut visitor = self.visitors.swap_remove(ix);
        match visitor.process.stop() {
            Ok(0) => self.counts.left += 1,
            Ok(code) => self.failures.push(format!("{} ended with {code}: {}", visitor.who, visitor.process.said())),
            Err(e) => self.failures.push(format!("{}: {e:#}", visitor.who)),
        }
        self.site.forget(&visitor.who)
    }

    /// SIGKILL, at any moment; half of them come back and go on where they were.
    fn is_killed(&mut self) -> Result<()> {
        if self.visitors.is_empty() {
            return Ok(());
        }
        let mut visitor = self.visitors.swap_remove(self.random.below(self.visitors.len() as u64) as usize);
        visitor.process.kill();
        self.counts.killed += 1;
        if !visitor.done && self.random.below(2) == 0 {
            let back = Instant::now() + Duration::from_millis(500 + self.random.below(3_000));
            self.absent.push((back, visitor.who, visitor.slot, visitor.since_version));
            return Ok(());
        }
        self.site.forget(&visitor.who)
    }

    fn replace(&mut self) -> Result<()> {
        let slot = self.site.changeable(self.random.below(self.site.slots() as u64) as usize);
        let bytes = self.bytes();
        self.counts.replaced += 1;
        self.site.replace(&slot, bytes, self.random.below(u64::MAX))
    }

    /// One content is withdrawn, another one comes: there are as many as before.
    fn exchange(&mut self) -> Result<()> {
        self.site.withdraw(self.random.below(CONTENTS as u64) as usize)?;
        self.counts.withdrawn += 1;
        self.publish_new()
    }

    fn look_after_visitors(&mut self) {
        for visitor in std::mem::take(&mut self.visitors) {
            match self.look_after(visitor) {
                Ok(visitor) => self.visitors.extend(visitor),
                Err(problem) => self.failures.push(problem),
            }
        }
    }

    /// The visitor, if it stays; an error in words.
    fn look_after(&mut self, mut visitor: Visitor) -> Result<Option<Visitor>, String> {
        let Visitor { who, slot, process, .. } = &mut visitor;
        if let Some(code) = process.ended() {
            let said = process.said();
            let withdrawn = slot.is_withdrawn() && code == 3;
            let _ = self.site.forget(who);
            return if withdrawn { Ok(None) } else { Err(format!("{who} ended by itself with {code}: {said}")) };
        }
        if !visitor.done && visitor.process.is_complete() {
            let digest = self.site.digest_of(&visitor.who).map_err(|e| format!("{}: {e:#}", visitor.who))?;
            if !visitor.slot.is_version(&digest, visitor.since_version) {
                return Err(format!("{} got a file with SHA-256 {digest}, which nobody published", visitor.who));
            }
            visitor.done = true;
            self.counts.right += 1;
        }
        if !visitor.done && visitor.came.elapsed() > STUCK && !visitor.slot.is_withdrawn() {
            let (last, said) = (visitor.process.last(), visitor.process.said());
            return Err(format!("{} is stuck after {} s: {last}\n{said}", visitor.who, STUCK.as_secs()));
        }
        Ok(Some(visitor))
    }

    fn look_after_staying(&mut self) {
        for (name, process) in self.site.staying_mut() {
            if let Some(code) = process.ended() {
                self.failures.push(format!("{name} ended by itself with {code}: {}", process.said()));
                // It is not started again: the run has shown what it had to.
                self.failures.resize(FAILURES_MAX.max(self.failures.len()), String::new());
                return;
            }
        }
    }
}
