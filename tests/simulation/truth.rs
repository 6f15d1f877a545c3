//! The truth of a history: what its modelled cluster committed.

use std::collections::BTreeMap;

use datastore_history::promises::{Truth, number};
use skiff_datastore::batch::Entry;
use skiff_datastore::state::row_entries;
use skiff_datastore::store::LogRow;

/// Reads the truth from the rows that were committed.
///
/// `revisions-dense-unique`: rows are dense, and go on where the one before ended.
pub fn read_truth(rows: &[LogRow], broken: &mut Vec<String>) -> Truth {
    let mut truth = Truth { events: BTreeMap::new(), head: 1 };
    let mut fail = |text: String| broken.push(format!("revisions-dense-unique: {text}"));
    for (row, place) in rows.iter().zip(1..) {
        if row.sequence.0 != place {
            fail(format!("row {} stands at place {place}", row.sequence.0));
        }
        if row.first.0 != truth.head + 1 || row.last.0 < truth.head {
            fail(format!("row {place} has {}..{} behind {}", row.first, row.last, truth.head));
        }
        let entries = match row_entries(row) {
            Ok(entries) => entries,
            Err(error) => {
                fail(format!("row {place}: {error}"));
                continue;
            }
        };
        for entry in entries {
            let Entry::Changes(records) = entry else { continue };
            for record in records {
                let key = String::from_utf8_lossy(&record.key).into_owned();
                let held = (!record.is_tombstone()).then(|| number(&record.value));
                truth.events.entry(record.modified.0).or_default().push((key, held));
            }
        }
        truth.head = row.last.0;
    }
    truth
}
