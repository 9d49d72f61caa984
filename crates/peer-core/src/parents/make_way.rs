//! What a reader waits for does not stand in a parent's queue behind what nobody waits for.

use super::ParentLink;
use crate::swarm::{Output, Swarm};
use headwater_model::id::NodeId;
use headwater_model::time::Time;

/// Pieces at the head of a queue that are on their way already.
const ON_THEIR_WAY: usize = 2;

impl Swarm {
    /// Takes back what else was asked of the parent that is to bring a piece that a reader waits for. It is asked for again,
    /// in a better order.
    pub(crate) fn make_way(&mut self, now: Time, out: &mut Vec<Output>) {
        let awaited: Vec<u32> = self.awaited_by_readers().collect();
        for piece in awaited {
            if !self.origin.fetches(self.layout.run_of(piece), piece)
                && let Some(parent) = self.stands_behind_others(piece)
            {
                self.take_back_rest(now, parent, out);
            }
        }
    }

    /// The parent in whose queue a piece stands too far back, or would stand.
    fn stands_behind_others(&self, piece: u32) -> Option<NodeId> {
        let place = |p: &ParentLink| p.asked.iter().position(|asked| *asked == piece);
        let asked = self.parents.iter().find_map(|(node, p)| Some((*node, place(p)?)));
        if let Some((node, at)) = asked {
            return (at > ON_THEIR_WAY).then_some(node);
        }
        let may = |p: &ParentLink| p.is_open() && p.ends_by.is_none() && !p.late && p.suspect.is_none();
        let holders = self.parents.iter().filter(|(_, p)| may(p) && p.has.get(piece));
        let piece_bytes = self.layout.piece_bytes();
        let soonest =
            holders.min_by(|a, b| a.1.eta(ON_THEIR_WAY, piece_bytes).total_cmp(&b.1.eta(ON_THEIR_WAY, piece_bytes)));
        soonest.filter(|(_, p)| p.asked.len() > ON_THEIR_WAY).map(|(node, _)| *node)
    }

    fn take_back_rest(&mut self, now: Time, parent: NodeId, out: &mut Vec<Output>) {
        let Some(p) = self.parents.get_mut(&parent).filter(|p| p.asked.len() > ON_THEIR_WAY) else { return };
        let rest = Vec::from(p.asked.split_off(ON_THEIR_WAY));
        p.settled(now);
        self.unclaim(rest.iter().copied());
        let bytes = rest.iter().map(|piece| u64::from(self.layout.piece_len(*piece))).sum();
        self.asked_until = self.intake.take_back(self.asked_until, bytes);
        out.push(Output::Unask(parent, rest));
    }
}
