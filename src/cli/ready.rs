//! Waiting until a node is ready, saying what it waits for.

use std::time::Duration;

use skiff_api::{ClientError, Phase, Service, ServiceState, Status};

use super::interrupt::{self, Interrupt};
use super::ui::Waiting;
use super::{CommandError, Session, log_line};
use crate::node::plan::REMOVED;

/// How to wait.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    /// None: as long as it takes.
    pub timeout: Option<Duration>,
    /// End early when a service keeps failing: it needs a person.
    pub until_crash_loop: bool,
}

impl Wait {
    /// Seconds from the command line, where 0 means without end.
    pub fn new(timeout_s: u64) -> Self {
        let timeout = (timeout_s > 0).then(|| Duration::from_secs(timeout_s));
        Self { timeout, until_crash_loop: false }
    }
}

/// Why the waiting ended without a ready node.
#[derive(Debug)]
pub enum Unready {
    /// The user pressed Ctrl-C.
    Interrupted,
    Failed(CommandError),
}

impl From<Unready> for CommandError {
    fn from(unready: Unready) -> Self {
        match unready {
            Unready::Interrupted => interrupt::left("the node goes on starting by itself")
                .hint("skiff status --wait-ready"),
            Unready::Failed(error) => error,
        }
    }
}

/// Follows the status until the node is ready. Nothing is polled: skiffd sends each change.
pub async fn wait(
    session: &Session,
    wait: Wait,
    interrupt: &mut Interrupt,
) -> Result<Status, Unready> {
    let mut latest: Option<Status> = None;
    let end = {
        let watch = follow(session, wait, &mut latest);
        let bound = async {
            match wait.timeout {
                Some(timeout) => tokio::time::sleep(timeout).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            end = watch => End::Stream(end),
            () = bound => End::Late,
            () = interrupt.came() => return Err(Unready::Interrupted),
        }
    };
    let error = match (end, latest) {
        (End::Stream(Ok(())), Some(status)) if status.phase == Phase::Ready => return Ok(status),
        (End::Stream(Ok(())), Some(status)) => match (removed(&status), crash_loop(&status)) {
            (Some(error), _) => error,
            (None, Some(service)) => keeps_failing(service),
            (None, None) => left(&status),
        },
        (End::Stream(Ok(())), None) => {
            CommandError::new("skiffd ended while we waited").hint("skiff logs skiffd")
        }
        (End::Stream(Err(error)), _) => error.into(),
        (End::Late, latest) => late(wait.timeout.unwrap_or_default(), latest.as_ref()),
    };
    Err(Unready::Failed(error))
}

/// Returns when a ready node has stayed so for `bound`.
pub async fn stays(
    session: &Session,
    bound: Duration,
    interrupt: &mut Interrupt,
) -> Result<(), Unready> {
    let mut latest: Option<Status> = None;
    let client = session.client();
    let lost = client.get_lines("/v1/watch", |status: Status| {
        let ready = status.phase == Phase::Ready;
        latest = Some(status);
        ready
    });
    let ended = tokio::select! {
        ended = lost => ended,
        () = tokio::time::sleep(bound) => return Ok(()),
        () = interrupt.came() => return Err(Unready::Interrupted),
    };
    Err(Unready::Failed(match (ended, latest) {
        (Err(error), _) => error.into(),
        (Ok(()), Some(status)) if status.phase != Phase::Ready => no_longer(&status),
        (Ok(()), Some(status)) => left(&status),
        (Ok(()), None) => {
            CommandError::new("skiffd ended while we waited").hint("skiff logs skiffd")
        }
    }))
}

enum End {
    Stream(Result<(), ClientError>),
    Late,
}

async fn follow(
    session: &Session,
    wait: Wait,
    latest: &mut Option<Status>,
) -> Result<(), ClientError> {
    let mut waiting = Waiting::new();
    session
        .client()
        .get_lines("/v1/watch", |status: Status| {
            let ready = status.phase == Phase::Ready;
            let fails = wait.until_crash_loop && crash_loop(&status).is_some();
            let hopeless = fails || removed(&status).is_some();
            if !ready {
                waiting.show(&sentence(&status));
            }
            *latest = Some(status);
            !ready && !hopeless
        })
        .await
}

/// What the node waits for now: `2 of 6: kube-control: waiting for it to answer`.
pub fn sentence(status: &Status) -> String {
    let all = status.conditions.len();
    match status.conditions.iter().position(|condition| !condition.holds) {
        Some(place) => {
            let condition = &status.conditions[place];
            let number = place + 1;
            format!("{number} of {all}: {}: {}", condition.name, condition.message)
        }
        None => "waiting for the node".into(),
    }
}

fn crash_loop(status: &Status) -> Option<&Service> {
    status.services.iter().find(|service| service.state == ServiceState::CrashLoop)
}

/// A cluster that has removed the node will not call it ready.
fn removed(status: &Status) -> Option<CommandError> {
    let notice = status.notices.iter().find(|notice| notice.name == REMOVED)?;
    let error = CommandError::new("the node does not belong to its cluster any more");
    Some(error.cause(&notice.message).hint("sudo skiff reset"))
}

fn keeps_failing(service: &Service) -> CommandError {
    let mut error = CommandError::new(format!("service {} keeps failing", service.name));
    if !service.message.is_empty() {
        error = error.cause(&service.message);
    }
    last_lines(error, service)
}

fn left(status: &Status) -> CommandError {
    let word = super::word::phase(status.phase).0;
    CommandError::new(format!("skiffd ended while we waited; the node was {word}"))
        .hint("skiff logs skiffd")
}

fn no_longer(status: &Status) -> CommandError {
    let error = CommandError::new("the node was ready and is so no longer").hint("skiff services");
    let lost = status.conditions.iter().filter(|condition| !condition.holds);
    lost.fold(error, |error, lost| error.cause(format!("{}: {}", lost.name, lost.message)))
}

fn late(bound: Duration, latest: Option<&Status>) -> CommandError {
    let message = format!("the node is not ready within {} s", bound.as_secs());
    let mut error = CommandError::new(message).hint("skiff services");
    let Some(status) = latest else {
        return error.cause("skiffd has not sent a status").hint("skiff logs skiffd");
    };
    for condition in status.conditions.iter().filter(|condition| !condition.holds) {
        error = error.cause(format!("{}: {}", condition.name, condition.message));
    }
    for service in status.services.iter().filter(|service| !service.last_log.is_empty()) {
        error = last_lines(error, service);
    }
    error
}

fn last_lines(mut error: CommandError, service: &Service) -> CommandError {
    if !service.last_log.is_empty() {
        error = error.cause(format!("last lines of {}:", service.name));
    }
    for line in &service.last_log {
        error = error.cause(format!("  {}", log_line::excerpt(line)));
    }
    error.hint(format!("skiff logs {}", service.name))
}
