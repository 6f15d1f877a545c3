//! One version as the index holds it: as it was written, or in a bale.
//!
//! Versions that were replaced one after the other are compressed together. What they have in
//! common is held once, and they are forgotten together: a compaction that passes the revision
//! which replaced one of them passes that of its neighbours too.

use std::cell::RefCell;
use std::sync::Arc;

use bytes::Bytes;
use zstd::bulk::{Compressor, Decompressor};

use crate::record::{RECORD_OVERHEAD_BYTES, Record, Revision};

/// zstd's fastest regular level, as in the rows of the log.
const COMPRESSION_LEVEL: i32 = 1;
/// Values below this are not worth it: the counters beside them are as large.
const VALUE_BYTES_MIN: usize = 64;
/// Values that are compressed together: to read one of them unpacks them all, in 16 µs.
const BALE_BYTES: usize = 16 << 10;

thread_local! {
    static UNPACKER: RefCell<Unpacker> = RefCell::default();
}

/// A version as it was written, or its place in a bale.
#[derive(Clone, Debug)]
pub enum Held {
    Whole(Arc<Record>),
    Packed(Arc<Bale>, u32),
}

/// Versions whose values are compressed together.
#[derive(Debug)]
pub struct Bale {
    heads: Box<[Head]>,
    values: Box<[u8]>,
    /// Of the values, unpacked.
    bytes: usize,
}

/// A version without its value.
#[derive(Debug)]
struct Head {
    record: Record,
    /// Where its value begins in those of the bale.
    start: u32,
    value_bytes: u32,
}

/// Packs versions.
pub struct Packer(Compressor<'static>);

impl Default for Packer {
    fn default() -> Packer {
        Packer(Compressor::new(COMPRESSION_LEVEL).expect("level 1 is a level of zstd"))
    }
}

impl Packer {
    /// The versions packed, but for those that would gain little.
    pub fn pack(&mut self, records: Vec<Arc<Record>>) -> Vec<(Arc<Record>, Held)> {
        let mut packed = Vec::with_capacity(records.len());
        let mut together: Vec<Arc<Record>> = Vec::new();
        let mut bytes = 0;
        for record in records.into_iter().filter(|record| record.value.len() >= VALUE_BYTES_MIN) {
            bytes += record.value.len();
            together.push(record);
            if bytes >= BALE_BYTES {
                packed.extend(self.bale(std::mem::take(&mut together)));
                bytes = 0;
            }
        }
        packed.extend(self.bale(together));
        packed
    }

    /// One bale, if it saves a quarter at least.
    fn bale(&mut self, records: Vec<Arc<Record>>) -> Vec<(Arc<Record>, Held)> {
        let mut values = Vec::with_capacity(records.iter().map(|record| record.value.len()).sum());
        let mut heads = Vec::with_capacity(records.len());
        for record in &records {
            let (Ok(start), Ok(value_bytes)) =
                (u32::try_from(values.len()), u32::try_from(record.value.len()))
            else {
                return Vec::new();
            };
            values.extend_from_slice(&record.value);
            let record = Record { value: Bytes::new(), ..Record::clone(record) };
            heads.push(Head { record, start, value_bytes });
        }
        let bytes = values.len();
        let Ok(values) = self.0.compress(&values) else { return Vec::new() };
        if values.len() > bytes - bytes / 4 {
            return Vec::new();
        }
        let (heads, values) = (heads.into_boxed_slice(), values.into_boxed_slice());
        let bale = Arc::new(Bale { heads, values, bytes });
        (0..)
            .zip(records)
            .map(|(place, record)| (record, Held::Packed(bale.clone(), place)))
            .collect()
    }
}

/// Keeps what it unpacked last: those who read the past in order read a bale's versions one after
/// the other.
struct Unpacker {
    context: Decompressor<'static>,
    last: Option<(Arc<Bale>, Vec<u8>)>,
}

impl Default for Unpacker {
    fn default() -> Unpacker {
        let context = Decompressor::new().expect("zstd has memory for a context");
        Unpacker { context, last: None }
    }
}

impl Unpacker {
    fn value(&mut self, bale: &Arc<Bale>, head: &Head) -> Bytes {
        let start = head.start as usize;
        let place = start..start + head.value_bytes as usize;
        if let Some((_, values)) = self.last.as_ref().filter(|(last, _)| Arc::ptr_eq(last, bale)) {
            return Bytes::copy_from_slice(&values[place]);
        }
        let values = self
            .context
            .decompress(&bale.values, bale.bytes)
            .expect("what was packed in this process is unpacked by the same library");
        let value = Bytes::copy_from_slice(&values[place]);
        // A large one is not worth its memory.
        self.last = (bale.bytes <= 2 * BALE_BYTES).then(|| (bale.clone(), values));
        value
    }
}

impl Bale {
    fn head(&self, place: u32) -> &Head {
        &self.heads[place as usize]
    }

    /// What one version takes: the sum over all of them is what the bale takes.
    fn share(&self, place: u32) -> u64 {
        let upto = |place: usize| self.values.len() * place / self.heads.len();
        (upto(place as usize + 1) - upto(place as usize)) as u64
    }
}

impl Held {
    /// Which version it is: everything but its value.
    pub fn head(&self) -> &Record {
        match self {
            Held::Whole(record) => record,
            Held::Packed(bale, place) => &bale.head(*place).record,
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
            Held::Packed(bale, place) => bale.head(*place).value_bytes as usize,
        }
    }

    /// The version as it was written.
    pub fn whole(&self) -> Arc<Record> {
        match self {
            Held::Whole(record) => record.clone(),
            Held::Packed(bale, place) => {
                let head = bale.head(*place);
                let value = UNPACKER.with_borrow_mut(|unpacker| unpacker.value(bale, head));
                Arc::new(Record { value, ..head.record.clone() })
            }
        }
    }

    /// Bytes in memory, by which quotas are counted.
    pub fn size(&self) -> u64 {
        match self {
            Held::Whole(record) => record.size(),
            Held::Packed(bale, place) => {
                let key = bale.head(*place).record.key.len() as u64;
                key + bale.share(*place) + RECORD_OVERHEAD_BYTES
            }
        }
    }
}
