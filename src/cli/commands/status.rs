use std::process::ExitCode;
use std::time::Duration;

use skiff_api::{AddonState, Client, ClientError, Phase, Status};

use crate::cli::{CommandError, Session, output};

/// Show how the node is
///
/// Prints the node's phase, what it still waits for, its addons and what you should know. Exits
/// with 0 when the node is ready and 1 when it is not, stopped included.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Wait until the node is ready, saying what is waited for
    #[arg(long, short)]
    wait_ready: bool,

    /// Seconds to wait with --wait-ready
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    timeout: u64,
}

/// How long to wait for a ready node.
#[derive(Debug)]
pub struct Wait {
    pub timeout: Duration,
}

pub(super) async fn run(
    arguments: Arguments,
    session: &Session,
) -> Result<ExitCode, CommandError> {
    let client = session.client();
    let status = if arguments.wait_ready {
        wait_ready(&client, &Wait { timeout: Duration::from_secs(arguments.timeout) }).await?
    } else {
        client.get("/v1/status").await?
    };
    output::print(session.format, &status, text)?;
    let ready = status.phase == Phase::Ready;
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::from(crate::cli::EXIT_FAILURE) })
}

/// Follows the status until the node is ready; each new thing that is waited for is a line on
/// standard error.
pub async fn wait_ready(client: &Client, wait: &Wait) -> Result<Status, CommandError> {
    let mut last = String::new();
    let mut latest: Option<Status> = None;
    let follow = client.get_lines("/v1/watch", |status: Status| {
        let ready = status.phase == Phase::Ready;
        if let Some(missing) = status.conditions.iter().find(|c| !c.holds).filter(|_| !ready) {
            let line = format!("{}: {}", missing.name, missing.message);
            if line != last {
                eprintln!("{}", output::cut(&line, output::COLUMNS));
                last = line;
            }
        }
        latest = Some(status);
        !ready
    });
    let outcome = tokio::time::timeout(wait.timeout, follow).await;
    match (outcome, latest) {
        (Ok(Ok(())), Some(status)) if status.phase == Phase::Ready => Ok(status),
        (Ok(Err(ClientError::NotRunning(path))), _) => Err(ClientError::NotRunning(path).into()),
        (Ok(Err(error)), _) => Err(error.into()),
        (Ok(Ok(())), _) => Err(CommandError::new("skiffd ended while we waited").hint("skiff status")),
        (Err(_), status) => Err(late(wait, status)),
    }
}

fn late(wait: &Wait, status: Option<Status>) -> CommandError {
    let message = format!("the node is not ready within {} s", wait.timeout.as_secs());
    let mut error = CommandError::new(message).hint("skiff services, then skiff logs SERVICE");
    for condition in status.iter().flat_map(|s| &s.conditions).filter(|c| !c.holds) {
        error.causes.push(format!("{}: {}", condition.name, condition.message));
    }
    for service in status.iter().flat_map(|s| &s.services) {
        error.causes.extend(service.last_log.iter().map(|l| format!("{}: {l}", service.name)));
    }
    error
}

fn text(status: &Status) -> String {
    let mut out = String::new();
    let address = status.address.as_deref().unwrap_or("no address yet");
    out.push_str(&format!("node {} ({address}) is {}\n", status.node, word(status.phase)));
    out.push_str(&format!("skiff {}, Kubernetes {}\n", status.version, status.kubernetes));
    let open: Vec<_> = status.conditions.iter().filter(|c| !c.holds).collect();
    if !open.is_empty() {
        out.push_str("\nwaiting for:\n");
        let rows = open.iter().map(|c| vec![format!("  {}", c.name), c.message.clone()]);
        out.push_str(&output::table(&rows.collect::<Vec<_>>()));
    }
    if !status.addons.is_empty() {
        out.push_str("\naddons:\n");
        let rows = status.addons.iter().map(|addon| {
            vec![
                format!("  {}", addon.name),
                addon_word(addon.state).into(),
                if addon.message.is_empty() { &addon.description } else { &addon.message }.clone(),
            ]
        });
        out.push_str(&output::table(&rows.collect::<Vec<_>>()));
    }
    if !status.notices.is_empty() {
        out.push_str("\nyou should know:\n");
        for notice in &status.notices {
            for line in wrap(&notice.message, output::COLUMNS - 4) {
                out.push_str(&format!("  {line}\n"));
            }
        }
    }
    out
}

fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Starting => "starting",
        Phase::Ready => "ready",
        Phase::Degraded => "degraded",
        Phase::Stopping => "stopping",
        Phase::Stopped => "stopped",
    }
}

pub fn addon_word(state: AddonState) -> &'static str {
    match state {
        AddonState::Disabled => "disabled",
        AddonState::Progressing => "progressing",
        AddonState::Enabled => "enabled",
        AddonState::Unhealthy => "unhealthy",
        AddonState::Unknown => "unknown",
    }
}

/// Breaks a sentence at spaces.
pub fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always a last line");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > columns {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}
