//! Follows the playlist and lists what is new.

use std::time::Duration;

use headwater_hls::follow::{Follower, Trouble};
use headwater_hls::playlist::{MediaPlaylist, Segment};
use headwater_model::{Micros, Time};
use url::Url;

use super::jobs::Window;
use super::list::Lister;
use super::load::{LoadError, Loaded, is_hopeless};
use super::{Ingest, IngestError, Ingested, Over, Resume};
use crate::origin::shown;

/// A stream begins so many segments before its end, so that viewers have something to play at once.
const FIRST_SEGMENTS: usize = 3;
/// Loads of a rendition that fail in a row, after which it is looked for again.
const RENDITION_LOADS: u32 = 3;

/// Where it stands.
pub(super) struct Following<'a> {
    ingest: &'a Ingest,
    hold_back: Micros,
    /// What comes next after an earlier run.
    next: Option<u64>,
    follower: Follower,
    has_begun: bool,
    has_loaded: bool,
    lister: Lister,
    /// What is loaded.
    playlist: Url,
    base: Url,
    target: Micros,
    failed: u32,
    /// Of the failure that goes on.
    told: Option<String>,
    chosen: Option<String>,
}

impl<'a> Following<'a> {
    pub(super) fn new(ingest: &'a Ingest, hold_back: Micros, resume: &Resume) -> Self {
        Following {
            ingest,
            hold_back,
            next: resume.last.map(|l| l.sequence.saturating_add(1)),
            follower: Follower::new(ingest.now(), hold_back),
            has_begun: false,
            has_loaded: false,
            lister: Lister::new(resume),
            playlist: ingest.url.clone(),
            base: ingest.url.clone(),
            target: Micros(0),
            failed: 0,
            told: None,
            chosen: None,
        }
    }

    /// Until the playlist has ended and all that it listed is on the way.
    pub(super) async fn run(mut self) -> Result<(), Over> {
        loop {
            let all_listed = self.list().await?;
            let news = self.ingest.news.notified();
            match self.follower.next_load() {
                None if all_listed => break,
                None => news.await,
                Some(due) if all_listed => {
                    tokio::time::sleep_until(self.at(due)).await;
                    self.load().await?;
                }
                Some(due) => {
                    let due = self.at(due);
                    if tokio::time::timeout_at(due, news).await.is_err() {
                        self.load().await?;
                    }
                }
            }
        }
        self.ingest.jobs().is_whole = true;
        self.ingest.news.notify_waiters();
        Ok(())
    }

    fn at(&self, time: Time) -> tokio::time::Instant {
        self.ingest.begun + Duration::from_micros(time.0)
    }

    /// Lists what is new as far as there is room; whether that was all.
    async fn list(&mut self) -> Result<bool, Over> {
        loop {
            if !self.ingest.jobs().has_room() {
                return Ok(false);
            }
            let Some(segment) = self.follower.next_segment() else { return Ok(true) };
            self.segment(&segment).await?;
        }
    }

    async fn segment(&mut self, segment: &Segment) -> Result<(), Over> {
        let job = self.lister.list(segment, &self.base, self.target, &mut self.ingest.jobs());
        let mut job = match job {
            Ok(job) => job,
            Err(why) => return self.ingest.tell(why).await,
        };
        let object = job.object;
        if let Some(kind) = job.kind
            && let Some(listed) = job.listed.take()
        {
            self.ingest.send(Ingested::Listed { object, kind, listed }).await?;
        }
        self.ingest.jobs().add(job);
        self.ingest.news.notify_waiters();
        Ok(())
    }

    async fn load(&mut self) -> Result<(), Over> {
        let begun = self.ingest.now();
        let held = self.follower.loading(begun);
        match self.ingest.load(&self.playlist, held).await {
            Ok(loaded) => self.loaded(begun, loaded).await,
            Err(error) => self.failed(error).await,
        }
    }

    async fn loaded(&mut self, begun: Time, loaded: Loaded) -> Result<(), Over> {
        let list = &loaded.list;
        if list.encrypted {
            return Err(Over::Failed(IngestError::Encrypted { url: shown(&loaded.playlist) }));
        }
        if !self.has_begun && !list.segments.is_empty() {
            self.follower = self.begin(begun, list);
            self.has_begun = true;
        }
        (self.has_loaded, self.failed) = (true, 0);
        (self.playlist, self.base) = (loaded.playlist, loaded.base);
        if self.told.take().is_some() {
            self.ingest.tell("the playlist is loaded again".to_owned()).await?;
        }
        if loaded.chosen.is_some() && loaded.chosen != self.chosen {
            self.chosen.clone_from(&loaded.chosen);
            self.ingest.tell(loaded.chosen.unwrap_or_default()).await?;
        }
        let troubles = self.follower.loaded(self.ingest.now(), &loaded.list);
        if troubles.contains(&Trouble::Restarted) {
            self.lister.begins_anew(&self.ingest.jobs());
        }
        if !troubles.contains(&Trouble::Backwards) {
            self.target = loaded.list.target_duration;
            self.ingest.jobs().window = self.window(&loaded.list);
        }
        self.tell(&troubles).await
    }

    fn begin(&self, begun: Time, list: &MediaPlaylist) -> Follower {
        let last = list.segments.iter().rev().take(FIRST_SEGMENTS);
        let hold_back = last.fold(Micros(0), |sum, s| sum + s.duration).max(self.hold_back);
        match self.next {
            Some(next) => Follower::resume(begun, hold_back, next),
            None => Follower::new(begun, hold_back),
        }
    }

    fn window(&self, list: &MediaPlaylist) -> Window {
        let lasts = list.segments.iter().fold(Micros(0), |sum, s| sum + s.duration);
        Window {
            generation: self.lister.generation(),
            first: list.media_sequence,
            target: Duration::from_micros(list.target_duration.0),
            lasts: Duration::from_micros(lasts.0),
            ended: list.ended,
        }
    }

    async fn failed(&mut self, error: LoadError) -> Result<(), Over> {
        if let LoadError::Origin(error) = &error
            && !self.has_loaded
            && is_hopeless(error)
        {
            return Err(Over::Failed(error.clone().into()));
        }
        self.failed += 1;
        if self.failed.is_multiple_of(RENDITION_LOADS) {
            self.playlist.clone_from(&self.ingest.url);
        }
        let last = error.to_string();
        let waited = self.ingest.begun.elapsed();
        if !self.has_loaded && waited >= self.ingest.patience.first {
            let url = shown(&self.ingest.url);
            return Err(Over::Failed(IngestError::NeverLoaded { url, waited, last }));
        }
        if self.told.as_ref() != Some(&last) {
            self.ingest.tell(format!("the playlist was not loaded, and is tried again: {last}")).await?;
            self.told = Some(last);
        }
        let troubles = self.follower.failed(self.ingest.now());
        self.tell(&troubles).await
    }

    async fn tell(&self, troubles: &[Trouble]) -> Result<(), Over> {
        for trouble in troubles {
            self.ingest.tell(words(trouble)).await?;
        }
        Ok(())
    }
}

fn words(trouble: &Trouble) -> String {
    match trouble {
        Trouble::Backwards => "the playlist ends before what it listed earlier: an old copy, which is not used".into(),
        Trouble::Restarted => "the packager began anew: its first segment is listed as a discontinuity".into(),
        Trouble::Missed(n) => format!("{n} segments left the playlist before they could be fetched"),
        Trouble::Changed(n) => format!("segment {n} is listed as another one than before; the first one counts"),
        Trouble::Discontinuity(n) => format!(
            "segment {n} is listed as a discontinuity only now that it is whole: players that have it may stumble over it"
        ),
        Trouble::TargetDuration(t) => {
            format!("the target duration has become {} s; players expect that it never changes", t.as_secs_f64())
        }
        Trouble::Stalled(t) => format!("nothing new for {:.1} s: the encoder stalls", t.as_secs_f64()),
        Trouble::GoesOn => "the stream goes on".into(),
    }
}
