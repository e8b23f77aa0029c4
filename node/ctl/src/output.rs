//! [`Output`]: the one door to stdout and stderr. Text for people, or one JSON object a line.

use std::io::{self, Write};

use serde::Serialize;

use crate::exit::{Code, Failure};

/// Where answers go.
#[derive(Debug)]
pub struct Output {
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Json,
}

impl Output {
    /// As `--json` says.
    #[must_use]
    pub fn new(json: bool) -> Output {
        let form = if json { Form::Json } else { Form::Text };
        Output { form }
    }

    /// Whether JSON is wanted.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.form == Form::Json
    }

    /// Prints a value: as JSON on one line, or what `text` makes of it.
    ///
    /// # Errors
    /// When stdout takes no more.
    pub fn print<T: Serialize>(
        &self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        let mut printed = match self.form {
            Form::Json => serde_json::to_string(value)
                .map_err(|e| Failure::new(Code::Failed, format!("cannot be shown: {e}")))?,
            Form::Text => text(value),
        };
        if !printed.ends_with('\n') {
            printed.push('\n');
        }
        match io::stdout().lock().write_all(printed.as_bytes()) {
            // Whoever reads has seen enough (`| head`): no failure of ours, and nothing to add.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
            other => other.map_err(|e| Failure::new(Code::Failed, format!("stdout: {e}"))),
        }
    }

    /// Prints why a command failed.
    pub fn failure(&self, failure: &Failure) {
        if self.is_json() {
            let mut fields = failure.more.clone();
            fields.insert("error".to_owned(), failure.text.as_str().into());
            fields.insert("exitCode".to_owned(), failure.code.number().into());
            // Without stdout there is nobody to tell; the exit code says it.
            drop(self.print(&fields, |_| String::new()));
        }
        // `eprintln!` would panic where stderr cannot be written.
        drop(writeln!(std::io::stderr(), "error: {}", failure.text));
    }
}

/// Columns that line up: every row has as many cells as the first; the last is not padded.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |c: usize| {
        rows.iter()
            .filter_map(|r| r.get(c))
            .map(|s| s.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns).map(|c| width(c).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            let pad = width.saturating_sub(cell.chars().count()) + 2;
            line.extend(std::iter::repeat_n(' ', pad));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A fact that may not be there.
pub fn or_dash(fact: Option<impl ToString>) -> String {
    fact.map_or_else(|| "-".to_owned(), |f| f.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_tail() {
        let rows = [
            ["id", "state", "file"],
            ["7", "sealed", "a"],
            ["1000", "-", ""],
        ];
        let rows: Vec<Vec<String>> = rows
            .iter()
            .map(|r| r.iter().map(ToString::to_string).collect())
            .collect();
        assert_eq!(
            table(&rows),
            "id    state   file\n7     sealed  a\n1000  -\n"
        );
    }
}
