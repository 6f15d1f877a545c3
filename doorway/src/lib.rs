//! What the processes behind one port share.
//!
//! **What for.** The agent owns the port between nodes, and the datastore serves what comes in
//! there for it. Neither of `microcluster` and `datastore` knows the other, so what both need is
//! here: sockets that change hands ([`handoff`]), and a bound on what those can cost who have not
//! said yet who they are ([`places`], counted by [`source`]).
//!
//! **What comes in**: accepted connections. **What goes out**: the same, in another process, or
//! closed. Tasks: the [`handoff::Courier`] of who gives, and the accept loop of
//! [`handoff::Handed`], which ends with it.

pub mod handoff;
pub mod places;
pub mod source;
