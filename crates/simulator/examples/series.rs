//! Prints how a run goes, second by second: `series SCENARIO|small [SEED] [EVERY]`, where `small` is the small world of
//! the seed, with all that goes wrong in it.

use headwater_simulator::{Scenario, run_watched, small_world};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: series SCENARIO|small [SEED] [EVERY]")?;
    let seed = args.next().map_or(Ok(1), |s| s.parse())?;
    let every: u64 = args.next().map_or(Ok(5), |s| s.parse())?;
    let scenario = if path == "small" { small_world(seed) } else { Scenario::read(path.as_ref())? };
    if path == "small" {
        println!("{scenario:#?}");
    }
    let mut n = 0;
    println!("    at   up  d-up origin copies  held d-held  done parents active across leases alarms");
    let outcome = run_watched(&scenario, seed, |s| {
        if n % every == 0 {
            println!(
                "{:6.1} {:4.0} {:5.0} {:6.0} {:6.3} {:5.3}  {:5.3} {:5} {:7.1} {:6} {:6} {:6} {:6}",
                s.at_s,
                s.up_used * 100.0,
                s.dial_only_up_used * 100.0,
                s.origin_used * 100.0,
                s.origin_copies,
                s.held,
                s.dial_only_held,
                s.complete,
                s.parents,
                s.active,
                s.across,
                s.leases,
                s.alarms
            );
        }
        n += 1;
    })?;
    print!("{outcome}");
    Ok(())
}
