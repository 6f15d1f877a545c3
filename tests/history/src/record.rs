//! What clients and watchers saw, to be judged when all is over.

use std::sync::Mutex;

use crate::register::Held;

/// What a client asked for. Values are unique, so each names its write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    Put { keys: Vec<usize>, value: u64 },
    Delete { key: usize },
    Swap { key: usize, from: Held, to: u64 },
    ReadAll,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Came {
    /// Done at this revision; whether a swap swapped, what a read read.
    Done {
        revision: i64,
        swapped: bool,
        read: Vec<Held>,
    },
    /// It was certainly not done.
    Refused,
    Unknown,
}

/// One request of a client.
#[derive(Clone, Debug)]
pub struct Request {
    pub begin: u64,
    pub end: u64,
    pub wish: Wish,
    pub came: Came,
}

/// One event that a watcher was told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Told {
    pub revision: i64,
    pub key: String,
    pub value: Held,
}

/// One watcher, over all the members that it asked in turn.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    /// From which revision on.
    pub start: i64,
    pub events: Vec<Told>,
    /// Revisions that were compacted before they were told: from, to.
    pub gaps: Vec<(i64, i64)>,
    /// Whether it came to the end.
    pub ended: bool,
}

/// Everything that was seen.
#[derive(Default)]
pub struct Record {
    pub requests: Mutex<Vec<Request>>,
    pub watched: Mutex<Vec<Watched>>,
}
