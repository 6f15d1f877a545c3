//! addon: to be written.
