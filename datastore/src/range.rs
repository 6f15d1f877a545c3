//! Answers a range request from the index, in steps that are each short. Pure.
//!
//! A list of everything may be long; whoever steps a [`Search`] lets others
//! have their turn in between. A step looks at the index anew, which may have
//! gone on: versions at the revision of the search stay as they are until
//! they are compacted.

use std::cmp::Ordering;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::RequestError;
use crate::identity::Identity;
use crate::index::Index;
use crate::key_range::{End, KeyRange};
use crate::proto::range_request::{SortOrder, SortTarget};
use crate::proto::{KeyValue, RangeRequest, RangeResponse};
use crate::record::{LeaseId, Record, Revision};

/// Keys that one step looks at: some hundred microseconds.
pub const STEP_KEYS_MAX: usize = 1024;

/// What a search came to.
#[derive(Clone, Debug)]
pub struct Found {
    pub records: Vec<Arc<Record>>,
    /// Whether the limit cut something off.
    pub more: bool,
    /// How many keys the range has, whatever limit and filters say.
    pub count: i64,
    /// The newest revision when the search began.
    pub newest: Revision,
    pub fields: Fields,
}

/// Which fields of a record an answer carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fields {
    All,
    /// All but the value.
    WithoutValue,
    /// Neither value nor lease: etcd reads both at the same place, and so
    /// leaves out both when only keys are wanted.
    WithoutValueAndLease,
}

/// A range request that is being answered.
#[derive(Debug)]
pub struct Search {
    request: RangeRequest,
    /// What is still to be walked; nothing at the end.
    rest: Option<KeyRange>,
    at: Revision,
    newest: Revision,
    count: i64,
    /// Records after which the walk may end.
    wanted: usize,
    records: Vec<Arc<Record>>,
}

impl Search {
    /// Begins to answer `request` for someone who sees up to `newest`.
    pub fn new(
        index: &Index,
        request: &RangeRequest,
        newest: Revision,
    ) -> Result<Search, RequestError> {
        let at = if request.revision <= 0 { newest } else { Revision(request.revision) };
        index.check_readable(at, newest)?;
        let range = KeyRange::from_wire(request.key.clone(), request.range_end.clone());
        let count = index.count(&range, at) as i64;
        let limit = usize::try_from(request.limit).unwrap_or(0);
        // One more than the limit tells whether there is more. What is to be
        // sorted or filtered is looked at as a whole.
        let wanted = if limit == 0 || is_sorted(request) || is_filtered(request) {
            usize::MAX
        } else {
            limit.saturating_add(1)
        };
        let rest = (!request.count_only).then_some(range);
        let request = request.clone();
        Ok(Search { request, rest, at, newest, count, wanted, records: Vec::new() })
    }

    /// Looks at some more keys; whether there are more to look at.
    pub fn step(&mut self, index: &Index) -> Result<bool, RequestError> {
        let Some(range) = self.rest.take() else { return Ok(false) };
        index.check_readable(self.at, self.newest)?;
        let (request, records, wanted) = (&self.request, &mut self.records, self.wanted);
        let next = index.walk(&range, self.at, STEP_KEYS_MAX, |record| {
            if passes_filter(&record, request) {
                records.push(record);
            }
            records.len() < wanted
        });
        self.rest = next
            .filter(|_| range.end != End::Single)
            .map(|start| KeyRange { start, end: range.end });
        Ok(self.rest.is_some())
    }

    /// How many records have to be sorted when the search is over.
    pub fn to_sort(&self) -> usize {
        if order_of(&self.request).is_some() { self.records.len() } else { 0 }
    }

    /// Sorts and cuts what was found.
    pub fn finish(self) -> Found {
        let Search { request, mut records, count, newest, .. } = self;
        if let Some((order, target)) = order_of(&request) {
            // Records that are equal stay in the order of their keys.
            records.sort_by(|left, right| {
                let ordering = compare_by(target, left, right);
                if order == SortOrder::Descend { ordering.reverse() } else { ordering }
            });
        }
        let limit = usize::try_from(request.limit).unwrap_or(0);
        let more = limit > 0 && records.len() > limit;
        if more {
            records.truncate(limit);
        }
        let fields = match (request.keys_only, request.sort_target()) {
            (false, _) => Fields::All,
            (true, SortTarget::Value) => Fields::WithoutValue,
            (true, _) => Fields::WithoutValueAndLease,
        };
        Found { records, more, count, newest, fields }
    }
}

/// Answers `request` in one go, as someone sees it who sees up to `newest`.
pub fn answer_range(
    index: &Index,
    request: &RangeRequest,
    newest: Revision,
) -> Result<Found, RequestError> {
    let mut search = Search::new(index, request, newest)?;
    while search.step(index)? {}
    Ok(search.finish())
}

impl Found {
    /// The answer as the protocol's type.
    pub fn into_response(self, identity: &Identity) -> RangeResponse {
        let kvs = self.records.iter().map(|record| self.fields.of(record)).collect();
        let header = identity.header(self.newest);
        RangeResponse { header, kvs, more: self.more, count: self.count }
    }
}

impl Fields {
    /// A record as an answer carries it; the bytes are shared, not copied.
    pub fn of(self, record: &Record) -> KeyValue {
        let mut kv = to_wire(record);
        if self != Fields::All {
            kv.value = Bytes::new();
        }
        if self == Fields::WithoutValueAndLease {
            kv.lease = LeaseId::NONE.0;
        }
        kv
    }
}

/// Whether the answer is sorted otherwise than the index, in etcd's eyes: a
/// target without an order is sorted after the limit has cut.
pub fn is_sorted(request: &RangeRequest) -> bool {
    match (request.sort_order(), request.sort_target()) {
        (SortOrder::None, _) | (SortOrder::Ascend, SortTarget::Key) => false,
        (SortOrder::Ascend | SortOrder::Descend, _) => true,
    }
}

/// How the answer is to be sorted; nothing when the order of the index will do.
fn order_of(request: &RangeRequest) -> Option<(SortOrder, SortTarget)> {
    match (request.sort_order(), request.sort_target()) {
        (SortOrder::None | SortOrder::Ascend, SortTarget::Key) => None,
        (SortOrder::None, target) => Some((SortOrder::Ascend, target)),
        sorted => Some(sorted),
    }
}

fn compare_by(target: SortTarget, left: &Record, right: &Record) -> Ordering {
    match target {
        SortTarget::Key => left.key.cmp(&right.key),
        SortTarget::Version => left.version.cmp(&right.version),
        SortTarget::Create => left.created.cmp(&right.created),
        SortTarget::Mod => left.modified.cmp(&right.modified),
        SortTarget::Value => left.value.cmp(&right.value),
    }
}

/// Whether the answer leaves out keys by their revisions.
pub fn is_filtered(request: &RangeRequest) -> bool {
    request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

fn passes_filter(record: &Record, request: &RangeRequest) -> bool {
    let within =
        |value: i64, min: i64, max: i64| (min == 0 || value >= min) && (max == 0 || value <= max);
    within(record.modified.0, request.min_mod_revision, request.max_mod_revision)
        && within(record.created.0, request.min_create_revision, request.max_create_revision)
}

/// A record as the protocol carries it; the bytes are shared, not copied.
pub fn to_wire(record: &Record) -> KeyValue {
    KeyValue {
        key: record.key.clone(),
        create_revision: record.created.0,
        mod_revision: record.modified.0,
        version: record.version,
        value: record.value.clone(),
        lease: record.lease.0,
    }
}
