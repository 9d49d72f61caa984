//! Scenarios with more hosts than one machine can be: the simulator runs them alone.

use anyhow::Result;
use headwater_simulator::Scenario;

use crate::outcome::{Bar, ControlOutcome, HostOutcome, IspFlow, OriginOutcome, Outcome, SiteFlow};

/// Most hosts that the lab builds: 60 run on two cores, more want more memory than speed.
pub const HOSTS_MAX: usize = 100;

/// Whether only the simulator can run it.
pub fn too_large(scenario: &Scenario) -> bool {
    scenario.groups.iter().map(|group| group.count).sum::<usize>() > HOSTS_MAX
}

/// Runs a scenario in the simulator, and says so in the outcome.
///
/// # Errors
/// If the simulator cannot do what the scenario says.
pub fn run(scenario: &Scenario, seed: u64) -> Result<Outcome> {
    let seen = headwater_simulator::run(scenario, seed)?;
    let bytes = scenario.content_bytes;
    let copies = |part: u64| part as f64 / bytes as f64;
    let bars: Vec<Bar> = (seen.bars.into_iter())
        .map(|b| Bar {
            name: b.name,
            value: b.value,
            bound: b.bound,
            ratio: b.ratio,
            pass: b.pass,
            note: String::new(),
        })
        .collect();
    let not_judged = seen.not_judged.into_iter().map(|bar| format!("only the lab can judge {bar}"));
    let hosts = seen.hosts.into_iter().map(|host| HostOutcome {
        name: host.name,
        isp: host.isp,
        started_s: host.arrived_s,
        finished_s: host.finished_s,
        excused: host.left_for_good || !host.receives,
        peer_bytes: host.peer_bytes,
        origin_bytes: host.origin_bytes,
        longest_wait_s: host.longest_wait_s,
        ..HostOutcome::default()
    });
    Ok(Outcome {
        scenario: scenario.name.clone(),
        about: scenario.about.clone(),
        system: "headwater, simulated".into(),
        seed,
        pass: seen.violations.is_empty() && bars.iter().all(|bar| bar.pass),
        bars,
        content_bytes: bytes,
        duration_s: seen.makespan_s.unwrap_or(scenario.time_limit_s),
        makespan_s: seen.makespan_s,
        bound_s: Some(seen.bound_s),
        wire_per_payload: 1.0,
        hosts: hosts.collect(),
        origin: OriginOutcome {
            body_bytes: (seen.origin_copies * bytes as f64) as u64,
            copies: seen.origin_copies,
            ..OriginOutcome::default()
        },
        isps: (seen.flows.iter())
            .map(|f| IspFlow { from: f.from, to: f.to, wire_bytes: f.bytes, copies: copies(f.bytes) })
            .collect(),
        sites: (seen.into_sites.into_iter())
            .map(|s| SiteFlow {
                name: s.site,
                wire_in_bytes: s.bytes,
                copies_in: copies(s.bytes),
                ..SiteFlow::default()
            })
            .collect(),
        control: ControlOutcome {
            unreachable_pairs: Some(seen.hopeless_pairs),
            sessions_back_s: seen.sessions_back_s,
            ..ControlOutcome::default()
        },
        notes: seen.violations.into_iter().chain(not_judged).collect(),
        ..Outcome::default()
    })
}
