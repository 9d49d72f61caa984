//! Where members stand in each tree. Side by side per tree and apart from what else is known of them, as most of what is
//! decided goes from parent to parent here.

use super::Trees;
use crate::dcm::Ix;
use crate::network_monitor::SequenceWatch;
use headwater_model::time::Time;

/// Depth of members that were never below the source: deeper than all others.
pub(super) const UNROOTED: u32 = 1 << 20;

/// Where a member stands in one tree.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Spot {
    /// Its parent; nothing at the root, and where it reads from the origin.
    pub(super) parent: Option<Ix>,
    /// Since when.
    pub(super) since: Time,
    /// Its children, the latest last.
    pub(super) children: Vec<Ix>,
    /// Edges from the source; says nothing where the source is not above.
    pub(super) depth: u32,
    /// Whom it goes to when the parent fails.
    pub(super) spare: Option<Ix>,
    /// The spare was looked at since the parent changed.
    pub(super) spare_fits: bool,
    /// Position among its clusters of the nearest one that its parent is in, too; more than all without a parent.
    pub(super) shared: u8,
    /// Without a parent: helpers bring it.
    pub(super) pulled: bool,
}

impl Default for Spot {
    fn default() -> Self {
        Self {
            parent: None,
            since: Time(0),
            children: Vec::new(),
            depth: UNROOTED,
            spare: None,
            spare_fits: false,
            shared: u8::MAX,
            pulled: false,
        }
    }
}

impl Trees {
    /// A newcomer, or nobody any more, is there.
    pub(super) fn clear_spots(&mut self, ix: Ix) {
        let at = ix as usize;
        for tree in &mut self.trees {
            let len = tree.spots.len().max(at + 1);
            tree.spots.resize_with(len, Spot::default);
            tree.watches.resize_with(len, SequenceWatch::default);
            if let Some((spot, watch)) = tree.spots.get_mut(at).zip(tree.watches.get_mut(at)) {
                (*spot, *watch) = (Spot::default(), SequenceWatch::default());
            }
        }
    }
    /// Where a member stands.
    pub(super) fn spot(&self, tree: u8, ix: Ix) -> Option<&Spot> {
        self.trees.get(usize::from(tree))?.spots.get(ix as usize)
    }
    pub(super) fn spot_mut(&mut self, tree: u8, ix: Ix) -> Option<&mut Spot> {
        self.trees.get_mut(usize::from(tree))?.spots.get_mut(ix as usize)
    }
    /// The same in all trees.
    pub(super) fn spots(&self, ix: Ix) -> impl Iterator<Item = (u8, &Spot)> {
        (0..).zip(&self.trees).filter_map(move |(tree, t)| Some((tree, t.spots.get(ix as usize)?)))
    }
    /// The parent of a member there.
    pub(super) fn parent(&self, tree: u8, ix: Ix) -> Option<Ix> {
        self.spot(tree, ix)?.parent
    }
    /// Its children there.
    pub(super) fn children(&self, tree: u8, ix: Ix) -> &[Ix] {
        self.spot(tree, ix).map(|s| s.children.as_slice()).unwrap_or_default()
    }
    /// Whether it has no parent in some tree.
    pub(super) fn is_unfed(&self, ix: Ix) -> bool {
        self.spots(ix).any(|(_, s)| s.parent.is_none())
    }
    /// What both ends of the edge from its parent last said of it.
    pub(super) fn watch(&self, tree: u8, ix: Ix) -> Option<&SequenceWatch> {
        self.trees.get(usize::from(tree))?.watches.get(ix as usize)
    }
    pub(super) fn watch_mut(&mut self, tree: u8, ix: Ix) -> Option<&mut SequenceWatch> {
        self.trees.get_mut(usize::from(tree))?.watches.get_mut(ix as usize)
    }
}
