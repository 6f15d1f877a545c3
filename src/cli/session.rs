//! What every verb is given.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use skiff_api::{Client, ClientError, Version};

use super::CommandError;
use crate::paths::Paths;

/// A killed process accepts connections until the kernel has taken it apart: a second at most.
const BROKEN_TRIES_MAX: u32 = 20;
const BROKEN_PAUSE: Duration = Duration::from_millis(50);

/// Who said which root is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `--root`: every hint must carry it on.
    Flag,
    /// The environment or the default: it holds for the next command too.
    Elsewhere,
}

/// The node that is meant, and what was typed besides the verb.
#[derive(Debug)]
pub struct Session {
    pub paths: Paths,
    pub config: Option<PathBuf>,
    /// Arguments of the program that a pass-through verb executes.
    pub rest: Vec<OsString>,
    origin: Origin,
}

impl Session {
    pub fn new(paths: Paths, origin: Origin, config: Option<PathBuf>, rest: Vec<OsString>) -> Self {
        Self { paths, origin, config, rest }
    }

    /// Does not connect yet.
    pub fn client(&self) -> Client {
        Client::new(self.paths.skiffd_socket())
    }

    /// The configuration file that holds for this node.
    pub fn config_file(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(|| self.paths.config())
    }

    /// The version that skiffd answers, empty when it cannot be read; none when no skiffd runs.
    pub async fn running(&self) -> Result<Option<Version>, CommandError> {
        let mut tries_left = BROKEN_TRIES_MAX;
        loop {
            match self.client().get("/v1/version").await {
                Ok(version) => return Ok(Some(version)),
                Err(ClientError::NotRunning(_)) => return Ok(None),
                // One of another age runs: a start must be able to take over from it.
                Err(ClientError::Answer(_)) => {
                    return Ok(Some(Version {
                        skiff: String::new(),
                        build: String::new(),
                        arch: String::new(),
                        components: vec![],
                    }));
                }
                // The last breath of a skiffd that is being ended; the next try finds nobody.
                Err(ClientError::Broken(_)) if tries_left > 0 => {
                    tries_left -= 1;
                    tokio::time::sleep(BROKEN_PAUSE).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A command line for this node: `skiff start` becomes `skiff --root R start` when the root
    /// was given on the command line.
    pub fn command_line(&self, line: &str) -> String {
        if self.origin == Origin::Elsewhere {
            return line.to_owned();
        }
        let ours = format!("skiff --root {} ", self.paths.root().display());
        // One that is quoted inside a sentence.
        let line = &line
            .replace("`skiff ", &format!("`{ours}"))
            .replace("`sudo skiff ", &format!("`sudo {ours}"));
        match (line.strip_prefix("sudo skiff "), line.strip_prefix("skiff ")) {
            (Some(rest), _) => format!("sudo {ours}{rest}"),
            (None, Some(rest)) => ours + rest,
            (None, None) => line.to_owned(),
        }
    }

    /// The error with a hint that can be typed as it stands.
    pub fn localise(&self, mut error: CommandError) -> CommandError {
        error.hint = error.hint.map(|hint| self.command_line(&hint));
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_name_the_node_that_was_named() {
        let session = |origin| Session::new(Paths::new("/r"), origin, None, vec![]);
        let flag = session(Origin::Flag);
        assert_eq!(flag.command_line("skiff start"), "skiff --root /r start");
        assert_eq!(flag.command_line("sudo skiff start"), "sudo skiff --root /r start");
        assert_eq!(flag.command_line("make up"), "make up");
        assert_eq!(
            flag.command_line("set a = 1, or `sudo skiff reset`"),
            "set a = 1, or `sudo skiff --root /r reset`"
        );
        assert_eq!(session(Origin::Elsewhere).command_line("skiff start"), "skiff start");
    }
}
