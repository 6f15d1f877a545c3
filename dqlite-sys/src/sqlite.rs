//! The SQLite that libdqlite runs on, as far as a modelled node needs it.

use std::ffi::{c_char, c_int, c_void};

/// A connection; opaque.
#[repr(C)]
#[allow(non_camel_case_types)]
pub struct sqlite3 {
    _opaque: [u8; 0],
}

/// A prepared statement; opaque.
#[repr(C)]
#[allow(non_camel_case_types)]
pub struct sqlite3_stmt {
    _opaque: [u8; 0],
}

/// A row is there.
pub const SQLITE_ROW: c_int = 100;
/// The statement has ended.
pub const SQLITE_DONE: c_int = 101;
/// Open for reading and writing, and make it.
pub const SQLITE_OPEN_READWRITE_CREATE: c_int = 0x2 | 0x4;
/// Types of columns.
pub const SQLITE_INTEGER: c_int = 1;
/// See [`SQLITE_INTEGER`].
pub const SQLITE_FLOAT: c_int = 2;
/// See [`SQLITE_INTEGER`].
pub const SQLITE_TEXT: c_int = 3;
/// See [`SQLITE_INTEGER`].
pub const SQLITE_BLOB: c_int = 4;
/// The bytes that are bound live no longer than the call.
pub const SQLITE_TRANSIENT: isize = -1;

unsafe extern "C" {
    /// Opens a database; on failure `*db` may be set all the same and must be closed.
    pub fn sqlite3_open_v2(
        name: *const c_char,
        db: *mut *mut sqlite3,
        flags: c_int,
        vfs: *const c_char,
    ) -> c_int;
    /// Closes, when no statement is left.
    pub fn sqlite3_close_v2(db: *mut sqlite3) -> c_int;
    /// Compiles the first statement; `tail` points behind it.
    pub fn sqlite3_prepare_v2(
        db: *mut sqlite3,
        sql: *const c_char,
        bytes: c_int,
        statement: *mut *mut sqlite3_stmt,
        tail: *mut *const c_char,
    ) -> c_int;
    /// Frees a statement; null is allowed.
    pub fn sqlite3_finalize(statement: *mut sqlite3_stmt) -> c_int;
    /// Runs up to the next row.
    pub fn sqlite3_step(statement: *mut sqlite3_stmt) -> c_int;
    /// How many parameters it takes.
    pub fn sqlite3_bind_parameter_count(statement: *mut sqlite3_stmt) -> c_int;
    /// Parameters count from 1.
    pub fn sqlite3_bind_null(statement: *mut sqlite3_stmt, at: c_int) -> c_int;
    /// See [`sqlite3_bind_null`].
    pub fn sqlite3_bind_int64(statement: *mut sqlite3_stmt, at: c_int, value: i64) -> c_int;
    /// See [`sqlite3_bind_null`].
    pub fn sqlite3_bind_double(statement: *mut sqlite3_stmt, at: c_int, value: f64) -> c_int;
    /// `free` is [`SQLITE_TRANSIENT`].
    pub fn sqlite3_bind_text(
        statement: *mut sqlite3_stmt,
        at: c_int,
        text: *const c_char,
        bytes: c_int,
        free: isize,
    ) -> c_int;
    /// `free` is [`SQLITE_TRANSIENT`].
    pub fn sqlite3_bind_blob(
        statement: *mut sqlite3_stmt,
        at: c_int,
        blob: *const c_void,
        bytes: c_int,
        free: isize,
    ) -> c_int;
    /// How many columns its rows have.
    pub fn sqlite3_column_count(statement: *mut sqlite3_stmt) -> c_int;
    /// Columns count from 0; the text lives until the statement ends.
    pub fn sqlite3_column_name(statement: *mut sqlite3_stmt, at: c_int) -> *const c_char;
    /// The type of the value in this row.
    pub fn sqlite3_column_type(statement: *mut sqlite3_stmt, at: c_int) -> c_int;
    /// The value.
    pub fn sqlite3_column_int64(statement: *mut sqlite3_stmt, at: c_int) -> i64;
    /// The value.
    pub fn sqlite3_column_double(statement: *mut sqlite3_stmt, at: c_int) -> f64;
    /// The bytes of a text or blob, until the next step; null when it is empty.
    pub fn sqlite3_column_blob(statement: *mut sqlite3_stmt, at: c_int) -> *const c_void;
    /// How many bytes those are; asked after them.
    pub fn sqlite3_column_bytes(statement: *mut sqlite3_stmt, at: c_int) -> c_int;
    /// Rows that the last statement changed.
    pub fn sqlite3_changes(db: *mut sqlite3) -> c_int;
    /// Rows changed since it was opened.
    pub fn sqlite3_total_changes(db: *mut sqlite3) -> c_int;
    /// The row that the last insert made.
    pub fn sqlite3_last_insert_rowid(db: *mut sqlite3) -> i64;
    /// The code of the last failure, with its details.
    pub fn sqlite3_extended_errcode(db: *mut sqlite3) -> c_int;
    /// The words of the last failure, until the next call.
    pub fn sqlite3_errmsg(db: *mut sqlite3) -> *const c_char;
}
