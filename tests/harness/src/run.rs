//! Running programs and waiting for what they should bring about.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a program said.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub command: String,
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    pub fn ok(&self) -> bool {
        self.code == 0
    }

    /// The standard output of a command that must succeed.
    #[track_caller]
    pub fn must(self) -> String {
        assert!(
            self.ok(),
            "{} failed ({})\n{}{}",
            self.command,
            self.code,
            self.stdout,
            self.stderr
        );
        self.stdout
    }
}

/// Runs to the end. A program that cannot be started is a failure of the test.
#[track_caller]
pub fn run(command: &mut Command) -> Outcome {
    let text = format!("{command:?}");
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot run {text}: {error}"));
    Outcome {
        command: text,
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Asks again until the answer is `Ok`, or fails with the last reason when the time is over.
#[track_caller]
pub fn eventually<T>(what: &str, bound: Duration, mut ask: impl FnMut() -> Result<T, String>) -> T {
    const PAUSE: Duration = Duration::from_millis(200);
    let start = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(reason) if start.elapsed() > bound => {
                panic!("{what}: not within {} s: {reason}", bound.as_secs())
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// The command under test.
pub fn skiff_binary() -> PathBuf {
    match std::env::var_os("SKIFF_BIN") {
        Some(path) => path.into(),
        None => target().join("release/skiff"),
    }
}

/// The distribution that nodes are started from.
pub fn distribution() -> PathBuf {
    match std::env::var_os("SKIFF_DIST") {
        Some(path) => path.into(),
        None => target().join("dist"),
    }
}

/// An image archive that only tests use.
pub fn test_image(name: &str) -> PathBuf {
    target().join("dist-test/images").join(format!("{name}.tar"))
}

/// Where the build leaves everything.
pub fn target() -> PathBuf {
    // The harness lies in tests/harness of the workspace.
    let place = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    place.ancestors().nth(2).unwrap_or(place).join("target")
}
