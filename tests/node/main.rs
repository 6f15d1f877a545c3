//! One node: real daemons, real pods, real packets, each node in a namespace of its own.
//!
//! Needs root and the components; skips with the reason otherwise. Tests run one at a time.

mod addon;
mod addon_own;
mod address;
mod archive;
mod authorities;
mod bad_day;
mod certs;
mod disk;
mod external;
mod fault;
mod hand_over;
mod interrupt;
mod life;
mod machine;
#[path = "../cluster/page.rs"]
mod page;
mod pull;
mod settings;
mod side_by_side;
mod workload;
