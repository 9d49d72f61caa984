//! Fetches segments, again from where it broke if need be.

use std::time::Duration;

use headwater_model::live::ObjectKind;
use tokio::time::Instant;

use super::jobs::{Job, Next, Place};
use super::outlet::{Outlet, too_long};
use super::{Ingest, Ingested, MAX_OBJECT_BYTES, Over};
use crate::origin::{OriginError, Validator, Wanted};

/// Why an object is not complete.
pub(super) enum Broken {
    Over(Over),
    /// It never will be.
    Lost(String),
    Fault(OriginError),
}

impl From<Over> for Broken {
    fn from(over: Over) -> Self {
        Broken::Over(over)
    }
}

impl From<OriginError> for Broken {
    fn from(error: OriginError) -> Self {
        Broken::Fault(error)
    }
}

/// What an object's tries have shown.
struct Tries {
    begun: Instant,
    version: Option<Validator>,
    /// In a row without a byte.
    failures: u32,
    /// Since then the origin has not had it.
    absent: Option<Instant>,
    is_told: bool,
}

impl Ingest {
    /// Does one job after the other until there are no more.
    pub(super) async fn work(&self) -> Result<(), Over> {
        while let Some(mut job) = self.next_job().await {
            self.job(&mut job).await?;
            // Nothing may come between: else an older word could follow a newer one.
            let permit = self.tx.reserve().await.map_err(|_| Over::Closed)?;
            let progress = self.jobs().finished(job.order, job.point);
            if let Some(resume) = progress {
                permit.send(Ingested::Progress(resume));
            }
            self.news.notify_waiters();
        }
        Ok(())
    }

    async fn next_job(&self) -> Option<Job> {
        loop {
            let news = self.news.notified();
            let next = self.jobs().next(Instant::now(), self.patience.alone);
            match next {
                Next::Fetch(job) => {
                    // There is room in the queue.
                    self.news.notify_waiters();
                    return Some(*job);
                }
                Next::Over => return None,
                Next::Wait(None) => news.await,
                Next::Wait(Some(at)) => {
                    let _ = tokio::time::timeout_at(at, news).await;
                }
            }
        }
    }

    async fn job(&self, job: &mut Job) -> Result<(), Over> {
        let number = job.point.last.sequence;
        if let Some((object, place)) = job.fetch_map.take() {
            let out = Outlet::new(object, Some(ObjectKind::Mp4Init), None);
            let name = format!("the initialisation section of segment {number}");
            if !self.object(job, &place, out, &name).await? {
                self.jobs().lost_map = Some(object);
            }
        }
        let out = Outlet::new(job.object, job.kind, job.listed.take());
        let name = format!("segment {number}");
        let is_playable = job.map.is_none() || self.jobs().lost_map != job.map;
        let is_whole = if is_playable {
            self.object(job, &job.place, out, &name).await?
        } else {
            self.lost(&out, &name, "its initialisation section did not come").await?
        };
        if !is_whole {
            self.jobs().lost_segment = Some(job.point.last.listed);
        }
        Ok(())
    }

    /// Fetches one object; whether all of it came.
    async fn object(&self, job: &Job, place: &Place, mut out: Outlet, name: &str) -> Result<bool, Over> {
        match self.all(job, place, &mut out, name).await {
            Ok(()) => {
                self.send(Ingested::Complete { object: out.object() }).await?;
                Ok(true)
            }
            Err(Broken::Over(over)) => Err(over),
            Err(Broken::Lost(why)) => self.lost(&out, name, &why).await,
            Err(Broken::Fault(error)) => self.lost(&out, name, &error.to_string()).await,
        }
    }

    async fn lost(&self, out: &Outlet, name: &str, why: &str) -> Result<bool, Over> {
        self.send(Ingested::Abandoned { object: out.object() }).await?;
        self.tell(format!("{name} is left out: {why}")).await?;
        Ok(false)
    }

    async fn all(&self, job: &Job, place: &Place, out: &mut Outlet, name: &str) -> Result<(), Broken> {
        if place.range.is_some_and(|r| r.bytes > MAX_OBJECT_BYTES) {
            return Err(too_long());
        }
        let begun = Instant::now();
        let mut tries = Tries { begun, version: None, failures: 0, absent: None, is_told: false };
        loop {
            let before = out.got();
            let once = self.once(job, place, out, &mut tries.version);
            let error = match tokio::time::timeout_at(begun + self.patience.object, once).await {
                Ok(Ok(())) => return out.end(),
                Ok(Err(Broken::Fault(error))) => error,
                Ok(Err(broken)) => return Err(broken),
                Err(_) => return Err(Broken::Lost(format!("it takes more than {:?}", self.patience.object))),
            };
            if out.got() > before {
                (tries.failures, tries.absent) = (0, None);
            }
            self.check(job, &error, &mut tries)?;
            if !std::mem::replace(&mut tries.is_told, true) {
                self.tell(format!("{name} is asked for again: {error}")).await?;
            }
            tokio::time::sleep(self.pause(&error, tries.failures)).await;
            tries.failures = tries.failures.saturating_add(1);
        }
    }

    /// Asks once for what is missing.
    async fn once(
        &self,
        job: &Job,
        place: &Place,
        out: &mut Outlet,
        version: &mut Option<Validator>,
    ) -> Result<(), Broken> {
        let (first, end) = place.range.map_or((0, None), |r| (r.from, Some(r.from.saturating_add(r.bytes))));
        let wanted = Wanted { from: first.saturating_add(out.got()), end, version: version.clone() };
        let access = self.access_for(&place.url);
        let mut body = self.client.open(&place.url, access, wanted, self.patience.idle).await?;
        if version.is_none() {
            // So that two versions are never mixed.
            *version = body.validator.take();
        }
        if place.range.is_none() && body.stated_bytes.is_some_and(|bytes| bytes > MAX_OBJECT_BYTES) {
            return Err(too_long());
        }
        while let Some(chunk) = body.next_chunk().await? {
            self.jobs().progress(job.order, Instant::now());
            out.push(self, chunk).await?;
        }
        if out.got() == 0 {
            // It is not written yet.
            return Err(body.truncated().into());
        }
        Ok(())
    }

    /// Whether to ask again after this error.
    fn check(&self, job: &Job, error: &OriginError, tries: &mut Tries) -> Result<(), Broken> {
        let (window, is_gone) = {
            let jobs = self.jobs();
            (jobs.window, jobs.is_gone(job))
        };
        if is_gone {
            return Err(Broken::Lost(format!("the playlist lists it no more ({error})")));
        }
        let listed = window.lasts.max(window.target * 3).min(self.patience.object);
        let patience = if window.ended { self.patience.object } else { listed };
        if tries.begun.elapsed() >= patience {
            return Err(Broken::Lost(format!("it was asked for in vain for {patience:?} ({error})")));
        }
        if is_final(error) {
            return Err(Broken::Lost(error.to_string()));
        }
        if !error.is_transient() {
            // A packager may list a segment a little before it is there.
            let absent = tries.absent.get_or_insert_with(Instant::now);
            if absent.elapsed() >= window.target {
                return Err(Broken::Lost(error.to_string()));
            }
        }
        Ok(())
    }

    fn pause(&self, error: &OriginError, failures: u32) -> Duration {
        let (least, most) = (self.patience.least_pause, self.patience.most_pause);
        let doubled = least.saturating_mul(1 << failures.min(16));
        error.retry_after().unwrap_or_default().max(doubled).min(most)
    }
}

/// Whether another try can only bring the same.
fn is_final(error: &OriginError) -> bool {
    use OriginError::{BadAccess, Changed, Encoded, NoRanges, NotHttp, NotListed, TooLong};
    matches!(
        error,
        BadAccess { .. }
            | Changed { .. }
            | Encoded { .. }
            | NoRanges { .. }
            | NotHttp { .. }
            | NotListed { .. }
            | TooLong { .. }
    )
}
