//! What the node may do for others now, carried out: `peer-core` says what is permitted, this reads the facts, tells the
//! control center, and hands children over when nobody is to be served any more.

use super::state::{self, ContentState, Phase, State};
use super::{HAND_OVER, HAND_OVER_LOOK, Inner, Node, UNLIMITED_CLAIM, live, opening};
use crate::circumstances::{self, POWER_SUPPLIES};
use crate::volume::Volume;
use headwater_model::id::{NodeId, Version};
use headwater_model::time::Rate;
use headwater_peer_core::live::LiveInput;
use headwater_peer_core::{Circumstances, Conduct, Input, Limits, Permission};
use headwater_wire::{FromNode, FromPeer};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How often hours, volume and power are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the system is asked whether the network is metered: a process is started for it.
const ASK_METERED_EVERY: Duration = Duration::from_secs(30);
/// What children are told when nobody is served any more.
pub(crate) const SERVES_NOBODY: &str = "this node serves nobody now";

/// Limits as they are, and what follows from them.
pub(crate) struct InForce {
    limits: Limits,
    paused: Conduct,
    metered: Option<bool>,
    on_battery: Option<bool>,
    sent_this_month: u64,
    pub(crate) permission: Permission,
}

/// What a node may do now, and why not more.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitsStatus {
    /// `serve`, `fetch` (serves nobody) or `pause` (nor fetches).
    pub conduct: String,
    /// Why not more, if so.
    pub why: Option<String>,
    /// Whether the user paused it (and not something else).
    pub paused: bool,
    /// Most to upload, wire bytes per second.
    pub up_bytes_per_s: Option<u64>,
    /// What it sends at most now so that the user's own traffic does not wait; absent for waypoints.
    pub polite_up_bytes_per_s: Option<u64>,
    /// Most to download, wire bytes per second.
    pub down_bytes_per_s: Option<u64>,
    /// Most to upload in a calendar month.
    pub monthly_bytes: Option<u64>,
    /// Uploaded in this one.
    pub sent_this_month_bytes: u64,
    /// Whether the network is metered, where the system says.
    pub metered: Option<bool>,
    /// Whether the machine runs on its battery, where the system says.
    pub on_battery: Option<bool>,
}

impl InForce {
    /// Before anything but the limits and the month's volume is known.
    pub(crate) fn new(limits: Limits, sent_this_month: u64) -> Self {
        let permission = Permission { up: limits.up, down: limits.down, conduct: Conduct::Serve, why: None };
        let (paused, metered, on_battery) = (Conduct::Serve, None, None);
        Self { limits, paused, metered, on_battery, sent_this_month, permission }
    }

    pub(crate) fn serves(&self) -> bool {
        self.permission.conduct == Conduct::Serve
    }

    pub(crate) fn fetches(&self) -> bool {
        self.permission.conduct < Conduct::Pause
    }

    /// What the control center is told.
    pub(crate) fn offered_up(&self) -> Rate {
        if self.serves() { self.permission.up.unwrap_or(UNLIMITED_CLAIM) } else { Rate(0) }
    }
}

impl Node {
    /// Stops doing things for others: with [`Conduct::Fetch`] it serves nobody, with [`Conduct::Pause`] it fetches nothing
    /// either. Children are handed over as when it stops, and the control center assigns nobody to it any more. Returns at
    /// once; survives no restart of the process.
    pub fn pause(&self, to: Conduct) {
        self.0.lock().limits.paused = to;
        apply(&self.0);
    }

    /// Ends a pause. Hours, volume, network and power may still keep it from serving.
    pub fn resume(&self) {
        self.pause(Conduct::Serve);
    }

    /// Other limits from now on.
    pub fn set_limits(&self, limits: Limits) {
        self.0.lock().limits.limits = limits;
        apply(&self.0);
    }

    /// What its user allows.
    pub fn allowed(&self) -> Limits {
        self.0.lock().limits.limits.clone()
    }

    /// What it may do now.
    pub fn limits(&self) -> LimitsStatus {
        let state = self.0.lock();
        let l = &state.limits;
        LimitsStatus {
            conduct: String::from(match l.permission.conduct {
                Conduct::Serve => "serve",
                Conduct::Fetch => "fetch",
                Conduct::Pause => "pause",
            }),
            why: l.permission.why.map(|why| why.to_string()),
            paused: l.paused > Conduct::Serve,
            up_bytes_per_s: l.permission.up.map(|r| r.0),
            polite_up_bytes_per_s: self.0.governor.as_ref().filter(|g| g.governs()).map(|g| g.rate().0),
            down_bytes_per_s: l.permission.down.map(|r| r.0),
            monthly_bytes: l.limits.monthly_bytes,
            sent_this_month_bytes: l.sent_this_month,
            metered: l.metered,
            on_battery: l.on_battery,
        }
    }
}

/// Looks at the facts for as long as the node runs.
pub(crate) async fn keep(inner: Arc<Inner>, mut volume: Volume) {
    let mut pulse = tokio::time::interval(LOOK_EVERY);
    pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut ask_at, mut counted) = (tokio::time::Instant::now(), 0);
    loop {
        let stops = tokio::select! {
            _ = inner.stopping.cancelled() => true,
            _ = pulse.tick() => false,
        };
        let sent = inner.pacer.sent_bytes();
        let kept = volume.add(circumstances::local_time().1, sent - std::mem::replace(&mut counted, sent));
        if let Err(e) = if stops { volume.close() } else { kept } {
            tracing::warn!("cannot keep this month's volume: {e}");
        }
        if stops {
            return;
        }
        let asks = inner.lock().limits.limits.on_metered > Conduct::Serve;
        if asks && ask_at <= tokio::time::Instant::now() {
            ask_at += ASK_METERED_EVERY;
            let metered = circumstances::metered().await;
            inner.lock().limits.metered = metered;
        }
        let on_battery = circumstances::on_battery(Path::new(POWER_SUPPLIES));
        {
            let l = &mut inner.lock().limits;
            (l.on_battery, l.sent_this_month) = (on_battery, volume.sent());
        }
        apply(&inner);
    }
}

/// What is permitted now is done from now on.
pub(crate) fn apply(inner: &Arc<Inner>) {
    let mut state = inner.lock();
    let state = &mut *state;
    let (moment, _) = circumstances::local_time();
    let l = &mut state.limits;
    let circumstances = Circumstances {
        moment,
        sent_this_month: l.sent_this_month,
        metered: l.metered,
        on_battery: l.on_battery,
        paused: l.paused,
    };
    let (offered, served, fetched) = (l.offered_up(), l.serves(), l.fetches());
    let permission = l.limits.permit(&circumstances);
    if std::mem::replace(&mut l.permission, permission.clone()) == permission {
        return;
    }
    inner.pacer.set_rate(permission.up);
    inner.downlink.limit(permission.down);
    if let Some(governor) = &inner.governor {
        governor.limit(permission.up);
    }
    let l = &state.limits;
    let (offers, serves, fetches) = (l.offered_up(), l.serves(), l.fetches());
    if offers != offered && state.session.is_connected() {
        state.tell_control(&FromNode::UplinkOffer(offers));
    }
    if serves != served || fetches != fetched {
        say(state, &permission);
    }
    match (fetched, fetches) {
        (true, false) => stop_fetching(inner, state),
        (false, true) => {
            state::happened_to_all(inner, state, || Input::Pause(false));
            rejoin(inner, state);
        }
        (true, true) if serves != served => rejoin(inner, state),
        _ => {}
    }
    if served && !serves {
        tokio::spawn(hand_over(inner.clone()));
    }
}

fn say(state: &mut State, permission: &Permission) {
    let text = match (permission.conduct, permission.why) {
        (Conduct::Fetch, Some(why)) => format!("serving nobody: {why}"),
        (Conduct::Pause, Some(why)) => format!("neither serving nor fetching: {why}"),
        _ => "serving again".to_owned(),
    };
    tracing::info!("{text}");
    state.contents.values_mut().for_each(|c| c.keep_note(text.clone()));
}

/// The control center forgets that the node takes part; its children get other parents.
fn stop_fetching(inner: &Arc<Inner>, state: &mut State) {
    let running: Vec<Version> = state.contents.values().filter_map(ContentState::version).collect();
    for version in running {
        state.tell_control(&FromNode::Leave(version));
    }
    state::happened_to_all(inner, state, || Input::Pause(true));
}

/// All contents are joined again: the control center decides anew.
fn rejoin(inner: &Arc<Inner>, state: &mut State) {
    if !state.session.is_connected() {
        return;
    }
    for (join, claim) in state.joins() {
        opening::join_as(inner, state, join, claim);
    }
}

/// Children get what they asked for and other parents, within the time that a node takes that stops; then their edges end.
async fn hand_over(inner: Arc<Inner>) {
    let over = async {
        while state::has_children(&inner) {
            tokio::time::sleep(HAND_OVER_LOOK).await;
        }
    };
    let _ = tokio::time::timeout(HAND_OVER, over).await;
    let mut state = inner.lock();
    let state = &mut *state;
    if state.limits.serves() || state.leaving {
        return;
    }
    let edges: Vec<(Version, NodeId)> = state
        .contents
        .values()
        .filter_map(|c| match &c.phase {
            Phase::Running(r) => Some(r.swarm.children().map(|child| (r.version(), *child)).collect::<Vec<_>>()),
            _ => None,
        })
        .flatten()
        .collect();
    for (version, child) in live::children(state) {
        state.tell_peer(&child, &FromPeer::CloseEdge { version, as_child: false, why: SERVES_NOBODY.into() });
        live::happened(&inner, state, version, LiveInput::ChildClosed(child));
    }
    for (version, child) in edges {
        if let Some(r) = state.running(version) {
            r.senders.remove(&child);
        }
        state.tell_peer(&child, &FromPeer::CloseEdge { version, as_child: false, why: SERVES_NOBODY.into() });
        state::happened(&inner, state, version, Input::ChildClosed(child));
    }
}
