//! Standard error, colours, and the one line that says what is waited for.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::output::{COLUMNS, cut};

/// A line on standard error. A reader that went away is not an error.
pub fn say(line: &str) {
    print(&format!("{line}\n"));
}

/// Text as it is on standard error.
pub fn print(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Colours words, or leaves them alone: only on a terminal, and not when `NO_COLOR` says so.
#[derive(Clone, Copy, Debug)]
pub struct Paint {
    on: bool,
}

impl Paint {
    pub fn stdout() -> Self {
        Self { on: io::stdout().is_terminal() && wanted() }
    }

    pub fn stderr() -> Self {
        Self { on: io::stderr().is_terminal() && wanted() }
    }

    #[cfg(test)]
    pub fn off() -> Self {
        Self { on: false }
    }

    pub fn good(self, text: &str) -> String {
        self.wrap("32", text)
    }

    pub fn warn(self, text: &str) -> String {
        self.wrap("33", text)
    }

    pub fn bad(self, text: &str) -> String {
        self.wrap("31", text)
    }

    pub fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    pub fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// Colours by what a word means.
    pub fn tone(self, tone: Tone, text: &str) -> String {
        match tone {
            Tone::Plain => text.to_owned(),
            Tone::Good => self.good(text),
            Tone::Warn => self.warn(text),
            Tone::Bad => self.bad(text),
            Tone::Dim => self.dim(text),
        }
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// What a word means for whoever reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    #[default]
    Plain,
    Good,
    Warn,
    Bad,
    Dim,
}

/// <https://no-color.org>: any value but an empty one switches colours off.
fn wanted() -> bool {
    let set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    !set("NO_COLOR") && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Says what is waited for: one line that changes in place on a terminal, else a line for each
/// new sentence.
#[derive(Debug)]
pub struct Waiting {
    spinner: Option<ProgressBar>,
    last: String,
}

/// Time between two pictures of the spinner.
const TICK: Duration = Duration::from_millis(120);

impl Waiting {
    pub fn new() -> Self {
        let spinner = (io::stderr().is_terminal() && wanted()).then(|| {
            let spinner = ProgressBar::new_spinner();
            let style = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}");
            spinner.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            spinner.enable_steady_tick(TICK);
            spinner
        });
        Self { spinner, last: String::new() }
    }

    /// The sentence that holds now; saying it twice shows it once.
    pub fn show(&mut self, sentence: &str) {
        let seen = match self.spinner {
            Some(_) => sentence.to_owned(),
            None => cut(sentence, COLUMNS),
        };
        if seen == self.last {
            return;
        }
        match &self.spinner {
            Some(spinner) => spinner.set_message(seen.clone()),
            None => say(&seen),
        }
        self.last = seen;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}
