//! The port between nodes and the way to the API, over real sockets and real TLS.

#![allow(clippy::unwrap_used)] // a test that panics says where

mod agent;
mod balancer;
mod client;
mod door;
mod fuzz;
mod handoff;
mod pki;
mod relay;
mod server;
mod tls;
mod wire;
