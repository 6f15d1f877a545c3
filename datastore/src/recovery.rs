//! The way back from a lost quorum: a new store from what one survivor holds.
//!
//! ```text
//! DIR (stopped) ── copied ──> scratch, forced to be the only member
//!                                │ loaded
//! other members ── asked ──> found: who has more?     snapshot
//!                                │ yes, go on            │
//!                                └──> built beside DIR, compared, DIR swapped
//! ```
//!
//! Comes in: a stopped member's directory, and the identity by which the others
//! answer. Goes out: what was found, and when that is wanted a directory with
//! one member and a new cluster id, which old members can't join by mistake. DIR
//! is as it was or complete at any time, and kept beside the new one. No task
//! outlives a call.

mod survey;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::backup::Opening;
use crate::backup::extract::{Extract, ExtractError, Scratch, extract};
use crate::backup::place::{Place, PlaceError};
use crate::backup::restore::{RestoreError, RestoreOptions, Restored, restore_at};
use crate::database::Databases;
use crate::member::nodes::Nodes;
use crate::member::roster::{Roster, RosterError};
use crate::member::tls::{Identity, TlsError};
use survey::Survey;
pub use survey::{Found, Other, State, Verdict};

/// What is to be recovered.
pub struct Options {
    /// The survivor's directory.
    pub dir: PathBuf,
    /// By which the others answer; without it nobody is asked.
    pub pki: Option<PathBuf>,
    /// Directories of other members that are at hand.
    pub also: Vec<PathBuf>,
    /// Where others may be that are not where they were, `HOST:PORT` each.
    pub ways: Vec<String>,
    /// A word that makes new names unique.
    pub stamp: String,
}

/// Why nothing was recovered. The directory is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    #[error("{dir} is no directory of one of several members")]
    NoMember { dir: PathBuf },
    #[error(transparent)]
    Roster(#[from] RosterError),
    #[error("the member in {dir} was removed from its cluster")]
    Removed { dir: PathBuf },
    #[error("the member in {dir} has received nothing yet")]
    Empty { dir: PathBuf },
    #[error("{dir} belongs to another cluster")]
    Foreign { dir: PathBuf },
    #[error("can't use the identity of members")]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Extract(#[from] ExtractError),
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

/// What one survivor holds, ready to become the store.
pub struct Recovery {
    options: Options,
    place: Place,
    /// Holds what was extracted.
    _scratch: Scratch,
    extracted: Databases<Extract>,
    found: Found,
}

impl Recovery {
    /// Reads the survivor's directory and asks the others. Changes nothing but
    /// a copy beside the directory, which goes with this value.
    pub async fn look(options: Options) -> Result<Recovery, RecoveryError> {
        let dir = &options.dir;
        if !Roster::exists(dir) {
            return Err(RecoveryError::NoMember { dir: dir.clone() });
        }
        let roster = Arc::new(Roster::read(dir)?);
        if roster.is_removed(roster.own()) {
            return Err(RecoveryError::Removed { dir: dir.clone() });
        }
        let load = |dir: &Path| Identity::load(dir, Nodes::any());
        let identity = options.pki.as_deref().map(load).transpose()?;
        let place = Place::claim(dir, true, &options.stamp)?;
        let scratch = Scratch::make(dir, place.scratch())?;
        let copied = scratch.copy(dir)?;
        let position = survey::position(dir, &copied)?;
        if position.index == 0 {
            return Err(RecoveryError::Empty { dir: dir.clone() });
        }
        let extracted = extract(dir, &copied).await?;
        let survey = Survey { roster: &roster, identity: identity.as_ref(), ways: &options.ways };
        let others = survey.ask(&options.also, &scratch).await?;
        let summaries = extracted.as_ref().map(|one| &one.summary);
        let found = Found::new(&roster, position, summaries, others);
        Ok(Recovery { options, place, _scratch: scratch, extracted, found })
    }

    /// What there is, here and on the others.
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// What the new store will hold in the database `cluster`, as a snapshot;
    /// nothing when there is no such database.
    pub fn cluster(&self) -> Option<&Path> {
        self.extracted.cluster.as_ref().map(|one| one.file.as_path())
    }

    /// Has the new store hold this in the database `cluster` instead.
    pub fn set_cluster(&mut self, cluster: Extract) {
        self.extracted.cluster = Some(cluster);
    }

    /// Puts a store of one member in the place of the directory, whose newest
    /// revisions are `bump` higher than the survivor's, in each database.
    pub async fn finish(self, bump: i64) -> Result<Restored, RecoveryError> {
        let Recovery { options, place, extracted, _scratch, .. } = self;
        let restore = RestoreOptions {
            dir: options.dir,
            replace: true,
            bump_revision: bump,
            opening: Opening::Plain,
            stamp: options.stamp,
        };
        let Databases { kube, cluster } = extracted;
        Ok(restore_at(place, &kube.file, Ok(cluster), &restore).await?)
    }
}
