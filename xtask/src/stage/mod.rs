//! One verb of `cargo xtask` a file.

pub mod components;
