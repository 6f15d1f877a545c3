//! inspect: to be written.
