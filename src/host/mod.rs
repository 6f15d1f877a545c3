//! What the machine offers.

pub mod address;
pub mod resolver;
