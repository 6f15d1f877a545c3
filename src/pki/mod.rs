//! The node's identities: authorities, short-lived leaves, and credentials for people.

mod authority;
mod kubeconfig;
mod leaf;
mod secret;
mod store;

pub use authority::{Authority, AuthorityError};
pub use kubeconfig::{embedded, naming_files};
pub use leaf::{
    Issuer, LeafInfo, LeafSpec, Plan, Usage, common_name, inspect, inspect_certificate,
    plan_renewal, shows_behind, subject_der,
};
pub use secret::{encryption_config, service_account_key, service_account_public};
pub use store::{StoreError, ensure_private, write_private};
