//! The protocol's types, generated from `proto/`.
#![allow(missing_docs, clippy::all, clippy::pedantic)]

pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

pub use etcdserverpb::*;
pub use mvccpb::{Event, KeyValue, event::EventType};

/// What members say to each other.
pub mod skiffpb {
    tonic::include_proto!("skiffpb");
}

pub use skiffpb as peer;
