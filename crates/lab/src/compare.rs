//! What a run is held against: the bound of its makespan at calibrated rates, and the same scenario in the simulator.

use anyhow::Result;
use headwater_simulator::Scenario;
use headwater_simulator::bounds::{Calibrated, lab_makespan};
use headwater_simulator::scenario::{HostSpec, scaled};

use crate::calibrate::Calibration;
use crate::outcome::{Outcome, SimulatorOutcome};

/// Differences above this mean that the model is wrong somewhere.
const AGREES_PERCENT: f64 = 15.0;

/// Seconds below which no schedule can come over links that carry what was calibrated.
///
/// # Errors
/// Too many hosts for the linear program, or a failure of its solver.
pub fn bound(scenario: &Scenario, hosts: &[HostSpec], calibration: &Calibration) -> Result<f64> {
    let rates = Calibrated::new(scenario, hosts, |mbit| calibration.factor(mbit), calibration.origin_factor());
    Ok(lab_makespan(scenario, hosts, &rates)?)
}

/// Runs the scenario in the simulator with calibrated rates and sets it beside what came out of the lab.
pub fn simulate(scenario: &Scenario, seed: u64, calibration: &Calibration, lab: &Outcome) -> SimulatorOutcome {
    let calibrated = scaled(scenario, |mbit| calibration.factor(mbit), calibration.origin_factor());
    let report = match headwater_simulator::run(&calibrated, seed) {
        Ok(report) => report,
        Err(error) => return SimulatorOutcome { note: error.to_string(), ..SimulatorOutcome::default() },
    };
    let origin_isp = scenario.network.unwrap_or_default().origin_isp;
    let lab_into = most_into(origin_isp, lab.isps.iter().map(|f| (f.from, f.to, f.copies)));
    let makespan_difference_percent = difference(lab.makespan_s, report.makespan_s);
    let origin_difference_percent = difference(Some(lab.origin.copies), Some(report.origin_copies));
    let into_difference = difference(lab_into, report.copies_into_isp);
    // One that finishes where the other does not is a difference too.
    let both_or_none = lab.makespan_s.is_some() == report.makespan_s.is_some();
    let close = |percent: Option<f64>| percent.is_none_or(|p| p.abs() <= AGREES_PERCENT);
    SimulatorOutcome {
        makespan_s: report.makespan_s,
        origin_copies: report.origin_copies,
        copies_into_isp: report.copies_into_isp,
        makespan_difference_percent,
        origin_difference_percent,
        agrees: both_or_none
            && [makespan_difference_percent, origin_difference_percent, into_difference].into_iter().all(close),
        note: String::new(),
    }
}

/// Most copies that entered an ISP other than the origin's from all others; `None` where there is only one ISP.
fn most_into(origin_isp: u16, flows: impl Iterator<Item = (u16, u16, f64)>) -> Option<f64> {
    let mut into = std::collections::BTreeMap::<u16, f64>::new();
    for (from, to, copies) in flows {
        if from != to && to != origin_isp {
            *into.entry(to).or_default() += copies;
        }
    }
    into.into_values().reduce(f64::max)
}

/// `a` over `b`, less 1, in percent.
fn difference(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    let (a, b) = (a?, b.filter(|b| *b > 0.0)?);
    Some((a / b - 1.0) * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_into_an_isp_come_from_all_others() {
        let flows = [(1, 2, 1.0), (3, 2, 0.5), (1, 3, 1.2), (2, 1, 9.0), (2, 2, 9.0)];
        assert_eq!(most_into(1, flows.into_iter()), Some(1.5));
        assert_eq!(most_into(1, [(1, 1, 3.0)].into_iter()), None);
    }

    #[test]
    fn differences_are_in_percent() {
        assert!(difference(Some(11.5), Some(10.0)).is_some_and(|d| (d - 15.0).abs() < 1e-9));
        assert_eq!(difference(None, Some(10.0)), None);
        assert_eq!(difference(Some(1.0), Some(0.0)), None);
    }
}
