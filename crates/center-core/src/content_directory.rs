//! Content directory and service manager (C4): which DCM manages a content, made when a first node asks for it.

use crate::config::Config;
use crate::dcm::Dcm;
use headwater_model::id::{ContentId, Version};
use headwater_model::layout::Layout;
use headwater_model::time::Time;
use std::collections::BTreeMap;

/// Contents that one control center publishes.
pub const MAX_CONTENTS: usize = 100_000;

/// A published content, as far as decisions need it.
#[derive(Clone, Debug)]
pub struct Content {
    /// Present version.
    pub version: Version,
    /// Its name.
    pub name: String,
    /// Geometry of the present version.
    pub layout: Layout,
    /// Reading from the origin needs credentials.
    pub origin_needs_credentials: bool,
    /// Viewers get them too.
    pub share_origin_credentials: bool,
    /// The swarm, once somebody asked for it. Its key is (content, region `all`) until clusters split.
    pub dcm: Option<Dcm>,
}

/// All contents.
#[derive(Clone, Debug, Default)]
pub struct ContentDirectory {
    contents: BTreeMap<ContentId, Content>,
    /// Withdrawn contents, so that their askers learn why.
    withdrawn: BTreeMap<ContentId, Time>,
}

/// What publishing did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Published {
    /// A new content.
    New,
    /// A newer version; the members of the former one must be told.
    NewVersion,
    /// The version that is published already.
    Same,
    /// An older version than the one that is published.
    Older,
    /// [`MAX_CONTENTS`].
    Full,
}

impl ContentDirectory {
    /// Publishes a version of a content.
    pub fn publish(&mut self, content: Content) -> (Published, Option<Dcm>) {
        let id = content.version.content;
        let full = self.contents.len() >= MAX_CONTENTS;
        match self.contents.get_mut(&id) {
            Some(old) if old.version.epoch > content.version.epoch => (Published::Older, None),
            Some(old) if old.version.epoch == content.version.epoch => {
                old.origin_needs_credentials = content.origin_needs_credentials;
                old.share_origin_credentials = content.share_origin_credentials;
                (Published::Same, None)
            }
            Some(old) => {
                let former = old.dcm.take();
                *old = content;
                (Published::NewVersion, former)
            }
            None if full => (Published::Full, None),
            None => {
                self.withdrawn.remove(&id);
                self.contents.insert(id, content);
                (Published::New, None)
            }
        }
    }

    /// Withdraws a content.
    pub fn unpublish(&mut self, now: Time, id: &ContentId) -> Option<Content> {
        let content = self.contents.remove(id)?;
        if self.withdrawn.len() >= MAX_CONTENTS
            && let Some(oldest) = self.withdrawn.iter().min_by_key(|(_, t)| **t).map(|(id, _)| *id)
        {
            self.withdrawn.remove(&oldest);
        }
        self.withdrawn.insert(*id, now);
        Some(content)
    }

    /// Whether it was withdrawn.
    pub fn was_withdrawn(&self, id: &ContentId) -> bool {
        self.withdrawn.contains_key(id)
    }
    /// A content.
    pub fn get(&self, id: &ContentId) -> Option<&Content> {
        self.contents.get(id)
    }
    /// A content's swarm, if it has one.
    pub fn dcm(&self, id: &ContentId) -> Option<&Dcm> {
        self.contents.get(id)?.dcm.as_ref()
    }
    /// See [`ContentDirectory::dcm`].
    pub fn dcm_mut(&mut self, id: &ContentId) -> Option<&mut Dcm> {
        self.contents.get_mut(id)?.dcm.as_mut()
    }
    /// All swarms.
    pub fn dcms_mut(&mut self) -> impl Iterator<Item = &mut Dcm> {
        self.contents.values_mut().filter_map(|c| c.dcm.as_mut())
    }
    /// The service manager: the swarm of a content, made now if nobody asked before.
    pub fn serve(
        &mut self,
        now: Time,
        id: &ContentId,
        config: &Config,
        epoch: u64,
        restarted: bool,
    ) -> Option<&mut Dcm> {
        let c = self.contents.get_mut(id)?;
        let (version, layout) = (c.version, &c.layout);
        Some(c.dcm.get_or_insert_with(|| Dcm::new(now, version, layout.clone(), config.clone(), epoch, restarted)))
    }
    /// All contents.
    pub fn iter(&self) -> impl Iterator<Item = (&ContentId, &Content)> {
        self.contents.iter()
    }
}
