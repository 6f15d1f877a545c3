//! One verb of `cargo xtask` a file.

pub mod bench;
pub mod build;
pub mod components;
mod cross;
pub mod down;
pub mod fix;
pub mod setup;
pub mod test;
pub mod up;
pub mod verify;
