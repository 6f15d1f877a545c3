//! One version as the index holds it.

use std::cell::RefCell;
use std::sync::Arc;

use bytes::Bytes;
use zstd::bulk::{Compressor, Decompressor};

use crate::record::{Record, Revision};

/// zstd's fastest regular level, as in the rows of the log.
const COMPRESSION_LEVEL: i32 = 1;
/// Values below this are not worth it: the counters beside them are as large.
const VALUE_BYTES_MIN: usize = 256;

thread_local! {
    /// Making one costs more than unpacking a value.
    static UNPACKER: RefCell<Decompressor<'static>> =
        RefCell::new(Decompressor::new().expect("zstd has memory for a context"));
}

/// A version as it was written, or packed.
#[derive(Clone, Debug)]
pub enum Held {
    Whole(Arc<Record>),
    Packed(Arc<Packed>),
}

/// A version whose value is compressed.
#[derive(Debug)]
pub struct Packed {
    /// Without its value.
    record: Record,
    value: Box<[u8]>,
    value_bytes: usize,
}

/// Packs one version after the other.
pub struct Packer(Compressor<'static>);

impl Default for Packer {
    fn default() -> Packer {
        Packer(Compressor::new(COMPRESSION_LEVEL).expect("level 1 is a level of zstd"))
    }
}

impl Packer {
    /// The version packed, if that saves a quarter at least.
    pub fn pack(&mut self, record: &Record) -> Option<Packed> {
        let value_bytes = record.value.len();
        if value_bytes < VALUE_BYTES_MIN {
            return None;
        }
        let value = self.0.compress(&record.value).ok()?;
        (value.len() <= value_bytes - value_bytes / 4).then(|| Packed {
            record: Record { value: Bytes::new(), ..record.clone() },
            value: value.into_boxed_slice(),
            value_bytes,
        })
    }
}

impl Packed {
    fn unpack(&self) -> Record {
        let value = UNPACKER
            .with_borrow_mut(|unpacker| unpacker.decompress(&self.value, self.value_bytes))
            .expect("what was packed in this process is unpacked by the same library");
        Record { value: value.into(), ..self.record.clone() }
    }
}

impl Held {
    /// Which version it is: everything but its value.
    pub fn head(&self) -> &Record {
        match self {
            Held::Whole(record) => record,
            Held::Packed(packed) => &packed.record,
        }
    }

    /// Whether it is this very record, whole.
    pub fn is(&self, record: &Arc<Record>) -> bool {
        matches!(self, Held::Whole(held) if Arc::ptr_eq(held, record))
    }

    pub fn key(&self) -> &Bytes {
        &self.head().key
    }

    pub fn modified(&self) -> Revision {
        self.head().modified
    }

    pub fn is_tombstone(&self) -> bool {
        self.head().is_tombstone()
    }

    /// How long the value is, unpacked.
    pub fn value_bytes(&self) -> usize {
        match self {
            Held::Whole(record) => record.value.len(),
            Held::Packed(packed) => packed.value_bytes,
        }
    }

    /// The version as it was written.
    pub fn whole(&self) -> Arc<Record> {
        match self {
            Held::Whole(record) => record.clone(),
            Held::Packed(packed) => Arc::new(packed.unpack()),
        }
    }

    /// Bytes in memory, by which quotas are counted.
    pub fn size(&self) -> u64 {
        match self {
            Held::Whole(record) => record.size(),
            Held::Packed(packed) => packed.record.size() + packed.value.len() as u64,
        }
    }
}
