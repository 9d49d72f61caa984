//! When what goes wrong, and to whom: the schedule only. What is done about it stands in [`crate::run`].

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use headwater_model::Rng;
use headwater_simulator::scenario::{Fault, FaultKind, HostSpec, Scenario};

/// The faults of a run.
#[derive(Debug)]
pub struct Schedule {
    faults: Vec<Planned>,
}

/// A fault, and whom it hits.
#[derive(Clone, Debug)]
pub struct Planned {
    /// As the scenario says it.
    pub fault: Fault,
    /// Hosts that are hit; for pairs, two after each other belong together.
    pub hosts: Vec<usize>,
    /// When it began.
    pub begun_s: Option<f64>,
    /// When it was over.
    pub over_s: Option<f64>,
}

/// A fault begins or is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The fault with this number begins.
    Begins(usize),
    /// It is over.
    Ends(usize),
}

impl Schedule {
    /// Picks whom each fault hits. Who dies is hit by nothing else, as far as there are enough others.
    ///
    /// # Errors
    /// If the lab cannot do what the scenario says, or a fault finds nobody to hit.
    pub fn new(scenario: &Scenario, hosts: &[HostSpec], seed: u64) -> Result<Schedule> {
        if !scenario.also.is_empty() {
            bail!("the lab cannot do several contents; `headwater sim` can");
        }
        let mut random = Rng::new(seed, "lab faults");
        let mut hit = BTreeSet::new();
        let mut faults = Vec::new();
        for fault in &scenario.faults {
            let wanted = hosts_of(fault)?;
            let fits = |host: &HostSpec| {
                let group = fault.group.as_ref();
                host.hostile.is_none()
                    && group.map_or_else(|| host.receives(), |name| scenario.group_name(host.group) == *name)
            };
            let mut fitting: Vec<usize> = (0..hosts.len()).filter(|i| fits(&hosts[*i])).collect();
            random.shuffle(&mut fitting);
            fitting.sort_by_key(|host| hit.contains(host));
            fitting.truncate(wanted);
            if fitting.len() < wanted {
                bail!("the fault {} finds only {} of {wanted} hosts to hit", fault.kind.name(), fitting.len());
            }
            if fault.kind != FaultKind::Corrupt && fault.kind != FaultKind::LinkBreak {
                hit.extend(fitting.iter().copied());
            }
            faults.push(Planned { fault: fault.clone(), hosts: fitting, begun_s: None, over_s: None });
        }
        Ok(Schedule { faults })
    }

    /// What is due now that receivers hold `share` of the content on average.
    pub fn due(&mut self, now_s: f64, share: f64) -> Vec<Turn> {
        let mut turns = Vec::new();
        for (number, planned) in self.faults.iter_mut().enumerate() {
            let fault = &planned.fault;
            if planned.begun_s.is_none() {
                let due = fault.at_s.map_or(fault.at_share.is_some_and(|at| share >= at), |at| now_s >= at);
                if due {
                    planned.begun_s = Some(now_s);
                    turns.push(Turn::Begins(number));
                }
            } else if planned.over_s.is_none() && !for_good(fault.kind) {
                let since = now_s - planned.begun_s.unwrap_or(now_s);
                let over = fault.until_share.map_or(since >= fault.for_s, |until| share >= until);
                if over {
                    planned.over_s = Some(now_s);
                    turns.push(Turn::Ends(number));
                }
            }
        }
        turns
    }

    /// A fault by its number.
    pub fn get(&self, number: usize) -> Option<&Planned> {
        self.faults.get(number)
    }

    /// All of them.
    pub fn all(&self) -> &[Planned] {
        &self.faults
    }

    /// Hosts whose clock will jump.
    pub fn clocks(&self) -> BTreeSet<usize> {
        let jumps = self.faults.iter().filter(|planned| planned.fault.kind == FaultKind::ClockJump);
        jumps.flat_map(|planned| planned.hosts.iter().copied()).collect()
    }
}

/// Whether there is no way back.
fn for_good(kind: FaultKind) -> bool {
    matches!(kind, FaultKind::Death | FaultKind::AddressChange | FaultKind::ClockJump)
}

/// How many hosts a fault hits.
fn hosts_of(fault: &Fault) -> Result<usize> {
    Ok(match fault.kind {
        FaultKind::Crash
        | FaultKind::Death
        | FaultKind::Leave
        | FaultKind::Freeze
        | FaultKind::Slow
        | FaultKind::Reshape
        | FaultKind::Cut
        | FaultKind::AddressChange
        | FaultKind::ClockJump => fault.count,
        FaultKind::LinkBreak | FaultKind::Corrupt => 2 * fault.count,
        FaultKind::OriginOut
        | FaultKind::ControlOut
        | FaultKind::ControlLost
        | FaultKind::PeeringCut
        | FaultKind::PeeringLoss
        | FaultKind::PeeringRate => 0,
        FaultKind::Reborn | FaultKind::NewVersion | FaultKind::Withdrawn | FaultKind::Priority => {
            bail!(
                "the lab has one content and the same hosts all the time: it cannot do {}; `headwater sim` can",
                fault.kind.name()
            )
        }
        FaultKind::Rot => bail!("the lab cannot make pieces rot on a disk; `headwater sim` can"),
    })
}

/// What a fault does, in words.
pub fn words(planned: &Planned, hosts: &[HostSpec]) -> String {
    let names: Vec<&str> = planned.hosts.iter().filter_map(|i| hosts.get(*i)).map(|h| h.name.as_str()).collect();
    let (value, names) = (planned.fault.value, names.join(", "));
    match planned.fault.kind {
        FaultKind::Crash => format!("SIGKILL, to come back: {names}"),
        FaultKind::Death => format!("SIGKILL for good: {names}"),
        FaultKind::Leave => format!("leaves, to come back: {names}"),
        FaultKind::Freeze => format!("SIGSTOP: {names}"),
        FaultKind::Slow => format!("{} % of the uplink: {names}", 100.0 * planned.fault.slow_share()),
        FaultKind::Reshape => format!("{value} Mbit/s up and down: {names}"),
        FaultKind::Cut => format!("link cut: {names}"),
        FaultKind::AddressChange => format!("another address: {names}"),
        FaultKind::ClockJump => format!("clock jumps by {value} s: {names}"),
        FaultKind::OriginOut => "origin cut off".into(),
        FaultKind::ControlOut => "control center killed".into(),
        FaultKind::ControlLost => "control center killed, its state lost".into(),
        FaultKind::LinkBreak => format!("cannot reach each other, in pairs: {names}"),
        FaultKind::Corrupt => format!("{value} % of packets corrupted, in pairs: {names}"),
        FaultKind::Rot => "pieces rot".into(),
        FaultKind::Reborn => format!("becomes another node: {names}"),
        FaultKind::NewVersion => "a new version".into(),
        FaultKind::Withdrawn => "a content withdrawn".into(),
        FaultKind::Priority => format!("another priority: {names}"),
        FaultKind::PeeringCut => "peering links cut".into(),
        FaultKind::PeeringLoss => format!("{value} % loss on peering links"),
        FaultKind::PeeringRate => format!("peering links at {value} Mbit/s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(faults: &str) -> Result<Schedule> {
        let text = format!(
            "name = \"t\"\ncontent_bytes = 1000000\npiece_bytes = 65536\norigin_up_mbit = 20\n\
             [[groups]]\ncount = 4\nup_mbit = 20\ndown_mbit = 20\n[network]\n{faults}"
        );
        let scenario: Scenario = toml::from_str(&text).unwrap();
        Schedule::new(&scenario, &scenario.hosts(1), 1)
    }

    #[test]
    fn faults_begin_and_end_in_time_or_by_share() {
        let mut schedule = schedule(
            "[[faults]]\nkind = \"control-out\"\nat_share = 0.3\nuntil_share = 0.8\n\
             [[faults]]\nkind = \"freeze\"\nat_s = 2\nfor_s = 3\n[[faults]]\nkind = \"death\"\nat_s = 1\ncount = 3",
        )
        .unwrap();
        assert_eq!(schedule.due(0.5, 0.1), []);
        assert_eq!(schedule.due(2.0, 0.4), [Turn::Begins(0), Turn::Begins(1), Turn::Begins(2)]);
        assert_eq!(schedule.due(5.0, 0.7), [Turn::Ends(1)]);
        assert_eq!(schedule.due(9.0, 0.9), [Turn::Ends(0)]);
        assert_eq!(schedule.due(99.0, 1.0), []);
        let (frozen, dead) = (&schedule.all()[1].hosts, &schedule.all()[2].hosts);
        assert!(dead.len() == 3 && !dead.contains(&frozen[0]));
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        assert!(schedule("[[faults]]\nkind = \"rot\"\nat_s = 1").unwrap_err().to_string().contains("rot"));
        let many = schedule("[[faults]]\nkind = \"crash\"\nat_s = 1\ncount = 5").unwrap_err().to_string();
        assert!(many.contains("4 of 5"), "{many}");
    }
}
