//! A mounted disk in a test's hands.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fuser::{BackgroundSession, Config, MountOption, SessionACL};

use crate::faults::{Counts, Faults};
use crate::fuse::{Served, State, lock};
use crate::tree::{Loss, Tree};

/// How long those may take to go who still have a file open.
const UNMOUNT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a disk is not there.
#[derive(Debug)]
pub enum DiskError {
    Mount { at: PathBuf, source: io::Error },
    Unmount { at: PathBuf, source: io::Error },
}

impl std::fmt::Display for DiskError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DiskError::Mount { at, .. } => write!(f, "can't mount a disk at {}", at.display()),
            DiskError::Unmount { at, .. } => write!(f, "can't unmount {}", at.display()),
        }
    }
}

impl std::error::Error for DiskError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            DiskError::Mount { source, .. } | DiskError::Unmount { source, .. } => Some(source),
        }
    }
}

/// A disk that is mounted as long as this lives.
pub struct Disk {
    at: PathBuf,
    state: Arc<Mutex<State>>,
    session: Option<BackgroundSession>,
}

impl Disk {
    /// Mounts an empty disk of so many bytes at the directory `at`.
    pub fn mount(at: &Path, capacity: u64) -> Result<Disk, DiskError> {
        let state = State {
            tree: Tree::new(capacity),
            faults: Faults::default(),
            counts: Counts::default(),
        };
        let state = Arc::new(Mutex::new(state));
        let mut disk = Disk { at: at.to_owned(), state, session: None };
        disk.serve()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// What it did until now.
    pub fn counts(&self) -> Counts {
        lock(&self.state).counts
    }

    /// Has it be ill, or well again.
    pub fn set_faults(&self, faults: Faults) {
        lock(&self.state).faults = faults;
    }

    /// Gives it another size; what it holds stays.
    pub fn set_capacity(&self, bytes: u64) {
        lock(&self.state).tree.capacity = bytes;
    }

    /// Bytes that its files hold.
    pub fn used(&self) -> u64 {
        lock(&self.state).tree.used()
    }

    /// Makes everything durable, as an orderly unmount does.
    pub fn sync_all(&self) {
        lock(&self.state).tree.sync_all();
    }

    /// The power fails and comes back. Processes must have been killed before.
    pub fn power_cut(&mut self, loss: Loss) -> Result<(), DiskError> {
        self.unmount()?;
        lock(&self.state).tree.power_cut(loss);
        self.serve()
    }

    fn serve(&mut self) -> Result<(), DiskError> {
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName("lossy".to_owned()),
            MountOption::NoAtime,
            MountOption::DefaultPermissions,
        ];
        config.acl = SessionACL::All;
        let session = fuser::spawn_mount(Served(self.state.clone()), &self.at, &config);
        let session = session.map_err(|source| DiskError::Mount { at: self.at.clone(), source })?;
        self.session = Some(session);
        Ok(())
    }

    fn unmount(&mut self) -> Result<(), DiskError> {
        let Some(session) = self.session.take() else { return Ok(()) };
        let deadline = Instant::now() + UNMOUNT_TIMEOUT;
        let failed = |source| DiskError::Unmount { at: self.at.clone(), source };
        // A process that was killed lets go of its files a little later.
        while let Err(error) = nix::mount::umount(&self.at) {
            if Instant::now() > deadline {
                return Err(failed(error.into()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        session.join().map_err(failed)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.session.is_some() {
            let _ = nix::mount::umount2(&self.at, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}
