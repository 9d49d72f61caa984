//! Text and numbers as the page has them.

use std::fmt::Write;

/// What may stand in HTML, in attributes too.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// Three digits that count; whole numbers from 100 on.
pub(super) fn number(value: f64) -> String {
    let decimals = match value.abs() {
        x if x >= 100.0 || x == 0.0 => 0,
        x if x >= 10.0 => 1,
        x if x >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

/// Seconds; a dash for never.
pub(super) fn seconds(value: Option<f64>) -> String {
    value.map_or("–".into(), |s| format!("{s:.1} s"))
}

/// Millions of bytes.
pub(super) fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}

/// A cell of a table: its text, and how it stands.
pub(super) enum Cell {
    /// A number, at the right.
    Number(String),
    /// Short text.
    Text(String),
    /// Text that may wrap.
    Words(String),
    /// Whether something was reached.
    Verdict(bool),
}

impl Cell {
    fn is_empty(&self) -> bool {
        match self {
            Cell::Number(text) | Cell::Text(text) | Cell::Words(text) => text.is_empty(),
            Cell::Verdict(_) => false,
        }
    }
}

/// A table that scrolls sideways where the screen is narrow. Nothing when it has no rows; columns without any text are
/// left out.
pub(super) fn table(heads: &[&str], rows: &[Vec<Cell>]) -> String {
    let Some(first) = rows.first() else { return String::new() };
    let shown: Vec<bool> =
        (0..heads.len()).map(|i| rows.iter().any(|row| row.get(i).is_some_and(|cell| !cell.is_empty()))).collect();
    let mut out = String::from(r#"<div class="wide"><table><thead><tr>"#);
    for ((head, cell), _) in heads.iter().zip(first).zip(&shown).filter(|(_, shown)| **shown) {
        let class = if matches!(cell, Cell::Number(_)) { r#" class="n""# } else { "" };
        let _ = write!(out, "<th{class}>{}</th>", escape(head));
    }
    out.push_str("</tr></thead><tbody>");
    for row in rows {
        out.push_str("<tr>");
        for (cell, _) in row.iter().zip(&shown).filter(|(_, shown)| **shown) {
            let _ = match cell {
                Cell::Number(text) => write!(out, r#"<td class="n">{}</td>"#, escape(text)),
                Cell::Text(text) => write!(out, "<td>{}</td>", escape(text)),
                Cell::Words(text) => write!(out, r#"<td class="words">{}</td>"#, escape(text)),
                Cell::Verdict(good) => write!(out, "<td>{}</td>", verdict(*good)),
            };
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div>");
    out
}

/// A sign and a word, so that colour is not all that tells them apart.
pub(super) fn verdict(good: bool) -> &'static str {
    if good { r#"<span class="good">✓ pass</span>"# } else { r#"<span class="bad">✗ fail</span>"# }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_becomes_markup() {
        assert_eq!(escape(r#"<b a="1" b='2'>&"#), "&lt;b a=&quot;1&quot; b=&#39;2&#39;&gt;&amp;");
        let html = table(&["<i>"], &[vec![Cell::Text("<script>".into())]]);
        assert!(html.contains("&lt;i&gt;") && html.contains("&lt;script&gt;") && !html.contains("<script>"), "{html}");
    }

    #[test]
    fn columns_without_text_are_left_out() {
        let row = |a: &str, b: &str| vec![Cell::Text(a.into()), Cell::Words(b.into())];
        let html = table(&["one", "two"], &[row("x", ""), row("", "")]);
        assert!(html.contains("one") && !html.contains("two"), "{html}");
        assert!(table(&["one", "two"], &[row("", ""), row("", "y")]).contains("two"));
    }

    #[test]
    fn numbers_have_three_digits() {
        assert_eq!([123.4, 12.34, 1.234, 0.1234, 0.0].map(number), ["123", "12.3", "1.23", "0.123", "0"]);
    }
}
