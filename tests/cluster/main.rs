//! What makes a cluster of nodes, with real processes.
#![allow(clippy::unwrap_used)] // a test that panics says where

mod address;
mod archive;
mod authorities;
mod check;
mod control_plane;
mod datastore;
mod grow;
mod leave;
mod ledger;
mod life;
mod page;
mod place;
mod race;
mod recover;
mod refused;
mod restore;
mod rounds;
mod settings;
mod store;
mod token;
mod walk;
mod worker;
