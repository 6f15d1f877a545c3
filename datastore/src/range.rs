//! Answers a range request from the index. Pure.

use std::cmp::Ordering;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::RequestError;
use crate::identity::Identity;
use crate::index::Index;
use crate::key_range::KeyRange;
use crate::proto::range_request::{SortOrder, SortTarget};
use crate::proto::{KeyValue, RangeRequest, RangeResponse};
use crate::record::{Record, Revision};

/// Answers `request` as someone sees it who sees up to `newest`.
pub fn answer_range(
    index: &Index,
    request: &RangeRequest,
    newest: Revision,
    identity: &Identity,
) -> Result<RangeResponse, RequestError> {
    let at = if request.revision <= 0 { newest } else { Revision(request.revision) };
    index.check_readable(at, newest)?;
    let range = KeyRange::from_wire(request.key.clone(), request.range_end.clone());
    let header = identity.header(newest);
    if request.count_only {
        let count = index.range(&range, at).count() as i64;
        return Ok(RangeResponse { header, count, ..Default::default() });
    }
    let limit = usize::try_from(request.limit).unwrap_or(0);
    let order = order_of(request);
    let (records, count) = if order.is_none() && !has_filter(request) {
        take_first(index, &range, at, limit)
    } else {
        take_sorted(index, &range, at, request, order)
    };
    let more = limit > 0 && records.len() > limit;
    let wanted = if more { limit } else { records.len() };
    let kvs = records[..wanted].iter().map(|record| to_wire(record, request.keys_only)).collect();
    Ok(RangeResponse { header, kvs, more, count })
}

/// The first `limit` records and one more, and how many there are in all.
fn take_first<'a>(
    index: &'a Index,
    range: &KeyRange,
    at: Revision,
    limit: usize,
) -> (Vec<&'a Arc<Record>>, i64) {
    let mut walk = index.range(range, at);
    let wanted = if limit == 0 { usize::MAX } else { limit.saturating_add(1) };
    let records: Vec<_> = walk.by_ref().take(wanted).collect();
    let count = records.len() + walk.count();
    (records, count as i64)
}

fn take_sorted<'a>(
    index: &'a Index,
    range: &KeyRange,
    at: Revision,
    request: &RangeRequest,
    order: Option<(SortOrder, SortTarget)>,
) -> (Vec<&'a Arc<Record>>, i64) {
    let mut records: Vec<_> = index.range(range, at).collect();
    // The count is of the range, before filters: etcd counts so.
    let count = records.len() as i64;
    records.retain(|record| passes_filter(record, request));
    if let Some((order, target)) = order {
        records.sort_by(|left, right| {
            let ordering = compare_by(target, left, right);
            if order == SortOrder::Descend { ordering.reverse() } else { ordering }
        });
    }
    (records, count)
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

fn has_filter(request: &RangeRequest) -> bool {
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
pub fn to_wire(record: &Record, keys_only: bool) -> KeyValue {
    KeyValue {
        key: record.key.clone(),
        create_revision: record.created.0,
        mod_revision: record.modified.0,
        version: record.version,
        value: if keys_only { Bytes::new() } else { record.value.clone() },
        lease: record.lease.0,
    }
}
