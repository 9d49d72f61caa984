//! Step `purity` and `cargo xtask pure`: what the pure crates depend on is a committed list, so that a change shows in
//! review. An inverted `cargo tree` would pass on a misspelt name; this does not.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

use crate::shell::{cargo, output};

const PURE_CRATES: [&str; 5] =
    ["headwater-model", "headwater-wire", "headwater-hls", "headwater-center-core", "headwater-peer-core"];

/// I/O, clocks and randomness: these may not be in a list, whoever writes it.
const NEVER: [&str; 8] = ["tokio", "quinn", "reqwest", "rusqlite", "mio", "socket2", "getrandom", "rand"];

/// The lists are of one platform, so that they are the same on every machine.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// Compares the dependencies with the lists; the error shows every difference as `+ name` or `- name`.
pub fn check() -> Result<String> {
    let mut differences = String::new();
    for name in PURE_CRATES {
        let file = list_file(name);
        let listed =
            std::fs::read_to_string(&file).with_context(|| format!("{}; see cargo xtask pure", file.display()))?;
        let listed = listed.lines().map(str::to_owned).collect();
        for change in compare(&listed, &dependencies(name)?) {
            writeln!(differences, "{name}: {change}")?;
        }
    }
    if !differences.is_empty() {
        bail!("dependencies differ from the lists (cargo xtask pure --write, if meant)\n{differences}");
    }
    Ok(format!("{} crates as listed", PURE_CRATES.len()))
}

/// Rewrites the lists.
pub fn write() -> Result<()> {
    for name in PURE_CRATES {
        let lines: Vec<String> = dependencies(name)?.into_iter().collect();
        std::fs::write(list_file(name), lines.join("\n") + "\n")?;
        println!("{name}: {} packages", lines.len());
    }
    Ok(())
}

fn list_file(name: &str) -> PathBuf {
    format!("crates/xtask/pure/{name}.txt").into()
}

/// Names of all packages that `name` is built with, itself included.
fn dependencies(name: &str) -> Result<BTreeSet<String>> {
    let tree = output(&mut cargo(&["tree", "-p", name, "-e", "normal", "--prefix", "none", "--target", PLATFORM]))?;
    let names = package_names(&tree);
    ensure!(names.contains(name), "cargo tree does not show {name} itself");
    let forbidden: Vec<&str> = NEVER.into_iter().filter(|never| names.contains(*never)).collect();
    ensure!(forbidden.is_empty(), "{name} must not depend on {}", forbidden.join(", "));
    Ok(names)
}

/// The first word of each line; versions, paths and marks follow it.
fn package_names(tree: &str) -> BTreeSet<String> {
    tree.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

fn compare(listed: &BTreeSet<String>, found: &BTreeSet<String>) -> Vec<String> {
    let added = found.difference(listed).map(|name| format!("+ {name}"));
    let removed = listed.difference(found).map(|name| format!("- {name}"));
    added.chain(removed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_paths_and_marks_are_dropped() {
        let tree = "a v0.1.0 (/somewhere/a)\nserde v1.0.0\nserde_derive v1.0.0 (proc-macro)\nserde v1.0.0 (*)\n";
        assert_eq!(package_names(tree), BTreeSet::from(["a", "serde", "serde_derive"].map(str::to_owned)));
    }

    #[test]
    fn differences_show_both_ways() {
        let listed = BTreeSet::from(["kept", "gone"].map(str::to_owned));
        let found = BTreeSet::from(["kept", "new"].map(str::to_owned));
        assert_eq!(compare(&listed, &found), ["+ new", "- gone"]);
    }
}
