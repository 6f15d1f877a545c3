//! What makes a cluster of nodes, with real processes.
#![allow(clippy::unwrap_used)] // a test that panics says where

mod archive;
mod check;
mod control_plane;
mod datastore;
mod life;
mod place;
mod race;
mod refused;
mod store;
mod token;
mod worker;
