//! Step `packages`: what the tests need beyond Rust, installed where we may.

use std::process::Command;

use anyhow::{Result, bail};

use crate::shell::{find_program, output, run};
use crate::test::Outcome;

struct Package {
    /// Its name in Debian.
    name: &'static str,
    /// A program that is there when the package, or another that does as well, is installed.
    program: &'static str,
    /// What is skipped without it.
    purpose: &'static str,
    required: bool,
}

const PACKAGES: [Package; 17] = [
    Package { name: "gcc", program: "cc", purpose: "compiling the bundled SQLite and ring", required: true },
    Package { name: "git", program: "git", purpose: "the list of files for the step `words`", required: false },
    Package {
        name: "nginx",
        program: "nginx",
        purpose: "the lab; the benchmark against a web server",
        required: false,
    },
    Package {
        name: "curl",
        program: "curl",
        purpose: "the benchmark against a web server; the test with random ranges",
        required: false,
    },
    Package { name: "faketime", program: "faketime", purpose: "the test with a wrong clock", required: false },
    Package { name: "iproute2", program: "ip", purpose: "the lab", required: false },
    Package { name: "nftables", program: "nft", purpose: "the lab", required: false },
    Package { name: "tinyproxy-bin", program: "tinyproxy", purpose: "the lab's hosts behind a proxy", required: false },
    Package {
        name: "miniupnpd-nftables",
        program: "miniupnpd",
        purpose: "the lab's routers that forward ports",
        required: false,
    },
    Package { name: "aria2", program: "aria2c", purpose: "the lab's comparison with BitTorrent", required: false },
    Package {
        name: "opentracker",
        program: "opentracker",
        purpose: "the lab's comparison with BitTorrent",
        required: false,
    },
    Package { name: "ffmpeg", program: "ffmpeg", purpose: "the test with a film that is played", required: false },
    Package { name: "chromium", program: "chromium", purpose: "the page that plays a channel", required: false },
    Package { name: "npm", program: "npm", purpose: "the SDK for pages and its tests", required: false },
    Package { name: "wget", program: "wget", purpose: "the test with a folder that is fetched", required: false },
    Package {
        name: "dpkg-dev",
        program: "dpkg-scanpackages",
        purpose: "the test with apt and its repository",
        required: false,
    },
    Package { name: "openssl", program: "openssl", purpose: "the benchmark against a web server", required: false },
];

/// Installs what is missing if we are root on a Debian; fails only if a required package is still missing then.
pub fn check() -> Result<Outcome> {
    let wanted = missing();
    if wanted.is_empty() {
        return Ok(Outcome::Passed("all there".into()));
    }
    let names: Vec<&str> = wanted.iter().map(|package| package.name).collect();
    if !is_root() || find_program("apt-get").is_none() {
        println!("not root or no apt-get, so not installing: {}", names.join(" "));
    } else if let Err(error) = install(&names) {
        println!("INSTALLING FAILED: {error:#}");
    }
    let still = missing();
    for package in &still {
        println!("missing {}: {} is skipped", package.name, package.purpose);
    }
    let names: Vec<&str> = still.iter().map(|package| package.name).collect();
    if still.iter().any(|package| package.required) {
        bail!("missing: {}", names.join(" "));
    }
    Ok(Outcome::Passed(if names.is_empty() { "installed".into() } else { format!("without {}", names.join(" ")) }))
}

fn missing() -> Vec<&'static Package> {
    PACKAGES.iter().filter(|package| find_program(package.program).is_none()).collect()
}

/// The lists of packages are fetched only if the ones at hand do not do, as on a fresh machine.
fn install(names: &[&str]) -> Result<()> {
    let install = || run(apt_get(&["install", "--yes"]).args(names));
    install().or_else(|_| {
        println!("trying again with fresh lists of packages");
        run(&mut apt_get(&["update"]))?;
        install()
    })
}

fn apt_get(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Whether this process may do what only root may.
pub fn is_root() -> bool {
    output(Command::new("id").arg("-u")).is_ok_and(|user| user.trim() == "0")
}
