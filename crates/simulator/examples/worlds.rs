//! Runs small worlds and lists what went wrong: `worlds FROM TO`.

use headwater_simulator::{run, small_world};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<u64> = std::env::args().skip(1).map(|a| a.parse()).collect::<Result<_, _>>()?;
    let mut bad = 0;
    let mut longest = (0.0, 0);
    for seed in args[0]..=args[1] {
        let scenario = small_world(seed);
        let report = run(&scenario, seed)?;
        let kinds: Vec<String> = scenario.faults.iter().map(|f| format!("{:?}", f.kind)).collect();
        if let Some(v) = report.violations.first() {
            bad += 1;
            println!("seed {seed} {kinds:?} {}/{}: {v}", report.complete, report.nodes);
        }
        let over = scenario.faults.iter().map(|f| f.at_s + f.for_s).fold(0.0, f64::max);
        let late = report.makespan_s.unwrap_or(0.0) - over - 25.0 - 3.0 * report.bound_s;
        if std::env::var("LATE").is_ok() && late > 0.0 {
            println!("late {late:.1} seed {seed} bound {:.1} makespan {:.1} {kinds:?} alarms {}", report.bound_s, report.makespan_s.unwrap_or(0.0), report.alarms);
        }
        if late > longest.0 {
            longest = (late, seed);
        }
    }
    println!("{bad} bad; longest {longest:?}");
    Ok(())
}
