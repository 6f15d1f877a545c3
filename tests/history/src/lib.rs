//! What clients of several datastore members saw, and whether it keeps what
//! was promised to them.
//!
//! ```text
//!  chance ──> wishes ──> a store under faults ──> record ──┐
//!                             └──> truth ──────────────────┴─> promises ──> what is broken
//! ```
//!
//! Comes in: wishes and what came of them, what watchers were told, and the
//! truth: what the store has in the end. Goes out: one line for each promise
//! that was broken. The simulation and the run with real processes share it.

pub mod chance;
pub mod promises;
pub mod record;
pub mod register;
pub mod wishes;
