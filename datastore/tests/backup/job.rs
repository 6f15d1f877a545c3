//! Backups that go on by themselves, and the removal of old ones.

use std::time::Duration;

use skiff_datastore::backup::retention::Keep;
use skiff_datastore::backup::{Job, JobError, Report, Target};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::sync::mpsc;

use crate::daemon::Daemon;
use crate::{names, take_options};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_job_goes_on_through_failures_keeps_what_it_should_and_touches_nothing_else() {
    let home = TempDir::new().unwrap();
    let dir = home.path().join("data");
    let daemon = Daemon::start(&dir).await;
    daemon.fill(20).await;
    let target = TempDir::new().unwrap();
    let other = target.path().join("skiff-of-somebody-else.backup");
    std::fs::write(&other, "not a backup").unwrap();
    let job = Job {
        take: take_options(daemon.listen(), home.path()),
        target: Target::Directory(target.path().to_owned()),
        keep: Keep { last: 2, ..Keep::default() },
    };
    let (sender, mut reports) = mpsc::unbounded_channel();
    let every = Duration::from_secs(1);
    let going = tokio::spawn(async move {
        job.run_every(every, OffsetDateTime::now_utc, |report| sender.send(report).unwrap()).await
    });
    let mut removed = 0;
    while removed < 2 {
        let Report::Done { done, .. } = next(&mut reports).await else { panic!("it failed") };
        removed += done.removed.len();
        assert!(done.not_removed.is_none());
    }
    assert_eq!(names(target.path()).len(), 3, "two, and the other file");

    drop(daemon);
    let (mut attempts, mut was_overdue) = (0, false);
    while !was_overdue || attempts < 2 {
        match next(&mut reports).await {
            Report::Failed { error: JobError::Backup(_), attempt, next, overdue } => {
                assert_eq!(attempt, attempts + 1);
                assert!(next <= every);
                (attempts, was_overdue) = (attempt, overdue);
            }
            // One that was under way.
            Report::Done { .. } => assert_eq!(attempts, 0),
            Report::Failed { error, .. } => panic!("{error:?}"),
        }
    }
    assert_eq!(names(target.path()).len(), 3, "a failure removes nothing");

    let _again = Daemon::start(&dir).await;
    while !matches!(next(&mut reports).await, Report::Done { .. }) {}
    going.abort();
    assert!(other.exists());
}

async fn next(reports: &mut mpsc::UnboundedReceiver<Report>) -> Report {
    tokio::time::timeout(PATIENCE, reports.recv()).await.expect("a report comes").unwrap()
}
