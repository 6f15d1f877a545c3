//! Where a command is run: a root that is empty, a home, and a `skiff` without a distribution.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Nobody, on every Linux: when root runs the tests, the command is run as this user, so that
/// screens are the same for everybody and no test can start a node.
const NOBODY: u32 = 65534;
/// Widest line that may reach a screen.
pub const COLUMNS: usize = 80;

/// A directory of its own with everything that a command may look at.
#[derive(Debug)]
pub struct Place {
    dir: tempfile::TempDir,
}

/// What a command showed.
#[derive(Debug)]
pub struct Screen {
    pub line: String,
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Place {
    pub fn new() -> Self {
        // One length everywhere: lines are broken by length. Open, since nobody works in it.
        let dir = tempfile::Builder::new().prefix("sk-").tempdir_in("/var/tmp").expect("a place");
        for name in ["bin", "home", "root", "root/run"] {
            fs::create_dir(dir.path().join(name)).expect("a directory is made");
        }
        // Beside another directory than the build's: no distribution is found there.
        let skiff = dir.path().join("bin/skiff");
        if fs::hard_link(env!("CARGO_BIN_EXE_skiff"), &skiff).is_err() {
            // By another process: a command that some thread starts meanwhile would inherit the
            // file open for writing, and then it cannot be executed.
            let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_skiff")).arg(&skiff).status();
            assert!(copied.expect("cp runs").success(), "skiff is copied");
        }
        let place = Self { dir };
        for name in ["", "bin", "home", "root", "root/run"] {
            let path = place.path(name);
            fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("it is opened");
            if is_root() {
                chown(&path, Some(NOBODY), Some(NOBODY)).expect("it is given away");
            }
        }
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `skiff` with nothing of this machine in its environment.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.path("bin/skiff"));
        command.args(args);
        self.harmless(command)
    }

    /// Makes a command one that can do no harm to the machine, whatever it does.
    pub fn harmless(&self, command: Command) -> Command {
        let mut command = self.isolated(command);
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    /// The same as whoever runs the tests: for screens that only root sees.
    pub fn command_as_ourselves(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.path("bin/skiff"));
        command.args(args);
        self.isolated(command)
    }

    fn isolated(&self, mut command: Command) -> Command {
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", self.path("home")).env("SKIFF_ROOT", self.path("root"));
        command.current_dir(self.path("home")).stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Screen {
        let output = self.command(args).output().expect("skiff runs");
        self.screen(&args.join(" "), &output)
    }

    pub fn screen(&self, line: &str, output: &Output) -> Screen {
        let same =
            |text: &str| text.replace(&*self.dir.path().to_string_lossy(), "/var/tmp/sk-XXXXXX");
        let text = |bytes: &[u8]| same(std::str::from_utf8(bytes).expect("screens are UTF-8"));
        Screen {
            line: same(line),
            code: output.status.code().unwrap_or(-1),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }
}

impl Screen {
    /// Everything that a person sees, and the exit code.
    pub fn whole(&self) -> String {
        let parts = [("stdout", &self.stdout), ("stderr", &self.stderr)];
        let parts = parts.iter().filter(|(_, text)| !text.is_empty());
        let shown: String = parts.map(|(name, text)| format!("--- {name}\n{text}")).collect();
        format!("$ skiff {}\n{shown}--- exit {}\n", self.line, self.code)
    }

    /// Lines that do not fit a terminal, and control codes that belong on none.
    #[track_caller]
    pub fn assert_fits(&self) {
        for line in self.stdout.lines().chain(self.stderr.lines()) {
            let columns = line.chars().count();
            assert!(columns <= COLUMNS, "skiff {}: {columns} columns:\n{line}", self.line);
        }
        let colours = self.stdout.contains('\x1b') || self.stderr.contains('\x1b');
        assert!(!colours, "skiff {}: colours without a terminal", self.line);
    }
}

pub fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

/// Whether two documents hold the same value, one written as JSON and one as YAML.
#[track_caller]
pub fn assert_same_value(json: &str, yaml: &str, what: &str) -> serde_json::Value {
    let json: serde_json::Value = serde_json::from_str(json)
        .unwrap_or_else(|error| panic!("{what} --output json: {error}\n{json}"));
    let yaml: serde_json::Value = serde_yaml::from_str(yaml)
        .unwrap_or_else(|error| panic!("{what} --output yaml: {error}\n{yaml}"));
    assert_eq!(json, yaml, "{what}");
    json
}

/// A program of this machine, when it is there.
pub fn program(name: &str) -> Option<PathBuf> {
    let places = ["/usr/bin", "/bin", "/usr/local/bin"];
    places.iter().map(|place| Path::new(place).join(name)).find(|path| path.is_file())
}
