//! Building components from pinned sources into a cache that any clone can use.

mod builder;
mod cache;
mod compiler;
mod dist;
mod key;
mod lock;

pub use builder::{Built, build_components};
pub use compiler::Toolchain;
pub use dist::assemble;
pub use lock::BuildLock;
