//! Whether members behind one public address can connect there: a household's or a company's can, strangers behind a
//! provider's NAT cannot.

use super::member::Member;
use super::{Trees, clusters};
use crate::dcm::Ix;

/// Pairs that cannot connect before any could: it is a provider's NAT.
const MAX_FAILED: u32 = 3;

/// What is known of members behind one public address.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct Site {
    works: bool,
    failed: u32,
}

impl Trees {
    /// Whether a connection between the two can come about.
    pub(super) fn can_connect(&self, a: &Member, b: &Member) -> bool {
        let (x, y) = (&a.reachability, &b.reachability);
        x.compatible_from_afar(y) || (x.compatible(y) && self.site_works(a))
    }

    fn site_works(&self, m: &Member) -> bool {
        self.clusters.site(m).is_none_or(|s| s.works || s.failed < MAX_FAILED)
    }

    /// Two that only their site can bring together did or did not connect.
    pub(super) fn site_tried(&mut self, a: Ix, b: Ix, works: bool) {
        let (Some(x), Some(y)) = (self.member(a), self.member(b)) else { return };
        if x.info.reachability().compatible_from_afar(&y.info.reachability()) {
            return;
        }
        let group = clusters::lan_of(x);
        let Some(site) = group.and_then(|key| self.clusters.site_mut(key)) else { return };
        site.works |= works;
        site.failed = site.failed.saturating_add(u32::from(!works));
    }
}
