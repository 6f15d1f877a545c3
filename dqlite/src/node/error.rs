//! Why a node can't be had.

use std::path::PathBuf;

use thiserror::Error;

/// What libdqlite says of files that don't hold what it wrote. It has one code for every failure.
const WORDS_OF_DAMAGE: [&str; 15] = [
    "checksum mismatch",
    "entries count",
    "(expected ",
    "file is empty",
    "file has only",
    "short read",
    "LZ4F_",
    "compressed file is too short",
    "snapshot can't be restored",
    "unexpected closed segment",
    "is past last snapshot",
    "behind last snapshot",
    "both at version",
    "version is set to zero",
    "metadata2 has size",
];

/// What it says of a form that it does not know, before the number of that form.
const UNKNOWN_FORM: &str = "format version ";
/// A form of a small number is a later one; what is no form at all has a larger.
const FORM_MAX: u64 = 1000;

/// What went wrong around a node; libdqlite's own words are in `message`.
#[derive(Debug, Error)]
pub enum NodeError {
    /// The node could not be made from its identity and directory.
    #[error("dqlite node can't be made from {}: {message}", data_dir.display())]
    Create {
        /// The data directory.
        data_dir: PathBuf,
        /// The reason.
        message: String,
    },
    /// The data directory can't be used by this process.
    #[error("dqlite data directory {}", data_dir.display())]
    Directory {
        /// The data directory.
        data_dir: PathBuf,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// Another process uses the data directory.
    #[error("dqlite data directory {} is used by another process", data_dir.display())]
    Locked {
        /// The data directory.
        data_dir: PathBuf,
    },
    /// The socket could not be bound.
    #[error("dqlite socket {address}: {message}")]
    Bind {
        /// What was to be bound.
        address: String,
        /// The reason.
        message: String,
    },
    /// A setting was refused.
    #[error("dqlite setting {what}: {message}")]
    Setting {
        /// Which setting.
        what: &'static str,
        /// The reason.
        message: String,
    },
    /// The data could not be loaded, or the threads not started.
    #[error("dqlite node can't start from {}: {message}", data_dir.display())]
    Start {
        /// The data directory.
        data_dir: PathBuf,
        /// The reason.
        message: String,
    },
    /// The node's end was not clean.
    #[error("dqlite node ended with error {code}")]
    Stop {
        /// libdqlite's code.
        code: i32,
    },
    /// The configuration could not be forced.
    #[error("dqlite membership of {} can't be reconfigured: {message}", data_dir.display())]
    Recover {
        /// The data directory.
        data_dir: PathBuf,
        /// The reason.
        message: String,
    },
}

impl NodeError {
    /// Whether the files are damaged, as opposed to a disk that is full or a right that is missing:
    /// trying again will not help. A later form of the files is not damage: another version reads it.
    pub fn is_damage(&self) -> bool {
        match self {
            NodeError::Create { message, .. } | NodeError::Start { message, .. } => {
                let form = message.split_once(UNKNOWN_FORM).map(|(_, rest)| number(rest));
                match form {
                    Some(form) => !form.is_some_and(|form| (1..=FORM_MAX).contains(&form)),
                    None => WORDS_OF_DAMAGE.iter().any(|words| message.contains(words)),
                }
            }
            _ => false,
        }
    }
}

fn number(text: &str) -> Option<u64> {
    let end = text.find(|one: char| !one.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(message: &str) -> NodeError {
        NodeError::Start { data_dir: "/data".into(), message: message.into() }
    }

    #[test]
    fn a_full_disk_a_missing_right_and_a_later_form_are_no_damage() {
        for message in [
            "raft_start(): io: write segment: no space left on device",
            "raft_start(): io: open 1-2: permission denied",
            "raft_init(): io: decode content of metadata1: bad format version 2",
            "raft_start(): io: load closed segment 1-2: unexpected format version 2",
        ] {
            assert!(!start(message).is_damage(), "{message}");
        }
        for message in [
            "raft_init(): io: decode content of metadata1: bad format version 18446744073709551615",
            "raft_start(): io: load closed segment 1-2: unexpected format version 0",
            "raft_start(): io: load closed segment 1-2: entries batch 3: data checksum mismatch",
            "raft_start(): io: LZ4F_decompress ERROR_decompressionFailed",
        ] {
            assert!(start(message).is_damage(), "{message}");
        }
    }
}
