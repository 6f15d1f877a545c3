//! Running other programs: with what they say kept in a log, with a sign of life while they run,
//! and with the end of the log when they fail.

use std::fs::{self, File};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How many lines of a failed program's output are shown.
const LOG_LINES_SHOWN: usize = 30;
/// How often a program that runs is looked at.
const POLL: Duration = Duration::from_millis(100);
/// How often something is said where there is no terminal to count seconds on.
const SIGN_OF_LIFE: Duration = Duration::from_secs(60);

/// Announces a step and how long it usually takes.
pub fn announce(what: &str, usual_seconds: u64) {
    if usual_seconds < 2 {
        eprintln!("==> {what}");
    } else {
        eprintln!("==> {what} (usually {})", duration(Duration::from_secs(usual_seconds)));
    }
}

/// Runs a program with its output in `log`; on failure the end of the log is part of the error.
pub fn run_logged(command: &mut Command, log: &Path) -> Result<Duration> {
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let program = command.get_program().to_string_lossy().into_owned();
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let mut progress = Progress::new(started);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        progress.tick();
        std::thread::sleep(POLL);
    };
    progress.clear();
    if !status.success() {
        bail!("{program} failed ({})\n{}", outcome(status), tail(log));
    }
    Ok(started.elapsed())
}

/// The same command, which leaves the processor to others when they want it.
pub fn nice(command: &Command) -> Command {
    let mut nice = Command::new("nice");
    nice.args(["-n", "5"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => nice.env(name, value),
            None => nice.env_remove(name),
        };
    }
    command.get_current_dir().map(|dir| nice.current_dir(dir));
    nice
}

/// Runs a program that speaks to the user itself.
pub fn run_shown(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("cannot start {program}"))?;
    if !status.success() {
        let arguments: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
        bail!("{program} {} failed ({})", arguments.join(" "), outcome(status));
    }
    Ok(())
}

/// What a short program prints, or `None` when it cannot be run or fails.
pub fn output_of(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// `7.2 s`, `1 min 5 s`: a length of time as people say it.
pub fn duration(length: Duration) -> String {
    let seconds = length.as_secs();
    match seconds {
        0..10 if length.subsec_millis() > 0 => format!("{:.1} s", length.as_secs_f64()),
        0..60 => format!("{seconds} s"),
        _ if seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        _ => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

fn outcome(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("exit code {code}"),
        None => status.to_string(),
    }
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with("go: downloading")).collect();
    let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
    format!("the end of {}:\n{}", log.display(), shown.join("\n"))
}

/// Counts seconds on a terminal, and says a word a minute elsewhere.
struct Progress {
    started: Instant,
    said: Instant,
    shown: bool,
}

impl Progress {
    fn new(started: Instant) -> Self {
        Self { started, said: started, shown: false }
    }

    fn tick(&mut self) {
        let mut err = std::io::stderr();
        let elapsed = duration(Duration::from_secs(self.started.elapsed().as_secs()));
        if err.is_terminal() {
            if self.said.elapsed() >= Duration::from_secs(1) {
                self.said = Instant::now();
                self.shown = true;
                // A terminal that is gone must not end the build.
                let _ = write!(err, "\r    {elapsed} ").and_then(|()| err.flush());
            }
        } else if self.said.elapsed() >= SIGN_OF_LIFE {
            self.said = Instant::now();
            eprintln!("    still at it after {elapsed}");
        }
    }

    fn clear(&self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_say_them() {
        let said: Vec<_> = [300, 7_250, 12_000, 59_900, 60_000, 65_000]
            .map(Duration::from_millis)
            .map(duration)
            .into();
        assert_eq!(said, ["0.3 s", "7.2 s", "12 s", "59 s", "1 min", "1 min 5 s"]);
    }

    #[test]
    fn a_failure_shows_the_end_of_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo the reason; exit 3"]);
        let error = run_logged(&mut command, &folder.path().join("a.log")).unwrap_err().to_string();
        assert!(error.starts_with("sh failed (exit code 3)"), "{error}");
        assert!(error.ends_with("the reason"), "{error}");
    }
}
