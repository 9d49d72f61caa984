//! A player without a screen: it follows an HLS playlist, fetches segments as a player does, and tells what a viewer would
//! have seen. Decisions are those of `headwater-hls`; here is the HTTP around them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use headwater_hls::follow::{Follower, Held, Trouble};
use headwater_hls::media::{Break, Continuity};
use headwater_hls::player::{Player, Rules};
use headwater_hls::playlist::{self, ByteRange, MAX_PLAYLIST_BYTES, Map, MediaPlaylist, Playlist, Segment};
use headwater_model::time::{Micros, Time};
use reqwest::header::RANGE;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::Instant;
use url::Url;

/// A request without a byte for so long is over.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of a segment.
const MAX_SEGMENT_BYTES: usize = 256 << 20;
/// A segment is asked for so often, then left out.
const TRIES: u32 = 3;
const BETWEEN_TRIES: Duration = Duration::from_millis(500);
/// Playlists that cannot be loaded in a row before the first one; later ones are waited for.
const FIRST_TRIES: u32 = 5;
/// Segments whose lag counts.
const MAX_LAGS: usize = 1_000_000;
/// Things told one by one.
const MAX_TOLD: usize = 1000;

/// How to play.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The buffer's rules.
    pub rules: Rules,
    /// So long before the end of a live playlist it begins.
    pub hold_back: Micros,
    /// It ends after so long; at the end of the stream where `None`.
    pub lasts: Option<Duration>,
}

/// What a viewer would have seen.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// The playlist of the rendition that was played.
    pub playlist: String,
    /// From the opening until now.
    pub seconds: f64,
    /// From the opening to the first picture.
    pub start_up_s: Option<f64>,
    /// Media that was played.
    pub played_s: f64,
    /// Media that is here and was not played.
    pub buffered_s: f64,
    /// Each time in which nothing could be played.
    pub stalls: Vec<StallTold>,
    /// All of them.
    pub stalled_s: f64,
    /// Segments and their bytes.
    pub segments: u64,
    /// See `segments`.
    pub bytes: u64,
    /// From the recording of a segment's last moment, as the playlist dates it, to its arrival: of segments that were
    /// complete after the opening; nothing where the playlist has no dates.
    pub lag: Option<Spread>,
    /// Where media is missing.
    pub gaps: Vec<BreakTold>,
    /// Where media came twice.
    pub repeats: Vec<BreakTold>,
    /// Where packets are missing inside a segment, or bytes are no media.
    pub broken: Vec<BreakTold>,
    /// What was wrong with playlists and requests, and when.
    pub troubles: Vec<TroubleTold>,
}

/// A stall.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct StallTold {
    /// After the opening.
    pub at_s: f64,
    /// How long.
    pub lasted_s: f64,
}

/// Where media does not go on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BreakTold {
    /// In which segment.
    pub segment: u64,
    /// What.
    pub what: String,
    /// How much is missing or comes twice, in seconds; nothing where that cannot be told.
    #[serde(default)]
    pub lasts_s: f64,
}

/// What went wrong.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TroubleTold {
    /// After the opening.
    pub at_s: f64,
    /// What.
    pub what: String,
}

/// A distribution, in seconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Spread {
    pub min_s: f64,
    pub median_s: f64,
    pub p95_s: f64,
    pub max_s: f64,
}

/// A player at work.
pub struct Probe {
    http: reqwest::Client,
    begun: Instant,
    plan: Plan,
    state: Mutex<State>,
    /// The playlist brought segments, or its end.
    news: Notify,
}

struct State {
    playlist: Url,
    /// Where it came from, after redirections: its addresses are relative to that.
    base: Url,
    follower: Follower,
    player: Player,
    continuity: Continuity,
    map: Option<Arc<Map>>,
    /// A discontinuity stood before a segment that was left out.
    fresh: bool,
    segments: u64,
    bytes: u64,
    lags_us: Vec<u64>,
    report: Report,
}

impl Probe {
    /// A player that opens `playlist` now. `proxy`: through the proxies of the environment.
    ///
    /// # Errors
    /// There is no HTTP client.
    pub fn new(playlist: Url, plan: Plan, proxy: bool) -> Result<Probe> {
        let builder = reqwest::Client::builder().read_timeout(PATIENCE).connect_timeout(PATIENCE);
        let builder = if proxy { builder } else { builder.no_proxy() };
        let state = State {
            base: playlist.clone(),
            playlist,
            follower: Follower::new(Time(0), plan.hold_back),
            player: Player::new(Time(0), plan.rules),
            continuity: Continuity::new(),
            map: None,
            fresh: false,
            segments: 0,
            bytes: 0,
            lags_us: Vec::new(),
            report: Report::default(),
        };
        Ok(Probe {
            http: builder.build().context("no HTTP client")?,
            begun: Instant::now(),
            plan,
            state: Mutex::new(state),
            news: Notify::new(),
        })
    }

    /// Plays to the end, or for as long as the plan says.
    ///
    /// # Errors
    /// The playlist cannot be loaded at first, or is none.
    pub async fn play(&self) -> Result<()> {
        let end = self.plan.lasts.map(|lasts| self.begun + lasts);
        let over = async {
            match end {
                Some(end) => tokio::time::sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            played = async { tokio::try_join!(self.follow(), self.fetch()) } => played.map(|_| ()),
            () = over => {
                ensure!(!self.lock().report.playlist.is_empty(), "{}", self.last_trouble());
                Ok(())
            }
        }
    }

    fn last_trouble(&self) -> String {
        let s = self.lock();
        s.report.troubles.last().map_or_else(|| format!("no answer from {} yet", s.playlist), |t| t.what.clone())
    }

    /// What was seen until now.
    pub fn report(&self) -> Report {
        let now = self.now();
        let mut s = self.lock();
        s.player.pass(now);
        let stalls: Vec<StallTold> = (s.player.stalls().iter())
            .map(|stall| StallTold { at_s: Micros(stall.at.0).as_secs_f64(), lasted_s: stall.lasted.as_secs_f64() })
            .collect();
        Report {
            playlist: s.playlist.to_string(),
            seconds: Micros(now.0).as_secs_f64(),
            start_up_s: s.player.startup().map(Micros::as_secs_f64),
            played_s: s.player.played().as_secs_f64(),
            buffered_s: s.player.buffered().as_secs_f64(),
            stalled_s: stalls.iter().fold(0.0, |sum, s| sum + s.lasted_s),
            stalls,
            segments: s.segments,
            bytes: s.bytes,
            lag: Spread::of(&s.lags_us),
            ..s.report.clone()
        }
    }

    fn now(&self) -> Time {
        Time(u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self, what: String) {
        tracing::debug!("{what}");
        let at_s = Micros(self.now().0).as_secs_f64();
        add(&mut self.lock().report.troubles, TroubleTold { at_s, what });
    }

    /// Loads the playlist whenever it is time.
    async fn follow(&self) -> Result<()> {
        let mut failed = 0;
        loop {
            let (due, is_first, from) = {
                let s = self.lock();
                (s.follower.next_load(), s.report.playlist.is_empty(), s.playlist.clone())
            };
            let Some(due) = due else { return Ok(()) };
            tokio::time::sleep_until(self.begun + Duration::from_micros(due.0)).await;
            let held = self.lock().follower.loading(self.now());
            match self.load(from, held).await {
                Ok(list) => {
                    failed = 0;
                    let now = self.now();
                    let troubles = {
                        let mut s = self.lock();
                        s.report.playlist = s.playlist.to_string();
                        s.follower.loaded(now, &list)
                    };
                    troubles.into_iter().for_each(|t| self.told(words(&t)));
                }
                Err(e) => {
                    failed += 1;
                    if is_first && failed >= FIRST_TRIES {
                        return Err(e);
                    }
                    self.told(format!("the playlist was not loaded: {e:#}"));
                    let troubles = self.lock().follower.failed(self.now());
                    troubles.into_iter().for_each(|t| self.told(words(&t)));
                }
            }
            self.news.notify_one();
        }
    }

    /// The media playlist; of several renditions that with the highest rate.
    async fn load(&self, mut from: Url, held: Option<Held>) -> Result<MediaPlaylist> {
        if let Some(held) = held {
            let (name, value) = held.query();
            from.query_pairs_mut().append_pair(name, &value);
        }
        for _ in 0..2 {
            let (text, at) = self.get(&from, None, MAX_PLAYLIST_BYTES).await?;
            let text = std::str::from_utf8(&text).context("the playlist is no text")?;
            match playlist::parse(text)? {
                Playlist::Media(list) => {
                    self.lock().base = at;
                    return Ok(list);
                }
                Playlist::Multivariant(variants) => {
                    let best = variants.into_iter().max_by_key(|v| v.bandwidth).context("no renditions")?;
                    from = at.join(&best.uri).with_context(|| format!("{:?} is no address", best.uri))?;
                    self.lock().playlist = from.clone();
                }
            }
        }
        bail!("{from} names other playlists where it should name segments")
    }

    /// Fetches segments one after the other, as long as the buffer wants more.
    async fn fetch(&self) -> Result<()> {
        loop {
            let next = {
                let now = self.now();
                let mut s = self.lock();
                s.player.pass(now);
                if s.follower.is_over() {
                    s.player.ended(now);
                }
                if s.player.is_over() {
                    return Ok(());
                }
                let segment = if s.player.wants_more() { s.follower.next_segment() } else { None };
                segment.ok_or(s.player.wakes_at())
            };
            match next {
                Ok(segment) => self.segment(segment).await,
                Err(None) => self.news.notified().await,
                Err(Some(at)) => {
                    let at = self.begun + Duration::from_micros(at.0);
                    let _ = tokio::time::timeout_at(at, self.news.notified()).await;
                }
            }
        }
    }

    async fn segment(&self, segment: Segment) {
        self.lock().fresh |= segment.discontinuity;
        if segment.gap {
            return self.told(format!("segment {} is listed as missing", segment.sequence));
        }
        let (base, known) = {
            let s = self.lock();
            (s.base.clone(), s.map.clone())
        };
        let new_map = segment.map.as_ref().filter(|m| known.as_ref() != Some(*m));
        let init = match new_map {
            None => None,
            Some(map) => match self.get_again(&base, &map.uri, map.range).await {
                Ok(bytes) => Some(bytes),
                Err(e) => {
                    return self.told(format!("the beginning of segment {} did not come: {e:#}", segment.sequence));
                }
            },
        };
        let bytes = match self.get_again(&base, &segment.uri, segment.range).await {
            Ok(bytes) => bytes,
            Err(e) => return self.told(format!("segment {} did not come: {e:#}", segment.sequence)),
        };
        let now = self.now();
        let unix_us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let mut s = self.lock();
        let fresh = std::mem::take(&mut s.fresh);
        let found = s.continuity.segment(init.as_deref(), &bytes, fresh);
        if init.is_some() {
            s.map.clone_from(&segment.map);
        }
        s.player.arrived(now, segment.duration);
        (s.segments, s.bytes) = (s.segments + 1, s.bytes + bytes.len() as u64);
        if let Some(recorded) = segment.recorded_unix_us {
            let complete = u128::from(recorded.saturating_add(segment.duration.0));
            if complete >= unix_us.saturating_sub(u128::from(now.0)) {
                let lag_us = u64::try_from(unix_us.saturating_sub(complete)).unwrap_or(u64::MAX);
                if s.lags_us.len() < MAX_LAGS {
                    s.lags_us.push(lag_us);
                }
            }
        }
        for b in found.breaks {
            let of = |lasts: Micros, what: String| BreakTold {
                segment: segment.sequence,
                what,
                lasts_s: lasts.as_secs_f64(),
            };
            let ms = |m: Micros| m.0 / 1000;
            match b {
                Break::Gap { track, missing } => {
                    add(&mut s.report.gaps, of(missing, format!("{} ms of track {track} are missing", ms(missing))));
                }
                Break::Repeat { track, again } => {
                    add(&mut s.report.repeats, of(again, format!("{} ms of track {track} come twice", ms(again))));
                }
                Break::Lost { track } => {
                    add(&mut s.report.broken, of(Micros(0), format!("packets of track {track} are missing")));
                }
                Break::Broken(what) => add(&mut s.report.broken, of(Micros(0), what.to_string())),
            }
        }
    }

    async fn get_again(&self, base: &Url, uri: &str, range: Option<ByteRange>) -> Result<Vec<u8>> {
        let url = base.join(uri).with_context(|| format!("{uri:?} is no address"))?;
        let mut tries = 1;
        loop {
            match self.get(&url, range, MAX_SEGMENT_BYTES).await.map(|(bytes, _)| bytes) {
                Err(e) if tries < TRIES => {
                    self.told(format!("{e:#}; once more"));
                    tries += 1;
                    tokio::time::sleep(BETWEEN_TRIES).await;
                }
                ended => return ended,
            }
        }
    }

    /// Bytes, and where they came from in the end.
    async fn get(&self, url: &Url, range: Option<ByteRange>, most: usize) -> Result<(Vec<u8>, Url)> {
        let mut request = self.http.get(url.clone());
        if let Some(r) = range {
            request = request.header(RANGE, format!("bytes={}-{}", r.from, r.from.saturating_add(r.bytes - 1)));
        }
        let mut response = request.send().await.with_context(|| format!("no answer from {url}"))?;
        let status = response.status();
        ensure!(status.is_success(), "{url} answers {status}");
        ensure!(range.is_none() || status == reqwest::StatusCode::PARTIAL_CONTENT, "{url} knows no ranges");
        let (mut bytes, at) = (Vec::new(), response.url().clone());
        while let Some(chunk) = response.chunk().await.with_context(|| format!("{url} broke off"))? {
            ensure!(bytes.len() + chunk.len() <= most, "{url} has more than {most} bytes");
            bytes.extend_from_slice(&chunk);
        }
        Ok((bytes, at))
    }
}

impl Spread {
    fn of(lags_us: &[u64]) -> Option<Spread> {
        let mut sorted = lags_us.to_vec();
        sorted.sort_unstable();
        let at = |percent: usize| sorted.get((sorted.len() * percent / 100).min(sorted.len().checked_sub(1)?)).copied();
        let s = |us: u64| us as f64 / 1e6;
        Some(Spread { min_s: s(at(0)?), median_s: s(at(50)?), p95_s: s(at(95)?), max_s: s(at(100)?) })
    }
}

fn add<T>(told: &mut Vec<T>, one: T) {
    if told.len() < MAX_TOLD {
        told.push(one);
    }
}

fn words(trouble: &Trouble) -> String {
    match trouble {
        Trouble::Backwards => "the playlist ends before what it listed earlier".into(),
        Trouble::Restarted => "the playlist began anew".into(),
        Trouble::Missed(n) => format!("{n} segments left the playlist before it was loaded"),
        Trouble::Changed(n) => format!("segment {n} is listed as another one than before"),
        Trouble::Discontinuity(n) => format!("segment {n} is listed as a discontinuity only now"),
        Trouble::TargetDuration(t) => format!("the target duration has become {} s", t.as_secs_f64()),
        Trouble::Stalled(t) => format!("nothing new for {:.1} s", t.as_secs_f64()),
        Trouble::GoesOn => "it goes on".into(),
    }
}
