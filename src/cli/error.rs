//! How a failure reaches the screen: what happened, caused by what, and what to type next.

use std::fmt::Write as _;
use std::process::ExitCode;

use skiff_api::{ClientError, ErrorBody};

use super::output::COLUMNS;
use super::ui::{self, Paint};
use crate::config::ConfigError;
use crate::distribution::DistributionError;
use crate::node::NodeError;
use crate::node::cluster::join::JoinError;
use crate::node::cluster::leave::LeaveError;

/// The user can fix it.
pub const EXIT_FAILURE: u8 = 1;
/// The command line is wrong; clap ends with the same.
pub const EXIT_USAGE: u8 = 2;
/// We have to fix it (EX_SOFTWARE of sysexits.h).
pub const EXIT_BUG: u8 = 70;

/// A failed verb.
#[derive(Debug, PartialEq, Eq)]
pub struct CommandError {
    /// What happened, lower case, without a full stop.
    pub message: String,
    /// What caused it, outermost first.
    pub causes: Vec<String>,
    /// What to type next.
    pub hint: Option<String>,
    code: u8,
}

impl CommandError {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), causes: Vec::new(), hint: None, code: EXIT_FAILURE }
    }

    /// The arguments contradict each other in a way that clap cannot see.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { code: EXIT_USAGE, ..Self::new(message) }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// What failed in our words, with the error and its sources as causes.
    pub fn because(message: impl Into<String>, error: &dyn std::error::Error) -> Self {
        let causes = std::iter::once(error.to_string()).chain(chain(error)).collect();
        Self { causes, ..Self::new(message) }
    }

    /// What skiffd answered, in its words.
    pub fn answered(body: ErrorBody) -> Self {
        Self { causes: body.causes, hint: body.hint, ..Self::new(body.message) }
    }

    /// Prints to standard error and answers the exit code.
    pub fn report(&self) -> ExitCode {
        ui::print(&self.text(Paint::stderr()));
        ExitCode::from(self.code)
    }

    fn text(&self, paint: Paint) -> String {
        let mut text = entry(&paint.bad("error:"), "error:", &self.message);
        for cause in &self.causes {
            text += &entry(&paint.dim("caused by:"), "caused by:", cause);
        }
        if let Some(hint) = &self.hint {
            // A command that is to be typed stays in one line, however long.
            let _ = writeln!(text, "{} {hint}", paint.good("hint:"));
        }
        text
    }
}

/// A label and its text, which goes on below itself. A word that is longer than the line is kept
/// whole: it is a path, and paths are copied.
fn entry(painted: &str, label: &str, text: &str) -> String {
    let margin = label.len() + 1;
    let lines = fold(text, COLUMNS - margin);
    format!("{painted} {}\n", lines.join(&format!("\n{}", " ".repeat(margin))))
}

/// Breaks what is too long at spaces. Lines that fit stay as they are: a parser points at places.
pub(super) fn fold(text: &str, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for whole in text.trim_end().lines() {
        let indent = " ".repeat(whole.chars().take_while(|c| *c == ' ').count());
        if whole.chars().count() <= columns {
            lines.push(whole.to_owned());
            continue;
        }
        let mut line = String::new();
        for word in whole.split_whitespace() {
            let length = indent.len() + line.chars().count() + 1 + word.chars().count();
            if !line.is_empty() && length > columns {
                lines.push(format!("{indent}{line}"));
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(format!("{indent}{line}"));
    }
    lines
}

/// Every library error becomes "you can fix it" with its chain of causes; a hint is added where
/// the situation is known.
impl<E: std::error::Error + 'static> From<E> for CommandError {
    fn from(error: E) -> Self {
        let any: &(dyn std::error::Error + 'static) = &error;
        if let Some(client) = any.downcast_ref::<ClientError>() {
            return from_client(client);
        }
        if let Some(missing @ DistributionError::NotFound(_)) = any.downcast_ref() {
            return Self::new(missing.to_string()).hint("make up, in a clone of Skiff");
        }
        Self { causes: chain(&error), hint: hint(any), ..Self::new(error.to_string()) }
    }
}

/// What those errors say themselves of what to do next.
fn hint(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let node = error.downcast_ref::<NodeError>().and_then(NodeError::hint);
    let join = || error.downcast_ref::<JoinError>().and_then(JoinError::hint);
    let leave = || error.downcast_ref::<LeaveError>().and_then(LeaveError::hint);
    node.or_else(join)
        .or_else(leave)
        .or_else(|| error.downcast_ref::<ConfigError>().and_then(ConfigError::hint))
}

fn from_client(error: &ClientError) -> CommandError {
    match error {
        ClientError::NotRunning(_) => {
            CommandError::new("the node is stopped").hint("sudo skiff start")
        }
        ClientError::Denied(path) => {
            CommandError::new(format!("you may not talk to the node ({})", path.display()))
                .cause("only root and members of the group skiff may")
                .hint("sudo usermod --append --groups skiff $USER, then log in again")
        }
        ClientError::Refused { body, .. } => CommandError::answered(body.clone()),
        ClientError::Answer(_) => {
            CommandError { causes: chain(error), ..CommandError::new(error.to_string()) }
                .hint("sudo skiff start, so that the node runs the build of this command")
        }
        ClientError::Request(_) => CommandError::new("a name has characters that no name has")
            .hint("skiff addons, or skiff services"),
        other => CommandError { causes: chain(other), ..CommandError::new(other.to_string()) }
            .hint("skiff logs skiffd"),
    }
}

fn chain(error: &dyn std::error::Error) -> Vec<String> {
    std::iter::successors(error.source(), |cause| cause.source()).map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_happened_why_and_what_to_type() {
        let error = CommandError::new("the node is stopped")
            .cause("no such file")
            .hint("skiff start")
            .text(Paint::off());
        assert_eq!(
            error,
            "error: the node is stopped\ncaused by: no such file\nhint: skiff start\n"
        );
    }

    #[test]
    fn what_is_long_goes_on_below_itself_and_a_path_stays_whole() {
        let path = format!("/{}", "x".repeat(100));
        let error = CommandError::new("word ".repeat(20))
            .cause(format!("cannot read {path} now"))
            .cause("line 1\n  |\n2 | nnmae = 1\n  | ^^^^^")
            .text(Paint::off());
        insta::assert_snapshot!(error.replace(&path, "<a path of 101 characters>"), @r"
        error: word word word word word word word word word word word word word word
               word word word word word word
        caused by: cannot read
                   <a path of 101 characters>
                   now
        caused by: line 1
                     |
                   2 | nnmae = 1
                     | ^^^^^
        ");
    }

    #[test]
    fn sources_become_causes_and_are_not_repeated() {
        let source = std::io::Error::other("disk full");
        let error = CommandError::because("cannot write a.yaml", &source);
        assert_eq!(error.causes, ["disk full"]);
        assert_eq!(error.code, EXIT_FAILURE);
    }
}
