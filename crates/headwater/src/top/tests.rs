//! The page on terminals of several sizes.

use super::*;
use headwater_model::SourceClass;
use headwater_peer::node::{ContentStatus, EdgeStatus};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

fn content(name: &str, state: &str) -> ContentDetail {
    let edge = |node: &str, class| EdgeStatus {
        node: node.repeat(32),
        class,
        address: Some("192.0.2.1:7000".parse().unwrap()),
        stage: "open".into(),
        bytes: 5 << 20,
        bytes_per_s: 1_500_000,
        share_percent: 40.0,
        rtt_ms: 12.0,
        ..EdgeStatus::default()
    };
    ContentDetail {
        status: ContentStatus {
            content: format!("{name}-id"),
            name: name.into(),
            state: state.into(),
            bytes: 5 << 20,
            total: 10 << 20,
            peer_bytes: 4 << 20,
            origin_bytes: 1 << 20,
            ..ContentStatus::default()
        },
        down_bytes_per_s: 2_000_000,
        parent_edges: vec![edge("ab", Some(SourceClass::Peer))],
        child_edges: vec![edge("cd", None)],
        ..ContentDetail::default()
    }
}

fn page() -> Page {
    let mut page = Page::default();
    page.update(NodeStatus::default(), vec![content("films/one", "fetching"), content("films/two", "complete")]);
    page
}

/// What a terminal of this size shows.
fn shown(page: &Page, columns: u16, rows: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal.draw(|frame| draw(frame, page)).unwrap();
    terminal.backend().to_string()
}

#[test]
fn parts_go_as_the_terminal_gets_smaller() {
    let page = page();
    for (columns, rows, there, not_there) in [
        (120, 40, &["films/one", "CHILDREN", "abababab", "cdcdcdcd", "most 2.0 MB/s", "80 %", "q quit"][..], &[][..]),
        (80, 24, &["films/one", "abababab", "cdcdcdcd", "most 2.0 MB/s"][..], &["CHILDREN", "CLASS"][..]),
        (80, 18, &["films/one", "abababab"][..], &["most 2.0"][..]),
        (60, 10, &["films/one", "q quit"][..], &["abababab"][..]),
    ] {
        let text = shown(&page, columns, rows);
        there.iter().for_each(|t| assert!(text.contains(t), "{t:?} is not in {columns}x{rows}:\n{text}"));
        not_there.iter().for_each(|t| assert!(!text.contains(t), "{t:?} is in {columns}x{rows}:\n{text}"));
    }
    for (columns, rows) in [(1, 1), (5, 3), (200, 2), (2, 100)] {
        shown(&page, columns, rows);
        shown(&Page::default(), columns, rows);
    }
}

#[test]
fn the_choice_stays_with_its_content() {
    let mut page = page();
    assert_eq!(page.chosen, "films/one-id");
    page.choose(-1);
    assert_eq!(page.chosen, "films/one-id");
    page.choose(5);
    assert_eq!(page.chosen, "films/two-id");
    page.update(NodeStatus::default(), vec![content("films/zero", "asking"), content("films/two", "complete")]);
    assert_eq!(page.chosen, "films/two-id");
    page.update(NodeStatus::default(), vec![content("films/zero", "asking")]);
    assert_eq!(page.chosen, "films/zero-id");
    page.update(NodeStatus::default(), Vec::new());
    page.choose(1);
    assert!(page.chosen().is_none() && page.history.is_empty());
}

#[test]
fn rates_are_kept_for_as_long_as_a_terminal_is_wide() {
    let mut page = page();
    for _ in 0..HISTORY_S * 2 {
        page.update(NodeStatus::default(), vec![content("films/one", "fetching")]);
    }
    assert_eq!(page.rates(1000).0.len(), HISTORY_S);
    assert_eq!(page.rates(7), (vec![2_000_000; 7], vec![0; 7]));
}
