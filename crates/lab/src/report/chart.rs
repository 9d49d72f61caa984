//! Plots as SVG: lines, stacked areas and heat strips over time, with what went wrong drawn across them. Colours are
//! classes of the page's style sheet, so that they follow light and dark.

use super::html::escape;
use crate::outcome::FaultMark;
use std::fmt::Write;

/// Colours of series: classes `s0`…, `f0`… and `k0`… of the style sheet.
pub(super) const COLOURS: usize = 6;

const WIDTH: f64 = 820.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 14.0;
const HEIGHT: f64 = 220.0;
const BELOW: f64 = 30.0;
/// A row of words about faults above the plot.
const WORDS_ROW: f64 = 15.0;
/// Faults whose words stand above a plot; all of them stand in the page's list.
const WORDS_MAX: usize = 8;
/// Width of a letter, roughly.
const LETTER: f64 = 6.2;
const HEAT_ROW: f64 = 13.0;
const HEAT_LEFT: f64 = 96.0;
/// Shades of a heat strip: `h0` … `h8`.
const SHADES: f64 = 8.0;

/// What all plots of a run share.
pub(super) struct Time<'a> {
    /// Where the plot ends.
    pub(super) end_s: f64,
    /// What went wrong when.
    pub(super) faults: &'a [FaultMark],
}

/// A line, or a layer of a stack.
pub(super) struct Series {
    /// Shown where one points at it.
    pub(super) name: String,
    /// Which colour, below [`COLOURS`].
    pub(super) colour: usize,
    /// Further classes: `many`, `liar`.
    pub(super) class: &'static str,
    /// Seconds and value, in order of time.
    pub(super) points: Vec<(f64, f64)>,
}

/// Lines; `unit` stands beside the axis of values.
pub(super) fn lines(time: &Time<'_>, unit: &str, top: f64, all: &[Series]) -> String {
    plot(time, unit, top, |frame, svg| {
        for one in all {
            let points: Vec<String> = one.points.iter().map(|(t, v)| frame.point(*t, *v)).collect();
            let (colour, class, name) = (one.colour % COLOURS, one.class, escape(&one.name));
            let _ = write!(
                svg,
                r#"<polyline class="line s{colour} {class}" points="{}"><title>{name}</title></polyline>"#,
                points.join(" ")
            );
        }
    })
}

/// Layers upon one another, the first at the bottom; all have their points at the same times.
pub(super) fn stack(time: &Time<'_>, unit: &str, layers: &[Series]) -> String {
    let steps = layers.first().map_or(0, |l| l.points.len());
    let mut floor = vec![0.0; steps];
    let sums = (0..steps).map(|i| layers.iter().filter_map(|l| l.points.get(i)).map(|p| p.1).sum::<f64>());
    let top = sums.fold(0.0, f64::max);
    plot(time, unit, top, |frame, svg| {
        for layer in layers {
            let below: Vec<String> =
                layer.points.iter().zip(&floor).map(|((t, _), low)| frame.point(*t, *low)).rev().collect();
            for (low, (_, v)) in floor.iter_mut().zip(&layer.points) {
                *low += v;
            }
            let above: Vec<String> = layer.points.iter().zip(&floor).map(|((t, _), v)| frame.point(*t, *v)).collect();
            let _ = write!(
                svg,
                r#"<polygon class="area f{}" points="{} {}"><title>{}</title></polygon>"#,
                layer.colour % COLOURS,
                above.join(" "),
                below.join(" "),
                escape(&layer.name)
            );
        }
    })
}

/// A row per name; each cell is the share (0 to 1) that was in use from its time until the next one's.
pub(super) fn heat(time: &Time<'_>, rows: &[(String, Vec<(f64, f64)>)]) -> String {
    let frame = Frame::new(time, HEAT_LEFT, HEAT_ROW * rows.len() as f64, 1.0);
    let mut svg = frame.open();
    for (row, (name, cells)) in rows.iter().enumerate() {
        let y = frame.top + HEAT_ROW * row as f64;
        let _ = write!(
            svg,
            r#"<text x="{:.0}" y="{:.1}" text-anchor="end">{}</text>"#,
            HEAT_LEFT - 6.0,
            y + HEAT_ROW - 3.0,
            escape(&shortened(name))
        );
        let shade = |share: f64| (share.clamp(0.0, 1.0) * SHADES).round() as u32;
        let mut cell = 0;
        while let Some((from, share)) = cells.get(cell) {
            // Cells alike are drawn as one.
            let next = cells[cell..].iter().position(|(_, s)| shade(*s) != shade(*share));
            let until = next.and_then(|n| cells.get(cell + n)).map_or(time.end_s, |c| c.0);
            let (x, right) = (frame.x(*from), frame.x(until));
            let _ = write!(
                svg,
                r#"<rect class="h{}" x="{x:.1}" y="{y:.1}" width="{:.1}" height="{:.1}"/>"#,
                shade(*share),
                (right - x).max(0.0),
                HEAT_ROW - 1.5
            );
            cell = next.map_or(cells.len(), |n| cell + n);
        }
    }
    frame.time_axis(&mut svg);
    frame.faults(&mut svg);
    svg.push_str("</svg>");
    svg
}

fn plot(time: &Time<'_>, unit: &str, top: f64, draw: impl FnOnce(&Frame<'_>, &mut String)) -> String {
    let step = tick(top.max(1e-9), 5.0);
    let frame = Frame::new(time, LEFT, HEIGHT, step * (top.max(1e-9) / step).ceil());
    let mut svg = frame.open();
    let mut value = 0.0;
    while value <= frame.highest * 1.000_001 {
        let y = frame.y(value);
        let _ = write!(
            svg,
            r#"<line class="grid" x1="{LEFT}" x2="{:.0}" y1="{y:.1}" y2="{y:.1}"/><text x="{:.0}" y="{:.1}" text-anchor="end">{}</text>"#,
            WIDTH - RIGHT,
            LEFT - 6.0,
            y + 4.0,
            plain(value)
        );
        value += step;
    }
    let _ = write!(
        svg,
        r#"<text x="12" y="{:.0}" text-anchor="middle" transform="rotate(-90 12 {0:.0})">{}</text>"#,
        frame.top + HEIGHT / 2.0,
        escape(unit)
    );
    frame.spans(&mut svg);
    draw(&frame, &mut svg);
    frame.time_axis(&mut svg);
    frame.faults(&mut svg);
    svg.push_str("</svg>");
    svg
}

/// Where things stand in a plot.
struct Frame<'a> {
    time: &'a Time<'a>,
    left: f64,
    /// Upper edge, below the words about faults.
    top: f64,
    height: f64,
    /// The value at the upper edge.
    highest: f64,
    /// Row of each fault's words, from the lowest.
    rows: Vec<usize>,
}

impl<'a> Frame<'a> {
    fn new(time: &'a Time<'a>, left: f64, height: f64, highest: f64) -> Frame<'a> {
        let mut frame = Frame { time, left, top: 0.0, height, highest, rows: Vec::new() };
        // From the last to the first, and upwards, so that no line runs through the words of an earlier fault.
        let mut starts: Vec<f64> = Vec::new();
        for fault in time.faults.iter().take(WORDS_MAX).rev() {
            let (from, until) = frame.words(fault);
            let row = starts.iter().position(|start| until < *start).unwrap_or(starts.len());
            starts.resize(starts.len().max(row + 1), 0.0);
            starts[row] = from;
            frame.rows.push(row);
        }
        frame.rows.reverse();
        frame.top = 6.0 + WORDS_ROW * starts.len() as f64;
        frame
    }

    /// Left and right end of a fault's words.
    fn words(&self, fault: &FaultMark) -> (f64, f64) {
        let long = fault.what.chars().count() as f64 * LETTER;
        let from = (self.x(fault.at_s) + 3.0).min(WIDTH - long).max(0.0);
        (from, from + long + 8.0)
    }

    fn open(&self) -> String {
        let height = self.top + self.height + BELOW;
        format!(r#"<svg viewBox="0 0 {WIDTH} {height:.0}" role="img">"#)
    }

    fn x(&self, seconds: f64) -> f64 {
        let share = (seconds / self.time.end_s.max(1e-9)).clamp(0.0, 1.0);
        self.left + share * (WIDTH - RIGHT - self.left)
    }

    fn y(&self, value: f64) -> f64 {
        self.top + self.height * (1.0 - (value / self.highest).clamp(0.0, 1.0))
    }

    fn point(&self, seconds: f64, value: f64) -> String {
        format!("{:.1},{:.1}", self.x(seconds), self.y(value))
    }

    fn time_axis(&self, svg: &mut String) {
        let bottom = self.top + self.height;
        let _ = write!(
            svg,
            r#"<line class="axis" x1="{:.0}" x2="{:.0}" y1="{bottom:.1}" y2="{bottom:.1}"/>"#,
            self.left,
            WIDTH - RIGHT
        );
        let step = tick(self.time.end_s.max(1e-9), 9.0);
        let mut seconds = 0.0;
        while seconds <= self.time.end_s * 1.000_001 {
            let x = self.x(seconds);
            // The last label would run out of the picture in the middle of its line.
            let anchor = if x > WIDTH - RIGHT - 12.0 { "end" } else { "middle" };
            let _ = write!(
                svg,
                r#"<text x="{x:.1}" y="{:.1}" text-anchor="{anchor}">{} s</text>"#,
                bottom + 16.0,
                plain(seconds)
            );
            seconds += step;
        }
    }

    /// Shades the time of faults that ended.
    fn spans(&self, svg: &mut String) {
        for fault in self.time.faults {
            let Some(until) = fault.until_s else { continue };
            let x = self.x(fault.at_s);
            let _ = write!(
                svg,
                r#"<rect class="span" x="{x:.1}" y="{:.1}" width="{:.1}" height="{:.1}"/>"#,
                self.top,
                (self.x(until) - x).max(0.0),
                self.height
            );
        }
    }

    fn faults(&self, svg: &mut String) {
        for (i, fault) in self.time.faults.iter().enumerate() {
            let x = self.x(fault.at_s);
            let row = self.rows.get(i);
            let from = row.map_or(self.top, |row| self.top - 2.0 - WORDS_ROW * (row + 1) as f64);
            let _ = write!(
                svg,
                r#"<line class="mark" x1="{x:.1}" x2="{x:.1}" y1="{from:.1}" y2="{:.1}"><title>{:.1} s: {}</title></line>"#,
                self.top + self.height,
                fault.at_s,
                escape(&fault.what)
            );
            if row.is_some() {
                let _ = write!(
                    svg,
                    r#"<text class="said" x="{:.1}" y="{:.1}">{}</text>"#,
                    self.words(fault).0,
                    from + 10.0,
                    escape(&fault.what)
                );
            }
        }
    }
}

/// A round step that gives about `wanted` ticks up to `highest`.
fn tick(highest: f64, wanted: f64) -> f64 {
    let rough = highest / wanted;
    let power = 10f64.powf(rough.log10().floor());
    let leading = rough / power;
    power * [1.0, 2.0, 5.0, 10.0].into_iter().find(|step| leading <= *step).unwrap_or(10.0)
}

/// A number without needless zeros.
fn plain(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn shortened(name: &str) -> String {
    const LONGEST: usize = 14;
    if name.chars().count() <= LONGEST {
        return name.to_owned();
    }
    name.chars().take(LONGEST - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        for (highest, wanted, step) in [(100.0, 5.0, 20.0), (320.0, 5.0, 100.0), (0.9, 5.0, 0.2), (61.0, 9.0, 10.0)] {
            assert!((tick(highest, wanted) - step).abs() < 1e-9, "{highest}: {}", tick(highest, wanted));
        }
        assert_eq!([0.0, 0.25, 20.0, 100.0].map(plain), ["0", "0.25", "20", "100"]);
    }

    #[test]
    fn words_of_faults_close_together_stand_in_rows() {
        let fault = |at_s| FaultMark { at_s, until_s: None, what: "the peering link is cut".into() };
        let faults = [fault(10.0), fault(11.0), fault(60.0)];
        let frame = Frame::new(&Time { end_s: 100.0, faults: &faults }, LEFT, HEIGHT, 1.0).rows;
        assert_eq!(frame, [1, 0, 0]);
    }
}
