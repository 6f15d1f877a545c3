//! How a failure reaches the screen: what happened, caused by what, and what to type next.

use std::fmt::Write as _;
use std::process::ExitCode;

use skiff_api::{ClientError, ErrorBody};

/// The user can fix it.
pub const EXIT_FAILURE: u8 = 1;
/// We have to fix it (EX_SOFTWARE of sysexits.h).
pub const EXIT_BUG: u8 = 70;

/// A failed verb.
#[derive(Debug)]
pub struct CommandError {
    pub message: String,
    pub causes: Vec<String>,
    pub hint: Option<String>,
}

impl CommandError {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), causes: Vec::new(), hint: None }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Prints to standard error and answers the exit code.
    pub fn report(&self) -> ExitCode {
        eprint!("{}", self.text());
        ExitCode::from(EXIT_FAILURE)
    }

    fn text(&self) -> String {
        let mut text = format!("error: {}\n", self.message);
        for cause in &self.causes {
            let _ = writeln!(text, "caused by: {cause}");
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "hint: {hint}");
        }
        text
    }
}

impl<E: std::error::Error + 'static> From<E> for CommandError {
    fn from(error: E) -> Self {
        let any: &(dyn std::error::Error + 'static) = &error;
        if let Some(client) = any.downcast_ref::<ClientError>() {
            return from_client(client);
        }
        let mut causes = Vec::new();
        let mut next = error.source();
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        Self { message: error.to_string(), causes, hint: None }
    }
}

impl CommandError {
    /// What skiffd said, in its own words.
    pub fn from_body(body: ErrorBody) -> Self {
        Self { message: body.message, causes: body.causes, hint: body.hint }
    }
}

fn from_client(error: &ClientError) -> CommandError {
    match error {
        ClientError::NotRunning(_) => CommandError::new("the node is stopped").hint("skiff start"),
        ClientError::Denied(path) => {
            CommandError::new(format!("you may not talk to the node ({})", path.display()))
                .hint("sudo usermod --append --groups skiff $USER, then log in again")
        }
        ClientError::Refused { body, .. } => CommandError::from_body(body.clone()),
        other => {
            let mut plain = CommandError::new(other.to_string());
            let mut next = std::error::Error::source(other);
            while let Some(cause) = next {
                plain.causes.push(cause.to_string());
                next = cause.source();
            }
            plain
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_happened_why_and_what_to_type() {
        let error = CommandError {
            message: "the node is stopped".into(),
            causes: vec!["no such file".into()],
            hint: Some("skiff start".into()),
        };
        assert_eq!(
            error.text(),
            "error: the node is stopped\ncaused by: no such file\nhint: skiff start\n"
        );
    }
}
