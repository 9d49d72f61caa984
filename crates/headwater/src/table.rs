//! Tables for people: columns as wide as their longest cell, two spaces apart.

/// Lines of `header` and `rows`; columns named in `right` are aligned to the right.
pub fn table(header: &[&str], rows: &[Vec<String>], right: &[&str]) -> String {
    let width_of = |column: usize| {
        let cells = rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count());
        cells.chain([header[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width_of).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut out = String::new();
        for ((cell, width), name) in cells.zip(&widths).zip(header) {
            if right.contains(name) {
                out += &format!("{cell:>width$}  ");
            } else {
                out += &format!("{cell:<width$}  ");
            }
        }
        out.trim_end().to_owned() + "\n"
    };
    let mut out = line(&mut header.iter().copied());
    for row in rows {
        out += &line(&mut row.iter().map(String::as_str));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["films/ä".into(), "7".into()], vec!["x".into(), "1234".into()]];
        assert_eq!(table(&["NAME", "N"], &rows, &["N"]), "NAME        N\nfilms/ä     7\nx        1234\n");
        assert_eq!(table(&["NAME"], &[], &[]), "NAME\n");
    }
}
