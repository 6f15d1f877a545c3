//! Bringing skiffd up: by systemd where it rules, else in a session of its own.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{fs, io};

use skiff_supervisor::output::tail;

use super::interrupt::Interrupt;
use super::ready::Unready;
use super::{CommandError, Session};
use crate::config::{SNAP_VARIABLE, snap_file};
use crate::durable;

/// skiffd's socket appears within a second; a busy machine is given more.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(180);
const SOCKET_PAUSE: Duration = Duration::from_millis(20);
/// Lines of its log that are shown when skiffd ended without a word.
const TAIL_LINES: usize = 5;
/// Where daemons find the machine's own tools.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The unit by which systemd knows the node with the default root.
pub const UNIT: &str = "skiffd.service";
const UNIT_FILE: &str = "/etc/systemd/system/skiffd.service";

/// Whether this node is systemd's: only the default one is, since a unit has one name.
pub fn by_systemd(session: &Session) -> bool {
    session.paths.is_default() && Path::new("/run/systemd/system").is_dir()
}

/// Starts the skiffd of the selected build and waits until it answers. An interrupt ends the
/// waiting only: skiffd is under way then.
pub async fn launch(session: &Session, interrupt: &mut Interrupt) -> Result<(), Unready> {
    let child = begin(session).map_err(Unready::Failed)?;
    tokio::select! {
        outcome = answers(session, child) => outcome.map_err(Unready::Failed),
        () = interrupt.came() => Err(Unready::Interrupted),
    }
}

fn begin(session: &Session) -> Result<Option<Child>, CommandError> {
    // The reason of an earlier failure is not the reason of this one.
    remove_if_there(&session.paths.start_failure())?;
    match by_systemd(session) {
        true => start_unit(session).map(|()| None),
        false => background(session).map(Some),
    }
}

async fn answers(session: &Session, mut child: Option<Child>) -> Result<(), CommandError> {
    let answers = async {
        loop {
            // Looked at before asking: a skiffd that answers has not ended before.
            let ended = session.paths.start_failure().is_file() || is_over(child.as_mut());
            if session.running().await?.is_some() {
                return Ok(());
            }
            if ended {
                return Err(reason(session));
            }
            tokio::time::sleep(SOCKET_PAUSE).await;
        }
    };
    match tokio::time::timeout(SOCKET_TIMEOUT, answers).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let bound = SOCKET_TIMEOUT.as_secs();
            Err(log_tail(session, &format!("skiffd does not answer within {bound} s")))
        }
    }
}

fn background(session: &Session) -> Result<Child, CommandError> {
    let paths = &session.paths;
    make_log_dir(session)?;
    let log = paths.daemon_log("skiffd");
    let file = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log)
        .map_err(|e| CommandError::because(format!("cannot write {}", log.display()), &e))?;
    let program = paths.builds().join("current/bin/skiff");
    let mut command = Command::new(&program);
    command.arg("daemon").arg("--background").arg("--root").arg(paths.root());
    if let Some(config) = &session.config {
        command.arg("--config").arg(std::path::absolute(config)?);
    }
    command.env_clear().env("PATH", PATH).current_dir("/");
    if let Some(file) = snap_file() {
        command.env(SNAP_VARIABLE, file);
    }
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    command
        .spawn()
        .map_err(|e| CommandError::because(format!("cannot run {}", program.display()), &e))
}

fn is_over(child: Option<&mut Child>) -> bool {
    child.is_some_and(|child| !matches!(child.try_wait(), Ok(None)))
}

/// What skiffd left as the reason for its end, or else the last lines that it wrote.
fn reason(session: &Session) -> CommandError {
    let body = fs::read(session.paths.start_failure())
        .ok()
        .and_then(|text| serde_json::from_slice::<skiff_api::ErrorBody>(&text).ok());
    match body {
        Some(body) => {
            let mut error = CommandError::answered(body);
            error.hint.get_or_insert_with(|| "skiff check".into());
            error
        }
        None => log_tail(session, "skiffd ended at once"),
    }
}

fn log_tail(session: &Session, message: &str) -> CommandError {
    let log = session.paths.daemon_log("skiffd");
    let error = CommandError::new(message).hint("skiff logs skiffd");
    tail(&log, TAIL_LINES)
        .iter()
        .fold(error, |error, line| error.cause(super::log_line::excerpt(line)))
}

/// Makes the unit what this version wants it to be, and starts it now and at every boot.
fn start_unit(session: &Session) -> Result<(), CommandError> {
    make_log_dir(session)?;
    let text = unit(session);
    if !fs::read_to_string(UNIT_FILE).is_ok_and(|old| old == text) {
        durable::replace(Path::new(UNIT_FILE), text.as_bytes(), 0o644)
            .map_err(|e| CommandError::because(format!("cannot write {UNIT_FILE}"), &e))?;
        systemctl(&["daemon-reload"])?;
    }
    // One that failed often is held back by systemd until it is forgiven.
    let _ = systemctl(&["reset-failed", UNIT]);
    systemctl(&["enable", "--now", "--no-block", UNIT])?;
    // The link that systemctl made; without it the node is off after a power cut.
    durable::sync_file_system(Path::new(UNIT_FILE))
        .map_err(|e| CommandError::because(format!("cannot sync the disk of {UNIT_FILE}"), &e))
}

fn make_log_dir(session: &Session) -> Result<(), CommandError> {
    let dir = session.paths.log();
    fs::create_dir_all(&dir)
        .map_err(|e| CommandError::because(format!("cannot make {}", dir.display()), &e))
}

fn unit(session: &Session) -> String {
    let config = session.config.as_ref().and_then(|path| std::path::absolute(path).ok());
    let program = session.paths.builds().join("current/bin/skiff");
    let log = session.paths.daemon_log("skiffd");
    unit_text(&program, &log, config.as_deref(), snap_file().as_deref())
}

/// What systemd is told; `snap` is the file with the snap's settings, if there is a snap.
fn unit_text(program: &Path, log: &Path, config: Option<&Path>, snap: Option<&Path>) -> String {
    let (program, log) = (program.display(), log.display());
    let config = config.map(|path| format!(" --config {}", path.display())).unwrap_or_default();
    let snap = snap.map_or_else(String::new, |file| {
        format!("Environment=\"{}={}\"\n", SNAP_VARIABLE, file.display())
    });
    format!(
        "[Unit]\n\
         Description=Skiff node daemon\n\
         Wants=network-online.target\n\
         After=network-online.target\n\n\
         [Service]\n\
         {snap}ExecStart={program} daemon{config}\n\
         # Without effect when skiffd has ended by itself; a reset removes the program.\n\
         ExecStop=-{program} stop\n\
         StandardOutput=append:{log}\n\
         StandardError=append:{log}\n\
         # The daemons outlive skiffd, so that a new one adopts them; `skiff stop` ends them.\n\
         KillMode=process\n\
         Delegate=yes\n\
         Restart=on-failure\n\
         RestartSec=1\n\
         TimeoutStopSec=150\n\
         TasksMax=infinity\n\
         LimitNOFILE=1048576\n\n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    )
}

/// Takes the unit away again. A node that systemd does not know has none.
pub fn remove_unit(session: &Session) -> Result<(), CommandError> {
    if !by_systemd(session) || !Path::new(UNIT_FILE).exists() {
        return Ok(());
    }
    systemctl(&["disable", UNIT])?;
    remove_if_there(Path::new(UNIT_FILE))?;
    systemctl(&["daemon-reload"])
}

fn systemctl(args: &[&str]) -> Result<(), CommandError> {
    let command = format!("systemctl {}", args.join(" "));
    let output = Command::new("systemctl")
        .args(args)
        .output()
        .map_err(|e| CommandError::because(format!("cannot run {command}"), &e))?;
    if output.status.success() {
        return Ok(());
    }
    Err(CommandError::new(format!("{command} failed"))
        .cause(String::from_utf8_lossy(&output.stderr).trim())
        .hint("journalctl --unit skiffd"))
}

fn remove_if_there(path: &Path) -> Result<(), CommandError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(CommandError::because(format!("cannot remove {}", path.display()), &error))
        }
        _ => Ok(()),
    }
}
