//! Lies that our side may be made to tell, to see whether they are found out.

use skiff_datastore::proto::range_request::{SortOrder, SortTarget};
use skiff_datastore::proto::{
    EventType, PutResponse, RangeRequest, RangeResponse, TxnResponse, WatchResponse,
};

/// A small untruth, told only where it fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// A page counts itself instead of the whole range.
    CountsThePage,
    /// The former version has no lease.
    ForgetsTheLease,
    /// A transaction that writes nothing has the next revision.
    SkipsARevision,
    /// Versions are sorted the other way round.
    SortsTheOtherWay,
    /// Of two deletions at once a watcher sees one.
    DropsADeletion,
}

impl Lie {
    pub const ALL: [Lie; 5] = [
        Lie::CountsThePage,
        Lie::ForgetsTheLease,
        Lie::SkipsARevision,
        Lie::SortsTheOtherWay,
        Lie::DropsADeletion,
    ];

    pub fn of_range(self, request: &RangeRequest, answer: &mut RangeResponse) {
        match self {
            Lie::CountsThePage if answer.more => answer.count = answer.kvs.len() as i64,
            Lie::SortsTheOtherWay
                if request.sort_target() == SortTarget::Version
                    && request.sort_order() == SortOrder::Descend =>
            {
                answer.kvs.reverse();
            }
            _ => {}
        }
    }

    pub fn of_put(self, answer: &mut PutResponse) {
        if let (Lie::ForgetsTheLease, Some(former)) = (self, &mut answer.prev_kv) {
            former.lease = 0;
        }
    }

    pub fn of_txn(self, answer: &mut TxnResponse) {
        if let (Lie::SkipsARevision, true, Some(header)) =
            (self, answer.responses.is_empty(), &mut answer.header)
        {
            header.revision += 1;
        }
    }

    pub fn of_watch(self, answer: &mut WatchResponse) {
        let deletes = answer.events.iter().filter(|event| event.r#type() == EventType::Delete);
        if self == Lie::DropsADeletion && deletes.count() > 1 {
            answer.events.pop();
        }
    }
}
