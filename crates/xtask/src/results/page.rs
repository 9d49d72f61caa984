//! The page: from what is kept of runs to text for people.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Kept;
use super::figures::{Bar, Figure, Measured};
use super::rows::{ROWS, Row};
use super::runs::{Run, What};

/// Names of all baselines, in the order of their columns.
const BASELINES: [&str; 4] = ["client-server", "random", "locality", "forest"];
const HEAD: &str = "\
# Results

Written by `cargo xtask results`, which runs what is named here and keeps what it came to; nothing on this page is written by
hand. Each figure stands beside its bound (what no schedule can beat with these links) and its bar: *must* is what has to be
reached, *goal* what is aimed at, both from the project's list of benchmarks, whose rows give the headings. Bars that were
missed stay in.

All runs are under virtual time: the decisions are the real ones, links and players are simulated; rates are goodput. A run is
one seed, as the last table says, and no mean of many. Processor times are of a machine that did other things as well.

The columns on the right are what others would come to with the very same peers, links and seed (`headwater sim SCENARIO
--baseline NAME`). **client-server**: everybody has all from the origin. **random**: a tracker names 20 members at random to
whoever joins, so that each has some 40 neighbours; files are fetched rarest first, and the origin is a seed with 8 slots; of a
stream each substream has a parent at random among 40 partners. **locality**: half of those who are named are of one's own
ISP. **forest**: a tree per substream with places at random, and another such place 4 s after a parent was lost. A dash: it
was not run there, or the measure says nothing of it. A star: when the run was over not all hosts had the file, or viewers had
missed more than 1 % of what they needed; as where the origin's line is too thin for client and server.
";

/// All of it. `lab` is what the lab wrote of its scenarios.
///
/// # Errors
/// A figure is missing in what is kept of a run.
pub fn text(runs: &[Run], kept: &BTreeMap<String, Kept>, lab: &[Value], commit: &str) -> Result<String> {
    let mut page = format!("{HEAD}\nWritten at commit {commit}.\n");
    let missing: Vec<String> = runs.iter().flat_map(|r| r.deciders().map(|b| r.name_with(b))).collect();
    let missing: Vec<String> = missing.into_iter().filter(|name| !kept.contains_key(name)).collect();
    if !missing.is_empty() {
        writeln!(page, "\n**Not run** (`cargo xtask results --only NAME`): {}.", missing.join(", "))?;
    }
    for row in &ROWS {
        write!(page, "\n## {}: {}\n", row.name, row.about)?;
        if row.of_bench {
            bench_table(&mut page, row, runs, kept)?;
        } else {
            for (has_churn, title) in [(false, "Quiet"), (true, "With churn")] {
                sim_table(&mut page, (row, title), runs.iter().filter(|r| r.has_churn == has_churn), kept)?;
            }
        }
    }
    if !lab.is_empty() {
        lab_table(&mut page, lab)?;
    }
    runs_table(&mut page, runs, kept)?;
    Ok(page)
}

/// Figures of a row in runs alike.
fn sim_table<'a>(
    page: &mut String,
    (row, title): (&Row, &str),
    runs: impl Iterator<Item = &'a Run>,
    kept: &BTreeMap<String, Kept>,
) -> Result<()> {
    let mut lines = Vec::new();
    for run in runs {
        let figures = run.rows.iter().filter(|(name, _)| *name == row.name).flat_map(|(_, figures)| figures.iter());
        for figure in figures {
            lines.push(line(run, figure, kept)?);
        }
    }
    if lines.is_empty() {
        return Ok(());
    }
    let mut header = vec!["scenario", "measure", "Headwater", "bound", "ratio", "must", "goal", ""];
    header.extend(BASELINES);
    write!(page, "\n{title}:\n\n")?;
    table(page, &header, &lines)
}

fn line(run: &Run, figure: &Figure, kept: &BTreeMap<String, Kept>) -> Result<Vec<String>> {
    let mut cells = vec![run.name.to_owned(), figure.what.to_owned()];
    let of = |baseline: Option<&str>| -> Result<Option<Option<Measured>>> {
        let name = run.name_with(baseline);
        kept.get(&name).map(|k| figure.of(&name, &k.outcome)).transpose()
    };
    let value = |m: Option<Measured>, baseline: Option<&str>| {
        let fails = kept.get(&run.name_with(baseline)).is_some_and(|k| fails(&k.outcome));
        let star = if fails { " *" } else { "" };
        m.map_or("never".to_owned(), |m| format!("{}{star}", number(m.value)))
    };
    match of(None)? {
        None => cells.extend(["not run", "", "", "", "", ""].map(str::to_owned)),
        Some(own) => {
            let optional = |n: Option<f64>| n.map(number).unwrap_or_default();
            cells.extend([value(own, None), optional(own.and_then(|m| m.bound)), ratio(own)]);
            cells.extend(bars(figure.bar.as_ref()));
            cells.push(figure.bar.map_or(String::new(), |bar| bar.verdict(own).to_owned()));
        }
    }
    for baseline in BASELINES {
        let known = run.baselines.contains(&baseline) && !figure.is_own;
        cells.push(match of(Some(baseline)).map(|m| m.filter(|_| known))? {
            None => "–".to_owned(),
            Some(m) => value(m, Some(baseline)),
        });
    }
    Ok(cells)
}

/// Whether hosts did not get what they came for.
fn fails(outcome: &Value) -> bool {
    let number = |path: &str| outcome.pointer(path).and_then(Value::as_f64);
    let incomplete = number("/complete").zip(number("/nodes")).is_some_and(|(complete, nodes)| complete < nodes);
    incomplete || number("/continuity").is_some_and(|c| c < 0.99)
}

fn ratio(measured: Option<Measured>) -> String {
    measured.and_then(|m| m.ratio()).map(number).unwrap_or_default()
}

fn bars(bar: Option<&Bar>) -> [String; 2] {
    let Some(bar) = bar else { return [String::new(), String::new()] };
    let sign = if bar.at_least { "≥" } else { "≤" };
    let of = if bar.of_ratio { "ratio " } else { "" };
    [bar.must, bar.goal].map(|b| b.map_or(String::new(), |b| format!("{of}{sign} {}", number(b))))
}

/// Figures of `bench core`, which brings its bars along.
fn bench_table(page: &mut String, row: &Row, runs: &[Run], kept: &BTreeMap<String, Kept>) -> Result<()> {
    let mut lines = Vec::new();
    for run in runs.iter().filter(|r| matches!(r.what, What::Bench(_))) {
        let name = run.name_with(None);
        let Some(kept) = kept.get(&name) else {
            lines.push([run.name, "", "", "not run", "", "", ""].map(str::to_owned).to_vec());
            continue;
        };
        let figures = kept.outcome.pointer("/figures").and_then(Value::as_array);
        let of_row = figures.into_iter().flatten().filter(|f| f.get("row").and_then(Value::as_str) == Some(row.name));
        let before = lines.len();
        for figure in of_row {
            lines.push(bench_line(run, figure).with_context(|| format!("{name}, row {}", row.name))?);
        }
        anyhow::ensure!(lines.len() > before, "{name}: no figure of row {}", row.name);
    }
    page.push('\n');
    table(page, &["run", "of", "measure", "Headwater", "must", "goal", ""], &lines)
}

fn bench_line(run: &Run, figure: &Value) -> Result<Vec<String>> {
    let words = |field: &str| figure.get(field).and_then(Value::as_str).with_context(|| format!("{field} is missing"));
    let number_of =
        |field: &str| figure.get(field).and_then(Value::as_f64).with_context(|| format!("{field} is missing"));
    let (value, must, goal) = (number_of("value")?, number_of("must")?, number_of("goal")?);
    let bar = Bar { of_ratio: false, must: Some(must), goal: Some(goal), at_least: words("better")? == "more" };
    let [must, goal] = bars(Some(&bar));
    Ok(vec![
        run.name.to_owned(),
        format!("{}, {} peers", words("content")?, number(number_of("peers")?)),
        words("what")?.to_owned(),
        format!("{} {}", number(value), words("unit")?),
        must,
        goal,
        bar.verdict(Some(Measured { value, bound: None })).to_owned(),
    ])
}

/// Bars of scenarios that the lab ran with real hosts.
fn lab_table(page: &mut String, lab: &[Value]) -> Result<()> {
    let mut lines = Vec::new();
    for outcome in lab {
        let scenario = outcome.get("scenario").and_then(Value::as_str).context("the lab's outcome has no scenario")?;
        let bars = outcome.get("bars").and_then(Value::as_array);
        for bar in bars.with_context(|| format!("{scenario}: no bars in the lab's outcome"))? {
            let name =
                bar.get("name").and_then(Value::as_str).with_context(|| format!("{scenario}: a bar has no name"))?;
            let missing = || format!("{scenario}: bar {name} is not whole");
            let bound = bar.get("bound").and_then(Value::as_f64).with_context(missing)?;
            let pass = bar.get("pass").and_then(Value::as_bool).with_context(missing)?;
            let value = bar.get("value").and_then(Value::as_f64).map_or("never".to_owned(), number);
            let verdict = if pass { "met" } else { "MISSED" };
            lines.push(vec![scenario.to_owned(), name.to_owned(), value, number(bound), verdict.to_owned()]);
        }
    }
    write!(page, "\n## The lab: real programs on shaped links\n\n")?;
    table(page, &["scenario", "bar", "value", "must", ""], &lines)
}

/// What was run, how and at what cost.
fn runs_table(page: &mut String, runs: &[Run], kept: &BTreeMap<String, Kept>) -> Result<()> {
    let names = runs.iter().flat_map(|r| r.deciders().map(|b| r.name_with(b)));
    let line = |name: String| {
        let k = kept.get(&name)?;
        let violated = k.outcome.pointer("/violations").and_then(Value::as_array).map_or(0, Vec::len);
        let cpu = k.cpu_s.map_or("unknown".to_owned(), |s| format!("{s:.0}"));
        let violated = if violated == 0 { String::new() } else { format!("{violated} VIOLATED") };
        Some(vec![name, format!("`{}`", k.command), k.commit.clone(), cpu, format!("{:.0}", k.wall_s), violated])
    };
    let lines: Vec<Vec<String>> = names.filter_map(line).collect();
    write!(page, "\n## Runs\n\n")?;
    table(page, &["run", "command", "commit", "processor s", "s", "invariants"], &lines)
}

fn table(page: &mut String, header: &[&str], lines: &[Vec<String>]) -> Result<()> {
    writeln!(page, "| {} |", header.join(" | "))?;
    writeln!(page, "|{}", "---|".repeat(header.len()))?;
    for line in lines {
        writeln!(page, "| {} |", line.join(" | "))?;
    }
    Ok(())
}

/// For people: about four digits.
fn number(n: f64) -> String {
    let text = match n.abs() {
        0.0..10.0 => format!("{n:.3}"),
        10.0..1000.0 => format!("{n:.2}"),
        1e3..1e6 => format!("{n:.0}"),
        _ => format!("{:.2} M", n / 1e6),
    };
    if text.contains('.') && !text.contains('M') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
