//! SPDX licence expressions, as far as packages use them: `OR`, `AND`, `WITH`, parentheses, and the old `/` for `OR`.

/// Whether `expression` can be met with the licences in `allowed` alone. A licence with an exception counts as one name
/// (`Apache-2.0 WITH LLVM-exception`). `AND` binds stronger than `OR` (SPDX 2.3, annex D). The error says what was
/// wrong in the expression.
pub fn satisfiable(expression: &str, allowed: &[&str]) -> Result<bool, String> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut parser = Parser { words: spaced.split_whitespace().peekable(), allowed };
    let satisfied = parser.any_of()?;
    match parser.words.next() {
        None => Ok(satisfied),
        Some(word) => Err(format!("`{word}` is left over in `{expression}`")),
    }
}

struct Parser<'a, I: Iterator<Item = &'a str>> {
    words: std::iter::Peekable<I>,
    allowed: &'a [&'a str],
}

impl<'a, I: Iterator<Item = &'a str>> Parser<'a, I> {
    fn any_of(&mut self) -> Result<bool, String> {
        let mut satisfied = self.all_of()?;
        while self.words.next_if_eq(&"OR").is_some() {
            satisfied |= self.all_of()?;
        }
        Ok(satisfied)
    }

    fn all_of(&mut self) -> Result<bool, String> {
        let mut satisfied = self.one()?;
        while self.words.next_if_eq(&"AND").is_some() {
            satisfied &= self.one()?;
        }
        Ok(satisfied)
    }

    fn one(&mut self) -> Result<bool, String> {
        if self.words.next_if_eq(&"(").is_some() {
            let satisfied = self.any_of()?;
            return match self.words.next() {
                Some(")") => Ok(satisfied),
                _ => Err("a parenthesis is not closed".into()),
            };
        }
        let mut name = self.name()?.to_owned();
        if self.words.next_if_eq(&"WITH").is_some() {
            name = format!("{name} WITH {}", self.name()?);
        }
        Ok(self.allowed.contains(&name.as_str()))
    }

    fn name(&mut self) -> Result<&'a str, String> {
        match self.words.next() {
            None => Err("the expression ends early".into()),
            Some(word @ ("OR" | "AND" | "WITH" | "(" | ")")) => Err(format!("`{word}` where a name was due")),
            Some(name) => Ok(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::satisfiable;

    #[test]
    fn expressions() {
        let allowed = ["A", "B", "C WITH x"];
        let cases = [
            ("A", Ok(true)),
            ("Z", Ok(false)),
            ("Z OR A", Ok(true)),
            ("Z/A", Ok(true)),
            ("A / Z", Ok(true)),
            ("A AND B", Ok(true)),
            ("A AND Z", Ok(false)),
            ("A OR Z AND Y", Ok(true)),
            ("Z AND Y OR A", Ok(true)),
            ("(A OR Z) AND Y", Ok(false)),
            ("(Z OR (A)) AND B", Ok(true)),
            ("C WITH x", Ok(true)),
            ("C", Ok(false)),
            ("A WITH x", Ok(false)),
            ("A+", Ok(false)),
            ("", Err(())),
            ("A B", Err(())),
            ("(A", Err(())),
            ("A)", Err(())),
            ("A OR", Err(())),
            ("AND A", Err(())),
            ("A WITH", Err(())),
        ];
        for (expression, expected) in cases {
            assert_eq!(satisfiable(expression, &allowed).map_err(drop), expected, "{expression}");
        }
    }
}
