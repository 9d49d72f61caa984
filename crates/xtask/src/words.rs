//! Step `words`: no file names a path of somebody's machine, and no source file postpones work. This file is the only one
//! that may, since the patterns are in it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{find_program, output};
use crate::test::Outcome;

const THIS_FILE: &str = "crates/xtask/src/words.rs";
const HOMES: [&str; 3] = ["/root/", "/home/", "/Users/"];
const POSTPONED: [&str; 5] = ["todo!", "unimplemented!", "TODO", "FIXME", "XXX"];

/// Looks through the files that git tracks and the new ones that it does not ignore.
pub fn check() -> Result<Outcome> {
    if find_program("git").is_none() || !Path::new(".git").exists() {
        return Ok(Outcome::Skipped("not a git repository, or no git".into()));
    }
    let files = output(Command::new("git").args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]))?;
    let here = std::env::current_dir()?.canonicalize()?;
    let here = here.to_str().context("the repository's path is not UTF-8")?;
    let mut findings = Vec::new();
    let mut read = 0;
    for file in files.split_terminator('\0').filter(|file| *file != THIS_FILE) {
        // What is not text, or deleted but still in the index, holds no words.
        let Ok(text) = std::fs::read_to_string(file) else { continue };
        read += 1;
        findings.extend(find(file, &text, here));
    }
    if !findings.is_empty() {
        bail!("words that may not stand here\n{}", findings.join("\n"));
    }
    Ok(Outcome::Passed(format!("{read} files")))
}

/// `file:line: word` for everything found. `here` is where the repository stands on this machine.
fn find(file: &str, text: &str, here: &str) -> Vec<String> {
    let mut words = HOMES.to_vec();
    // A short one, such as /src in a container, may well be meant otherwise.
    if here.matches('/').count() > 1 {
        words.push(here);
    }
    if file.ends_with(".rs") {
        words.extend(POSTPONED);
    }
    let in_line = |(index, line): (usize, &str)| -> Vec<String> {
        let found = words.iter().filter(|word| holds(line, word));
        found.map(|word| format!("{file}:{}: {word}", index + 1)).collect()
    };
    text.lines().enumerate().flat_map(in_line).collect()
}

/// Whether `word` stands in the line other than as a part of a longer word or path.
fn holds(line: &str, word: &str) -> bool {
    let joins = |character: char| character.is_alphanumeric() || matches!(character, '_' | '-' | '.');
    line.match_indices(word).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = line[start + word.len()..].chars().next();
        let goes_on = word.ends_with(char::is_alphanumeric) && after.is_some_and(char::is_alphanumeric);
        !(before.is_some_and(joins) || goes_on)
    })
}

#[cfg(test)]
mod tests {
    use super::find;

    #[test]
    fn words_are_found_where_they_stand() {
        let cases = [
            ("a.md", "see /home/someone/x", 1),
            ("a.md", "\"/root/.cargo\"", 1),
            ("a.md", "https://example.org/home/page", 0),
            ("a.md", "a/root/b", 0),
            ("a.md", "in /builds/river/Cargo.toml", 1),
            ("a.md", "TODO", 0),
            ("a.rs", "// TODO: later", 1),
            ("a.rs", "// FIXME", 1),
            ("a.rs", "todo!()", 1),
            ("a.rs", "XXX", 1),
            ("a.rs", "XXXX and AUTODOC", 0),
            ("a.rs", "unimplemented!(\"x\"); // XXX", 2),
        ];
        for (file, text, expected) in cases {
            assert_eq!(find(file, text, "/builds/river").len(), expected, "{text}");
        }
    }
}
