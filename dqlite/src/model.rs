//! What a modelled node is made of: the SQLite below libdqlite, without raft, and chance that a
//! seed decides. For tests alone, behind the feature `model`.

mod chance;
mod database;

pub use chance::begin;
pub use database::{Database, Failed, Ran, Table};
