//! `--report FILE`: one page of HTML that needs nothing else: what a scenario is, how its bars were met, and plots over
//! time of who had what, from where, over which links.

mod chart;
mod html;
mod resample;

use crate::outcome::{HostOutcome, IspSeries, Outcome, SimulatorOutcome};
use chart::{COLOURS, Series, Time};
use html::{Cell, escape, megabytes, number, seconds, table, verdict};
use resample::{Columns, step};
use std::collections::BTreeMap;
use std::fmt::Write;

const STYLE: &str = include_str!("report/style.css");
/// Events on a page, per scenario.
const EVENTS_MAX: usize = 500;

/// The page about all `outcomes`.
pub fn page(outcomes: &[Outcome]) -> String {
    let title = match outcomes {
        [only] => format!("Headwater lab: {}", only.scenario),
        all => format!("Headwater lab: {} scenarios", all.len()),
    };
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{0}</title><style>{STYLE}</style></head><body><h1>{0}</h1>",
        escape(&title)
    );
    if outcomes.len() > 1 {
        out.push_str(&summary(outcomes));
    }
    for (i, outcome) in outcomes.iter().enumerate() {
        section(&mut out, i, outcome);
    }
    out.push_str("</body></html>\n");
    out
}

/// A row per scenario, with a link to its part of the page.
fn summary(outcomes: &[Outcome]) -> String {
    let mut out = String::from(
        r#"<section><div class="wide"><table><thead><tr><th>scenario</th><th></th><th class="n">makespan</th><th class="n">× bound</th><th class="n">origin copies</th><th>missed</th></tr></thead><tbody>"#,
    );
    for (i, o) in outcomes.iter().enumerate() {
        let missed: Vec<&str> = o.bars.iter().filter(|b| !b.pass).map(|b| b.name.as_str()).collect();
        let _ = write!(
            out,
            r##"<tr><td><a href="#s{i}">{}</a></td><td>{}</td><td class="n">{}</td><td class="n">{}</td><td class="n">{:.2}</td><td class="words">{}</td></tr>"##,
            escape(&o.scenario),
            verdict(o.pass),
            seconds(o.makespan_s),
            ratio(o).map_or("–".into(), number),
            o.origin.copies,
            escape(&missed.join(", "))
        );
    }
    out.push_str("</tbody></table></div></section>");
    out
}

fn ratio(o: &Outcome) -> Option<f64> {
    Some(o.makespan_s? / o.bound_s.filter(|b| *b > 0.0)?)
}

fn section(out: &mut String, index: usize, o: &Outcome) {
    let _ = write!(
        out,
        r#"<section id="s{index}"><h2>{}: {}</h2><p>{}</p><p class="soft">{}, {} hosts, {} MB, seed {}, {:.0} s in all</p>"#,
        escape(&o.scenario),
        verdict(o.pass),
        escape(&o.about),
        escape(&o.system),
        o.hosts.len(),
        megabytes(o.content_bytes),
        o.seed,
        o.duration_s
    );
    out.push_str(&headline(o));
    heading(out, "Bars");
    out.push_str(&bars(o));
    plots(out, o);
    heading(out, "Hosts");
    out.push_str(&hosts(o));
    if !o.hostile.is_empty() {
        heading(out, "Liars");
        out.push_str(&liars(o));
    }
    between(out, o);
    if let Some(simulator) = &o.simulator {
        heading(out, "The same in the simulator");
        out.push_str(&beside(o, simulator));
    }
    heading(out, "Control center and lab");
    out.push_str(&machinery(o));
    out.push_str(&told(o));
    out.push_str("</section>");
}

fn heading(out: &mut String, text: &str) {
    let _ = write!(out, "<h3>{}</h3>", escape(text));
}

/// The numbers that matter first.
fn headline(o: &Outcome) -> String {
    let into = o.isps.iter().filter(|f| f.from != f.to).map(|f| f.copies).fold(0.0, f64::max);
    let finished = o.hosts.iter().filter(|h| h.finished_s.is_some()).count();
    let mut out = String::from("<dl>");
    let mut item = |what: &str, value: String| {
        let _ = write!(out, "<div><dt>{}</dt><dd>{}</dd></div>", escape(what), escape(&value));
    };
    item("makespan", seconds(o.makespan_s));
    item("bound", seconds(o.bound_s));
    item("makespan / bound", ratio(o).map_or("–".into(), number));
    item("copies from the origin", number(o.origin.copies));
    item("most copies between two ISPs", number(into));
    item("hosts that finished", finished.to_string());
    out.push_str("</dl>");
    out
}

fn bars(o: &Outcome) -> String {
    let row = |b: &crate::outcome::Bar| {
        vec![
            Cell::Text(b.name.clone()),
            Cell::Verdict(b.pass),
            Cell::Number(b.value.map_or("–".into(), number)),
            Cell::Number(number(b.bound)),
            Cell::Number(b.ratio.map_or("–".into(), number)),
            Cell::Words(b.note.clone()),
        ]
    };
    table(&["bar", "", "value", "bound", "ratio", ""], &o.bars.iter().map(row).collect::<Vec<_>>())
}

fn plots(out: &mut String, o: &Outcome) {
    let s = &o.series;
    let Some(end_s) = s.at_s.last().copied().filter(|end| *end > 0.0) else { return };
    let time = Time { end_s, faults: &o.faults };
    let columns = Columns::new(&s.at_s);

    heading(out, "Share of the content that each host has");
    let isps = isps(o);
    let colour = |isp: u16| isps.iter().position(|i| *i == isp).unwrap_or(0);
    let share = |bytes: &[u64]| -> Vec<(f64, f64)> {
        let percent = |(t, v): (f64, f64)| (t, 100.0 * v / o.content_bytes.max(1) as f64);
        columns.values(bytes).into_iter().map(percent).collect()
    };
    let progress: Vec<Series> = o
        .hosts
        .iter()
        .zip(&s.hosts)
        .map(|(host, series)| Series {
            name: format!("{} ({}), finished {}", host.name, host.reach, seconds(host.finished_s)),
            colour: colour(host.isp),
            class: if host.hostile.is_some() { "many liar" } else { "many" },
            points: share(&series.have_bytes),
        })
        .collect();
    out.push_str(&key(&isps.iter().map(|isp| format!("ISP {isp}")).collect::<Vec<_>>()));
    out.push_str(&wide(&chart::lines(&time, "%", 100.0, &progress)));

    heading(out, "What hosts receive, by source (payload)");
    let sources = [
        ("origin", 1, &s.from_origin_bytes),
        ("waypoints", 3, &s.from_waypoint_bytes),
        ("peers", 0, &s.from_peer_bytes),
    ];
    let layers: Vec<Series> = sources
        .into_iter()
        .filter(|(_, _, bytes)| bytes.iter().any(|b| *b > 0))
        .map(|(name, colour, bytes)| Series { name: name.to_owned(), colour, class: "", points: columns.mbit(bytes) })
        .collect();
    let name = |l: &Series| (l.colour, l.name.clone());
    out.push_str(&coloured_key(&layers.iter().map(name).collect::<Vec<_>>()));
    out.push_str(&wide(&chart::stack(&time, "Mbit/s", &layers)));

    let across: Vec<&IspSeries> = s.isps.iter().filter(|i| i.from != i.to).collect();
    if !across.is_empty() {
        heading(out, "Between ISPs (on the wire)");
        let line = |(colour, pair): (usize, &&IspSeries)| Series {
            name: format!("{} → {}", pair.from, pair.to),
            colour: colour % COLOURS,
            class: "",
            points: columns.mbit(&pair.wire_bytes).into_iter().flat_map(step(columns.width_s())).collect(),
        };
        let all: Vec<Series> = across.iter().enumerate().map(line).collect();
        let top = all.iter().flat_map(|l| &l.points).map(|p| p.1).fold(0.0, f64::max);
        out.push_str(&coloured_key(&all.iter().map(name).collect::<Vec<_>>()));
        out.push_str(&wide(&chart::lines(&time, "Mbit/s", top, &all)));
    }

    heading(out, "Uplinks in use (on the wire, of the line rate)");
    let mut rows = Vec::new();
    if let Some(rate) = origin_line_mbit(o) {
        rows.push(("origin".to_owned(), columns.used(&s.origin_wire_up_bytes, rate)));
    }
    for (host, series) in o.hosts.iter().zip(&s.hosts) {
        rows.push((host.name.clone(), columns.used(&series.wire_up_bytes, host.up_mbit)));
    }
    out.push_str(
        r#"<div class="key"><span><i class="q0"></i>idle</span><span><i class="q2"></i>¼</span><span><i class="q4"></i>½</span><span><i class="q6"></i>¾</span><span><i class="q8"></i>full</span></div>"#,
    );
    out.push_str(&wide(&chart::heat(&time, &rows)));
}

/// The origin's line rate: the one whose goodput was calibrated by HTTP.
fn origin_line_mbit(o: &Outcome) -> Option<f64> {
    o.calibrated.iter().find(|c| c.by == "http").map(|c| c.line_mbit)
}

fn isps(o: &Outcome) -> Vec<u16> {
    let counted: BTreeMap<u16, ()> = o.hosts.iter().map(|h| (h.isp, ())).collect();
    counted.into_keys().collect()
}

fn wide(svg: &str) -> String {
    format!(r#"<div class="wide">{svg}</div>"#)
}

fn key(names: &[String]) -> String {
    coloured_key(&names.iter().cloned().enumerate().collect::<Vec<_>>())
}

fn coloured_key(names: &[(usize, String)]) -> String {
    let mut out = String::from(r#"<div class="key">"#);
    for (colour, name) in names {
        let _ = write!(out, r#"<span><i class="k{}"></i>{}</span>"#, colour % COLOURS, escape(name));
    }
    out.push_str("</div>");
    out
}

fn hosts(o: &Outcome) -> String {
    let row = |h: &HostOutcome| {
        let found = match (&h.accepts, &h.accepts_from) {
            (Some(accepts), Some(from)) => format!("{accepts} (by {from})"),
            (Some(accepts), None) => accepts.clone(),
            (None, _) => "–".into(),
        };
        let mut said: Vec<String> = h.notes.clone();
        if h.hash_right == Some(false) {
            said.insert(0, "WRONG BYTES".into());
        }
        said.extend(h.error.clone());
        vec![
            Cell::Text(h.name.clone()),
            Cell::Number(h.isp.to_string()),
            Cell::Text(h.site.clone().unwrap_or_default()),
            Cell::Text(h.hostile.as_ref().map_or(h.role.clone(), |kind| format!("liar: {kind}"))),
            Cell::Text(h.reach.clone()),
            Cell::Text(h.accepts_expected.clone()),
            Cell::Text(found),
            Cell::Number(format!("{} / {}", number(h.up_mbit), number(h.down_mbit))),
            Cell::Number(seconds(h.started_s)),
            Cell::Number(match h.finished_s {
                None if h.excused => "gone".into(),
                finished => seconds(finished),
            }),
            Cell::Number(h.goodput_bytes_per_s.map_or("–".into(), |g| number(g / 125_000.0))),
            Cell::Number(megabytes(h.peer_bytes)),
            Cell::Number(megabytes(h.waypoint_bytes)),
            Cell::Number(megabytes(h.origin_bytes)),
            Cell::Number(megabytes(h.uploaded_bytes)),
            Cell::Number(megabytes(h.wasted_bytes)),
            Cell::Number(format!("{:.1} s", h.longest_wait_s)),
            Cell::Number(format!("{:.1} s", h.cpu_s)),
            Cell::Number(format!("{:.0}", h.peak_rss_bytes as f64 / 1e6)),
            Cell::Words(said.join("; ")),
        ]
    };
    let heads = [
        "host",
        "ISP",
        "site",
        "role",
        "built",
        "should be found",
        "found",
        "up / down Mbit/s",
        "start",
        "finish",
        "Mbit/s",
        "from peers MB",
        "waypoints MB",
        "origin MB",
        "sent MB",
        "wasted MB",
        "longest wait",
        "CPU",
        "memory MB",
        "said",
    ];
    table(&heads, &o.hosts.iter().map(row).collect::<Vec<_>>())
}

fn liars(o: &Outcome) -> String {
    let row = |h: &crate::outcome::HostileOutcome| {
        vec![
            Cell::Text(h.name.clone()),
            Cell::Text(h.kind.clone()),
            Cell::Number(h.harmed.to_string()),
            Cell::Number(h.left.to_string()),
            Cell::Number(seconds(h.longest_until_left_s)),
            Cell::Number(h.assigned_again.to_string()),
            Cell::Text(if h.in_history { "yes" } else { "no" }.into()),
        ]
    };
    let mut out = table(
        &["liar", "what it does", "harmed", "left it", "longest until left", "assigned again", "in history"],
        &o.hostile.iter().map(row).collect::<Vec<_>>(),
    );
    let packets = |v: &crate::outcome::VictimPackets| {
        vec![Cell::Text(v.victim.to_string()), Cell::Text(v.from.to_string()), Cell::Number(v.packets.to_string())]
    };
    out.push_str(&table(
        &["address of nobody", "packets from", "packets"],
        &o.victim_packets.iter().map(packets).collect::<Vec<_>>(),
    ));
    out
}

/// What crossed between ISPs and into sites, and which pairs opened connections at both ends.
fn between(out: &mut String, o: &Outcome) {
    let flows: Vec<Vec<Cell>> = o
        .isps
        .iter()
        .map(|f| {
            vec![
                Cell::Text(format!("{} → {}", f.from, f.to)),
                Cell::Number(megabytes(f.wire_bytes)),
                Cell::Number(number(f.copies)),
            ]
        })
        .collect();
    if !flows.is_empty() {
        heading(out, "Between ISPs");
        out.push_str(&table(&["from → to", "MB on the wire", "copies"], &flows));
    }
    let sites: Vec<Vec<Cell>> = o
        .sites
        .iter()
        .map(|s| {
            vec![
                Cell::Text(s.name.clone()),
                Cell::Number(megabytes(s.wire_in_bytes)),
                Cell::Number(number(s.copies_in)),
                Cell::Number(megabytes(s.wire_out_bytes)),
                Cell::Number(number(s.copies_out)),
            ]
        })
        .collect();
    if !sites.is_empty() {
        heading(out, "Sites");
        out.push_str(&table(&["site", "MB in", "copies in", "MB out", "copies out"], &sites));
    }
    let punched: Vec<Vec<Cell>> = o
        .punched
        .iter()
        .map(|p| {
            vec![
                Cell::Text(format!("{} – {}", p.a, p.b)),
                Cell::Number(p.attempted.to_string()),
                Cell::Number(p.connected.to_string()),
            ]
        })
        .collect();
    if !punched.is_empty() {
        heading(out, "Connections that both ends dialled");
        out.push_str(&table(&["ends", "pairs that tried", "connected"], &punched));
    }
}

fn beside(o: &Outcome, s: &SimulatorOutcome) -> String {
    let percent = |p: Option<f64>| p.map_or("–".into(), |p| format!("{p:+.1} %"));
    let into = o.isps.iter().filter(|f| f.from != f.to).map(|f| f.copies).fold(0.0, f64::max);
    let rows = vec![
        vec![
            Cell::Text("makespan".into()),
            Cell::Number(seconds(o.makespan_s)),
            Cell::Number(seconds(s.makespan_s)),
            Cell::Number(percent(s.makespan_difference_percent)),
        ],
        vec![
            Cell::Text("copies from the origin".into()),
            Cell::Number(number(o.origin.copies)),
            Cell::Number(number(s.origin_copies)),
            Cell::Number(percent(s.origin_difference_percent)),
        ],
        vec![
            Cell::Text("most copies into an ISP".into()),
            Cell::Number(number(into)),
            Cell::Number(s.copies_into_isp.map_or("–".into(), number)),
            Cell::Number(String::new()),
        ],
    ];
    let word = match (s.note.is_empty(), s.agrees) {
        (false, _) => s.note.as_str(),
        (true, true) => "They agree: nothing differs by more than 15 %.",
        (true, false) => "They differ by more than 15 %: the model is wrong somewhere.",
    };
    format!("{}<p>{}</p>", table(&["", "lab", "simulator", "difference"], &rows), escape(word))
}

fn machinery(o: &Outcome) -> String {
    let c = &o.control;
    let mut out = format!(
        "<p>Control center: {:.1} s of CPU, {:.0} MB at most. The lab's forwarder: {:.1} s of CPU.</p>",
        c.cpu_s,
        c.peak_rss_bytes as f64 / 1e6,
        o.forwarder_cpu_s
    );
    let rates: Vec<Vec<Cell>> = o
        .calibrated
        .iter()
        .map(|r| {
            vec![
                Cell::Number(number(r.line_mbit)),
                Cell::Number(number(r.goodput_bytes_per_s / 125_000.0)),
                Cell::Number(format!("{:.3}", r.wire_per_payload)),
                Cell::Text(r.by.clone()),
                Cell::Text(if r.measured { "measured" } else { "interpolated" }.into()),
            ]
        })
        .collect();
    out.push_str(&table(&["line Mbit/s", "one transfer gets", "wire bytes per payload", "by", ""], &rates));
    out
}

/// What went wrong on purpose, what the control center said, and notes.
fn told(o: &Outcome) -> String {
    let mut out = String::new();
    let faults: Vec<Vec<Cell>> = o
        .faults
        .iter()
        .map(|f| {
            vec![
                Cell::Number(format!("{:.1} s", f.at_s)),
                Cell::Number(seconds(f.until_s)),
                Cell::Words(f.what.clone()),
            ]
        })
        .collect();
    if !faults.is_empty() {
        heading(&mut out, "Went wrong on purpose");
        out.push_str(&table(&["from", "until", "what"], &faults));
    }
    if !o.notes.is_empty() {
        heading(&mut out, "Notes");
        for note in &o.notes {
            let _ = write!(out, "<p>{}</p>", escape(note));
        }
    }
    let event =
        |e: &crate::outcome::EventMark| vec![Cell::Number(format!("{:.1} s", e.at_s)), Cell::Words(e.text.clone())];
    let events: Vec<Vec<Cell>> = o.events.iter().take(EVENTS_MAX).map(event).collect();
    if !events.is_empty() {
        let left_out = o.events.len().saturating_sub(EVENTS_MAX);
        let more = if left_out > 0 { format!("<p>and {left_out} more, in the JSON</p>") } else { String::new() };
        let _ = write!(
            out,
            "<details><summary>What the control center said: {} events</summary>{}{more}</details>",
            o.events.len(),
            table(&["at", "event"], &events)
        );
    }
    out
}

#[cfg(test)]
mod tests;
