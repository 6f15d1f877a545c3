//! What time it is, by tokio's clock: a simulation can hold it.

use std::time::Instant;

/// Now. Outside of a simulation the same as [`Instant::now`].
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
