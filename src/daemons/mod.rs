//! daemons: to be written.
