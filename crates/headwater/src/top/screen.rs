//! Drawing: on a small terminal the least important parts go first.

use headwater_model::Rate;
use headwater_peer::node::{ContentDetail, EdgeStatus};
use indicatif::BinaryBytes;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Sparkline, Table, TableState};

use super::Page;
use crate::commands::peer_status::{content_name, edge_row, here, offload, summary};

const KEYS: &str = " q quit   ↑ ↓ choose a content   p pause, or end it";
/// With fewer rows there is only the summary and the contents.
const ROWS_FOR_EDGES: u16 = 16;
/// With fewer rows there are no rates over time.
const ROWS_FOR_SPARKLINES: u16 = 24;
/// With fewer columns, columns are left out.
const WIDE: u16 = 90;

const DIM: Style = Style::new().fg(Color::DarkGray);
const TITLE: Style = Style::new().add_modifier(Modifier::BOLD);

/// Draws the page.
pub fn draw(frame: &mut Frame<'_>, page: &Page) {
    let area = frame.area();
    let lines = summary(&page.status);
    let head = (lines.len() as u16).min(area.height.saturating_sub(3));
    let edges = if area.height >= ROWS_FOR_EDGES { Constraint::Fill(2) } else { Constraint::Length(0) };
    let sparklines = if area.height >= ROWS_FOR_SPARKLINES { 5 } else { 0 };
    let contents = Constraint::Max(page.contents.len() as u16 + 2);
    let contents = if area.height >= ROWS_FOR_EDGES { contents } else { Constraint::Fill(1) };
    let [top, table, rates, below, keys] = Layout::vertical([
        Constraint::Length(head),
        contents,
        Constraint::Length(sparklines),
        edges,
        Constraint::Length(1),
    ])
    .areas(area);
    draw_summary(frame, top, &lines);
    draw_contents(frame, table, page);
    if let Some(content) = page.chosen() {
        draw_rates(frame, rates, page, content);
        draw_edges(frame, below, content);
    }
    let foot = match &page.said {
        Some(said) => Span::styled(format!(" {said}"), Style::new().fg(Color::Red)),
        None => Span::styled(KEYS, DIM),
    };
    frame.render_widget(Line::from(foot), keys);
}

fn draw_summary(frame: &mut Frame<'_>, area: Rect, lines: &[(&'static str, String)]) {
    let lines = lines
        .iter()
        .map(|(what, how)| Line::from(vec![Span::styled(format!(" {what:9}"), TITLE), Span::raw(how.clone())]));
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), area);
}

fn draw_contents(frame: &mut Frame<'_>, area: Rect, page: &Page) {
    let wide = area.width >= WIDE;
    let rows = page.contents.iter().map(|c| Row::new(content_cells(c, wide)));
    let (header, widths) = content_columns(wide);
    let block =
        Block::new().borders(Borders::TOP).title(Span::styled(format!(" Contents ({}) ", page.contents.len()), TITLE));
    let table = Table::new(rows, widths)
        .header(Row::new(header).style(DIM))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .block(block);
    let mut state = TableState::new().with_selected(page.chosen_row());
    frame.render_stateful_widget(table, area, &mut state);
}

fn content_columns(wide: bool) -> (Vec<Cell<'static>>, Vec<Constraint>) {
    let mut header = vec![Cell::from(" NAME"), "STATE".into(), right("HERE"), right("DOWN"), right("UP")];
    let mut widths = vec![Constraint::Fill(1), Constraint::Length(9)];
    widths.extend([7, 10, 10].map(Constraint::Length));
    if wide {
        header.splice(3..3, [right("SIZE")]);
        widths.insert(3, Constraint::Length(11));
        header.extend([right("PARENTS"), right("CHILDREN")]);
        widths.extend([7, 8].map(Constraint::Length));
    }
    header.push(right("OFFLOAD"));
    widths.push(Constraint::Length(7));
    (header, widths)
}

fn content_cells(c: &ContentDetail, wide: bool) -> Vec<Cell<'static>> {
    let s = &c.status;
    let mut cells = vec![
        Cell::from(format!(" {}", content_name(c))),
        Cell::from(s.state.clone()).style(state_style(&s.state)),
        right(here(c)),
        right(Rate(c.down_bytes_per_s).to_string()),
        right(Rate(c.up_bytes_per_s).to_string()),
    ];
    if wide {
        cells.insert(3, right(BinaryBytes(s.total).to_string()));
        cells.extend([right(s.parents.to_string()), right(s.children.to_string())]);
    }
    cells.push(right(offload(c)));
    cells
}

fn state_style(state: &str) -> Style {
    match state {
        "complete" => Style::new().fg(Color::Green),
        "failed" => Style::new().fg(Color::Red),
        _ => Style::new().fg(Color::Yellow),
    }
}

fn draw_rates(frame: &mut Frame<'_>, area: Rect, page: &Page, content: &ContentDetail) {
    if area.height < 3 {
        return;
    }
    let halves: [Rect; 2] = Layout::horizontal([Constraint::Fill(1); 2]).spacing(1).areas(area);
    let (down, up) = page.rates(usize::from(halves[0].width));
    for (area, what, rates, now, color) in [
        (halves[0], "down", down, content.down_bytes_per_s, Color::Cyan),
        (halves[1], "up", up, content.up_bytes_per_s, Color::Magenta),
    ] {
        let most = rates.iter().max().copied().unwrap_or(0);
        let title = format!(" {what} {}, most {} ", Rate(now), Rate(most));
        let block = Block::new().borders(Borders::TOP).title(Span::styled(title, TITLE));
        frame.render_widget(Sparkline::default().data(rates).style(Style::new().fg(color)).block(block), area);
    }
}

fn draw_edges(frame: &mut Frame<'_>, area: Rect, content: &ContentDetail) {
    if area.height < 3 {
        return;
    }
    let halves: [Rect; 2] = Layout::vertical([Constraint::Fill(1); 2]).areas(area);
    let s = &content.status;
    let from = format!(
        " Parents of {} ({}): from peers {}, waypoints {}, origin {} ",
        content_name(content),
        content.parent_edges.len(),
        BinaryBytes(s.peer_bytes),
        BinaryBytes(s.waypoint_bytes),
        BinaryBytes(s.origin_bytes)
    );
    let to = format!(" Children ({}): sent {} ", content.child_edges.len(), BinaryBytes(s.uploaded_bytes));
    edge_table(frame, halves[0], from, &content.parent_edges);
    edge_table(frame, halves[1], to, &content.child_edges);
}

fn edge_table(frame: &mut Frame<'_>, area: Rect, title: String, edges: &[EdgeStatus]) {
    let wide = area.width >= WIDE;
    let shown = |i: usize| wide || ![2, 5].contains(&i);
    let cells = |e: &EdgeStatus| {
        let cells = edge_row(e).into_iter().enumerate().filter(|(i, _)| shown(*i));
        Row::new(cells.map(|(i, text)| match i {
            0 => Cell::from(format!(" {text}")),
            1..=3 => Cell::from(text),
            _ => right(text),
        }))
    };
    let names = [" NODE", "AT", "CLASS", "STATE", "RATE", "BYTES", "SHARE", "RTT"];
    let header = names.iter().enumerate().filter(|(i, _)| shown(*i));
    let header = header.map(|(i, n)| if i < 4 { Cell::from(*n) } else { right(*n) });
    let widths = [
        Constraint::Length(9),
        Constraint::Fill(1),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(10),
        Constraint::Length(11),
        Constraint::Length(6),
        Constraint::Length(9),
    ];
    let widths = widths.into_iter().enumerate().filter(|(i, _)| shown(*i)).map(|(_, w)| w);
    let block = Block::new().borders(Borders::TOP).title(Span::styled(title, TITLE));
    let table = Table::new(edges.iter().map(cells), widths).header(Row::new(header).style(DIM)).block(block);
    frame.render_widget(table, area);
}

fn right(text: impl Into<String>) -> Cell<'static> {
    Cell::from(Line::from(text.into()).right_aligned())
}
