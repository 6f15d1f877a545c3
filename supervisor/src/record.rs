//! What is written down about a running daemon, so that the next supervisor can adopt it.

use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};

use crate::process::Identity;
use crate::spec::DaemonName;

/// `<records>/<name>.json`. A process without a record is not adopted but ended, so that the
/// moment between its start and the record is safe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) name: DaemonName,
    pub(crate) identity: Identity,
    /// Of the specification that it was made from.
    pub(crate) digest: String,
    pub(crate) cgroup: String,
    pub(crate) restarts: u32,
}

impl Record {
    /// Replaces the former record as a whole.
    pub(crate) fn write(&self, directory: &Path) -> io::Result<()> {
        let path = path(directory, &self.name);
        let fresh = path.with_extension("json.new");
        fs::write(&fresh, serde_json::to_vec(self)?)?;
        fs::rename(fresh, path)
    }

    /// Every record that can be read. Others are as good as none: what they were about is found
    /// by its control group and its marker.
    pub(crate) fn read_all(directory: &Path) -> io::Result<Vec<Self>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match fs::read(&path).map(|bytes| serde_json::from_slice(&bytes)) {
                Ok(Ok(record)) => records.push(record),
                Ok(Err(error)) => {
                    tracing::warn!(path = %path.display(), %error, "a record cannot be read");
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a record cannot be opened");
                }
            }
        }
        Ok(records)
    }
}

pub(crate) fn remove(directory: &Path, name: &DaemonName) {
    // One that remains names a process that is not alive.
    let _ = fs::remove_file(path(directory, name));
}

fn path(directory: &Path, name: &DaemonName) -> PathBuf {
    directory.join(format!("{name}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_back_and_broken_ones_passed_over() {
        let directory = tempfile::tempdir().expect("a directory");
        let record = Record {
            name: "a".into(),
            identity: Identity { pid: 1, start_time: 2, boot_id: "3".into() },
            digest: "4".into(),
            cgroup: "/5".into(),
            restarts: 6,
        };
        record.write(directory.path()).expect("written");
        fs::write(directory.path().join("b.json"), "{").expect("written");
        fs::write(directory.path().join("c.json.new"), "").expect("written");
        assert_eq!(Record::read_all(directory.path()).expect("read"), [record]);
        remove(directory.path(), &"a".into());
        assert_eq!(Record::read_all(directory.path()).expect("read"), []);
    }
}
