//! What makes a cluster of nodes, with real processes.
#![allow(clippy::unwrap_used)] // a test that panics says where

mod archive;
mod check;
mod control_plane;
mod datastore;
mod grow;
mod ledger;
mod life;
mod place;
mod race;
mod recover;
mod refused;
mod rounds;
mod store;
mod token;
mod worker;
