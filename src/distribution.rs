//! The distribution on disk, and the copy of it that a node runs.
