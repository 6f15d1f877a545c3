//! Building components from pinned sources into a cache that any clone can use.

mod builder;
mod cache;
mod compiler;
mod dist;
mod key;
mod lock;

pub use builder::{Obstacle, build_components};
pub use compiler::Toolchain;
pub use dist::{assemble, place_program, place_tree};
pub use lock::BuildLock;
