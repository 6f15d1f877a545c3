//! Takes out of answers what two clusters can't have in common: their names,
//! and the seconds that pass. Everything else has to be equal.

use skiff_datastore::proto::response_op::Response;
use skiff_datastore::proto::*;
use tonic::Code;

/// What came back: an answer, or a code and its words.
pub type Outcome<T> = Result<T, (Code, String)>;

/// Answers that can be compared.
pub trait Normal {
    fn normalise(&mut self);
}

/// An answer as it is compared.
pub fn outcome<T: Normal>(answer: Result<tonic::Response<T>, tonic::Status>) -> Outcome<T> {
    match answer {
        Ok(answer) => {
            let mut answer = answer.into_inner();
            answer.normalise();
            Ok(answer)
        }
        Err(status) => Err((status.code(), status.message().to_owned())),
    }
}

fn header(header: &mut Option<ResponseHeader>) {
    if let Some(header) = header {
        header.cluster_id = header.cluster_id.min(1);
        header.member_id = header.member_id.min(1);
        header.raft_term = header.raft_term.min(1);
    }
}

macro_rules! only_headers {
    ($($answer:ty),*) => {
        $(impl Normal for $answer {
            fn normalise(&mut self) {
                header(&mut self.header);
            }
        })*
    };
}

only_headers!(
    RangeResponse,
    PutResponse,
    DeleteRangeResponse,
    CompactionResponse,
    LeaseGrantResponse,
    LeaseRevokeResponse,
    LeaseKeepAliveResponse,
    WatchResponse
);

impl Normal for TxnResponse {
    fn normalise(&mut self) {
        header(&mut self.header);
        for response in &mut self.responses {
            match &mut response.response {
                Some(Response::ResponseRange(range)) => range.normalise(),
                Some(Response::ResponsePut(put)) => put.normalise(),
                Some(Response::ResponseDeleteRange(delete)) => delete.normalise(),
                Some(Response::ResponseTxn(txn)) => txn.normalise(),
                None => {}
            }
        }
    }
}

impl Normal for LeaseLeasesResponse {
    fn normalise(&mut self) {
        header(&mut self.header);
        // By their ends, which a restart of ours puts off.
        self.leases.sort_by_key(|lease| lease.id);
    }
}

impl Normal for LeaseTimeToLiveResponse {
    fn normalise(&mut self) {
        header(&mut self.header);
        // In no order, with etcd.
        self.keys.sort();
        // A case takes seconds, and no lease in it is shorter than 1000.
        if self.ttl > 0 && self.granted_ttl - self.ttl < 300 {
            self.ttl = self.granted_ttl;
        }
    }
}

impl Normal for AlarmResponse {
    fn normalise(&mut self) {
        header(&mut self.header);
        for alarm in &mut self.alarms {
            alarm.member_id = 1;
        }
    }
}
