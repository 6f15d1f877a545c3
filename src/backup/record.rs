//! The cluster's record in an archive: read, and changed without a datastore that runs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use microcluster::record::ClusterRecord;
use microcluster::store::{Change, Entry, StoreError, assemble};
use skiff_datastore::backup::extract::Extract;
use skiff_datastore::batch;
use skiff_datastore::record::{LeaseId, Record, Revision};
use skiff_datastore::snapshot::{self, SnapshotError, Summary, Writer};

use crate::node::cluster::store::PREFIX;

/// Why there is no record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("the record of the cluster cannot be read")]
    Snapshot(#[from] SnapshotError),
    #[error("the record of the cluster makes no sense")]
    Record(#[source] StoreError),
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// A database `cluster`, in memory.
#[derive(Debug)]
pub struct Kept {
    pub record: ClusterRecord,
    summary: Summary,
    leases: BTreeMap<LeaseId, i64>,
    keys: BTreeMap<Vec<u8>, Record>,
}

/// Reads a snapshot; nothing when nobody has founded a cluster there.
pub fn read(source: impl Read) -> Result<Option<Kept>, RecordError> {
    let (mut leases, mut keys) = (BTreeMap::new(), BTreeMap::new());
    let summary = snapshot::read(source, |entry| match entry {
        batch::Entry::Grant { lease, ttl_s } => drop(leases.insert(lease, ttl_s)),
        batch::Entry::Changes(records) => {
            keys.extend(records.into_iter().map(|record| (record.key.to_vec(), record)));
        }
        // No snapshot has them: one that did would be refused.
        batch::Entry::Revoke { .. } | batch::Entry::Compact { .. } => {}
    })?;
    let entry = |record: &Record| {
        let key = String::from_utf8_lossy(&record.key).into_owned();
        Some(Entry {
            key: key.strip_prefix(PREFIX)?.to_owned(),
            value: record.value.to_vec(),
            revision: microcluster::record::Revision(record.modified.0.unsigned_abs()),
        })
    };
    let revision = microcluster::record::Revision(summary.revision.0.unsigned_abs());
    match assemble(revision, keys.values().filter_map(entry).collect()) {
        Ok(record) => Ok(Some(Kept { record, summary, leases, keys })),
        Err(StoreError::NoCluster) => Ok(None),
        Err(error) => Err(RecordError::Record(error)),
    }
}

impl Kept {
    /// Makes the changes at one revision, and writes everything to `file` as a snapshot.
    pub fn write(&self, changes: &[Change], file: &Path) -> Result<Extract, RecordError> {
        let revision = self.summary.revision.next();
        let mut keys = self.keys.clone();
        for change in changes {
            let write = change.to_write();
            let key = format!("{PREFIX}{}", write.key).into_bytes();
            match write.value {
                None => drop(keys.remove(&key)),
                Some(value) => {
                    let former = keys.get(&key);
                    let record = Record {
                        key: key.clone().into(),
                        value: value.into(),
                        created: former.map_or(revision, |former| former.created),
                        modified: revision,
                        version: former.map_or(1, |former| former.version + 1),
                        lease: LeaseId::NONE,
                    };
                    keys.insert(key, record);
                }
            }
        }
        let bytes = encode(&self.summary, revision, &self.leases, &keys);
        let failed = |source| RecordError::Write { path: file.to_path_buf(), source };
        File::create_new(file).and_then(|mut file| file.write_all(&bytes)).map_err(failed)?;
        let summary = snapshot::verify(&*bytes)?;
        Ok(Extract { file: file.to_path_buf(), summary })
    }
}

fn encode(
    former: &Summary,
    revision: Revision,
    leases: &BTreeMap<LeaseId, i64>,
    keys: &BTreeMap<Vec<u8>, Record>,
) -> Vec<u8> {
    let head =
        Summary { revision, leases: leases.len() as u64, keys: keys.len() as u64, ..*former };
    let mut writer = Writer::new(&head);
    for (lease, ttl_s) in leases {
        writer.lease(*lease, *ttl_s);
    }
    for record in keys.values() {
        writer.key(record);
    }
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a datastore would give it.
    fn snapshot_of(entries: &[(&str, &str)]) -> Vec<u8> {
        let record = |(key, value): &(&str, &str)| Record {
            key: key.as_bytes().to_vec().into(),
            value: value.as_bytes().to_vec().into(),
            created: Revision(2),
            modified: Revision(3),
            version: 2,
            lease: LeaseId::NONE,
        };
        let keys = entries.iter().map(|entry| (entry.0.as_bytes().to_vec(), record(entry)));
        encode(&Summary::default(), Revision(5), &BTreeMap::new(), &keys.collect())
    }

    const SETTINGS: &str = r#"{"cluster": "c", "pod_cidrs": ["10.1.0.0/16"],
        "service_cidrs": ["10.152.183.0/24"], "dns_domain": "cluster.local",
        "dns_address": "10.152.183.10",
        "authorities": ["0000000000000000000000000000000000000000000000000000000000000000"]}"#;

    #[test]
    fn a_record_is_changed_at_one_revision_and_what_is_unknown_stays() {
        let bytes = snapshot_of(&[
            ("other/key", "kept"),
            ("record/colours/blue", "of a later version"),
            ("record/membership", r#"{"changes": 4}"#),
            ("record/settings", SETTINGS),
        ]);
        let kept = read(&*bytes).unwrap().unwrap();
        assert_eq!(kept.record.membership.value.changes, 4);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("snapshot");
        let extract = kept.write(&[Change::membership(&kept.record)], &file).unwrap();
        assert_eq!((extract.summary.revision, extract.summary.keys), (Revision(6), 4));
        let again = read(File::open(&file).unwrap()).unwrap().unwrap();
        assert_eq!(again.record.membership.value.changes, 5);
        assert_eq!(again.record.membership.revision.0, 6);
        assert_eq!(again.record.settings.revision.0, 3);
        assert_eq!(again.keys[&b"other/key"[..]], kept.keys[&b"other/key"[..]]);
        assert_eq!(again.keys[&b"record/membership"[..]].version, 3);
        assert!(again.keys.contains_key(&b"record/colours/blue"[..]));
    }

    #[test]
    fn a_database_without_a_cluster_has_none_and_a_damaged_record_is_told() {
        assert!(read(&*snapshot_of(&[])).unwrap().is_none());
        let half = snapshot_of(&[("record/settings", SETTINGS)]);
        assert!(matches!(read(&*half), Err(RecordError::Record(_))));
    }
}
