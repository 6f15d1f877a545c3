//! A database in memory, by the SQLite that libdqlite is linked with.

use std::ffi::{CStr, c_int};
use std::ptr;

use bytes::Bytes;
use dqlite_sys::sqlite::*;

use crate::wire::Value;

/// A database. It speaks SQL and nothing else: who may write, and when, is for its owner to say.
#[derive(Debug)]
pub struct Database {
    raw: *mut sqlite3,
}

// SAFETY: SQLite is compiled with its mutexes ("serialized"), so a connection may move between
// threads; `&mut self` keeps two from using it at once.
unsafe impl Send for Database {}

/// SQLite refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Its extended code.
    pub code: u64,
    /// Its words.
    pub message: String,
}

/// What statements did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ran {
    /// The row that the last insert made.
    pub last_insert_id: i64,
    /// Rows that the last statement changed.
    pub rows_affected: u64,
    /// Whether anything is different now, so that libdqlite would replicate it.
    pub changed: bool,
}

/// What a query gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<Vec<Value>>,
}

/// A statement; freed when it goes.
struct Statement(*mut sqlite3_stmt);

impl Drop for Statement {
    fn drop(&mut self) {
        // SAFETY: it was prepared by SQLite, and is freed once.
        unsafe { sqlite3_finalize(self.0) };
    }
}

impl Database {
    /// An empty one.
    pub fn open() -> Result<Database, Failed> {
        let mut raw = ptr::null_mut();
        let name = c":memory:".as_ptr();
        // SAFETY: the name ends with a nul, the place for the result is ours.
        let code = unsafe {
            sqlite3_open_v2(name, &raw mut raw, SQLITE_OPEN_READWRITE_CREATE, ptr::null())
        };
        let database = Database { raw };
        if code == 0 { Ok(database) } else { Err(database.failed()) }
    }

    /// Runs statements as one transaction; `BEGIN` and `COMMIT` among them say nothing new. What
    /// they do is undone when one fails, or when it is only `tried`.
    pub fn run(&mut self, sql: &str, values: &[Value], tried: bool) -> Result<Ran, Failed> {
        // SAFETY: the connection is open.
        let before = unsafe { sqlite3_total_changes(self.raw) };
        self.frame("BEGIN IMMEDIATE")?;
        let mut left = values;
        let done = self.each(sql, &mut left);
        // SAFETY: the connection is open.
        let (rows, total, last) = unsafe {
            let rows = sqlite3_changes(self.raw);
            (rows, sqlite3_total_changes(self.raw), sqlite3_last_insert_rowid(self.raw))
        };
        let end = if done.is_ok() && !tried { "COMMIT" } else { "ROLLBACK" };
        self.frame(end)?;
        let makes_tables = done?;
        let changed = makes_tables || total != before;
        Ok(Ran { last_insert_id: last, rows_affected: rows.unsigned_abs().into(), changed })
    }

    /// Runs one statement that gives rows.
    pub fn query(&mut self, sql: &str, values: &[Value]) -> Result<Table, Failed> {
        let (statement, _) = self.prepare(sql)?;
        let Some(statement) = statement else {
            return Ok(Table { columns: Vec::new(), rows: Vec::new() });
        };
        self.bind(&statement, &mut &*values)?;
        // SAFETY: the statement is live; names are texts that end with a nul.
        let columns: Vec<String> = unsafe {
            let name = |at| CStr::from_ptr(sqlite3_column_name(statement.0, at));
            let count = sqlite3_column_count(statement.0);
            (0..count).map(|at| name(at).to_string_lossy().into_owned()).collect()
        };
        let mut rows = Vec::new();
        while self.step(&statement)? {
            rows.push((0..columns.len()).map(|at| column(&statement, at as c_int)).collect());
        }
        Ok(Table { columns, rows })
    }

    /// How many parameters a statement takes.
    pub fn parameters(&mut self, sql: &str) -> Result<u64, Failed> {
        let (statement, _) = self.prepare(sql)?;
        // SAFETY: the statement is live.
        let count = statement.map_or(0, |one| unsafe { sqlite3_bind_parameter_count(one.0) });
        Ok(count.unsigned_abs().into())
    }

    /// Runs one statement after the other, but for those that frame a transaction; whether one of
    /// them makes tables.
    fn each(&mut self, sql: &str, values: &mut &[Value]) -> Result<bool, Failed> {
        let (mut rest, mut makes_tables) = (sql, false);
        while let (Some(statement), length) = self.prepare(rest)? {
            let word = rest.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
            if !matches!(word.trim_end_matches(';'), "BEGIN" | "COMMIT" | "ROLLBACK") {
                makes_tables |= word == "CREATE";
                self.bind(&statement, values)?;
                while self.step(&statement)? {}
            }
            rest = &rest[length..];
        }
        Ok(makes_tables)
    }

    fn frame(&mut self, sql: &str) -> Result<(), Failed> {
        let (Some(statement), _) = self.prepare(sql)? else { return Ok(()) };
        while self.step(&statement)? {}
        Ok(())
    }

    /// Compiles the first statement, and says how long its text is.
    fn prepare(&mut self, sql: &str) -> Result<(Option<Statement>, usize), Failed> {
        let (mut raw, mut tail) = (ptr::null_mut(), ptr::null());
        let start = sql.as_ptr().cast();
        // SAFETY: SQLite reads no more than the length that it is given.
        let code = unsafe {
            sqlite3_prepare_v2(self.raw, start, sql.len() as c_int, &raw mut raw, &raw mut tail)
        };
        if code != 0 {
            return Err(self.failed());
        }
        // SAFETY: the tail points into the text, or behind its end.
        let length = unsafe { tail.offset_from(start) };
        Ok(((!raw.is_null()).then_some(Statement(raw)), length.unsigned_abs()))
    }

    /// Takes as many values as the statement has parameters.
    fn bind(&mut self, statement: &Statement, values: &mut &[Value]) -> Result<(), Failed> {
        // SAFETY: the statement is live.
        let count = unsafe { sqlite3_bind_parameter_count(statement.0) };
        for at in 1..=count {
            let Some((value, rest)) = values.split_first() else { return Ok(()) };
            *values = rest;
            // SAFETY: the statement is live, and SQLite copies what is bound as transient.
            let code = unsafe {
                match value {
                    Value::Null => sqlite3_bind_null(statement.0, at),
                    Value::Integer(value) | Value::UnixTime(value) => {
                        sqlite3_bind_int64(statement.0, at, *value)
                    }
                    Value::Boolean(value) => sqlite3_bind_int64(statement.0, at, i64::from(*value)),
                    Value::Float(value) => sqlite3_bind_double(statement.0, at, *value),
                    Value::Text(text) | Value::Iso8601(text) => {
                        let length = text.len() as c_int;
                        let text = text.as_ptr().cast();
                        sqlite3_bind_text(statement.0, at, text, length, SQLITE_TRANSIENT)
                    }
                    Value::Blob(blob) => {
                        let length = blob.len() as c_int;
                        // Null would be NULL; an empty blob is none.
                        let blob = if length == 0 { b"x".as_ptr() } else { blob.as_ptr() };
                        let blob = blob.cast();
                        sqlite3_bind_blob(statement.0, at, blob, length, SQLITE_TRANSIENT)
                    }
                }
            };
            if code != 0 {
                return Err(self.failed());
            }
        }
        Ok(())
    }

    /// Whether there is a row.
    fn step(&mut self, statement: &Statement) -> Result<bool, Failed> {
        // SAFETY: the statement is live and of this connection.
        match unsafe { sqlite3_step(statement.0) } {
            SQLITE_ROW => Ok(true),
            SQLITE_DONE => Ok(false),
            _ => Err(self.failed()),
        }
    }

    fn failed(&self) -> Failed {
        // SAFETY: the connection is open; the text lives until the next call.
        unsafe {
            let message = CStr::from_ptr(sqlite3_errmsg(self.raw)).to_string_lossy().into_owned();
            Failed { code: sqlite3_extended_errcode(self.raw).unsigned_abs().into(), message }
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // SAFETY: it is closed once; statements do not outlive a call.
        unsafe { sqlite3_close_v2(self.raw) };
    }
}

fn column(statement: &Statement, at: c_int) -> Value {
    // SAFETY: the statement stands on a row, and bytes are copied before the next step.
    unsafe {
        let bytes = || {
            let start = sqlite3_column_blob(statement.0, at).cast::<u8>();
            let length = sqlite3_column_bytes(statement.0, at).unsigned_abs() as usize;
            if length == 0 { &[][..] } else { std::slice::from_raw_parts(start, length) }
        };
        match sqlite3_column_type(statement.0, at) {
            SQLITE_INTEGER => Value::Integer(sqlite3_column_int64(statement.0, at)),
            SQLITE_FLOAT => Value::Float(sqlite3_column_double(statement.0, at)),
            SQLITE_TEXT => Value::Text(String::from_utf8_lossy(bytes()).into_owned()),
            SQLITE_BLOB => Value::Blob(Bytes::copy_from_slice(bytes())),
            _ => Value::Null,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params;

    #[test]
    fn what_is_tried_or_fails_leaves_nothing_behind() {
        let mut database = Database::open().unwrap();
        let made = database.run("CREATE TABLE t (a INTEGER PRIMARY KEY, b)", &[], false).unwrap();
        assert!(made.changed);
        let two =
            "BEGIN IMMEDIATE; INSERT INTO t VALUES (?, ?); INSERT INTO t VALUES (?, x''); COMMIT";
        let tried = database.run(two, &params![1, "one", 2], true).unwrap();
        assert_eq!((tried.changed, tried.rows_affected), (true, 1));
        let count = |database: &mut Database| database.query("SELECT b FROM t", &[]).unwrap().rows;
        assert!(count(&mut database).is_empty());
        let failed = database.run(two, &params![1, "one", 1], false).unwrap_err();
        assert_eq!(failed.code & 0xff, 19);
        assert!(count(&mut database).is_empty());
        database.run(two, &params![1, "one", 2], false).unwrap();
        let rows = count(&mut database);
        assert_eq!(rows, [[Value::Text("one".into())], [Value::Blob(Bytes::new())]]);
        let nothing = database.run("DELETE FROM t WHERE a = 7", &[], false).unwrap();
        assert_eq!((nothing.changed, nothing.rows_affected), (false, 0));
    }
}
