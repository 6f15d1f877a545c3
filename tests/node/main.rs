//! One node: real daemons, real pods, real packets, each node in a namespace of its own.
//!
//! Needs root and the components; skips with the reason otherwise. Tests run one at a time.

mod addon;
mod address;
mod authorities;
#[path = "../cluster/page.rs"]
mod page;
mod archive;
mod bad_day;
mod certs;
mod disk;
mod external;
mod fault;
mod hand_over;
mod interrupt;
mod life;
mod machine;
mod pull;
mod settings;
mod side_by_side;
mod workload;
