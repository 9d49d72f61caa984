//! The demo's progress while it runs, on standard error: a block of bars on a terminal, a line a second in a pipe.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

const LINE_EVERY: Duration = Duration::from_secs(1);
const REDRAWS_PER_S: u8 = 10;

/// Where progress goes.
pub enum Board {
    /// Lines.
    Plain {
        /// The last of them.
        last: Option<Instant>,
    },
    /// A block that is drawn again and again.
    Block(Block),
}

/// A header and a bar per row.
pub struct Block {
    all: MultiProgress,
    header: ProgressBar,
    bars: Vec<ProgressBar>,
}

/// What there is to show.
pub trait View {
    /// All of it in a line.
    fn header(&self) -> String;
    /// In the same order every time.
    fn rows(&self) -> Vec<Row>;
}

/// One of those that the demo is about: a bar and some words.
pub struct Row {
    /// In the demo.
    pub name: String,
    /// So much of the bar is full.
    pub part: u64,
    /// The whole bar.
    pub whole: u64,
    /// What it does.
    pub words: String,
}

impl Board {
    /// The board that fits standard error.
    pub fn new() -> Board {
        if std::io::stderr().is_terminal() { Board::Block(Block::new()) } else { Board::Plain { last: None } }
    }

    /// Tells what happens now, or has happened.
    pub fn note(&self, text: &str) {
        match self {
            Board::Plain { .. } => print_line(text),
            // Fails as printing does: the terminal is gone, and with it whom to tell.
            Board::Block(block) => drop(block.all.println(text)),
        }
    }

    /// Shows how it is.
    pub fn show(&mut self, view: &impl View, now: Instant) {
        match self {
            Board::Plain { last } => {
                if last.is_none_or(|last| now.duration_since(last) >= LINE_EVERY) {
                    *last = Some(now);
                    print_line(&view.header());
                }
            }
            Board::Block(block) => block.show(view),
        }
    }

    /// Takes the block away; notes stay.
    pub fn finish(&self) {
        if let Board::Block(block) = self {
            // Fails as printing does.
            let _ = block.all.clear();
        }
    }
}

impl Block {
    fn new() -> Block {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(REDRAWS_PER_S));
        let header = all.add(ProgressBar::no_length());
        header.set_style(style("{msg}"));
        Block { all, header, bars: Vec::new() }
    }

    fn show(&mut self, view: &impl View) {
        self.header.set_message(view.header());
        let rows = view.rows();
        while self.bars.len() < rows.len() {
            let bar = self.all.add(ProgressBar::new(1));
            bar.set_style(style("{prefix:8} {bar:24} {percent:>3} %  {msg}"));
            self.bars.push(bar);
        }
        for (bar, row) in self.bars.iter().zip(rows) {
            bar.set_prefix(row.name);
            bar.set_message(row.words);
            bar.set_length(row.whole.max(1));
            bar.set_position(row.part);
        }
    }
}

/// A bar without its look is still a bar: a template that does not parse is no reason to fail.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn print_line(text: &str) {
    // Nobody reads any more; the demo itself goes on.
    let _ = writeln!(std::io::stderr(), "{text}");
}
