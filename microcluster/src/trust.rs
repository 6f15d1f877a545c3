//! Who gets which certificate. A signing request gives a public key and a proof that its sender
//! has the private one; every name comes from the record.

mod identity;
mod issue;
mod order;
mod request;

pub use identity::{IdentityError, PeerIdentity, read_identity};
pub use issue::{AuthorityBundle, IssuedLeaf, SignError, Signer, certify};
pub use order::{
    BACKDATE, CONTROL_PLANE_SERVER_NAME, DATASTORE_SERVER_NAME, LEAF_LIFE, LeafOrder, Purpose,
    Subject, UID_OID, Usage, order_leaf,
};
pub use request::{ProvenKey, REQUEST_BYTES_MAX, RequestError, read_request};

#[cfg(test)]
#[path = "trust_test.rs"]
mod tests;
