//! Whether the origins have what was hashed.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

use headwater_model::log::Track;
use headwater_model::{Hash, Layout, Rng, merkle};
use serde::Serialize;
use tokio::task::JoinSet;
use url::Url;

use super::{object_url, shown};
use crate::origin::{Access, Expected, OriginClient, OriginError};

/// Pieces that a sample reads.
const SAMPLE_PIECES: usize = 16;
/// Objects that a sample asks about; of a larger folder it asks about so many, chosen at random.
const SAMPLE_OBJECTS: usize = 256;
/// Requests under way at once.
const MAX_REQUESTS: usize = 8;
/// Bytes read by one request when everything is read.
const PART_BYTES: u32 = 8 << 20;

/// How much of the origins is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Check {
    /// Length and ranges of up to 256 objects, and 16 random pieces.
    Sample,
    /// Every byte.
    All,
}

/// What was found good.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct OriginCheck {
    /// One for each origin that the log names, in its order.
    pub origins: Vec<CheckedOrigin>,
}

/// An origin that passed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct CheckedOrigin {
    /// The origin, without its query.
    pub url: String,
    /// Objects whose length and ranges were looked at.
    pub objects: usize,
    /// Of them, those without entity tag or date: a change there is noticed only by wrong bytes.
    pub objects_without_validator: usize,
    /// Pieces read and found right.
    pub pieces: usize,
    /// Bytes in these pieces.
    pub bytes: u64,
}

/// What is wrong with an origin, and what to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OriginProblem {
    /// Nothing there.
    #[error(
        "there is no file at {url} (status {status}): upload {path:?} to that address, or give the right one with --origin"
    )]
    NotFound {
        /// Where.
        url: String,
        /// HTTP status.
        status: u16,
        /// Which object.
        path: String,
    },
    /// Another length.
    #[error(
        "the file at {url} has {there_bytes} bytes and yours has {here_bytes}: another version is there, or the upload \
         is not complete. Upload {path:?} again, then publish again"
    )]
    Length {
        /// Where.
        url: String,
        /// Length at the origin.
        there_bytes: u64,
        /// Length of what was hashed.
        here_bytes: u64,
        /// Which object.
        path: String,
    },
    /// No ranges.
    #[error(
        "the server at {url} has no byte ranges, so that every viewer would fetch the whole file from it: switch them on \
         for this path at the web server or CDN (Accept-Ranges: bytes), or use an origin that has them"
    )]
    NoRanges {
        /// Where.
        url: String,
    },
    /// Credentials are wanted.
    #[error(
        "the server at {url} asks for credentials (status {status}): give them with --origin-header 'Name: value' or, for \
         signed URLs, with --origin-query"
    )]
    NeedsCredentials {
        /// Where.
        url: String,
        /// HTTP status.
        status: u16,
    },
    /// Credentials are refused.
    #[error(
        "the server at {url} refuses the credentials given (status {status}): they are wrong, expired, or for another path"
    )]
    RefusesCredentials {
        /// Where.
        url: String,
        /// HTTP status.
        status: u16,
    },
    /// Other bytes.
    #[error(
        "the bytes at {url} are not yours: they differ in piece {piece} (from byte {offset} of {path:?}). Another version \
         is there, or the server changes what it sends; upload {path:?} again, or publish the file that is there"
    )]
    Bytes {
        /// Where.
        url: String,
        /// Which piece of the track.
        piece: u32,
        /// Its first byte in the object.
        offset: u64,
        /// Which object.
        path: String,
    },
    /// Not an origin for this track: the leaf hashes are of another one.
    #[error("{leaves} leaf hashes for {pieces} pieces: they are of another content")]
    Leaves {
        /// Hashes given.
        leaves: usize,
        /// Pieces of the track.
        pieces: u32,
    },
    /// The address is not one.
    #[error("the log names {url:?} as an origin, which is no URL")]
    NotAUrl {
        /// What stands there.
        url: String,
    },
    /// Anything else.
    #[error(transparent)]
    Other(#[from] OriginError),
}

/// Compares every origin that `track` names with its verified `leaves`; `progress` is called with bytes done and bytes in
/// all, of all origins together.
///
/// # Errors
/// The first [`OriginProblem`].
pub async fn check_origin(
    client: &OriginClient,
    access: &Access,
    track: &Track,
    leaves: &[Hash],
    how: Check,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<OriginCheck, OriginProblem> {
    if leaves.len() != track.layout.pieces() as usize {
        return Err(OriginProblem::Leaves { leaves: leaves.len(), pieces: track.layout.pieces() });
    }
    let access = Arc::new(access.clone());
    let plan = Plan::new(&track.layout, track.objects.len(), how, &mut Rng::new(seed(), "origin check"));
    let total = plan.bytes(&track.layout) * track.origins.len() as u64;
    let mut before = 0;
    let mut check = OriginCheck::default();
    for origin in &track.origins {
        let url = Url::parse(origin).map_err(|_| OriginProblem::NotAUrl { url: origin.clone() })?;
        let one = One { client, access: &access, track, leaves, url, plan: &plan };
        let checked = one.run(&|done| progress(before + done, total)).await?;
        before += checked.bytes;
        check.origins.push(checked);
    }
    Ok(check)
}

/// Which objects are asked about and which pieces of them are read.
struct Plan {
    objects: Vec<usize>,
    /// Runs of pieces, each within one object.
    parts: Vec<Range<u32>>,
}

impl Plan {
    fn new(layout: &Layout, objects: usize, how: Check, rng: &mut Rng) -> Plan {
        match how {
            Check::All => {
                let objects: Vec<usize> = (0..objects).collect();
                let step = (PART_BYTES / layout.piece_bytes()).max(1);
                let parts_of = |o: &usize| {
                    let Range { start, end } = layout.pieces_of_object(*o);
                    (start..end).step_by(step as usize).map(move |p| p..(p + step).min(end))
                };
                Plan { parts: objects.iter().flat_map(parts_of).collect(), objects }
            }
            Check::Sample => {
                let mut objects: Vec<usize> = (0..objects).collect();
                rng.shuffle(&mut objects);
                // Those with pieces come first, so that there are bytes to compare in any folder.
                objects.sort_by_key(|o| layout.pieces_of_object(*o).is_empty());
                objects.truncate(SAMPLE_OBJECTS);
                let parts = sample(layout, &objects, rng).into_iter().map(|p| p..p + 1).collect();
                objects.sort_unstable();
                Plan { objects, parts }
            }
        }
    }

    fn bytes(&self, layout: &Layout) -> u64 {
        self.parts.iter().map(|p| layout.len_of(p.clone())).sum()
    }
}

/// Up to [`SAMPLE_PIECES`] pieces: one of each object as far as that goes, then any.
fn sample(layout: &Layout, objects: &[usize], rng: &mut Rng) -> BTreeSet<u32> {
    let count = SAMPLE_PIECES.min(layout.pieces() as usize);
    let with_pieces = objects.iter().map(|o| layout.pieces_of_object(*o)).filter(|p| !p.is_empty());
    let mut pieces: BTreeSet<u32> =
        with_pieces.take(count).map(|p| p.start + rng.below(u64::from(p.end - p.start)) as u32).collect();
    while pieces.len() < count {
        pieces.insert(rng.below(u64::from(layout.pieces())) as u32);
    }
    pieces
}

/// One origin under check.
struct One<'a> {
    client: &'a OriginClient,
    access: &'a Arc<Access>,
    track: &'a Track,
    leaves: &'a [Hash],
    url: Url,
    plan: &'a Plan,
}

impl One<'_> {
    async fn run(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<CheckedOrigin, OriginProblem> {
        let mut checked = CheckedOrigin { url: shown(&self.url), ..CheckedOrigin::default() };
        let mut versions = BTreeMap::new();
        let probe = |object: &usize| self.probe(*object);
        each(self.plan.objects.iter().map(probe), |(object, expected): (usize, Expected)| {
            checked.objects += 1;
            checked.objects_without_validator += usize::from(expected.validator.is_none());
            versions.insert(object, expected);
            Ok(())
        })
        .await?;
        let read = self.plan.parts.iter().filter_map(|part| {
            let object = self.track.layout.at(part.start)?.object;
            Some(self.read(part.clone(), object, versions.get(&object)?.clone()))
        });
        each(read, |(part, found): (Range<u32>, Vec<Hash>)| {
            let mine = &self.leaves[part.start as usize..part.end as usize];
            if let Some(wrong) = (0..mine.len()).find(|i| found.get(*i) != Some(&mine[*i])) {
                return Err(self.differs(part.start + wrong as u32));
            }
            checked.pieces += mine.len();
            checked.bytes += self.track.layout.len_of(part);
            progress(checked.bytes);
            Ok(())
        })
        .await?;
        Ok(checked)
    }

    fn object_url(&self, object: usize) -> Url {
        object_url(&self.url, self.track.objects.len(), &self.track.objects[object].path)
    }

    /// Finds out whether `object` is there with the right length and with ranges, and in which version.
    fn probe(&self, object: usize) -> impl Future<Output = Result<(usize, Expected), OriginProblem>> + Send + 'static {
        let url = self.object_url(object);
        let (path, length) = (self.track.objects[object].path.clone(), self.track.objects[object].size_bytes);
        let (client, access) = (self.client.clone(), Arc::clone(self.access));
        async move {
            let info = client.probe(&url, &access).await.map_err(|e| said(e, &access, &path))?;
            if info.length != length {
                let url = shown(&url);
                return Err(OriginProblem::Length { url, there_bytes: info.length, here_bytes: length, path });
            }
            if !info.ranges {
                return Err(OriginProblem::NoRanges { url: shown(&url) });
            }
            Ok((object, Expected { length, validator: info.validator }))
        }
    }

    /// Reads the pieces of `part` and hashes them.
    fn read(
        &self,
        part: Range<u32>,
        object: usize,
        expected: Expected,
    ) -> impl Future<Output = Result<(Range<u32>, Vec<Hash>), OriginProblem>> + Send + 'static {
        let url = self.object_url(object);
        let path = self.track.objects[object].path.clone();
        let (client, access) = (self.client.clone(), Arc::clone(self.access));
        let piece_bytes = self.track.layout.piece_bytes() as usize;
        let first = self.track.layout.at(part.start).map_or(0, |at| at.offset);
        let bytes = first..first + self.track.layout.len_of(part.clone());
        async move {
            let mut data = Vec::with_capacity((bytes.end - bytes.start) as usize);
            let sink = |_, chunk: bytes::Bytes| data.extend_from_slice(&chunk);
            client.fetch_all(&url, &access, bytes, &expected, sink).await.map_err(|e| said(e, &access, &path))?;
            Ok((part, data.chunks(piece_bytes).map(merkle::leaf).collect()))
        }
    }

    fn differs(&self, piece: u32) -> OriginProblem {
        let (object, offset) = self.track.layout.at(piece).map_or((0, 0), |at| (at.object, at.offset));
        let path = self.track.objects[object].path.clone();
        OriginProblem::Bytes { url: shown(&self.object_url(object)), piece, offset, path }
    }
}

/// The problem behind a request's error.
fn said(error: OriginError, access: &Access, path: &str) -> OriginProblem {
    match error {
        OriginError::NotFound { url, status } => OriginProblem::NotFound { url, status, path: path.into() },
        OriginError::NoRanges { url } => OriginProblem::NoRanges { url },
        OriginError::Refused { url, status } if *access == Access::default() => {
            OriginProblem::NeedsCredentials { url, status }
        }
        OriginError::Refused { url, status } => OriginProblem::RefusesCredentials { url, status },
        other => OriginProblem::Other(other),
    }
}

/// Runs `jobs`, [`MAX_REQUESTS`] at a time, and gives their results to `done`; the first error ends all of them.
async fn each<T, F>(
    jobs: impl Iterator<Item = F>,
    mut done: impl FnMut(T) -> Result<(), OriginProblem>,
) -> Result<(), OriginProblem>
where
    F: Future<Output = Result<T, OriginProblem>> + Send + 'static,
    T: Send + 'static,
{
    let mut jobs = jobs.fuse();
    let mut running = JoinSet::new();
    loop {
        while running.len() < MAX_REQUESTS {
            let Some(job) = jobs.next() else { break };
            running.spawn(job);
        }
        match running.join_next().await {
            None => return Ok(()),
            Some(Ok(result)) => done(result?)?,
            Some(Err(broken)) => {
                // Nobody aborts these tasks, so that one that did not end panicked.
                if let Ok(panic) = broken.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }
}

fn seed() -> u64 {
    // A fixed choice of pieces is a worse check, but still one.
    getrandom::u64().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_model::Rng;
    use headwater_model::log::Object;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn samples_are_spread(sizes in prop::collection::vec(0u64..200_000, 1..400), seed: u64) {
            let object = |s: &u64| Object { path: "p".into(), media_type: String::new(), size_bytes: *s };
            let layout = Layout::new(4096, &sizes.iter().map(object).collect::<Vec<_>>()).unwrap();
            let plan = Plan::new(&layout, sizes.len(), Check::Sample, &mut Rng::new(seed, "test"));
            prop_assert_eq!(plan.objects.len(), sizes.len().min(SAMPLE_OBJECTS));
            prop_assert_eq!(plan.parts.len(), SAMPLE_PIECES.min(layout.pieces() as usize));
            let touched: BTreeSet<usize> = plan.parts.iter().map(|p| layout.at(p.start).unwrap().object).collect();
            let filled = sizes.iter().filter(|s| **s > 0).count();
            prop_assert_eq!(touched.len(), filled.min(SAMPLE_PIECES));
            prop_assert!(touched.iter().all(|o| plan.objects.contains(o)), "a piece of an object that was not asked about");
            let all = Plan::new(&layout, sizes.len(), Check::All, &mut Rng::new(seed, "test"));
            prop_assert_eq!(all.bytes(&layout), layout.bytes());
            prop_assert_eq!(all.parts.iter().flat_map(Clone::clone).collect::<Vec<_>>(), (0..layout.pieces()).collect::<Vec<_>>());
            for part in &all.parts {
                prop_assert_eq!(layout.at(part.start).unwrap().object, layout.at(part.end - 1).unwrap().object);
            }
        }
    }
}
