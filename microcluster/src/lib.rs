//! Who belongs to a cluster, and how members reach each other.
//!
//! **What for.** A machine becomes a member by one token and one short conversation; afterwards it
//! is known by its key. This room decides who gets in, who gets which certificate, and who is out,
//! and has the port by which nodes reach each other.
//!
//! **What comes in**: messages of `skiff-cluster/1` with the certificate of their sender, and what
//! root asks for on a control-plane member. **What goes out**: answers, certificates, and changes
//! of the cluster's record, each a compare-and-set on what was read.
//!
//! ```text
//!   bytes ─> message ─> desk ──read──> store            pure: message token record version
//!                        │  ─decide──> protocol               protocol trust
//!                        │  ─sign────> trust::Signer    async: desk store
//!                        │  ─apply───> store
//!            answer <────┘
//! ```
//!
//! The network: [`door`] owns the port between nodes and hands the datastore's connections over to
//! its process by [`skiff_doorway::handoff`], [`relay`] passes requests on to skiffd, [`client`] is
//! who asks them, [`balancer`] is a node's way to the API servers; [`agent`] runs all of it without
//! privilege. [`reach`] tries whether a joiner can be reached before it is let in. Its tasks are the
//! accept loops of the door and the balancer with one task for each connection, the courier between
//! them, one check for each API server, and who follows the list of those; all end with the agent.
//! The desk has no task: it answers when it is asked.

pub mod agent;
pub mod balancer;
pub mod caller;
pub mod client;
pub mod desk;
pub mod dial;
pub mod door;
pub mod endpoint;
mod forward;
pub mod hello;
pub mod message;
pub mod protocol;
mod race;
pub mod rate;
pub mod reach;
pub mod record;
pub mod relay;
#[cfg(test)]
mod sample;
pub mod store;
pub mod suite;
pub mod tls;
pub mod token;
pub mod trust;
pub mod version;
