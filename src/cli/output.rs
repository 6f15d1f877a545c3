//! Printing data: JSON, YAML, or text for people that fits 80 columns.

use std::io::{self, Write};

use clap::ValueEnum;
use serde::Serialize;

use super::CommandError;
use super::ui::{Paint, Tone};

/// Widest line that we print.
pub const COLUMNS: usize = 80;

/// The option of every verb that prints data.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Choice {
    /// How to print the data
    #[arg(short = 'o', long = "output", value_enum, default_value_t, value_name = "FORMAT")]
    pub format: Format,
}

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
    /// For programs
    Yaml,
}

/// Prints a value as the user asked; `text` makes the form for people.
pub fn print<T: Serialize + ?Sized>(
    choice: Choice,
    value: &T,
    text: impl FnOnce(&T, Paint) -> String,
) -> Result<(), CommandError> {
    let out = match choice.format {
        Format::Text => text(value, Paint::stdout()),
        Format::Json => serde_json::to_string_pretty(value)? + "\n",
        Format::Yaml => serde_yaml::to_string(value)?,
    };
    write(&out)
}

/// Writes data. A reader that went away (`| head`) ends the command quietly.
pub fn write(text: &str) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        outcome => Ok(outcome?),
    }
}

/// One field of a table.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub fn new(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Tone::Plain)
    }
}

/// Narrowest last column: what is longer goes on below. The names and values of all settings have
/// room beside it.
const LAST_MIN: usize = 30;

/// Columns as wide as their content, two spaces apart. What of the last field is beyond
/// [`COLUMNS`] goes on below it; the widest of the others are cut when they leave it no place.
pub fn table(rows: &[Vec<Cell>], indent: usize, paint: Paint) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    // The last field of a row needs no column: it may run on.
    let width = |i: usize| {
        let cells = rows.iter().filter(|row| i + 1 < row.len()).filter_map(|row| row.get(i));
        cells.map(|cell| cell.text.chars().count()).max().unwrap_or(0)
    };
    let mut widths: Vec<usize> = (0..columns).map(width).collect();
    let longest = rows.iter().filter_map(|row| row.last()).map(|cell| cell.text.chars().count());
    let last = longest.max().unwrap_or(0).min(LAST_MIN);
    narrow(&mut widths, COLUMNS.saturating_sub(indent + last));
    let mut out = String::new();
    for row in rows {
        let mut line = " ".repeat(indent);
        let mut used = indent;
        for (i, cell) in row.iter().enumerate() {
            if i + 1 < row.len() {
                let text = cut(&cell.text, widths[i]);
                let gap = widths[i].saturating_sub(text.chars().count()) + 2;
                line.push_str(&paint.tone(cell.tone, &text));
                line.push_str(&" ".repeat(gap));
                used += widths[i] + 2;
                continue;
            }
            let parts = wrap(&cell.text, COLUMNS.saturating_sub(used).max(LAST_MIN));
            let glue = format!("\n{}", " ".repeat(used));
            let painted: Vec<String> =
                parts.iter().map(|part| paint.tone(cell.tone, part)).collect();
            line.push_str(&painted.join(&glue));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Takes from the widest columns until all of them, each with its gap, fit into `room`.
fn narrow(widths: &mut [usize], room: usize) {
    let taken = |widths: &[usize]| -> usize {
        widths.iter().filter(|width| **width > 0).map(|width| width + 2).sum()
    };
    while taken(widths) > room {
        match widths.iter_mut().max() {
            Some(widest) if *widest > 1 => *widest -= 1,
            _ => return,
        }
    }
}

/// Breaks text at spaces; a word that is longer than a line is cut into pieces.
pub fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        loop {
            let line = lines.last_mut().expect("there is always a last line");
            let length = line.chars().count();
            let needed = word.len() + usize::from(length > 0);
            if length + needed <= columns {
                if length > 0 {
                    line.push(' ');
                }
                line.extend(word);
                break;
            }
            if length == 0 {
                let rest = word.split_off(columns.max(1));
                line.extend(word);
                word = rest;
            }
            lines.push(String::new());
        }
    }
    lines
}

/// A sentence as a paragraph with a margin.
pub fn paragraph(text: &str, indent: usize) -> String {
    let margin = " ".repeat(indent);
    wrap(text, COLUMNS - indent).iter().map(|line| format!("{margin}{line}\n")).collect()
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

/// `42s`, `3m`, `5h`, `2d`: how long, in the largest unit that is not zero.
pub fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lines_up_and_never_exceeds_the_screen() {
        let long = "word ".repeat(30) + &"x".repeat(200);
        let rows = [vec!["a".into(), "short".into()], vec!["longer".into(), Cell::from(long)]];
        let text = table(&rows, 2, Paint::off());
        assert!(text.starts_with("  a       short\n  longer  word word"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
        assert!(text.contains("\n          word"), "{text}");
    }

    #[test]
    fn ages_are_told_in_one_unit() {
        assert_eq!([59, 60, 7200, 200_000].map(age), ["59s", "1m", "2h", "2d"]);
    }

    #[test]
    fn nothing_is_lost_when_a_text_is_broken_into_lines() {
        let text = format!("a bb {} ccc", "y".repeat(25));
        let lines = wrap(&text, 10);
        assert!(lines.iter().all(|line| line.len() <= 10), "{lines:?}");
        assert_eq!(lines.concat().replace(' ', ""), text.replace(' ', ""));
    }
}
