//! Queries whose rows have not all been read.
//!
//! libdqlite 1.18 never finishes a query whose connection is closed between two messages of rows: it
//! waits to be told that the last message was sent. What the query holds is lost, its read lock on
//! the database included, and freeing the node fails an assertion. So such a connection is not
//! closed: the rest of the answer is read and forgotten first. And a node that ends with such queries
//! is stopped, but not freed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::Handle;

use super::socket::Socket;
use crate::wire::{Response, RowsEnd};

/// How many queries of one node are open, or were lost while they were.
#[derive(Debug, Default)]
pub(crate) struct OpenQueries {
    count: AtomicUsize,
}

impl OpenQueries {
    pub(super) fn began(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn ended(&self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many there are now.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

/// Whether another message follows by itself.
pub(super) fn goes_on(response: &Response) -> bool {
    matches!(response, Response::Rows { end: RowsEnd::Part, .. })
}

/// Reads the rest of an answer, then closes. Without a runtime there is nobody to do it: the
/// connection is closed at once and the query is lost.
pub(super) fn finish_in_background(mut socket: Socket, queries: Arc<OpenQueries>) {
    let Ok(runtime) = Handle::try_current() else {
        tracing::debug!("connection dropped outside of the runtime, with rows unread");
        return;
    };
    runtime.spawn(async move {
        // Ends when the node does, if not before.
        while let Ok((header, body)) = socket.receive().await {
            match Response::decode(header, body) {
                Ok(response) if goes_on(&response) => {}
                _ => {
                    queries.ended();
                    return;
                }
            }
        }
    });
}
