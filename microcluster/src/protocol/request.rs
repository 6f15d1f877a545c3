//! Signing requests of a message, read and turned into orders.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use time::OffsetDateTime;

use crate::message::{Refusal, RefusalCode, SigningRequest};
use crate::record::{MemberRecord, NodeRole};
use crate::trust::{LeafOrder, ProvenKey, Purpose, RequestError, order_leaf, read_request};

/// Reads them: each purpose once, and only those that a node of this role has.
pub(super) fn read_requests(
    requests: &[SigningRequest],
    role: NodeRole,
) -> Result<BTreeMap<Purpose, ProvenKey>, Refusal> {
    let mut keys = BTreeMap::new();
    for asked in requests {
        let purpose = asked.purpose;
        if !purpose.is_for(role) {
            let message = format!("a {role} node has no certificate for {purpose}");
            return Err(Refusal::new(RefusalCode::RequestForeign, message));
        }
        let der = BASE64.decode(asked.request.as_bytes());
        let key = der.map_err(|_| RequestError::Unreadable).and_then(|der| read_request(&der));
        let key = key.map_err(|error| refused(purpose, &error))?;
        if keys.insert(purpose, key).is_some() {
            let message = format!("there are two signing requests for {purpose}");
            return Err(Refusal::new(RefusalCode::RequestInvalid, message));
        }
    }
    Ok(keys)
}

/// Orders the certificates, with the names of the record.
pub(super) fn order_leaves(
    keys: &BTreeMap<Purpose, ProvenKey>,
    member: &MemberRecord,
    now: OffsetDateTime,
) -> Result<Vec<LeafOrder>, Refusal> {
    let order = |(purpose, key): (&Purpose, &ProvenKey)| {
        let order = order_leaf(*purpose, member, key, now);
        key.check_names(&order).map_err(|error| refused(*purpose, &error))?;
        Ok(order)
    };
    keys.iter().map(order).collect()
}

fn refused(purpose: Purpose, error: &RequestError) -> Refusal {
    let foreign = matches!(error, RequestError::ForeignName(_) | RequestError::Authority);
    let code = if foreign { RefusalCode::RequestForeign } else { RefusalCode::RequestInvalid };
    Refusal::new(code, format!("the signing request for {purpose} is refused: {error}"))
}
