//! What heartbeats say of downloads: how far each is, who served it, and the record of one that ended.

use crate::dcm;
use crate::history::Transfer;
use crate::judging::Served;
use crate::{Center, Output};
use headwater_model::SourceClass;
use headwater_model::id::{ContentId, NodeId};
use headwater_model::report::Heartbeat;
use headwater_model::time::{Micros, Rate, Time};
use std::collections::BTreeMap;

/// Traffic of one node in one content, from its heartbeats.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// When it joined.
    pub since: Time,
    /// Verified pieces.
    pub pieces_held: u32,
    /// Bytes from peers.
    pub peer_bytes: u64,
    /// Bytes from waypoints.
    pub waypoint_bytes: u64,
    /// Bytes from the origin.
    pub origin_bytes: u64,
    /// Bytes that came twice or were wrong.
    pub wasted_bytes: u64,
    /// Highest rate of an interval.
    pub max_rate: Rate,
    /// When it had everything.
    pub complete_at: Option<Time>,
    /// Bytes per parent as last said, to tell what is new.
    pub(crate) last: BTreeMap<NodeId, u64>,
    pub(crate) last_origin: u64,
    /// Since when its node has no session.
    pub(crate) gone_since: Option<Time>,
}

/// A node that comes back within this time counts on where it was; of others only sums are kept.
const REMEMBERED: Micros = Micros::from_secs(3600);
/// How often those who are gone are looked for.
const LOOK_EVERY: Micros = Micros::from_secs(60);

impl Center {
    pub(crate) fn heartbeat(&mut self, now: Time, node: NodeId, said: &Heartbeat, out: &mut Vec<Output>) {
        self.totals.heartbeats += 1;
        let Some(heard) = self.clients.heard(now, &node) else { return };
        // One that was paused or cut off was silent for that.
        let steady = now.since(heard).0 * 2 <= self.config.heartbeat.0 * 3;
        self.alive(now, node, steady, out);
        let (mut claimed, mut confirmed) = (Rate(0), Vec::new());
        for report in &said.contents {
            let id = report.version.content;
            let Some(content) = self.directory.get(&id).filter(|c| c.version == report.version) else { continue };
            let (pieces, piece_bytes) = (content.kind.pieces(), content.kind.piece_bytes());
            let Some(p) = self.progress.get_mut(&id).and_then(|of| of.get_mut(&node)) else { continue };
            let mut served = Vec::new();
            // Less than before: a process that began anew counts from 0. A node whose session is new counts on.
            let mut moved = report.origin_bytes.checked_sub(p.last_origin).unwrap_or(report.origin_bytes);
            p.origin_bytes += moved;
            p.last_origin = report.origin_bytes;
            p.pieces_held = report.pieces_held;
            p.wasted_bytes = p.wasted_bytes.max(report.wasted_bytes);
            for e in &report.from {
                let last = p.last.insert(e.node, e.bytes).unwrap_or(0);
                let new = e.bytes.checked_sub(last).unwrap_or(e.bytes);
                moved += new;
                let class =
                    self.clients.get(&e.node).map_or(SourceClass::Peer, |c| dcm::class_of(c.arrival.introduction.role));
                match class {
                    SourceClass::Waypoint => p.waypoint_bytes += new,
                    _ => p.peer_bytes += new,
                }
                // A slanderer's praise is worth no more than its blame.
                if !self.trust.is_slanderer(&node) {
                    self.history.served(e.node, node, new);
                }
                served.push(Served { parent: e.node, bytes: new, waited: e.waited });
                let up = self.clients.confirm(&e.node, &node, said.interval, new, self.config.heartbeat);
                confirmed.extend(up.map(|up| (e.node, up)));
            }
            p.max_rate = p.max_rate.max(Rate::of(moved, self.config.heartbeat));
            let complete = pieces == Some(report.pieces_held) && p.complete_at.is_none();
            if let Some(coordinator) = self.directory.coordinator_mut(&id) {
                let used = coordinator.heartbeat(now, &node, said.interval, report);
                claimed.0 = claimed.0.saturating_add(used.0);
                // Interval 0 is none: such a report tells of a part of one.
                if let Some(client) = self.clients.get_mut(&node).filter(|_| said.interval > 0) {
                    client.budget.refresh(now, &id, coordinator.use_of(&node, used, report.priority));
                }
            }
            if complete {
                self.record(now, id, node, true, out);
            }
            self.collect(now, id, out);
            self.praise(now, node, u64::from(piece_bytes), &served, out);
        }
        if said.interval > 0 {
            self.regrant(&node, |budget, changed| budget.split(now, changed));
        }
        for (parent, up) in confirmed {
            self.regrant(&parent, |budget, changed| budget.set_total(now, up, changed));
        }
        self.weigh_words(now, node, claimed.max(said.up_used), out);
    }

    /// Forgets nodes that are gone for long, once a minute: there are new ones all the time.
    pub(crate) fn forget_progress(&mut self, now: Time) {
        if now < self.forget_at {
            return;
        }
        self.forget_at = now + LOOK_EVERY;
        let (clients, gone) = (&self.clients, &mut self.gone_origin_bytes);
        for (content, of) in &mut self.progress {
            of.retain(|node, p| {
                if clients.get(node).is_some() {
                    p.gone_since = None;
                    return true;
                }
                let stays = now.since(*p.gone_since.get_or_insert(now)) < REMEMBERED;
                if !stays && p.origin_bytes > 0 {
                    *gone.entry(*content).or_default() += p.origin_bytes;
                }
                stays
            });
        }
        self.progress.retain(|_, of| !of.is_empty());
    }

    /// A version of a content ended.
    pub(crate) fn forget_progress_of(&mut self, content: ContentId) {
        self.gone_origin_bytes.remove(&content);
        self.progress.remove(&content);
    }

    /// Bytes that all nodes got from a content's origin, also those that are gone.
    pub fn origin_bytes(&self, content: ContentId) -> u64 {
        let of_gone = self.gone_origin_bytes.get(&content).copied().unwrap_or(0);
        self.progress_of(content).map(|(_, p)| p.origin_bytes).sum::<u64>() + of_gone
    }

    /// Keeps the record of a transfer that ended.
    pub(crate) fn record(
        &mut self,
        now: Time,
        content: ContentId,
        node: NodeId,
        complete: bool,
        out: &mut Vec<Output>,
    ) {
        let title = self.directory.get(&content).map(|c| c.name.clone()).unwrap_or_default();
        let Some(p) = self.progress.get_mut(&content).and_then(|of| of.get_mut(&node)) else { return };
        let already = p.complete_at.is_some();
        if complete {
            p.complete_at.get_or_insert(now);
        }
        if already || p.peer_bytes + p.waypoint_bytes + p.origin_bytes == 0 {
            return;
        }
        let transfer = Transfer {
            node,
            content,
            title,
            peer_bytes: p.peer_bytes,
            waypoint_bytes: p.waypoint_bytes,
            origin_bytes: p.origin_bytes,
            start: p.since,
            end: now,
            max_rate: p.max_rate.0,
            complete,
        };
        self.history.finished(transfer.clone());
        out.push(Output::Record(transfer));
    }
}
