//! Backups into one place, once or for ever, and the removal of old ones.

use std::path::Path;
use std::time::Duration;

use time::OffsetDateTime;

use super::name::{BackupName, Kind};
use super::retention::Keep;
use super::s3::S3;
use super::schedule::{choose_wait, is_overdue};
use super::take::{Backup, BackupError, TakeOptions, take};
use super::target::{Target, TargetError};

/// What is backed up, where to, and how many stay.
pub struct Job {
    pub take: TakeOptions,
    pub target: Target,
    pub keep: Keep,
}

/// A round that brought a good backup.
#[derive(Debug)]
pub struct Done {
    pub backup: Backup,
    pub removed: Vec<BackupName>,
    /// Why old backups are still there. The next round tries again.
    pub not_removed: Option<TargetError>,
}

/// Why a round brought no backup.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error(transparent)]
    Target(#[from] TargetError),
}

/// What a job that goes on has to say.
#[derive(Debug)]
pub enum Report {
    /// A good backup, and when the next is due.
    Done { done: Box<Done>, next: Duration },
    /// None; it is tried again.
    Failed { error: JobError, attempt: u32, next: Duration, overdue: bool },
}

impl Job {
    /// Takes a backup, then removes what need not be kept. Nothing is removed
    /// before there is a new one that is good.
    pub async fn run_once(&self) -> Result<Done, JobError> {
        let backup = match &self.target {
            Target::Directory(dir) => self.take_into(dir).await?,
            Target::S3(place) => self.take_and_store(place).await?,
        };
        let (removed, not_removed) = match self.target.remove_old(Kind::Datastore, &self.keep).await
        {
            Ok(removed) => (removed, None),
            Err((removed, error)) => (removed, Some(error)),
        };
        Ok(Done { backup, removed, not_removed })
    }

    /// Takes one whenever it is due, and never ends.
    pub async fn run_every(
        &self,
        every: Duration,
        clock: fn() -> OffsetDateTime,
        mut report: impl FnMut(Report),
    ) -> std::convert::Infallible {
        let mut failures: u32 = 0;
        loop {
            let newest =
                self.target.list(Kind::Datastore).await.ok().and_then(|all| all.last().copied());
            let newest = newest.map(|name| name.taken);
            let wait = choose_wait(clock(), newest, every, failures);
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            match self.run_once().await {
                Ok(done) => {
                    failures = 0;
                    report(Report::Done { done: Box::new(done), next: every });
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    let now = clock();
                    let next = choose_wait(now, newest, every, failures);
                    let overdue = is_overdue(now, newest, every);
                    report(Report::Failed { error, attempt: failures, next, overdue });
                }
            }
        }
    }

    async fn take_into(&self, dir: &Path) -> Result<Backup, BackupError> {
        let is_sealed = self.take.sealing.is_sealed();
        let name = |summary: &_| BackupName::of(summary, is_sealed).to_string().into();
        take(&self.take, dir, name).await
    }

    /// Takes and proves it in a directory of its own, then stores it.
    async fn take_and_store(&self, place: &S3) -> Result<Backup, JobError> {
        let scratch = &self.take.scratch;
        let dir = tempfile::Builder::new()
            .prefix("skiff-upload-")
            .tempdir_in(scratch)
            .map_err(|source| BackupError::Scratch { dir: scratch.clone(), source })?;
        let backup = self.take_into(dir.path()).await?;
        let name = BackupName::of(&backup.summary, backup.is_sealed).to_string();
        place.put(&backup.path, &name).await.map_err(TargetError::from)?;
        Ok(Backup { path: place.address_of(&name).into(), ..backup })
    }
}
