//! Rows of a result, all at once or as they arrive.

use std::collections::VecDeque;

use bytes::Bytes;

use super::Connection;
use crate::error::Error;
use crate::wire::{self, RowsEnd, Value};

/// One row of a result.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    values: Vec<Value>,
}

impl Row {
    pub(super) fn new(values: wire::Row) -> Row {
        Row { values }
    }

    /// The value of a column, from 0.
    pub fn get(&self, index: usize) -> Option<&Value> {
        self.values.get(index)
    }

    /// How many columns the row has.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether the row has no column; rows of a result have at least one.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The integer in a column.
    pub fn integer(&self, index: usize) -> Result<i64, Error> {
        match self.get(index) {
            Some(Value::Integer(value) | Value::UnixTime(value)) => Ok(*value),
            Some(Value::Boolean(value)) => Ok(i64::from(*value)),
            other => Err(mismatch(index, other, "integer")),
        }
    }

    /// The text in a column.
    pub fn text(&self, index: usize) -> Result<&str, Error> {
        match self.get(index) {
            Some(Value::Text(value) | Value::Iso8601(value)) => Ok(value),
            other => Err(mismatch(index, other, "text")),
        }
    }

    /// The blob in a column: a slice of the message that it came in, which it keeps alive. Copy
    /// small blobs that are kept for long.
    pub fn blob(&self, index: usize) -> Result<&Bytes, Error> {
        match self.get(index) {
            Some(Value::Blob(value)) => Ok(value),
            other => Err(mismatch(index, other, "blob")),
        }
    }

    /// The values themselves.
    pub fn into_values(self) -> Vec<Value> {
        self.values
    }
}

fn mismatch(index: usize, found: Option<&Value>, expected: &'static str) -> Error {
    let found = found.map_or("missing", Value::kind_name);
    Error::Column { index, found, expected }
}

/// A whole result.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rows {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// The rows, in the statement's order.
    pub rows: Vec<Row>,
}

impl Rows {
    /// The only row, or `None` when there is none or more than one.
    pub fn single(&self) -> Option<&Row> {
        match self.rows.as_slice() {
            [row] => Some(row),
            _ => None,
        }
    }
}

/// A result as it arrives. The node sends about a page at a time and computes the next page while
/// this one is read; nobody holds more than that.
///
/// The connection can be used again after [`RowStream::next`] has returned `None`, or after
/// [`RowStream::drain`]. Dropping the stream before makes the connection unusable, and closing that
/// connection is the quickest way to end a long query: libdqlite 1.18 reads an interrupt only when
/// the last row has been sent.
pub struct RowStream<'a> {
    connection: &'a mut Connection,
    /// Whether a lost answer leaves nothing undone.
    reads_only: bool,
    columns: Vec<String>,
    rows: VecDeque<wire::Row>,
    end: RowsEnd,
}

impl<'a> RowStream<'a> {
    pub(super) fn new(connection: &'a mut Connection, reads_only: bool, first: Part) -> Self {
        let Part { columns, rows, end } = first;
        RowStream { connection, reads_only, columns, rows: rows.into(), end }
    }

    /// Names of the columns.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The next row, or `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Row>, Error> {
        loop {
            if let Some(row) = self.rows.pop_front() {
                return Ok(Some(Row::new(row)));
            }
            if self.end == RowsEnd::Done {
                return Ok(None);
            }
            let part = self.connection.receive_rows(self.reads_only).await.inspect_err(|_| {
                self.end = RowsEnd::Done;
            })?;
            (self.rows, self.end) = (part.rows.into(), part.end);
        }
    }

    /// Reads and forgets the rest, so that the connection can be used again.
    pub async fn drain(mut self) -> Result<(), Error> {
        while self.next().await?.is_some() {}
        Ok(())
    }

    /// Collects the rest.
    pub async fn collect(mut self) -> Result<Rows, Error> {
        let mut rows = Vec::with_capacity(self.rows.len());
        while let Some(row) = self.next().await? {
            rows.push(row);
        }
        Ok(Rows { columns: std::mem::take(&mut self.columns), rows })
    }
}

/// One message of rows.
pub(super) struct Part {
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<wire::Row>,
    pub(super) end: RowsEnd,
}
