//! Content directory and service manager (C4): what manages a content's delivery, made when a first node asks for it.

use crate::config::Config;
use crate::coordinator::Coordinator;
use crate::dcm::Dcm;
use crate::stand_ins::StandIn;
use crate::trees::Trees;
use headwater_model::id::{ContentId, NodeId, Version};
use headwater_model::layout::Layout;
use headwater_model::live::{LIVE_PIECE_BYTES, LiveTerms};
use headwater_model::time::Time;
use std::collections::BTreeMap;

/// Contents that one control center publishes.
pub const MAX_CONTENTS: usize = 100_000;

/// What a content is, as far as decisions need it.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A file or a folder, of this geometry.
    File(Layout),
    /// A live stream, for which this holds.
    Live(LiveTerms),
}

impl Kind {
    /// Geometry of a file.
    pub fn layout(&self) -> Option<&Layout> {
        match self {
            Kind::File(layout) => Some(layout),
            Kind::Live(_) => None,
        }
    }
    /// Whether it is a live stream.
    pub fn is_live(&self) -> bool {
        matches!(self, Kind::Live(_))
    }
    /// Pieces that all of it has; nothing where there are ever more.
    pub fn pieces(&self) -> Option<u32> {
        self.layout().map(Layout::pieces)
    }
    /// Bytes of a piece; of a live one, where its publisher does not say otherwise.
    pub fn piece_bytes(&self) -> u32 {
        self.layout().map_or(LIVE_PIECE_BYTES, Layout::piece_bytes)
    }
}

/// A published content, as far as decisions need it.
#[derive(Clone, Debug)]
pub struct Content {
    /// Present version.
    pub version: Version,
    /// Its name.
    pub name: String,
    /// What its present version is.
    pub kind: Kind,
    /// Reading from the origin needs credentials.
    pub origin_needs_credentials: bool,
    /// Viewers get them too.
    pub share_origin_credentials: bool,
    /// What lightweight clients get in its place.
    pub stand_in: Option<StandIn>,
    /// The swarm of a file, once somebody asked for it. Its key is (content, region `all`) until clusters split.
    pub dcm: Option<Dcm>,
    /// The trees of a live stream, likewise.
    pub trees: Option<Trees>,
}

impl Content {
    pub(crate) fn coordinator(&self) -> Option<&dyn Coordinator> {
        match (&self.dcm, &self.trees) {
            (Some(dcm), _) => Some(dcm),
            (None, Some(trees)) => Some(trees),
            (None, None) => None,
        }
    }
    pub(crate) fn coordinator_mut(&mut self) -> Option<&mut dyn Coordinator> {
        match (&mut self.dcm, &mut self.trees) {
            (Some(dcm), _) => Some(dcm),
            (None, Some(trees)) => Some(trees),
            (None, None) => None,
        }
    }
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
    /// Publishes a version of a content; also those who take part in the former one.
    pub fn publish(&mut self, content: Content) -> (Published, Vec<NodeId>) {
        let id = content.version.content;
        let full = self.contents.len() >= MAX_CONTENTS;
        match self.contents.get_mut(&id) {
            Some(old) if old.version.epoch > content.version.epoch => (Published::Older, Vec::new()),
            Some(old) if old.version.epoch == content.version.epoch => {
                old.origin_needs_credentials = content.origin_needs_credentials;
                old.share_origin_credentials = content.share_origin_credentials;
                old.stand_in = content.stand_in;
                (Published::Same, Vec::new())
            }
            Some(old) => {
                let former = old.coordinator().map(|c| c.nodes()).unwrap_or_default();
                *old = content;
                (Published::NewVersion, former)
            }
            None if full => (Published::Full, Vec::new()),
            None => {
                self.withdrawn.remove(&id);
                self.contents.insert(id, content);
                (Published::New, Vec::new())
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
    /// A live stream's trees, if it has some.
    pub fn trees(&self, id: &ContentId) -> Option<&Trees> {
        self.contents.get(id)?.trees.as_ref()
    }
    pub(crate) fn coordinator(&self, id: &ContentId) -> Option<&dyn Coordinator> {
        self.contents.get(id)?.coordinator()
    }
    pub(crate) fn coordinator_mut(&mut self, id: &ContentId) -> Option<&mut dyn Coordinator> {
        self.contents.get_mut(id)?.coordinator_mut()
    }
    pub(crate) fn coordinators_mut(&mut self) -> impl Iterator<Item = &mut dyn Coordinator> {
        self.contents.values_mut().filter_map(Content::coordinator_mut)
    }
    /// The service manager: what manages a content, made now if nobody asked before.
    pub(crate) fn serve(
        &mut self,
        now: Time,
        id: &ContentId,
        config: &Config,
        epoch: u64,
        restarted: bool,
    ) -> Option<&mut dyn Coordinator> {
        let c = self.contents.get_mut(id)?;
        let version = c.version;
        match &c.kind {
            Kind::File(layout) => {
                let new = || Dcm::new(now, version, layout.clone(), config.clone(), epoch, restarted);
                Some(c.dcm.get_or_insert_with(new))
            }
            Kind::Live(terms) => {
                let new = || Trees::new(now, version, *terms, config.clone(), epoch, restarted);
                Some(c.trees.get_or_insert_with(new))
            }
        }
    }
    /// All contents.
    pub fn iter(&self) -> impl Iterator<Item = (&ContentId, &Content)> {
        self.contents.iter()
    }
}
