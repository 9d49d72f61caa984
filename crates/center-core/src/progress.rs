//! What heartbeats say of downloads: how far each is, who served it, and the record of one that ended.

use crate::dcm;
use crate::history::Transfer;
use crate::judging::Served;
use crate::{Center, Output, share_uplink};
use headwater_model::SourceClass;
use headwater_model::id::{ContentId, NodeId};
use headwater_model::report::Heartbeat;
use headwater_model::time::{Rate, Time};
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
}

impl Center {
    pub(crate) fn heartbeat(&mut self, now: Time, node: NodeId, said: &Heartbeat, out: &mut Vec<Output>) {
        self.totals.heartbeats += 1;
        let Some(client) = self.clients.get_mut(&node) else { return };
        // One that was paused or cut off was silent for that.
        let steady = now.since(client.heard).0 * 2 <= self.config.heartbeat.0 * 3;
        client.heard = now;
        client.quiet = false;
        self.alive(now, node, steady, out);
        let mut claimed = Rate(0);
        for report in &said.contents {
            let id = report.version.content;
            let Some(content) = self.directory.get(&id).filter(|c| c.version == report.version) else { continue };
            let (pieces, piece_bytes) = (content.layout.pieces(), content.layout.piece_bytes());
            let Some(p) = self.progress.get_mut(&(id, node)) else { continue };
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
                if self.clients.confirm(&e.node, &node, said.interval, new, self.config.heartbeat).is_some() {
                    share_uplink(&self.clients, &mut self.directory, &e.node);
                }
            }
            p.max_rate = p.max_rate.max(Rate::of(moved, self.config.heartbeat));
            let complete = report.pieces_held == pieces && p.complete_at.is_none();
            if let Some(dcm) = self.directory.dcm_mut(&id) {
                claimed.0 = claimed.0.saturating_add(dcm.heartbeat(now, &node, said.interval, report).0);
            }
            if complete {
                self.record(now, id, node, true, out);
            }
            self.collect(now, id, out);
            self.praise(now, node, u64::from(piece_bytes), &served, out);
        }
        self.weigh_words(now, node, claimed.max(said.up_used), out);
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
        let Some(p) = self.progress.get_mut(&(content, node)) else { return };
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
