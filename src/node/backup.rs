//! Takes archives of the cluster by the schedule of the settings.
//!
//! One member takes them: the one whose datastore leads, so that there is one as long as the
//! cluster can be written to. What is due is counted from the newest archive in the place, so a
//! restart neither skips one nor takes one too many, and one that was missed is taken at once.
//!
//! Each is taken by a command of its own (`skiff backup create`): proving it loads all of it, and
//! that memory goes with the command.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use skiff_api::{BackupPart, Notice};
use skiff_datastore::Listen;
use skiff_datastore::backup::Kind;
use skiff_datastore::backup::schedule::{choose_wait, is_overdue};
use skiff_datastore::member::report::{self, Report};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::process::Command;

use super::core::Node;
use crate::backup::Environment;
use crate::config;
use crate::daemons::datastore;

/// How often it is looked whether something has changed: who leads, and what is in the place.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// Between two looks in any case.
const PAUSE: Duration = Duration::from_secs(1);
/// What taking one may last; a cluster of the largest quota takes minutes.
const CREATE_TIMEOUT: Duration = Duration::from_secs(2 * 3600);
/// Of the notice.
const NAME: &str = "backup-failed";

/// Never ends. Other settings begin it anew.
pub async fn run(node: Arc<Node>) {
    let mut settings = node.config.subscribe();
    loop {
        let now = settings.borrow_and_update().backup.clone();
        tokio::select! {
            () = keep(&node, &now) => return,
            changed = settings.wait_for(|config| config.backup != now) => {
                if changed.is_err() {
                    return;
                }
            }
        }
        node.board.update(|observed| {
            observed.backup = None;
            observed.notices.retain(|notice| notice.name != NAME);
        });
    }
}

/// Never ends, unless the supervisor has ended.
async fn keep(node: &Node, settings: &config::Backup) {
    let (Some(every), Some(place), true) =
        (settings.every(), settings.place.clone(), node.authorities.is_some())
    else {
        return std::future::pending().await;
    };
    let mut kept = Kept { every, place: place.display().to_string(), ..Kept::default() };
    loop {
        if node.supervisor.wait_ready(&[datastore::NAME.into()]).await.is_err() {
            return;
        }
        let socket = Listen::Unix(node.paths().datastore_socket());
        kept.elsewhere = !leads(&report::report(&[socket]).await);
        let looked = newest(settings, &place).await;
        if let Ok(newest) = looked {
            kept.newest = newest;
        }
        let due_in = choose_wait(OffsetDateTime::now_utc(), kept.newest, every, 0);
        if kept.elsewhere || (looked.is_ok() && !due_in.is_zero()) {
            (kept.failures, kept.failure) = (0, None);
            show(node, &kept);
            tokio::time::sleep(due_in.clamp(PAUSE, LOOK_INTERVAL)).await;
            continue;
        }
        let outcome = match looked {
            Ok(_) => create(node, settings, &place).await,
            Err(reason) => Err(reason),
        };
        if let Err(reason) = outcome {
            tracing::error!(reason, "no archive of the cluster");
            kept.fail(reason);
            show(node, &kept);
            let now = OffsetDateTime::now_utc();
            tokio::time::sleep(choose_wait(now, None, every, kept.failures)).await;
        } else {
            tracing::info!(place = kept.place, "an archive of the cluster is good");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// What is known of the schedule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Kept {
    place: String,
    every: Duration,
    newest: Option<OffsetDateTime>,
    failures: u32,
    failure: Option<String>,
    elsewhere: bool,
}

impl Kept {
    fn fail(&mut self, reason: String) {
        self.failures = self.failures.saturating_add(1);
        self.failure = Some(reason);
    }

    /// As the status tells it.
    fn part(&self, now: OffsetDateTime) -> BackupPart {
        let time = |at: OffsetDateTime| at.format(&Rfc3339).ok();
        let wait = choose_wait(now, self.newest, self.every, self.failures);
        BackupPart {
            place: self.place.clone(),
            every_s: self.every.as_secs(),
            newest: self.newest.and_then(time),
            next: (!self.elsewhere).then(|| time(now + wait)).flatten(),
            failures: self.failures,
            failure: self.failure.clone(),
            overdue: !self.elsewhere && is_overdue(now, self.newest, self.every),
            elsewhere: self.elsewhere,
        }
    }
}

/// A member that has no others leads.
fn leads(report: &Report) -> bool {
    let own = report.endpoints.first();
    report.members.is_empty() || own.is_some_and(|own| own.member == own.leader)
}

/// When the newest archive in the place was taken.
async fn newest(settings: &config::Backup, place: &Path) -> Result<Option<OffsetDateTime>, String> {
    let look = async {
        let environment = Environment::read(settings.environment_file.as_deref());
        let target = environment.and_then(|environment| environment.target(place));
        let target = target.map_err(|error| chain(&error))?;
        target.list(Kind::Cluster).await.map_err(|error| chain(&error))
    };
    Ok(look.await?.last().map(|name| name.taken))
}

async fn create(node: &Node, settings: &config::Backup, place: &Path) -> Result<(), String> {
    let mut command = Command::new(node.context().program("skiff"));
    command.arg("--root").arg(node.root()).arg("--config").arg(&node.settings_file);
    // With a slash it is a directory, or an error: never the name of a file.
    command.args(["backup", "create", &format!("{}/", place.display())]);
    for recipient in &settings.encrypt_to {
        command.args(["--encrypt-to", recipient]);
    }
    if settings.unencrypted {
        command.arg("--unencrypted");
    }
    if let Some(file) = &settings.environment_file {
        command.arg("--environment-file").arg(file);
    }
    for (option, count) in [
        ("--keep-last", settings.keep_last),
        ("--keep-daily", settings.keep_daily),
        ("--keep-weekly", settings.keep_weekly),
        ("--keep-monthly", settings.keep_monthly),
    ] {
        command.args([option, &count.to_string()]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(CREATE_TIMEOUT, command.output()).await {
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => Err(reason(&String::from_utf8_lossy(&output.stderr))),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("it took longer than {} h", CREATE_TIMEOUT.as_secs() / 3600)),
    }
}

/// What a command said of its failure, in one line without what a person would type.
fn reason(stderr: &str) -> String {
    let begin = stderr.find("error: ").map_or(stderr, |at| &stderr[at + "error: ".len()..]);
    let end = begin.find("\nhint: ").map_or(begin, |at| &begin[..at]);
    let words = end.split_whitespace().collect::<Vec<_>>().join(" ");
    words.replace(" caused by: ", ": ")
}

fn show(node: &Node, kept: &Kept) {
    let part = kept.part(OffsetDateTime::now_utc());
    let notice = notice(&part);
    node.board.update(|observed| {
        observed.backup = Some(part);
        observed.notices.retain(|notice| notice.name != NAME);
        // Before the standing ones: it is news.
        observed.notices.splice(0..0, notice);
    });
}

/// What somebody must look at.
fn notice(part: &BackupPart) -> Option<Notice> {
    if part.elsewhere || (part.failures == 0 && !part.overdue) {
        return None;
    }
    let reason = part.failure.as_deref().unwrap_or("none was taken in time");
    let newest = part.newest.as_deref().unwrap_or("none");
    Some(Notice {
        name: NAME.into(),
        message: format!("archives of the cluster fail: {reason} (the newest is of {newest})"),
        remedy: Some("`sudo skiff backup create` tries it now and says what is wrong".into()),
    })
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use skiff_datastore::member::report::EndpointReport;
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-27 12:00 UTC);
    const HOUR: Duration = Duration::from_secs(3600);

    fn kept() -> Kept {
        Kept { place: "/b".into(), every: HOUR, newest: Some(NOW - HOUR / 2), ..Kept::default() }
    }

    #[test]
    fn the_status_says_when_the_newest_was_taken_and_when_the_next_is_due() {
        let part = kept().part(NOW);
        assert_eq!(part.newest.as_deref(), Some("2026-11-27T11:30:00Z"));
        assert_eq!(part.next.as_deref(), Some("2026-11-27T12:30:00Z"));
        assert_eq!((part.overdue, notice(&part)), (false, None));
    }

    #[test]
    fn failures_and_archives_that_are_too_old_are_for_somebody_to_look_at() {
        let mut failed = kept();
        failed.fail("no space".into());
        let part = failed.part(NOW);
        assert_eq!(part.next.as_deref(), Some("2026-11-27T12:00:10Z"));
        assert!(notice(&part).unwrap().message.contains("fail: no space"));
        let old = Kept { newest: Some(NOW - 3 * HOUR), ..kept() };
        assert!(notice(&old.part(NOW)).unwrap().message.contains("in time"));
        let elsewhere = Kept { elsewhere: true, ..old };
        assert_eq!(notice(&elsewhere.part(NOW)), None);
    }

    #[test]
    fn the_member_that_leads_takes_archives_and_one_that_is_alone_leads() {
        let endpoint = |member: Option<&str>, leader: Option<&str>| EndpointReport {
            endpoint: "e".into(),
            member: member.map(str::to_owned),
            leader: leader.map(str::to_owned),
            revision: None,
            alarms: vec![],
            error: None,
        };
        let member = |id: &str| report::MemberReport {
            id: id.into(),
            role: "voter",
            leads: false,
            reachable: true,
            revision: 1,
            lag: 0,
            size_bytes: 0,
            round_trip_us: 0,
            failure_domain: String::new(),
            address: String::new(),
            node: String::new(),
        };
        let report = |members: &[&str], own| Report {
            leader: None,
            members: members.iter().map(|id| member(id)).collect(),
            endpoints: vec![own],
        };
        assert!(leads(&report(&[], endpoint(None, None))));
        assert!(leads(&report(&["1", "2"], endpoint(Some("1"), Some("1")))));
        assert!(!leads(&report(&["1", "2"], endpoint(Some("1"), Some("2")))));
        assert!(!leads(&report(&["1", "2"], endpoint(Some("1"), None))));
    }

    #[test]
    fn a_failure_is_told_in_one_line() {
        let stderr = "taking it\nerror: cannot write to /b\ncaused by: no space left\n           on \
                      it\nhint: make room\n";
        assert_eq!(reason(stderr), "cannot write to /b: no space left on it");
    }
}
