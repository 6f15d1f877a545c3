//! What one commit writes: entries, and their form on disk.
//!
//! A batch is one row of the log. Its form is a version byte and a zstd frame
//! with a checksum, holding entries one after the other:
//!
//! ```text
//! changes  1, count, then per key: 1 key value created version lease | 0 key
//! grant    2, lease, ttl in seconds
//! revoke   3, lease
//! compact  4, revision
//! at       5, revision        (chunks only: the next changes happened there)
//! epoch    6, epoch           (rows only: who wrote it)
//! ```
//!
//! Numbers are LEB128, byte strings carry their length. The revision of
//! changes is not written: revisions are dense, so the row's first says all.
//! The epoch makes rows of different writers differ, whatever they say.

use std::borrow::Borrow;
use std::cell::RefCell;

use bytes::Bytes;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{self, CParameter};

use crate::record::{LeaseId, Record, Revision};
use crate::store::StoreError;

/// The version of the form; a store written in a later one is refused.
const FORMAT: u8 = 2;
/// zstd's fastest regular level: Kubernetes' objects shrink three- to fivefold.
const COMPRESSION_LEVEL: i32 = 1;
/// A row decompresses to no more than this, whatever it claims.
const PAYLOAD_BYTES_MAX: usize = 256 << 20;

const CHANGES: u64 = 1;
const GRANT: u64 = 2;
const REVOKE: u64 = 3;
const COMPACT: u64 = 4;
const AT: u64 = 5;
const EPOCH: u64 = 6;

/// One thing that a batch says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The changes of one revision, in order.
    Changes(Vec<Record>),
    /// A lease began.
    Grant { lease: LeaseId, ttl_s: i64 },
    /// A lease ended; the deletion of its keys is a change before this.
    Revoke { lease: LeaseId },
    /// Older revisions may be forgotten.
    Compact { revision: Revision },
}

/// Why stored bytes could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("is in form {found}, this version reads up to {FORMAT}")]
    NewerFormat { found: u8 },
    #[error("is empty")]
    Empty,
    #[error("is damaged: {0}")]
    Damaged(&'static str),
    #[error("is damaged")]
    Checksum(#[source] std::io::Error),
}

impl DecodeError {
    /// What it means of a store that `what` is a part of.
    pub fn of(self, what: impl std::fmt::Display) -> StoreError {
        let text = format!("{what} {self}");
        match self {
            DecodeError::NewerFormat { .. } => StoreError::Newer(text),
            _ => StoreError::Damaged(text),
        }
    }
}

/// Builds the payload of a row, entry by entry.
#[derive(Default)]
pub struct Encoder {
    payload: Vec<u8>,
}

impl Encoder {
    /// Adds the changes of the next revision.
    pub fn changes<R: Borrow<Record>>(&mut self, records: &[R]) {
        self.number(CHANGES);
        self.number(records.len() as u64);
        for record in records {
            self.record(record.borrow());
        }
    }

    /// Adds one version that was made in `record.modified`, for chunks.
    pub fn version(&mut self, record: &Record) {
        self.number(AT);
        self.number(record.modified.0 as u64);
        self.changes(&[record]);
    }

    /// Adds the beginning of a lease.
    pub fn grant(&mut self, lease: LeaseId, ttl_s: i64) {
        self.number(GRANT);
        self.number(lease.0 as u64);
        self.number(ttl_s as u64);
    }

    /// Adds the end of a lease.
    pub fn revoke(&mut self, lease: LeaseId) {
        self.number(REVOKE);
        self.number(lease.0 as u64);
    }

    /// Adds a compaction.
    pub fn compact(&mut self, revision: Revision) {
        self.number(COMPACT);
        self.number(revision.0 as u64);
    }

    /// Says who writes; first in each row.
    pub fn epoch(&mut self, epoch: u64) {
        self.number(EPOCH);
        self.number(epoch);
    }

    /// Adds the entries of another row as they are.
    pub fn append(&mut self, payload: &[u8]) {
        self.payload.extend_from_slice(payload);
    }

    /// Bytes so far, not compressed.
    pub fn len(&self) -> usize {
        self.payload.len()
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.payload.is_empty()
    }

    /// The row's data.
    pub fn finish(self) -> Vec<u8> {
        compress(&self.payload)
    }

    fn record(&mut self, record: &Record) {
        if record.is_tombstone() {
            self.number(0);
            self.bytes(&record.key);
            return;
        }
        self.number(1);
        self.bytes(&record.key);
        self.bytes(&record.value);
        self.number(record.created.0 as u64);
        self.number(record.version as u64);
        self.number(record.lease.0 as u64);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.payload.extend_from_slice(bytes);
    }

    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.payload.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.payload.push(number as u8);
    }
}

thread_local! {
    /// Making one takes longer than compressing a small row.
    static COMPRESSOR: RefCell<Compressor<'static>> = RefCell::new(new_compressor());
    static DECOMPRESSOR: RefCell<Decompressor<'static>> =
        RefCell::new(Decompressor::new().expect("zstd has memory for a context"));
}

fn new_compressor() -> Compressor<'static> {
    let mut compressor = Compressor::new(COMPRESSION_LEVEL).expect("level 1 is a level of zstd");
    compressor.set_parameter(CParameter::ChecksumFlag(true)).expect("zstd knows checksums");
    compressor
}

fn compress(payload: &[u8]) -> Vec<u8> {
    let mut data = vec![0; 1 + zstd_safe::compress_bound(payload.len())];
    data[0] = FORMAT;
    let written = COMPRESSOR
        .with_borrow_mut(|compressor| compressor.compress_to_buffer(payload, &mut data[1..]))
        .expect("the buffer has the bound that zstd asks for");
    data.truncate(1 + written);
    data.shrink_to_fit();
    data
}

/// The payload of a row, checked.
pub fn decompress(data: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let (&format, frame) = data.split_first().ok_or(DecodeError::Empty)?;
    if format > FORMAT {
        return Err(DecodeError::NewerFormat { found: format });
    }
    let size = zstd_safe::get_frame_content_size(frame)
        .ok()
        .flatten()
        .and_then(|size| usize::try_from(size).ok())
        .filter(|size| *size <= PAYLOAD_BYTES_MAX)
        .ok_or(DecodeError::Damaged("no size in the frame"))?;
    DECOMPRESSOR
        .with_borrow_mut(|decompressor| decompressor.decompress(frame, size))
        .map_err(DecodeError::Checksum)
}

/// Reads the entries of a row whose first changes happened at `first`.
pub fn decode(data: &[u8], first: Revision) -> Result<Vec<Entry>, DecodeError> {
    let payload = decompress(data)?;
    let mut reader = Reader { rest: &payload };
    let mut entries = Vec::new();
    let mut revision = first;
    while !reader.rest.is_empty() {
        match reader.number()? {
            CHANGES => {
                entries.push(Entry::Changes(reader.changes(revision)?));
                revision = revision.next();
            }
            GRANT => {
                let lease = LeaseId(reader.number()? as i64);
                entries.push(Entry::Grant { lease, ttl_s: reader.number()? as i64 });
            }
            REVOKE => entries.push(Entry::Revoke { lease: LeaseId(reader.number()? as i64) }),
            COMPACT => entries.push(Entry::Compact { revision: Revision(reader.number()? as i64) }),
            AT => revision = Revision(reader.number()? as i64),
            EPOCH => drop(reader.number()?),
            _ => return Err(DecodeError::Damaged("an entry of unknown kind")),
        }
    }
    Ok(entries)
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn changes(&mut self, modified: Revision) -> Result<Vec<Record>, DecodeError> {
        let count = self.number()?;
        (0..count).map(|_| self.record(modified)).collect()
    }

    fn record(&mut self, modified: Revision) -> Result<Record, DecodeError> {
        let is_put = self.number()? == 1;
        let key = self.bytes()?;
        if !is_put {
            return Ok(Record::tombstone(key, modified));
        }
        Ok(Record {
            key,
            value: self.bytes()?,
            created: Revision(self.number()? as i64),
            modified,
            version: self.number()? as i64,
            lease: LeaseId(self.number()? as i64),
        })
    }

    fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        let length = self.number()? as usize;
        if length > self.rest.len() {
            return Err(DecodeError::Damaged("a length beyond the end"));
        }
        let (bytes, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(Bytes::copy_from_slice(bytes))
    }

    fn number(&mut self) -> Result<u64, DecodeError> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) =
                self.rest.split_first().ok_or(DecodeError::Damaged("ends within a number"))?;
            self.rest = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(DecodeError::Damaged("a number without end"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &'static str, modified: i64) -> Record {
        Record {
            key: key.into(),
            value: Bytes::from(vec![7; 300]),
            created: Revision(2),
            modified: Revision(modified),
            version: 3,
            lease: LeaseId(-5),
        }
    }

    #[test]
    fn entries_come_back_as_they_were() {
        let mut encoder = Encoder::default();
        let gone = Record::tombstone("gone".into(), Revision(10));
        encoder.changes(&[record("a", 10), gone.clone()]);
        encoder.grant(LeaseId(i64::MIN), 60);
        encoder.changes(&[record("b", 11)]);
        encoder.revoke(LeaseId(9));
        encoder.compact(Revision(4));
        let entries = decode(&encoder.finish(), Revision(10)).expect("it was just written");
        assert_eq!(
            entries,
            [
                Entry::Changes(vec![record("a", 10), gone]),
                Entry::Grant { lease: LeaseId(i64::MIN), ttl_s: 60 },
                Entry::Changes(vec![record("b", 11)]),
                Entry::Revoke { lease: LeaseId(9) },
                Entry::Compact { revision: Revision(4) },
            ]
        );
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let mut encoder = Encoder::default();
        encoder.changes(&[record("a", 2)]);
        let good = encoder.finish();
        for position in 0..good.len() {
            let mut bad = good.clone();
            bad[position] ^= 0x41;
            assert!(decode(&bad, Revision(2)).is_err(), "byte {position}");
            assert!(decode(&good[..position], Revision(2)).is_err(), "cut at {position}");
        }
    }
}
