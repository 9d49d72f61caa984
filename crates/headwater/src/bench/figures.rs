//! What was measured, beside what it must be.

use std::time::Duration;

use serde::Serialize;

use crate::table::table;

/// Which way is better.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    More,
    Less,
}

/// One figure.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Figure {
    /// Row of the project's list of benchmarks; absent where it has none.
    pub row: Option<&'static str>,
    pub content: &'static str,
    pub peers: u32,
    pub what: &'static str,
    pub value: f64,
    pub unit: &'static str,
    pub better: Better,
    pub must: Option<f64>,
    pub goal: Option<f64>,
    /// Of value and must, so that more than 1 is better than must be.
    pub ratio: Option<f64>,
}

/// Where figures of one run go.
pub struct Run<'a> {
    pub content: &'static str,
    pub peers: u32,
    pub into: &'a mut Vec<Figure>,
}

/// What must be, and what is the goal, of one row.
#[derive(Clone, Copy)]
pub struct Bar {
    pub row: &'static str,
    pub must: f64,
    pub goal: f64,
}

impl Run<'_> {
    /// A figure that is better the larger it is.
    pub fn more(&mut self, what: &'static str, value: f64, unit: &'static str, bar: Option<Bar>) {
        self.add(what, value, unit, Better::More, bar);
    }
    /// One that is better the smaller it is.
    pub fn less(&mut self, what: &'static str, value: f64, unit: &'static str, bar: Option<Bar>) {
        self.add(what, value, unit, Better::Less, bar);
    }
    /// The median, the 99th percentile and the longest of some calls.
    pub fn quantiles(&mut self, what: [&'static str; 3], [median, most, longest]: [f64; 3]) {
        self.less(what[0], median, "us", None);
        self.less(what[1], most, "us", None);
        self.less(what[2], longest, "us", None);
    }

    fn add(&mut self, what: &'static str, value: f64, unit: &'static str, better: Better, bar: Option<Bar>) {
        let ratio = bar.map(|b| if better == Better::More { value / b.must } else { b.must / value });
        let (content, peers) = (self.content, self.peers);
        let (row, must, goal) = (bar.map(|b| b.row), bar.map(|b| b.must), bar.map(|b| b.goal));
        self.into.push(Figure { row, content, peers, what, value, unit, better, must, goal, ratio });
    }
}

/// So many of something in this time, per second.
pub fn per_second(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(1e-9)
}

/// For people.
pub fn lines(clock: &str, figures: &[Figure]) -> String {
    let header = ["CONTENT", "PEERS", "ROW", "WHAT", "VALUE", "UNIT", "MUST", "GOAL", "RATIO"];
    let of = |n: Option<f64>| n.map(number).unwrap_or_default();
    let row = |f: &Figure| {
        let text = [f.content.into(), f.peers.to_string(), f.row.unwrap_or_default().into(), f.what.into()];
        let numbers = [number(f.value), f.unit.into(), of(f.must), of(f.goal)];
        let ratio = f.ratio.map(|r| format!("{r:.2}")).unwrap_or_default();
        text.into_iter().chain(numbers).chain([ratio]).collect()
    };
    let rows: Vec<Vec<String>> = figures.iter().map(row).collect();
    format!("{}times are {clock}\n", table(&header, &rows, &["PEERS", "VALUE", "MUST", "GOAL", "RATIO"]))
}

fn number(n: f64) -> String {
    match n.abs() {
        0.0..10.0 => format!("{n:.2}"),
        10.0..1000.0 => format!("{n:.0}"),
        1e3..1e6 => format!("{:.1}k", n / 1e3),
        _ => format!("{:.2}M", n / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_one_is_better_than_must_be() {
        let mut figures = Vec::new();
        let mut run = Run { content: "live", peers: 100, into: &mut figures };
        run.more("joins", 20_000.0, "/s", Some(Bar { row: "g", must: 10_000.0, goal: 100_000.0 }));
        run.less("memory", 2048.0, "B", Some(Bar { row: "f3", must: 1024.0, goal: 256.0 }));
        run.less("a leave", 12.0, "us", None);
        let ratios: Vec<Option<f64>> = figures.iter().map(|f| f.ratio).collect();
        assert_eq!(ratios, [Some(2.0), Some(0.5), None]);
        let text = lines("CPU time", &figures);
        assert!(text.contains("20.0k  /s    10.0k  100.0k   2.00"), "{text}");
    }
}
