//! A digest of what a datastore holds at one revision, whatever its form: two
//! of them are equal when every key, value, number and lease is.

use sha2::{Digest as _, Sha256};

use crate::record::{LeaseId, Record};

/// SHA-256 of the leases by number, and of the living keys in order.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Digest {
    pub leases: [u8; 32],
    pub keys: [u8; 32],
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", hex(&self.leases), hex(&self.keys))
    }
}

/// Takes in leases and keys, each kind in its order.
#[derive(Clone, Default)]
pub struct Digester {
    leases: Sha256,
    keys: Sha256,
}

impl Digester {
    /// Adds a lease with its time to live.
    pub fn lease(&mut self, lease: LeaseId, ttl_s: i64) {
        self.leases.update(lease.0.to_le_bytes());
        self.leases.update(ttl_s.to_le_bytes());
    }

    /// Adds the living version of a key.
    pub fn key(&mut self, record: &Record) {
        let numbers = [record.created.0, record.modified.0, record.version, record.lease.0];
        for number in numbers {
            self.keys.update(number.to_le_bytes());
        }
        for bytes in [&record.key, &record.value] {
            self.keys.update((bytes.len() as u64).to_le_bytes());
            self.keys.update(bytes);
        }
    }

    /// The digest of what was added.
    pub fn finish(self) -> Digest {
        Digest { leases: self.leases.finalize().into(), keys: self.keys.finalize().into() }
    }
}

/// Bytes as people compare them.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Revision;

    fn of(record: &Record) -> Digest {
        let mut digester = Digester::default();
        digester.key(record);
        digester.finish()
    }

    #[test]
    fn every_field_of_a_key_counts() {
        let record = Record {
            key: "key".into(),
            value: "value".into(),
            created: Revision(2),
            modified: Revision(5),
            version: 3,
            lease: LeaseId(7),
        };
        let others = [
            Record { key: "keyv".into(), value: "alue".into(), ..record.clone() },
            Record { value: "valuf".into(), ..record.clone() },
            Record { created: Revision(3), ..record.clone() },
            Record { modified: Revision(6), ..record.clone() },
            Record { version: 4, ..record.clone() },
            Record { lease: LeaseId(8), ..record.clone() },
        ];
        assert_eq!(of(&record), of(&record.clone()));
        for other in others {
            assert_ne!(of(&record), of(&other), "{other:?}");
        }
    }
}
