//! One figure: where an outcome has it, its bound and its bar.

use anyhow::{Context, Result};
use serde_json::Value;

/// Where a number is found in an outcome.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// At this path.
    At(&'static str),
    /// A number of its own: a bound that needs no computing.
    Is(f64),
    /// A share at this path, in percent.
    Percent(&'static str),
    /// One over another.
    Over(&'static str, &'static str),
    /// In percent: what is not the first over the sum of the others.
    Not(&'static str, &'static [&'static str]),
}

/// What must be, and what is the goal, at most; of shares in percent at least.
#[derive(Clone, Copy, Debug)]
pub struct Bar {
    /// Of the ratio of value and bound, else of the value.
    pub of_ratio: bool,
    pub must: Option<f64>,
    pub goal: Option<f64>,
    /// More is better.
    pub at_least: bool,
}

/// A figure of a row of the benchmarks.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    pub what: &'static str,
    pub value: Source,
    pub bound: Option<Source>,
    pub bar: Option<Bar>,
    /// An outcome in which nothing of the kind came about has none.
    pub may_lack: bool,
    /// It says nothing where viewers do not get what they need, as with some baselines: shown of Headwater only.
    pub is_own: bool,
}

/// A figure of one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    pub value: f64,
    pub bound: Option<f64>,
}

impl Measured {
    /// Value over bound.
    pub fn ratio(&self) -> Option<f64> {
        self.bound.filter(|b| *b > 0.0).map(|b| self.value / b)
    }
}

impl Figure {
    pub const fn new(what: &'static str, value: Source) -> Figure {
        Figure { what, value, bound: None, bar: None, may_lack: false, is_own: false }
    }
    /// Beside this bound.
    pub const fn bound(self, bound: Source) -> Figure {
        Figure { bound: Some(bound), ..self }
    }
    /// The ratio of value and bound is at most this.
    pub const fn ratio(self, must: Option<f64>, goal: Option<f64>) -> Figure {
        Figure { bar: Some(Bar { of_ratio: true, must, goal, at_least: false }), ..self }
    }
    /// The value is at most this.
    pub const fn most(self, must: Option<f64>, goal: Option<f64>) -> Figure {
        Figure { bar: Some(Bar { of_ratio: false, must, goal, at_least: false }), ..self }
    }
    /// The value is at least this.
    pub const fn least(self, must: Option<f64>, goal: Option<f64>) -> Figure {
        Figure { bar: Some(Bar { of_ratio: false, must, goal, at_least: true }), ..self }
    }
    /// Nothing of the kind may have come about: `null` stands for that.
    pub const fn or_never(self) -> Figure {
        Figure { may_lack: true, ..self }
    }

    /// Of Headwater only.
    pub const fn own(self) -> Figure {
        Figure { is_own: true, ..self }
    }

    /// What an outcome of `run` says of it; nothing where it never came about.
    ///
    /// # Errors
    /// The figure is not in the outcome.
    pub fn of(&self, run: &str, outcome: &Value) -> Result<Option<Measured>> {
        let missing = || format!("{run}: no figure {:?} ({:?})", self.what, self.value);
        let Some(value) = self.value.of(outcome, self.may_lack).with_context(missing)? else { return Ok(None) };
        let bound = self.bound.map(|b| b.of(outcome, false).with_context(missing)).transpose()?.flatten();
        Ok(Some(Measured { value, bound }))
    }
}

impl Source {
    fn of(&self, outcome: &Value, may_lack: bool) -> Result<Option<f64>> {
        let at = |path: &str| {
            let found = outcome.pointer(path).with_context(|| format!("{path} is missing"))?;
            match found.as_f64() {
                None if may_lack && found.is_null() => Ok(None),
                None => Err(anyhow::anyhow!("{path} is {found}")),
                number => Ok(number),
            }
        };
        Ok(match self {
            Source::At(path) => at(path)?,
            Source::Is(number) => Some(*number),
            Source::Percent(path) => at(path)?.map(|share| 100.0 * share),
            Source::Over(part, whole) => at(part)?.zip(at(whole)?).map(|(part, whole)| part / whole.max(1.0)),
            Source::Not(part, wholes) => {
                let mut whole = 0.0;
                for path in *wholes {
                    whole += at(path)?.unwrap_or_default();
                }
                at(part)?.map(|part| 100.0 * (1.0 - part / whole.max(1.0)))
            }
        })
    }
}

impl Bar {
    /// Met, missed, or better than must be; nothing where there is nothing to judge.
    pub fn verdict(&self, measured: Option<Measured>) -> &'static str {
        let value = measured.and_then(|m| if self.of_ratio { m.ratio() } else { Some(m.value) });
        let Some(value) = value else { return "MISSED (never)" };
        let reaches = |bar: f64| if self.at_least { value >= bar } else { value <= bar };
        match (self.must.map(reaches), self.goal.map(reaches)) {
            (_, Some(true)) => "goal met",
            (Some(true), Some(false)) => "met, goal missed",
            (Some(true), None) => "met",
            (Some(false), _) | (None, Some(false)) => "MISSED",
            (None, None) => "",
        }
    }
}
