//! What the machine offers.

pub mod address;
