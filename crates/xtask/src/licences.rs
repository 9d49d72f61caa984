//! Step `licences`: every package of the lock file that is built here may be used under a licence of the list.
//! `deny.toml` says the same for those who have cargo-deny.

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use crate::shell::{cargo, find_program, output, run};
use crate::spdx::satisfiable;
use crate::test::Outcome;

const ALLOWED: [&str; 13] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Checks our list, then asks cargo-deny too where it is installed.
pub fn check() -> Result<Outcome> {
    // Of other platforms nothing has been downloaded, and nothing of theirs is in what is built here.
    let platform = host_platform()?;
    let metadata = output(&mut cargo(&["metadata", "--format-version", "1", "--filter-platform", &platform]))?;
    let packages = check_metadata(&serde_json::from_str(&metadata)?)?;
    let deny = find_program("cargo-deny").is_some();
    if deny {
        // cargo-deny looks at the packages of all platforms.
        run(&mut cargo(&["fetch"]))?;
        run(&mut cargo(&["deny", "--offline", "check", "licenses", "bans", "sources"]))?;
    }
    Ok(Outcome::Passed(format!("{packages} packages{}", if deny { ", cargo-deny agrees" } else { "" })))
}

/// How many packages were checked; the error lists those that fail.
fn check_metadata(metadata: &Value) -> Result<usize> {
    let packages = metadata["packages"].as_array().context("cargo metadata shows no packages")?;
    let complaints: Vec<String> = packages.iter().filter_map(complaint).collect();
    if !complaints.is_empty() {
        bail!("licences that are not allowed\n{}", complaints.join("\n"));
    }
    Ok(packages.len())
}

fn complaint(package: &Value) -> Option<String> {
    let why = match package["license"].as_str() {
        None => "states no licence".to_owned(),
        Some(licence) => match satisfiable(licence, &ALLOWED) {
            Ok(true) => return None,
            Ok(false) => licence.to_owned(),
            Err(error) => error,
        },
    };
    Some(format!("{} {}: {why}", package["name"], package["version"]))
}

fn host_platform() -> Result<String> {
    let version = output(std::process::Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| anyhow!("rustc -vV names no host"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_that_fail_are_named() {
        let metadata = serde_json::json!({ "packages": [
            { "name": "good", "version": "1.0.0", "license": "MIT OR GPL-3.0" },
            { "name": "bad", "version": "2.0.0", "license": "GPL-3.0" },
            { "name": "silent", "version": "3.0.0", "license": null },
        ]});
        let error = check_metadata(&metadata).unwrap_err().to_string();
        assert!(!error.contains("good") && error.contains("bad") && error.contains("silent"), "{error}");
    }

    #[test]
    fn deny_toml_allows_the_same() {
        let text = include_str!("../../../deny.toml");
        let list = text.split("\nallow = [").nth(1).unwrap().split(']').next().unwrap();
        let licences: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
        assert_eq!(licences, ALLOWED);
    }
}
