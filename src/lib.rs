//! The command `skiff` and the node daemon behind it.
//!
//! `cli` is what a person types; it talks to the node daemon over a local socket (crate
//! `skiff-api`). `node` is that daemon: it brings the daemons described in `daemons` up in order,
//! keeps their identities (`pki`) fresh and serves the local API. `addon` and `kube` work on the
//! cluster itself; `backup` makes an archive of it and brings it back; `config`, `paths` and `host`
//! say what the node is made of and what it stands on.

pub mod addon;
pub mod backup;
pub mod cli;
pub mod config;
pub mod daemons;
pub mod distribution;
pub mod durable;
pub mod host;
pub mod inspect;
pub mod kube;
pub mod node;
pub mod paths;
pub mod pki;
mod tar;
