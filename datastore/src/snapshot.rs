//! A copy of the whole datastore at one revision, as a file that can be
//! verified on its own.
//!
//! ```text
//! "SKIFFSNP" 2                             what this is, and in which form
//! revision cluster taken leases keys       the head, with what there has to be
//! length data                              frames: a batch each (leases, keys)
//! ...
//! 0 digest                                 the end, and the [`Digest`]
//! zeroes                                   up to a multiple of 512 bytes
//! sha256                                   of everything before
//! ```
//!
//! Numbers are little-endian, lengths of 4 bytes and counts of 8. Keys come in
//! order, leases before them; the data of a frame is that of [`crate::batch`],
//! with a checksum of its own. Padding and trailer are where `etcdctl snapshot
//! save` looks for them. Form 1 had its numbers at the end; no release wrote it.
//!
//! Whoever reads one believes nothing before [`read`] has returned `Ok`: then
//! the file is whole, unharmed and says what it was meant to say.

use std::io::{self, Read};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use crate::batch::{DecodeError, Encoder, Entry, decode};
use crate::digest::{Digest, Digester};
use crate::record::{LeaseId, Record, Revision};

const MAGIC: &[u8; 8] = b"SKIFFSNP";
/// The form of the file; a later one is refused.
const FORMAT: u8 = 2;
/// Bytes of entries after which a frame is closed.
const FRAME_BYTES: usize = 256 << 10;
/// A frame is no longer than this, whatever it claims.
const FRAME_BYTES_MAX: u32 = 256 << 20;
/// The file without its trailer is a multiple of this.
const ALIGNMENT: usize = 512;
/// Bytes of the trailer.
pub const TRAILER_BYTES: usize = 32;

/// What a snapshot holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub revision: Revision,
    pub cluster_id: u64,
    /// When it was begun, in milliseconds since 1970 by the source's clock.
    pub taken_ms: u64,
    pub leases: u64,
    pub keys: u64,
    /// Of what the source had in memory, not of how it is written here.
    pub digest: Digest,
}

impl Summary {
    /// When it was begun, by the source's clock.
    pub fn taken(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.taken_ms)
    }
}

/// Milliseconds since 1970, as the head of a snapshot has them.
pub fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Why a file is no good snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("the file is no snapshot of Skiff")]
    NotASnapshot,
    #[error("the snapshot is in form {found}, this version reads up to {FORMAT}")]
    NewerFormat { found: u8 },
    #[error("the snapshot is in form {found}, which no release wrote; take another one")]
    OlderFormat { found: u8 },
    #[error("the snapshot ends too early: it was not written to its end")]
    Cut,
    #[error("the snapshot is damaged: its checksum is another")]
    Checksum,
    #[error("the snapshot is damaged: {0}")]
    Damaged(&'static str),
    #[error("the snapshot is damaged: frame {frame}")]
    Frame {
        frame: u64,
        #[source]
        source: DecodeError,
    },
    #[error("can't read the snapshot")]
    Read(#[source] io::Error),
}

/// Writes a snapshot, piece by piece.
pub struct Writer {
    hash: Sha256,
    written: usize,
    frame: Encoder,
    ready: Vec<u8>,
    digester: Digester,
    /// Leases and keys still to come.
    left: (u64, u64),
}

impl Writer {
    /// Begins a snapshot of what `head` says; its digest is made here.
    pub fn new(head: &Summary) -> Writer {
        let mut writer = Writer {
            hash: Sha256::new(),
            written: 0,
            frame: Encoder::default(),
            ready: Vec::new(),
            digester: Digester::default(),
            left: (head.leases, head.keys),
        };
        writer.put(MAGIC);
        writer.put(&[FORMAT]);
        let Summary { revision, cluster_id, taken_ms, leases, keys, .. } = *head;
        for number in [revision.0 as u64, cluster_id, taken_ms, leases, keys] {
            writer.put(&number.to_le_bytes());
        }
        writer
    }

    /// Adds a lease; all of them come before the first key.
    pub fn lease(&mut self, lease: LeaseId, ttl_s: i64) {
        self.frame.grant(lease, ttl_s);
        self.digester.lease(lease, ttl_s);
        self.left.0 -= 1;
        self.close_frame(FRAME_BYTES);
    }

    /// Adds the living version of a key; keys come in order.
    pub fn key(&mut self, record: &Record) {
        self.frame.version(record);
        self.digester.key(record);
        self.left.1 -= 1;
        self.close_frame(FRAME_BYTES);
    }

    /// What is ready to be sent.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.ready)
    }

    /// The rest: the end and the trailer.
    pub fn finish(mut self) -> Vec<u8> {
        assert_eq!(self.left, (0, 0), "the head says what there has to be");
        self.close_frame(1);
        self.put(&0_u32.to_le_bytes());
        let digest = std::mem::take(&mut self.digester).finish();
        self.put(&digest.leases);
        self.put(&digest.keys);
        let padding = self.written.next_multiple_of(ALIGNMENT) - self.written;
        self.put(&vec![0; padding]);
        let trailer = self.hash.finalize();
        self.ready.extend_from_slice(&trailer);
        self.ready
    }

    /// Closes the frame when it has so many bytes.
    fn close_frame(&mut self, bytes_min: usize) {
        if self.frame.len() < bytes_min {
            return;
        }
        let data = std::mem::take(&mut self.frame).finish();
        self.put(&(data.len() as u32).to_le_bytes());
        self.put(&data);
    }

    fn put(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.written += bytes.len();
        self.ready.extend_from_slice(bytes);
    }
}

/// Reads a snapshot to its end and hands over each lease and key. What was
/// handed over may only be used when this returns `Ok`.
pub fn read(source: impl Read, mut each: impl FnMut(Entry)) -> Result<Summary, SnapshotError> {
    let mut source = Source { source, hash: Sha256::new(), read: 0 };
    if source.take::<8>()? != *MAGIC {
        return Err(SnapshotError::NotASnapshot);
    }
    let [format] = source.take()?;
    if format > FORMAT {
        return Err(SnapshotError::NewerFormat { found: format });
    }
    if format < FORMAT {
        return Err(SnapshotError::OlderFormat { found: format });
    }
    let head = source.head()?;
    let mut found = Found::default();
    for frame in 1.. {
        let length = u32::from_le_bytes(source.take()?);
        if length == 0 {
            break;
        }
        let data = source.take_long(length)?;
        let entries = decode(&data, Revision(0))
            .map_err(|error| SnapshotError::Frame { frame, source: error })?;
        for entry in entries {
            found.note(&entry)?;
            each(entry);
        }
    }
    source.end(head, found)
}

/// Verifies a snapshot.
pub fn verify(source: impl Read) -> Result<Summary, SnapshotError> {
    read(source, |_| {})
}

/// What the frames were seen to hold.
#[derive(Default)]
struct Found {
    leases: u64,
    keys: u64,
    newest: Revision,
    last_key: Option<bytes::Bytes>,
    digester: Digester,
}

impl Found {
    fn note(&mut self, entry: &Entry) -> Result<(), SnapshotError> {
        match entry {
            Entry::Grant { lease, ttl_s } if self.last_key.is_none() => {
                self.digester.lease(*lease, *ttl_s);
                self.leases += 1;
            }
            Entry::Changes(records) => {
                for record in records {
                    if self.last_key.as_ref().is_some_and(|last| *last >= record.key) {
                        return Err(SnapshotError::Damaged("its keys are not in order"));
                    }
                    if record.is_tombstone() {
                        return Err(SnapshotError::Damaged("it holds a deleted key"));
                    }
                    self.last_key = Some(record.key.clone());
                    self.digester.key(record);
                    self.keys += 1;
                    self.newest = self.newest.max(record.modified);
                }
            }
            _ => return Err(SnapshotError::Damaged("it holds what it should not")),
        }
        Ok(())
    }
}

struct Source<R> {
    source: R,
    hash: Sha256,
    read: usize,
}

impl<R: Read> Source<R> {
    fn take<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], SnapshotError> {
        let mut bytes = [0; LENGTH];
        self.source.read_exact(&mut bytes).map_err(cut_or_failed)?;
        self.hash.update(bytes);
        self.read += LENGTH;
        Ok(bytes)
    }

    /// Reads as much as there is before it believes the length.
    fn take_long(&mut self, length: u32) -> Result<Vec<u8>, SnapshotError> {
        if length > FRAME_BYTES_MAX {
            return Err(SnapshotError::Damaged("a frame without measure"));
        }
        let mut bytes = Vec::new();
        let mut limited = self.source.by_ref().take(u64::from(length));
        limited.read_to_end(&mut bytes).map_err(SnapshotError::Read)?;
        if bytes.len() < length as usize {
            return Err(SnapshotError::Cut);
        }
        self.hash.update(&bytes);
        self.read += bytes.len();
        Ok(bytes)
    }

    fn number(&mut self) -> Result<u64, SnapshotError> {
        Ok(u64::from_le_bytes(self.take()?))
    }

    fn head(&mut self) -> Result<Summary, SnapshotError> {
        Ok(Summary {
            revision: Revision(self.number()? as i64),
            cluster_id: self.number()?,
            taken_ms: self.number()?,
            leases: self.number()?,
            keys: self.number()?,
            digest: Digest::default(),
        })
    }

    /// Reads the end, compares it with what was found, and the checksum.
    fn end(mut self, head: Summary, found: Found) -> Result<Summary, SnapshotError> {
        let digest = Digest { leases: self.take()?, keys: self.take()? };
        let padding = self.read.next_multiple_of(ALIGNMENT) - self.read;
        if self.take_long(padding as u32)?.iter().any(|byte| *byte != 0) {
            return Err(SnapshotError::Damaged("something stands where nothing should"));
        }
        let expected = self.hash.finalize();
        let mut trailer = [0; TRAILER_BYTES];
        self.source.read_exact(&mut trailer).map_err(cut_or_failed)?;
        if trailer[..] != expected[..] {
            return Err(SnapshotError::Checksum);
        }
        let rest = self.source.read(&mut [0]).map_err(SnapshotError::Read)?;
        if rest > 0 {
            return Err(SnapshotError::Damaged("something follows its end"));
        }
        if (found.leases, found.keys) != (head.leases, head.keys)
            || found.newest > head.revision
            || found.digester.finish() != digest
        {
            return Err(SnapshotError::Damaged("it does not hold what it says it holds"));
        }
        Ok(Summary { digest, ..head })
    }
}

fn cut_or_failed(error: io::Error) -> SnapshotError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => SnapshotError::Cut,
        _ => SnapshotError::Read(error),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn record(number: i64) -> Record {
        Record {
            key: format!("key{number:04}").into(),
            value: Bytes::from(vec![number as u8; 400]),
            created: Revision(number),
            modified: Revision(number + 5),
            version: 2,
            lease: LeaseId(number % 2),
        }
    }

    fn head(keys: i64) -> Summary {
        Summary {
            revision: Revision(keys + 7),
            cluster_id: 9,
            taken_ms: 1_000,
            leases: 1,
            keys: keys as u64,
            digest: Digest::default(),
        }
    }

    fn snapshot(keys: i64) -> Vec<u8> {
        let mut writer = Writer::new(&head(keys));
        writer.lease(LeaseId(1), 60);
        let mut bytes = writer.take();
        for number in 0..keys {
            writer.key(&record(number));
            bytes.extend(writer.take());
        }
        bytes.extend(writer.finish());
        bytes
    }

    #[test]
    fn what_was_written_is_read_back() {
        let bytes = snapshot(2000);
        let mut entries = Vec::new();
        let summary = read(&bytes[..], |entry| entries.push(entry)).unwrap();
        assert_eq!(summary, Summary { digest: summary.digest, ..head(2000) });
        assert_ne!(summary.digest, Digest::default());
        assert_eq!(entries[0], Entry::Grant { lease: LeaseId(1), ttl_s: 60 });
        for (number, entry) in entries[1..].iter().enumerate() {
            assert_eq!(*entry, Entry::Changes(vec![record(number as i64)]));
        }
        assert_eq!(bytes.len() % ALIGNMENT, TRAILER_BYTES, "where etcdctl looks for a checksum");
        assert_eq!(verify(&snapshot(0)[..]).unwrap().keys, 0);
    }

    #[test]
    fn a_snapshot_that_was_harmed_or_cut_is_refused() {
        let good = snapshot(20);
        for position in 0..good.len() {
            let mut bad = good.clone();
            bad[position] ^= 0x41;
            verify(&bad[..]).expect_err(&format!("byte {position}"));
            verify(&good[..position]).expect_err(&format!("cut at {position}"));
        }
        let mut longer = good.clone();
        longer.push(0);
        assert!(verify(&longer[..]).is_err());
        assert!(matches!(verify(&good[..good.len() - 1]), Err(SnapshotError::Cut)));
        assert!(matches!(verify(&b"something else"[..]), Err(SnapshotError::NotASnapshot)));
        let mut other = good;
        other[8] = 3;
        assert!(matches!(verify(&other[..]), Err(SnapshotError::NewerFormat { found: 3 })));
        other[8] = 1;
        assert!(matches!(verify(&other[..]), Err(SnapshotError::OlderFormat { found: 1 })));
    }
}
