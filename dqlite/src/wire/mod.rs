//! dqlite's wire protocol: one table of requests, one of responses, and what they are made of.
//!
//! A connection starts with [`PROTOCOL_VERSION`] as eight bytes. Then every message is a [`Header`]
//! of eight bytes and a body of a whole number of words. Everything is little endian and padded to
//! words:
//!
//! ```text
//!  0        4     5       6        8
//!  | words  | type| schema| (zero) | body: words x 8 bytes …
//!
//!  integer  8 bytes                 text   bytes, NUL, zeros up to the next word
//!  float    8 bytes, IEEE           blob   length in 8 bytes, bytes, zeros up to the next word
//! ```
//!
//! Decoding is total: any bytes give a value or a [`WireError`], in time and memory linear in what
//! was received. Both directions are implemented for both tables, so that a simulated node can
//! speak the protocol too.

mod cursor;
mod request;
mod response;
mod tuple;
mod value;

pub use cursor::{Reader, Writer};
pub use request::{Request, RequestKind};
pub use response::{Response, ResponseKind, RowsEnd};
pub use tuple::{Row, decode_params, decode_row, encode_params, encode_row};
pub use value::{Value, ValueKind};

use thiserror::Error;

/// What a client says first.
pub const PROTOCOL_VERSION: u64 = 1;
/// Everything is padded to this many bytes.
pub const WORD_BYTES: usize = 8;
/// Bytes of a [`Header`].
pub const HEADER_BYTES: usize = 8;
/// Largest body that libdqlite accepts: it refuses more than 32 bits of bytes.
pub const REQUEST_BODY_BYTES_MAX: usize = u32::MAX as usize - (u32::MAX as usize % WORD_BYTES);
/// Largest body that we read. SQLite's limit for a row is 10^9 bytes, and libdqlite ends a message
/// with the row that passes one page; nobody else's claim makes us collect more.
pub const RESPONSE_BODY_BYTES_MAX: usize = 1 << 30;
/// Largest text or blob that we send: libdqlite keeps lengths in a C int, SQLite stops at 10^9.
pub const VALUE_BYTES_MAX: usize = 1_000_000_000;
/// SQLite's own upper bound of parameters in a statement, by default.
pub const PARAMS_MAX: usize = 32_766;
/// SQLite's hard upper bound of columns.
pub const COLUMNS_MAX: usize = 32_767;
/// More members than any configuration holds; a bound for the decoder.
pub const MEMBERS_MAX: usize = 1 << 16;
/// More files than any dump holds; a bound for the decoder.
pub const FILES_MAX: usize = 1 << 10;

/// What stands before each message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Length of the body in words.
    pub words: u32,
    /// Which row of the table.
    pub kind: u8,
    /// Which layout of that row.
    pub schema: u8,
}

impl Header {
    /// The header's bytes.
    pub fn encode(self) -> [u8; HEADER_BYTES] {
        let words = self.words.to_le_bytes();
        [words[0], words[1], words[2], words[3], self.kind, self.schema, 0, 0]
    }

    /// Reads a header; the two last bytes are not used by the protocol.
    pub fn decode(bytes: [u8; HEADER_BYTES]) -> Header {
        let [a, b, c, d, kind, schema, _, _] = bytes;
        Header { words: u32::from_le_bytes([a, b, c, d]), kind, schema }
    }

    /// Length of the body in bytes. 64 bits, because 32 bits of words are more than 32 bits.
    pub fn body_bytes(self) -> u64 {
        u64::from(self.words) * WORD_BYTES as u64
    }
}

/// Why bytes are not a message, or a value can't become one.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum WireError {
    /// The body ends before the field does.
    #[error("message ends inside {field}: {needed} bytes needed, {left} left")]
    Short {
        /// What was being read.
        field: &'static str,
        /// Bytes that the field needs.
        needed: u64,
        /// Bytes that were left.
        left: u64,
    },
    /// No NUL ends the text.
    #[error("text {field} has no end")]
    Unterminated {
        /// What was being read.
        field: &'static str,
    },
    /// The bytes of a text are not UTF-8.
    #[error("text {field} is not utf-8")]
    NotUtf8 {
        /// What was being read.
        field: &'static str,
    },
    /// A text with a NUL inside would be cut there.
    #[error("text {field} holds a nul byte at {at}")]
    Nul {
        /// What was being written.
        field: &'static str,
        /// Where the NUL is.
        at: usize,
    },
    /// A number is beyond a bound of this module.
    #[error("{what} is {value}, at most {max} allowed")]
    TooLarge {
        /// Which number.
        what: &'static str,
        /// Its value.
        value: u64,
        /// The bound.
        max: u64,
    },
    /// A code that the table doesn't have.
    #[error("unknown {what} {code}")]
    Unknown {
        /// Which table.
        what: &'static str,
        /// The code.
        code: u64,
    },
    /// A row of a result without columns, which would never end.
    #[error("rows without columns")]
    NoColumns,
    /// Bytes are left after the last field.
    #[error("{left} bytes left after the end of {message}")]
    Trailing {
        /// Which message.
        message: &'static str,
        /// How many bytes.
        left: usize,
    },
    /// A well-formed message that doesn't answer what was asked.
    #[error("{got} is not an answer to {asked}")]
    Unexpected {
        /// What was asked.
        asked: &'static str,
        /// What came.
        got: &'static str,
    },
}
