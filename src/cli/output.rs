//! Printing data: JSON, YAML, or a table that fits 80 columns.

use std::io::{self, Write};

use serde::Serialize;

use super::{CommandError, Format};

/// Widest line that we print.
pub const COLUMNS: usize = 80;

/// Prints a value as the user asked; `text` makes the form for people.
pub fn print<T: Serialize>(
    format: Format,
    value: &T,
    text: impl FnOnce(&T) -> String,
) -> Result<(), CommandError> {
    let out = match format {
        Format::Text => text(value),
        Format::Json => serde_json::to_string_pretty(value)? + "\n",
        Format::Yaml => serde_yaml::to_string(value)?,
    };
    write(&out)
}

/// Writes data. A reader that went away (`| head`) is not an error.
pub fn write(text: &str) -> Result<(), CommandError> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Columns as wide as their content; the last one is cut at [`COLUMNS`].
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|i| rows.iter().filter_map(|row| row.get(i)).map(|c| c.chars().count()).max())
        .map(Option::unwrap_or_default)
        .collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        out.push_str(&cut(line.trim_end(), COLUMNS));
        out.push('\n');
    }
    out
}

/// At most `columns` characters; what is left out is shown by a dot.
pub fn cut(line: &str, columns: usize) -> String {
    if line.chars().count() <= columns {
        return line.to_owned();
    }
    let mut short: String = line.chars().take(columns.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// `12.3 MiB`
pub fn bytes(bytes: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "a rounded figure for people")]
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    format!("{mebibytes:.1} MiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lines_up_and_never_exceeds_the_screen() {
        let rows = vec![
            vec!["a".to_owned(), "short".to_owned()],
            vec!["longer".to_owned(), "x".repeat(100)],
        ];
        let text = table(&rows);
        assert!(text.starts_with("a       short\n"));
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS));
    }
}
