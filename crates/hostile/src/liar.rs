//! A peer that is honest but for its kind: joins, fetches by simple means, serves, reports. One task decides, the wires
//! bring it what happens.

use crate::Setup;
use crate::content::Content;
use crate::kind::{Claims, Kind};
use crate::serving::{Queue, Serving};
use crate::story::{Story, unix_ms};
use crate::wires::{self, Event, Events, Kept, Link};
use crate::{replay, slander, streams};
use bytes::Bytes;
use headwater_model::Substreams;
use headwater_model::assignment::{Assignment, Parent, Reach};
use headwater_model::report::{Alarm, ContentReport, EdgeReport, Heartbeat, Join};
use headwater_model::{Bits, Micros, NodeId, Priority, Rate, Ticket, Version};
use headwater_peer::key::PublisherKey;
use headwater_peer::origin::{Access, OriginClient, OriginConfig};
use headwater_peer::publish;
use headwater_wire::{Bitmap, FromControl, FromNode, FromPeer, GivenTicket, Held, OriginAccess, Token};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// Pieces asked of one parent at once.
const ASK: usize = 16;
/// A parent that sends nothing for so long is asked anew.
const ASK_AGAIN: Duration = Duration::from_secs(4);
/// How often what is due is looked at.
const TICK: Duration = Duration::from_millis(250);
/// What a child that can be dialled is given to dial itself.
const CHILD_DIALS_FIRST: Duration = Duration::from_millis(700);
/// By how much `lies-sent` overstates.
const SENT_TIMES: u64 = 20;
/// A slanderer raises alarms for so many heartbeats, and then lets its heartbeats alone slander for as many: an alarm ends
/// the edge, and of an edge that ended nothing more can be said.
const ALARM_BEATS: u64 = 6;
/// Pieces that a slanderer calls bad, per parent and tick.
const BAD_PIECES_PER_TICK: u32 = 8;

struct ParentEdge {
    entry: Parent,
    open: bool,
    has: Bits,
    asked: BTreeSet<u32>,
    asked_at: Instant,
    pieces: u64,
    bytes: u64,
}

struct ChildEdge {
    queue: Queue,
    task: AbortHandle,
    bytes: u64,
}

impl Drop for ChildEdge {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Liar {
    setup: Arc<Setup>,
    story: Story,
    events: Events,
    origin: OriginClient,
    control: Option<mpsc::Sender<Bytes>>,
    dial_control_at: Instant,
    /// Control time less local time, in milliseconds.
    ahead_ms: i64,
    heartbeat_ms: u64,
    beat: u64,
    first_beat: u64,
    content: Option<Content>,
    tickets: BTreeMap<NodeId, GivenTicket>,
    /// Everyone ever heard of.
    known: BTreeMap<NodeId, Reach>,
    kept: Kept,
    links: BTreeMap<NodeId, Vec<Link>>,
    parents: BTreeMap<NodeId, ParentEdge>,
    children: BTreeMap<NodeId, ChildEdge>,
    assigned_children: BTreeSet<NodeId>,
    leased: BTreeSet<u32>,
    runs_told: Bits,
}

/// Misbehaves until it is stopped.
pub async fn run(setup: Arc<Setup>, story: Story) -> anyhow::Result<()> {
    let (events, mut queue) = mpsc::unbounded_channel();
    let kept = Kept::default();
    tokio::spawn(wires::accept(setup.listener.clone(), kept.clone(), events.clone()));
    let mut liar = Liar {
        origin: OriginClient::new(OriginConfig::default())?,
        setup,
        story,
        events,
        control: None,
        dial_control_at: Instant::now(),
        ahead_ms: 0,
        heartbeat_ms: 2000,
        beat: 0,
        first_beat: 0,
        content: None,
        tickets: BTreeMap::new(),
        known: BTreeMap::new(),
        kept,
        links: BTreeMap::new(),
        parents: BTreeMap::new(),
        children: BTreeMap::new(),
        assigned_children: BTreeSet::new(),
        leased: BTreeSet::new(),
        runs_told: Bits::default(),
    };
    let mut pulse = tokio::time::interval(TICK);
    pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            Some(event) = queue.recv() => liar.happened(event),
            _ = pulse.tick() => liar.tick().await,
        }
    }
}

impl Liar {
    fn kind(&self) -> Kind {
        self.setup.kind
    }
    fn version(&self) -> Option<Version> {
        self.content.as_ref().map(|c| c.track.version)
    }
    fn tell_control(&self, message: &FromNode) {
        if let Some(control) = &self.control {
            let _ = control.try_send(message.encode());
        }
    }
    fn tell(&self, node: &NodeId, message: &FromPeer) {
        if let Some(link) = self.links.get(node).and_then(|l| l.first()) {
            let _ = link.out.try_send(message.encode());
        }
    }

    // ---- the control center ----

    async fn tick(&mut self) {
        if self.control.is_none() && self.dial_control_at <= Instant::now() {
            self.dial_control().await;
        }
        let control_ms = unix_ms().saturating_add_signed(self.ahead_ms);
        let interval = control_ms / self.heartbeat_ms.max(1);
        if interval != self.beat {
            self.beat = interval;
            if self.first_beat == 0 && self.content.is_some() {
                self.first_beat = interval;
            }
            self.heartbeat(interval);
        }
        if self.kind() == Kind::Slanders {
            self.slander();
        }
        self.ask_everyone();
    }

    async fn dial_control(&mut self) {
        match wires::session(&self.setup, &self.setup.listener, wires::hello(&self.setup)).await {
            Ok(session) => {
                let (welcome, out) = wires::converse(session, self.events.clone());
                self.ahead_ms = welcome.control_unix_ms as i64 - unix_ms() as i64;
                self.heartbeat_ms = u64::from(welcome.heartbeat_ms);
                self.control = Some(out);
                self.story.count("sessions", 1);
                if let Some(victim) = self.setup.victim {
                    self.story.say("claimed", json!({"field": "hello.local_addresses", "address": victim.to_string()}));
                }
                self.join();
            }
            Err(why) => {
                self.story.refused("control", "session", &why);
                self.dial_control_at = Instant::now() + Duration::from_secs(1);
            }
        }
    }

    fn join(&mut self) {
        let version = self.version().unwrap_or(Version { content: self.setup.name.content(), epoch: 0 });
        let all = self.kind().claims() == Claims::All;
        let runs = self.content.as_ref().map(|c| if all { Bits::full(c.runs.len()) } else { c.runs.clone() });
        let join = Join {
            version,
            complete: self.content.is_some() && all,
            runs,
            parents: self.parents.iter().filter(|(_, p)| p.open).map(|(n, _)| (*n, Substreams::default())).collect(),
            leases: self.leased.iter().copied().collect(),
            ..Join::to(version)
        };
        self.tell_control(&FromNode::Join(headwater_wire::Join::new(join, Token(String::new()))));
    }

    fn heartbeat(&mut self, interval: u64) {
        let Some(c) = &self.content else { return };
        let all = self.kind().claims() == Claims::All;
        let runs = if all { Bits::full(c.runs.len()) } else { c.runs.clone() };
        let mut from: Vec<EdgeReport> =
            self.parents.iter().map(|(node, p)| self.report(*node, p.pieces, p.bytes)).collect();
        if self.kind() == Kind::Slanders {
            let nodes: BTreeSet<NodeId> = self.parents.keys().chain(self.known.keys()).copied().collect();
            from = nodes.into_iter().map(|n| slander::report(n, Micros::from_millis(self.heartbeat_ms))).collect();
        }
        let sent = |bytes: u64| match self.kind() {
            Kind::LiesSent => (bytes + 1_000_000) * SENT_TIMES,
            _ => bytes,
        };
        let to: Vec<EdgeReport> = self.children.iter().map(|(node, c)| self.report(*node, 0, sent(c.bytes))).collect();
        if self.kind() == Kind::LiesSent {
            self.children.iter().for_each(|(node, _)| self.story.harm(*node, "much more was claimed than it was sent"));
        }
        let report = ContentReport {
            version: c.track.version,
            runs: (runs != self.runs_told).then(|| runs.clone()),
            pieces_held: if all { c.track.layout.pieces() } else { c.have.ones() },
            origin_bytes: c.origin_bytes,
            wasted_bytes: 0,
            from,
            to,
            priority: Priority::Normal,
            live: None,
        };
        self.runs_told = runs;
        let up_used = if self.kind() == Kind::LiesSent { Rate::from_mbit(10_000) } else { Rate(0) };
        let heartbeat = Heartbeat { interval, up_used, contents: vec![report], ..Heartbeat::default() };
        self.tell_control(&FromNode::Heartbeat(headwater_wire::Heartbeat::new(heartbeat, unix_ms())));
        for page in c.missing_pages() {
            self.tell_control(&FromNode::PageRequest { version: c.track.version, page });
        }
    }

    fn report(&self, node: NodeId, pieces: u64, bytes: u64) -> EdgeReport {
        let rtt = self.links.get(&node).and_then(|l| l.first()).map_or(0, |l| l.connection.rtt().as_micros() as u64);
        EdgeReport {
            node,
            pieces,
            bytes,
            waited: Micros::from_millis(self.heartbeat_ms / 4),
            rtt: Micros(rtt),
            sent_packets: 0,
            lost_packets: 0,
            offers_nothing: false,
            last_pieces: Vec::new(),
        }
    }

    fn slander(&mut self) {
        let Some(version) = self.version() else { return };
        if self.beat.saturating_sub(self.first_beat) / ALARM_BEATS % 2 == 1 {
            return;
        }
        let held: Vec<u32> =
            self.content.iter().flat_map(|c| c.have.iter()).take(BAD_PIECES_PER_TICK as usize).collect();
        for node in self.known.keys() {
            for message in slander::of(*node, version) {
                self.tell_control(&message);
            }
            for piece in &held {
                self.tell(node, &FromPeer::BadPiece { version, piece: *piece });
            }
            // Others have nothing of it that they could leave.
            if self.children.contains_key(node) {
                self.story.harm(*node, "was slandered");
            }
        }
        let why = "the origin gives other bytes".to_owned();
        self.tell_control(&FromNode::LeaseFailed { version, run: 0, why, content_changed: true, forbidden: false });
    }

    fn control_said(&mut self, message: FromControl) {
        match message {
            FromControl::HeartbeatReply { control_unix_ms, .. } => {
                self.ahead_ms = control_unix_ms as i64 - unix_ms() as i64;
            }
            FromControl::Content { log, access } if self.content.is_none() => self.open(log, &access),
            FromControl::Refused { refusal, .. } => self.story.refused("control", "join", &refusal.to_string()),
            FromControl::Assignment { assignment, tickets, .. } => self.assigned(assignment, tickets),
            FromControl::Lease { lease, .. } => self.lease(lease.run),
            FromControl::LeaseRevoked { run, .. } => {
                self.leased.remove(&run);
            }
            FromControl::Page { page, .. } => {
                if let Some(c) = &mut self.content {
                    c.put_page(&page);
                }
            }
            // Pages that are asked for, probes and what later versions say do not concern it.
            _ => {}
        }
    }

    fn open(&mut self, log: headwater_model::log::Log, access: &OriginAccess) {
        let query = (!access.query.is_empty()).then(|| access.query.clone());
        let access = Access { headers: access.headers.clone(), query };
        match Content::open(log, &self.setup.name, access, &self.setup.data) {
            Ok(content) => {
                for page in content.missing_pages() {
                    self.tell_control(&FromNode::PageRequest { version: content.track.version, page });
                }
                let piece_bytes = content.track.layout.piece_len(0);
                self.setup.piece_bytes.store(piece_bytes, std::sync::atomic::Ordering::Relaxed);
                self.content = Some(content);
                self.join();
                if self.kind() == Kind::NamesVictim {
                    self.announce_victim();
                }
            }
            Err(e) => self.story.refused("itself", "the content", &e.to_string()),
        }
    }

    /// Logs in which a victim is the origin: the true one altered, and one of an own publisher.
    fn announce_victim(&self) {
        let (Some(victim), Some(content)) = (self.setup.victim, &self.content) else { return };
        let Ok(url) = format!("http://{victim}/file").parse::<url::Url>() else { return };
        let mut altered = content.log.clone();
        for signed in &mut altered.entries {
            signed.entry.origins = vec![url.to_string()];
            signed.entry.epoch += 1;
        }
        self.tell_control(&FromNode::Announce(altered));
        let (key, file) = (self.setup.data.join("publisher"), self.setup.data.join("file"));
        let made = PublisherKey::create(&key).or_else(|_| PublisherKey::load(&key)).ok().and_then(|key| {
            std::fs::write(&file, vec![1; 1 << 20]).ok()?;
            publish::prepare(&file, "bait", &key, &[url], None, unix_ms(), 1, &|_, _| ()).ok()
        });
        if let Some(made) = made {
            self.tell_control(&FromNode::Announce(made.log));
        }
        self.story.say("claimed", json!({"field": "announce.log.origins", "address": victim.to_string()}));
    }

    fn lease(&mut self, run: u32) {
        let Some(c) = &self.content else { return };
        self.story.count("leases", 1);
        if self.kind().claims() == Claims::All {
            return self.tell_control(&FromNode::LeaseDone { version: c.track.version, run });
        }
        self.leased.insert(run);
        let (fetch, events) = (c.fetch_run(run, self.origin.clone()), self.events.clone());
        tokio::spawn(async move { events.send(Event::Run(run, fetch.await)) });
    }

    fn assigned(&mut self, assignment: Assignment, tickets: Vec<GivenTicket>) {
        let own = self.setup.listener.identity().node;
        let children: BTreeSet<NodeId> = assignment.children.iter().map(|c| c.node).collect();
        let parents: BTreeSet<NodeId> = assignment.parents.iter().map(|p| p.node).collect();
        if children != self.assigned_children || !parents.iter().eq(self.parents.keys()) {
            let list = |nodes: &BTreeSet<NodeId>| nodes.iter().map(NodeId::to_string).collect::<Vec<_>>();
            self.story.say("assigned", json!({"parents": list(&parents), "children": list(&children)}));
        }
        // Those that are still named were not taken back, only not taken away yet.
        children.difference(&self.assigned_children).for_each(|n| self.story.assigned(*n));
        self.assigned_children = children;
        let everyone = assignment.senders().map(|p| (p.node, p.reach.clone()));
        let everyone = everyone.chain(assignment.children.iter().map(|c| (c.node, c.reach.clone())));
        for (node, reach) in everyone.filter(|(node, _)| *node != own) {
            let new = self.known.insert(node, reach.clone()).is_none();
            if new && self.kind() == Kind::OpensStreams {
                tokio::spawn(streams::attack(self.setup.clone(), self.story.clone(), node, reach, assignment.version));
            }
        }
        for given in tickets {
            let new = self.tickets.insert(given.ticket.parent, given.clone()).is_none();
            if new && self.kind() == Kind::ReplaysTickets {
                let known = self.known.clone();
                tokio::spawn(replay::attack(self.setup.clone(), self.story.clone(), given, known));
            }
        }
        let gone: Vec<NodeId> = self.parents.keys().filter(|n| !parents.contains(n)).copied().collect();
        for node in gone {
            self.parents.remove(&node);
            let close = FromPeer::CloseEdge { version: assignment.version, as_child: true, why: String::new() };
            self.tell(&node, &close);
        }
        for entry in assignment.parents {
            let node = entry.node;
            if let Some(edge) = self.parents.get_mut(&node) {
                edge.entry = entry;
                continue;
            }
            let has = Bits::new(self.content.as_ref().map_or(0, |c| c.have.len()));
            let (dial, reach) = (entry.dial, entry.reach.clone());
            let asked_at = Instant::now();
            let asked = BTreeSet::new();
            self.parents.insert(node, ParentEdge { entry, open: false, has, asked, asked_at, pieces: 0, bytes: 0 });
            if self.links.contains_key(&node) {
                self.open_edge(node);
            } else if dial {
                wires::dial(&self.setup.listener, node, reach, Duration::ZERO, &self.kept, self.events.clone());
            }
        }
        for child in assignment.children.into_iter().filter(|c| c.dial && !self.links.contains_key(&c.node)) {
            wires::dial(
                &self.setup.listener,
                child.node,
                child.reach,
                CHILD_DIALS_FIRST,
                &self.kept,
                self.events.clone(),
            );
        }
    }

    // ---- peers ----

    fn happened(&mut self, event: Event) {
        match event {
            Event::Control(message) => self.control_said(message),
            Event::ControlGone(why) => {
                self.story.refused("control", "session", &why);
                self.control = None;
                self.dial_control_at = Instant::now() + Duration::from_secs(1);
            }
            Event::Linked(node, link) => {
                self.links.entry(node).or_default().push(link);
                self.open_edge(node);
            }
            Event::Unlinked(node, id, why) => self.unlinked(node, id, &why),
            Event::NotLinked(node) => self.lost_parent(node, "no answer"),
            Event::Peer(node, message) => self.peer_said(node, message),
            Event::Piece(node, version, piece, data) => self.piece(node, version, piece, &data),
            Event::Run(run, result) => self.run_came(run, result),
            Event::Sent(node, bytes) => {
                self.story.count("bytes_sent", bytes);
                if let Some(child) = self.children.get_mut(&node) {
                    child.bytes += bytes;
                }
            }
        }
    }

    fn unlinked(&mut self, node: NodeId, id: u64, why: &str) {
        let Some(links) = self.links.get_mut(&node) else { return };
        links.retain(|l| l.id != id);
        if !links.is_empty() {
            return;
        }
        self.links.remove(&node);
        let used = self.children.remove(&node).is_some() | self.parents.contains_key(&node);
        if used {
            self.story.left_by(node, &format!("connection: {why}"));
        }
        self.lost_parent(node, why);
    }

    fn lost_parent(&mut self, node: NodeId, why: &str) {
        if let (Some(_), Some(version)) = (self.parents.remove(&node), self.version()) {
            let alarm = Alarm::ParentLost { parent: node, why: why.to_owned() };
            self.tell_control(&FromNode::Alarm { version, alarm });
        }
    }

    fn open_edge(&self, node: NodeId) {
        let (Some(link), Some(given)) = (self.links.get(&node).and_then(|l| l.first()), self.tickets.get(&node)) else {
            return;
        };
        if self.parents.get(&node).is_some_and(|p| !p.open) {
            let proof = Ticket::prove(&given.secret.0, &link.nonce, &link.certificate);
            let (version, ticket) = (given.ticket.version, given.ticket.clone());
            self.tell(&node, &FromPeer::OpenEdge { version, ticket, proof });
        }
    }

    fn peer_said(&mut self, node: NodeId, message: FromPeer) {
        let Some(version) = self.version() else { return };
        match message {
            FromPeer::OpenEdge { version: wanted, .. } if wanted == version => self.child_came(node, version),
            FromPeer::EdgeAnswer { refusal, .. } => match refusal {
                Some((code, why)) => {
                    self.story.refused(node, "edge", &format!("{code}: {why}"));
                    self.lost_parent(node, "it refused");
                }
                None => {
                    if let Some(p) = self.parents.get_mut(&node) {
                        p.open = true;
                    }
                }
            },
            FromPeer::Have { held, .. } => {
                let Some(p) = self.parents.get_mut(&node) else { return };
                match held {
                    Held::All(bitmap) => {
                        if let Ok(bits) = bitmap.bits(self.content.as_ref().map_or(0, |c| c.have.len())) {
                            p.has = bits;
                        }
                    }
                    Held::More(pieces) => pieces.iter().for_each(|piece| {
                        p.has.set(*piece);
                    }),
                }
                self.ask(node);
            }
            FromPeer::Request { pieces, .. } => {
                if let Some(child) = self.children.get(&node) {
                    child.queue.ask(&pieces);
                }
            }
            FromPeer::Cancel { pieces, .. } => {
                self.story.count("cancels", 1);
                if let Some(child) = self.children.get(&node) {
                    child.queue.unask(&pieces);
                }
            }
            FromPeer::CloseEdge { as_child, why, .. } => {
                if as_child {
                    if self.children.remove(&node).is_some() {
                        self.story.left_by(node, &format!("edge: {why}"));
                    }
                    return;
                }
                // It serves this liar no more, and may still suffer from it.
                self.lost_parent(node, &why);
            }
            FromPeer::BadPiece { .. } => self.story.count("called_bad", 1),
            _ => {}
        }
    }

    fn child_came(&mut self, node: NodeId, version: Version) {
        let (Some(c), Some(link)) = (&self.content, self.links.get(&node).and_then(|l| l.first())) else { return };
        let queue = Queue::default();
        let serving = Serving {
            sends: self.kind().sends(),
            promises_much: self.kind() == Kind::LiesCanSend,
            child: node,
            connection: link.connection.clone(),
            version,
            track: c.track.clone(),
            file: c.file.clone(),
            queue: queue.clone(),
            bytes_per_s: self.setup.up_bytes_per_s / (self.children.len() as u64 + 1),
            events: self.events.clone(),
            story: self.story.clone(),
        };
        let task = tokio::spawn(serving.run()).abort_handle();
        self.children.insert(node, ChildEdge { queue, task, bytes: 0 });
        self.story.count("children", 1);
        self.story.came(node);
        if self.kind() == Kind::LiesHolds {
            self.story.harm(node, "is offered nothing of what was claimed");
        }
        let held = match self.kind().offers() {
            Claims::True => c.have.clone(),
            Claims::All => Bits::full(c.have.len()),
            Claims::Nothing => Bits::new(c.have.len()),
        };
        self.tell(&node, &FromPeer::EdgeAnswer { version, refusal: None });
        self.tell(&node, &FromPeer::Have { version, held: Held::All(Bitmap::new(&held)) });
    }

    fn piece(&mut self, node: NodeId, version: Version, piece: u32, data: &[u8]) {
        if self.version() != Some(version) {
            return;
        }
        if let Some(p) = self.parents.get_mut(&node) {
            p.asked.remove(&piece);
            p.asked_at = Instant::now();
            p.pieces += 1;
            p.bytes += data.len() as u64;
        }
        self.keep(&[(piece, data)]);
        self.ask(node);
    }

    fn run_came(&mut self, run: u32, result: Result<Vec<(u32, Bytes)>, String>) {
        let Some(version) = self.version() else { return };
        self.leased.remove(&run);
        match result {
            Ok(pieces) => {
                let some: Vec<(u32, &[u8])> = pieces.iter().map(|(p, d)| (*p, d.as_ref())).collect();
                if let Some(c) = &mut self.content {
                    c.origin_bytes += some.iter().map(|(_, d)| d.len() as u64).sum::<u64>();
                }
                self.keep(&some);
                self.tell_control(&FromNode::LeaseDone { version, run });
            }
            Err(why) => self.tell_control(&FromNode::LeaseFailed {
                version,
                run,
                why,
                content_changed: false,
                forbidden: false,
            }),
        }
    }

    fn keep(&mut self, pieces: &[(u32, &[u8])]) {
        let Some(c) = &mut self.content else { return };
        let new: Vec<u32> = pieces.iter().filter(|(p, data)| c.put(*p, data)).map(|(p, _)| *p).collect();
        let version = c.track.version;
        self.story.count("pieces_fetched", new.len() as u64);
        if !new.is_empty() && self.kind().offers() == Claims::True {
            for child in self.children.keys() {
                self.tell(child, &FromPeer::Have { version, held: Held::More(new.clone()) });
            }
        }
    }

    fn ask_everyone(&mut self) {
        for node in self.parents.keys().copied().collect::<Vec<_>>() {
            self.ask(node);
        }
    }

    /// Asks a parent for what it has, in order, but what others were asked for.
    fn ask(&mut self, node: NodeId) {
        // Who claims everything needs nothing.
        if self.kind().claims() == Claims::All {
            return;
        }
        let Some(c) = self.content.as_ref().filter(|c| c.knows_hashes() && !c.have.is_full()) else { return };
        let asked: BTreeSet<u32> = self.parents.values().flat_map(|p| p.asked.iter().copied()).collect();
        let Some(p) = self.parents.get_mut(&node).filter(|p| p.open) else { return };
        if p.asked_at.elapsed() > ASK_AGAIN {
            p.asked.clear();
        }
        let wanted = p.has.iter().filter(|piece| {
            !c.have.get(*piece) && !asked.contains(piece) && !self.leased.contains(&c.track.layout.run_of(*piece))
        });
        if p.asked.len() > ASK / 2 {
            return;
        }
        let some: Vec<u32> = wanted.take(ASK - p.asked.len()).collect();
        if some.is_empty() {
            return;
        }
        p.asked.extend(&some);
        p.asked_at = Instant::now();
        let request = FromPeer::Request { version: c.track.version, pieces: some };
        self.tell(&node, &request);
    }
}
