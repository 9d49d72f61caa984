//! Prints a small world and how it goes: `small SEED [EVERY]`.

use headwater_simulator::{run_watched, small_world};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let seed: u64 = args.next().ok_or("usage: small SEED [EVERY]")?.parse()?;
    let every: u64 = args.next().map_or(Ok(10), |e| e.parse())?;
    let scenario = small_world(seed);
    println!("{scenario:#?}");
    let mut n = 0;
    let report = run_watched(&scenario, seed, |s| {
        if n % every == 0 {
            println!("{s:?}");
        }
        n += 1;
    })?;
    print!("{report}");
    Ok(())
}
