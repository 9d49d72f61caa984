//! Published contents as the server keeps them: what goes out to nodes, and how contents come and go.

use crate::hub::{Hub, unix_ms};
use crate::identity::FolderError;
use crate::store::{ContentRow, StoreError};
use bytes::Bytes;
use headwater_center_core::Input;
use headwater_center_core::content_directory::{Content, Kind, MAX_CONTENTS};
use headwater_center_core::stand_ins::{NoStandIn, StandIn};
use headwater_model::live::LiveTrack;
use headwater_model::log::{Log, Said, fingerprint};
use headwater_model::{ContentId, Hash, NodeId, Version};
use headwater_wire::limits::{
    MAX_HEADER_NAME_BYTES, MAX_HEADER_VALUE_BYTES, MAX_HEADERS, MAX_LOG_BYTES, MAX_QUERY_BYTES,
};
use headwater_wire::{FromControl, OriginAccess, StaticLog};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Logs of all contents together, which are kept in memory for those who join.
const MAX_LOGS_BYTES: usize = 2 << 30;
/// Announcers remembered per content, to ask for pages.
const MAX_ANNOUNCERS: usize = 64;

/// A published content.
pub(crate) struct Published {
    pub(crate) version: Version,
    pub(crate) name: String,
    /// Fingerprint of the publisher's first key.
    pub(crate) key: Hash,
    pub(crate) bytes: u64,
    pub(crate) pieces: u32,
    pub(crate) objects: usize,
    pub(crate) origins: Vec<String>,
    pub(crate) root: Hash,
    /// Root over the pieces' sums, where the log has it.
    pub(crate) sums: Option<Hash>,
    /// What a live stream's log says.
    pub(crate) live: Option<LiveTrack>,
    /// Only for bearers of a viewer's token.
    pub(crate) restricted: bool,
    pub(crate) share_origin_credentials: bool,
    /// Name of what lightweight clients get in its place.
    pub(crate) lightweight: Option<String>,
    pub(crate) published_unix_ms: u64,
    /// Nodes that said that they have it.
    pub(crate) announcers: BTreeSet<NodeId>,
    access: OriginAccess,
    log_hash: Hash,
    /// The message that goes to those who join, and to those who may use the credentials.
    frame: Bytes,
    frame_with_access: Option<Bytes>,
}

/// All of them.
#[derive(Default)]
pub(crate) struct Contents {
    by_id: BTreeMap<ContentId, Published>,
    by_name: BTreeMap<String, ContentId>,
    /// Epoch of the version that was withdrawn.
    withdrawn: BTreeMap<ContentId, u64>,
    frames_bytes: usize,
}

/// How a content is to be published.
#[derive(Clone)]
pub(crate) struct Terms {
    pub(crate) access: OriginAccess,
    pub(crate) share_origin_credentials: bool,
    pub(crate) restricted: bool,
    /// Name of the publisher's content that lightweight clients get in its place.
    pub(crate) lightweight: Option<String>,
}

/// Why a content is not published.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    /// Another key has the name.
    #[error(
        "the name {name:?} is taken: it is published under key {key}; choose another name, or withdraw that content first"
    )]
    NameTaken {
        /// The name.
        name: String,
        /// Whose it is.
        key: Hash,
    },
    /// A newer version is here.
    #[error("epoch {current} is published already, which is newer than {offered}: publish with a higher epoch")]
    Older {
        /// Published.
        current: u64,
        /// Offered.
        offered: u64,
    },
    /// The same epoch with another log.
    #[error("epoch {0} was published with other objects already: publish with a higher epoch")]
    OtherLog(u64),
    /// What lightweight clients are to get cannot be that.
    #[error("lightweight clients cannot get that in its place: {0}")]
    StandIn(#[from] NoStandIn),
    /// Limits.
    #[error("over a limit of the control center: {0}")]
    Limit(String),
    /// The disk.
    #[error("the content was not published, as it could not be kept: {0}")]
    Store(#[from] StoreError),
    /// The disk.
    #[error("the content was not published: {0}")]
    Identity(#[from] FolderError),
    /// The server ends.
    #[error("the control center is stopping")]
    Stopping,
}

impl Published {
    /// `None` when the messages would be too large for the wire.
    fn new(log: &Log, said: &Said, terms: Terms, published_unix_ms: u64) -> Option<(Published, Vec<u8>)> {
        let encoded = headwater_wire::encode_log(log);
        if encoded.len() > MAX_LOG_BYTES {
            return None;
        }
        let frame = |access| FromControl::Content { log: log.clone(), access }.encode();
        let closed = said.closed();
        let has_access = terms.access != OriginAccess::default();
        let published = Published {
            version: said.version(),
            name: said.name().to_owned(),
            key: fingerprint(&log.first_key),
            bytes: closed.map_or(0, |t| t.layout.bytes()),
            pieces: closed.map_or(0, |t| t.layout.pieces()),
            objects: closed.map_or(0, |t| t.objects.len()),
            origins: said.origins().to_vec(),
            root: closed.map_or(Hash::default(), |t| t.root),
            sums: closed.and_then(|t| t.sums),
            live: said.live().cloned(),
            restricted: terms.restricted,
            share_origin_credentials: terms.share_origin_credentials,
            lightweight: terms.lightweight,
            published_unix_ms,
            announcers: BTreeSet::new(),
            log_hash: Hash::of(&[&encoded]),
            frame: frame(OriginAccess::default()),
            frame_with_access: has_access.then(|| frame(terms.access.clone())),
            access: terms.access,
        };
        Some((published, encoded))
    }

    fn frames_bytes(&self) -> usize {
        self.frame.len() + self.frame_with_access.as_ref().map_or(0, Bytes::len)
    }

    /// As the core needs it.
    fn for_core(&self, said: Said) -> Content {
        // Of the same publisher, whoever has the name.
        let stand_in = |name: &String| StandIn { content: ContentId::of(&self.key, name), name: name.clone() };
        let kind = match said {
            Said::Closed(track) => Kind::File(track.layout),
            Said::Live(track) => Kind::Live(track.terms),
        };
        Content {
            version: self.version,
            name: self.name.clone(),
            kind,
            origin_needs_credentials: self.frame_with_access.is_some(),
            share_origin_credentials: self.share_origin_credentials,
            stand_in: self.lightweight.as_ref().map(stand_in),
            dcm: None,
            trees: None,
        }
    }

    fn terms(&self) -> Terms {
        Terms {
            access: self.access.clone(),
            share_origin_credentials: self.share_origin_credentials,
            restricted: self.restricted,
            lightweight: self.lightweight.clone(),
        }
    }
}

/// Whether credentials for the origin keep the limits of the wire and make HTTP headers.
///
/// # Errors
/// What is wrong, without the credentials.
pub(crate) fn check_access(access: &OriginAccess) -> Result<(), String> {
    if access.headers.len() > MAX_HEADERS || access.query.len() > MAX_QUERY_BYTES {
        return Err(format!("more than {MAX_HEADERS} headers, or a query of more than {MAX_QUERY_BYTES} bytes"));
    }
    for (i, (name, value)) in access.headers.iter().enumerate() {
        let long = name.len() > MAX_HEADER_NAME_BYTES || value.len() > MAX_HEADER_VALUE_BYTES;
        let bad = axum::http::HeaderName::try_from(name).is_err() || axum::http::HeaderValue::try_from(value).is_err();
        if long || bad {
            return Err(format!("header {} has a name or value that is no HTTP header, or is too long", i + 1));
        }
    }
    Ok(())
}

impl Contents {
    /// A content that was kept; its log is verified again. `None` for one that is not believed any more.
    pub(crate) fn restore(&mut self, row: &ContentRow) -> Option<Input> {
        let log = headwater_wire::decode_log(&row.log).ok()?;
        let said = log.verify_either(&row.name, None).ok().filter(|s| s.version() == row.version)?;
        let terms = Terms {
            access: row.access.clone(),
            share_origin_credentials: row.share_origin_credentials,
            restricted: row.restricted,
            lightweight: row.lightweight.clone(),
        };
        let (published, _) = Published::new(&log, &said, terms, row.published_unix_ms)?;
        let content = published.for_core(said);
        self.insert(published);
        Some(Input::Publish(Box::new(content)))
    }

    /// A content that was withdrawn before the restart.
    pub(crate) fn restore_withdrawn(&mut self, content: ContentId, epoch: u64) {
        if self.withdrawn.len() < MAX_CONTENTS {
            self.withdrawn.insert(content, epoch);
        }
    }

    fn insert(&mut self, mut published: Published) {
        let id = published.version.content;
        self.frames_bytes += published.frames_bytes();
        self.by_name.insert(published.name.clone(), id);
        self.withdrawn.remove(&id);
        if let Some(former) = self.by_id.remove(&id) {
            self.frames_bytes -= former.frames_bytes();
            if former.version == published.version {
                published.announcers = former.announcers;
            }
        }
        self.by_id.insert(id, published);
    }

    fn remove(&mut self, id: &ContentId) -> Option<Published> {
        let gone = self.by_id.remove(id)?;
        self.frames_bytes -= gone.frames_bytes();
        self.by_name.remove(&gone.name);
        if self.withdrawn.len() < MAX_CONTENTS {
            self.withdrawn.insert(*id, gone.version.epoch);
        }
        Some(gone)
    }

    pub(crate) fn get(&self, id: &ContentId) -> Option<&Published> {
        self.by_id.get(id)
    }
    pub(crate) fn by_name(&self, name: &str) -> Option<ContentId> {
        self.by_name.get(name).copied()
    }
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ContentId, &Published)> {
        self.by_id.iter()
    }
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }
    /// Whether it was withdrawn, also before a restart.
    pub(crate) fn was_withdrawn(&self, id: &ContentId) -> bool {
        self.withdrawn.contains_key(id)
    }
    /// The message with the log of this version, if it is the published one.
    pub(crate) fn frame(&self, version: &Version, with_access: bool) -> Option<Bytes> {
        let content = self.by_id.get(&version.content).filter(|c| c.version == *version)?;
        let with = content.frame_with_access.as_ref().filter(|_| with_access);
        Some(with.unwrap_or(&content.frame).clone())
    }
    /// The node has this version.
    pub(crate) fn announced_by(&mut self, version: Version, node: NodeId) {
        if let Some(content) = self.by_id.get_mut(&version.content).filter(|c| c.version == version)
            && content.announcers.len() < MAX_ANNOUNCERS
        {
            content.announcers.insert(node);
        }
    }
    /// Whether an announced version would be news.
    fn wants(&self, version: Version) -> bool {
        let known = self.by_id.get(&version.content).map(|c| c.version.epoch);
        let withdrawn = self.withdrawn.get(&version.content).copied();
        known.max(withdrawn).is_none_or(|epoch| version.epoch > epoch)
    }

    /// Whether `new` may be published now.
    fn check(&self, new: &Published) -> Result<(), PublishError> {
        let id = new.version.content;
        if let Some(other) = self.by_name(&new.name).filter(|other| *other != id) {
            let key = self.by_id.get(&other).map_or(Hash::default(), |c| c.key);
            return Err(PublishError::NameTaken { name: new.name.clone(), key });
        }
        match self.by_id.get(&id) {
            Some(old) if old.version.epoch > new.version.epoch => {
                Err(PublishError::Older { current: old.version.epoch, offered: new.version.epoch })
            }
            Some(old) if old.version == new.version && old.log_hash != new.log_hash => {
                Err(PublishError::OtherLog(new.version.epoch))
            }
            None if self.by_id.len() >= MAX_CONTENTS => {
                Err(PublishError::Limit(format!("{MAX_CONTENTS} contents are published")))
            }
            _ if self.frames_bytes + new.frames_bytes() > MAX_LOGS_BYTES => {
                Err(PublishError::Limit(format!("the logs of all contents take {MAX_LOGS_BYTES} bytes")))
            }
            _ => Ok(()),
        }
    }
}

impl Hub {
    /// Publishes a verified log with its leaf hashes and sums: durable when this returns.
    pub(crate) async fn publish(
        self: &Arc<Hub>,
        file: StaticLog,
        said: Said,
        terms: Terms,
    ) -> Result<(), PublishError> {
        let hub = self.clone();
        self.uninterrupted(async move {
            let kept = crate::pages::to_keep(&file.leaves, &file.sums);
            hub.keep_and_publish(file.log, said, Some(terms), Some(kept)).await
        })
        .await
    }

    /// Goes on when the caller gives up, so that disk and memory agree.
    async fn uninterrupted<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, PublishError>> + Send + 'static,
    ) -> Result<T, PublishError> {
        self.tasks.spawn(work).await.map_err(|_| PublishError::Stopping)?
    }

    /// `terms` are those of the former version where there are none given.
    async fn keep_and_publish(
        self: &Arc<Hub>,
        log: Log,
        said: Said,
        terms: Option<Terms>,
        leaves: Option<Vec<u8>>,
    ) -> Result<(), PublishError> {
        let _one_at_a_time = self.publishing.lock().await;
        let (version, name) = (said.version(), said.name().to_owned());
        let (id, by_publisher) = (version.content, terms.is_some());
        let terms = terms.unwrap_or_else(|| {
            let restricted = self.identity.is_restricted(&id);
            let access = OriginAccess::default();
            let fresh = Terms { access, share_origin_credentials: false, restricted, lightweight: None };
            self.lock().contents.get(&id).map_or(fresh, Published::terms)
        });
        let too_large = || PublishError::Limit(format!("the log has more than {MAX_LOG_BYTES} bytes"));
        let (published, encoded) = Published::new(&log, &said, terms.clone(), unix_ms()).ok_or_else(too_large)?;
        let content = published.for_core(said);
        {
            let state = self.lock();
            state.contents.check(&published)?;
            if by_publisher {
                state.center.directory().check_stand_in(&content)?;
            }
        }
        let (hub, key, restricted) = (self.clone(), published.key, terms.restricted);
        let remember = move || {
            hub.identity.add_publisher(key)?;
            hub.identity.set_restricted(id, restricted)
        };
        tokio::task::spawn_blocking(remember).await.map_err(|_| PublishError::Stopping)??;
        let row = ContentRow {
            version,
            name: name.clone(),
            log: encoded,
            access: terms.access,
            share_origin_credentials: terms.share_origin_credentials,
            restricted,
            lightweight: terms.lightweight,
            published_unix_ms: published.published_unix_ms,
        };
        self.store.publish(row, leaves).await?;
        let mut state = self.lock();
        state.events.say(unix_ms(), format!("{name} (epoch {}) is published", version.epoch));
        state.pages.forget(&published.version);
        // The core answers with messages that name the new version: it must be known here first.
        state.contents.insert(published);
        self.input(&mut state, Input::Publish(Box::new(content)));
        Ok(())
    }

    /// Withdraws a content; its name when it was there.
    pub(crate) async fn withdraw(self: &Arc<Hub>, id: ContentId) -> Result<Option<String>, PublishError> {
        let hub = self.clone();
        self.uninterrupted(async move { hub.forget_and_withdraw(id).await }).await
    }

    async fn forget_and_withdraw(&self, id: ContentId) -> Result<Option<String>, PublishError> {
        let _one_at_a_time = self.publishing.lock().await;
        let Some(version) = self.lock().contents.get(&id).map(|c| c.version) else { return Ok(None) };
        self.store.withdraw(version, unix_ms()).await?;
        let mut state = self.lock();
        let name = state.contents.remove(&id).map(|c| c.name);
        if let Some(name) = &name {
            state.events.say(unix_ms(), format!("{name} is withdrawn"));
        }
        self.input(&mut state, Input::Unpublish(id));
        Ok(name)
    }

    /// A node has a content. One that was lost with the state is published again, if its publisher was ever accepted
    /// here and the log is true.
    pub(crate) async fn announced(self: &Arc<Hub>, node: NodeId, log: Log) {
        let Some(version) = log.version() else { return };
        {
            let mut state = self.lock();
            if !state.contents.wants(version) {
                state.contents.announced_by(version, node);
                return;
            }
        }
        if !self.identity.knows_publisher(&fingerprint(&log.first_key)) {
            tracing::info!("{node:.8} announced {:.60?} of a publisher that was never accepted here", log.name);
            return;
        }
        let Ok(_permit) = self.verifying.acquire().await else { return };
        let verify = move || {
            let said = log.verify_either(&log.name, None);
            (log, said)
        };
        let Ok((log, said)) = tokio::task::spawn_blocking(verify).await else { return };
        match said {
            Err(e) => tracing::warn!("{node:.8} announced a log that is not true: {e}"),
            Ok(said) => {
                let hub = self.clone();
                let publish = async move { hub.keep_and_publish(log, said, None, None).await };
                match self.uninterrupted(publish).await {
                    Ok(()) => self.lock().contents.announced_by(version, node),
                    Err(e) => tracing::warn!("a content that {node:.8} announced is not published: {e}"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_checked_without_being_named() {
        let with =
            |name: &str, value: &str| OriginAccess { headers: vec![(name.into(), value.into())], query: String::new() };
        assert_eq!(check_access(&with("authorization", "Bearer x")), Ok(()));
        for bad in [with("a b", "secret"), with("a", "secret\nx"), with("a", &"secret".repeat(9000))] {
            let said = check_access(&bad).unwrap_err();
            assert!(said.contains("header 1") && !said.contains("secret"), "{said}");
        }
        let many = OriginAccess { headers: vec![Default::default(); 100], query: String::new() };
        assert!(check_access(&many).is_err());
    }
}
