//! Runs live scenarios: `live FILE [SEED] [SECONDS]`.
use headwater_simulator::{Scenario, run_live};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut scenario = Scenario::read(std::path::Path::new(&args[0]))?;
    let seed = args.get(1).map_or(Ok(1), |s| s.parse())?;
    if let (Some(live), Some(seconds)) = (&mut scenario.live, args.get(2)) {
        live.seconds = seconds.parse()?;
    }
    let begun = std::time::Instant::now();
    println!("{}", run_live(&scenario, seed)?);
    eprintln!("{:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}
