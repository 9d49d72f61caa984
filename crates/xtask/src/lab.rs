//! `cargo xtask lab`: builds the lab and what it runs (the product, and the liars), and hands over to it.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::shell::{build_programs, find_program, run as run_command};
use crate::system_packages::is_root;
use crate::test::Outcome;

/// What no scenario does without: program, and the Debian package that has it.
const NEEDED: [(&str, &str); 3] = [("ip", "iproute2"), ("nft", "nftables"), ("nginx", "nginx")];

/// Runs the lab with the arguments given. It takes this process's place, so that signals and exit status are its own.
pub fn run(arguments: &[OsString]) -> Result<ExitCode> {
    let mut command = lab()?;
    command.args(arguments);
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        let error = command.exec();
        bail!("cannot run {}: {error}", command.get_program().display());
    }
    #[cfg(not(unix))]
    bail!("the lab needs Linux");
}

/// Step `lab`: the short set, where the machine lets us.
pub fn check() -> Result<Outcome> {
    if let Some(reason) = missing() {
        return Ok(Outcome::Skipped(reason));
    }
    run_command(lab()?.arg("--short"))?;
    Ok(Outcome::Passed(String::new()))
}

/// Why the lab cannot run here.
fn missing() -> Option<String> {
    if !cfg!(target_os = "linux") {
        return Some("network namespaces need Linux".into());
    }
    if !is_root() {
        return Some("network namespaces need root: `sudo -E cargo xtask test --only lab`".into());
    }
    if !Path::new("/dev/net/tun").exists() {
        return Some("no /dev/net/tun: load the module tun, or let the container have that device".into());
    }
    let (_, package) = NEEDED.iter().find(|(program, _)| find_program(program).is_none())?;
    Some(format!("{package} is not installed"))
}

fn lab() -> Result<Command> {
    let programs = build_programs()?;
    let mut command = Command::new(programs.join("headwater-lab"));
    command.arg("--bin").arg(programs);
    Ok(command)
}
