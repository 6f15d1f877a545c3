//! Why a daemon was not executed.

use std::io;
use std::path::PathBuf;

/// One variant a step.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    #[error("usage: {0}")]
    Usage(&'static str),
    #[error("the profile cannot be read")]
    Profile(#[source] serde_json::Error),
    #[error("the program must be an absolute path, not {}", .0.display())]
    RelativeProgram(PathBuf),
    #[error("cannot close inherited descriptors")]
    Descriptors(#[source] io::Error),
    #[error("cannot begin a session of its own")]
    Session(#[source] io::Error),
    #[error("cannot join the control group {}", path.display())]
    Cgroup { path: PathBuf, source: io::Error },
    #[error("cannot set the limit {name} to {value}")]
    Limit { name: &'static str, value: u64, source: io::Error },
    #[error("cannot enter the working directory {}", path.display())]
    WorkingDirectory { path: PathBuf, source: io::Error },
    #[error("cannot give up capability {number} for good")]
    Bounding { number: u8, source: io::Error },
    #[error("cannot become user {uid} with group {gid}")]
    User { uid: u32, gid: u32, source: io::Error },
    #[error("cannot reduce the capabilities to {mask:#x}")]
    Capabilities { mask: u64, source: io::Error },
    #[error("cannot forbid new privileges")]
    NoNewPrivileges(#[source] io::Error),
    #[error("{} is not there", .0.display())]
    ProgramMissing(PathBuf),
    #[error("cannot execute {}", path.display())]
    Execute { path: PathBuf, source: io::Error },
}

impl ConfineError {
    /// What shells use for the last two, and EX_SOFTWARE for everything before.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::ProgramMissing(_) => 127,
            Self::Execute { .. } => 126,
            _ => 70,
        }
    }
}
