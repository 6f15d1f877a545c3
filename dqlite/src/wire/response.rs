//! What a node answers.

use bytes::{Bytes, BytesMut};

use super::{
    COLUMNS_MAX, FILES_MAX, HEADER_BYTES, Header, MEMBERS_MAX, Reader, Row, WORD_BYTES, WireError,
    Writer, decode_row, encode_row,
};

/// Stands after the rows of a message when more messages follow.
const ROWS_PART: u64 = 0xeeee_eeee_eeee_eeee;
/// Stands after the last row of a result.
const ROWS_DONE: u64 = 0xffff_ffff_ffff_ffff;

/// Whether a result goes on in the next message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowsEnd {
    /// Another message of rows follows by itself.
    Part,
    /// That was all.
    Done,
}

/// The table of responses.
#[derive(Debug, Clone, PartialEq)]
pub enum Response {
    /// The request failed.
    Failure {
        /// An extended SQLite code or one of dqlite's own.
        code: u64,
        /// What the node says about it.
        message: String,
    },
    /// A member; id 0 and no address when there is none.
    Server {
        /// Its identity.
        id: u64,
        /// Its address.
        address: String,
    },
    /// Answer to a client's introduction.
    Welcome {
        /// Of no use since version 1.
        heartbeat_timeout: u64,
    },
    /// The configuration: identity, address and role's code of each member.
    Servers(Vec<(u64, String, u64)>),
    /// A database was opened.
    Database {
        /// Its number on this connection.
        id: u32,
    },
    /// A statement was compiled.
    Statement {
        /// The database it belongs to.
        db: u32,
        /// Its number on this connection.
        id: u32,
        /// How many parameters it takes.
        params: u64,
    },
    /// Statements were run.
    Result {
        /// The row that the last insert made, as SQLite counts.
        last_insert_id: u64,
        /// The rows that the last statement changed.
        rows_affected: u64,
    },
    /// Rows of a result.
    Rows {
        /// Names of the columns; repeated in each message.
        columns: Vec<String>,
        /// The rows.
        rows: Vec<Row>,
        /// Whether more follow.
        end: RowsEnd,
    },
    /// Done, nothing to say.
    Empty,
    /// The files of a database.
    Files(Vec<(String, Bytes)>),
    /// What a node says about itself.
    Metadata {
        /// What shares its fate.
        failure_domain: u64,
        /// How eager it is to lead.
        weight: u64,
    },
}

/// Codes of the responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "each is documented at its namesake in Response")]
pub enum ResponseKind {
    Failure = 0,
    Server = 1,
    Welcome = 2,
    Servers = 3,
    Database = 4,
    Statement = 5,
    Result = 6,
    Rows = 7,
    Empty = 8,
    Files = 9,
    Metadata = 10,
}

const KINDS: [(ResponseKind, &str); 11] = [
    (ResponseKind::Failure, "failure"),
    (ResponseKind::Server, "server"),
    (ResponseKind::Welcome, "welcome"),
    (ResponseKind::Servers, "servers"),
    (ResponseKind::Database, "database"),
    (ResponseKind::Statement, "statement"),
    (ResponseKind::Result, "result"),
    (ResponseKind::Rows, "rows"),
    (ResponseKind::Empty, "empty"),
    (ResponseKind::Files, "files"),
    (ResponseKind::Metadata, "metadata"),
];

impl ResponseKind {
    /// The kind behind a code, if there is one.
    pub fn from_code(code: u8) -> Result<ResponseKind, WireError> {
        let found = KINDS.iter().find(|(kind, _)| *kind as u8 == code);
        let unknown = WireError::Unknown { what: "response", code: code.into() };
        found.map(|(kind, _)| *kind).ok_or(unknown)
    }

    /// The response's name, for messages.
    pub fn name(self) -> &'static str {
        KINDS.iter().find(|(kind, _)| *kind == self).map_or("response", |(_, name)| name)
    }
}

impl Response {
    /// Which row of the table this is.
    pub fn kind(&self) -> ResponseKind {
        match self {
            Response::Failure { .. } => ResponseKind::Failure,
            Response::Server { .. } => ResponseKind::Server,
            Response::Welcome { .. } => ResponseKind::Welcome,
            Response::Servers(_) => ResponseKind::Servers,
            Response::Database { .. } => ResponseKind::Database,
            Response::Statement { .. } => ResponseKind::Statement,
            Response::Result { .. } => ResponseKind::Result,
            Response::Rows { .. } => ResponseKind::Rows,
            Response::Empty => ResponseKind::Empty,
            Response::Files(_) => ResponseKind::Files,
            Response::Metadata { .. } => ResponseKind::Metadata,
        }
    }

    /// Reads the body of a response; all of them come in schema 0, since we ask in no other that
    /// changes the answer.
    pub fn decode(header: Header, body: Bytes) -> Result<Response, WireError> {
        let kind = ResponseKind::from_code(header.kind)?;
        if header.schema != 0 {
            return Err(WireError::Unknown { what: "schema", code: header.schema.into() });
        }
        if kind == ResponseKind::Failure {
            return decode_failure(body);
        }
        let mut from = Reader::new(body);
        let response = decode_body(kind, &mut from)?;
        from.end(kind.name())?;
        Ok(response)
    }

    /// Appends header and body. On an error `to` is as it was.
    pub fn encode(&self, to: &mut BytesMut) -> Result<(), WireError> {
        let start = to.len();
        to.extend_from_slice(&[0; HEADER_BYTES]);
        let mut body = Writer::new(to);
        let length = self.encode_body(&mut body).map(|()| body.written());
        let length = length.inspect_err(|_| to.truncate(start))?;
        let words = (length / WORD_BYTES) as u64;
        let words = u32::try_from(words).map_err(|_| WireError::TooLarge {
            what: "response",
            value: words,
            max: u32::MAX.into(),
        });
        let words = words.inspect_err(|_| to.truncate(start))?;
        let header = Header { words, kind: self.kind() as u8, schema: 0 };
        to[start..start + HEADER_BYTES].copy_from_slice(&header.encode());
        Ok(())
    }

    fn encode_body(&self, to: &mut Writer<'_>) -> Result<(), WireError> {
        match self {
            Response::Failure { code, message } => {
                to.u64(*code);
                to.text(message, "message")?;
            }
            Response::Server { id, address } => {
                to.u64(*id);
                to.text(address, "address")?;
            }
            Response::Welcome { heartbeat_timeout } => to.u64(*heartbeat_timeout),
            Response::Servers(servers) => {
                to.u64(servers.len() as u64);
                for (id, address, role) in servers {
                    to.u64(*id);
                    to.text(address, "address")?;
                    to.u64(*role);
                }
            }
            Response::Database { id } => to.u64(u64::from(*id)),
            Response::Statement { db, id, params } => {
                to.u32(*db);
                to.u32(*id);
                to.u64(*params);
            }
            Response::Result { last_insert_id, rows_affected } => {
                to.u64(*last_insert_id);
                to.u64(*rows_affected);
            }
            Response::Rows { columns, rows, end } => {
                to.u64(columns.len() as u64);
                columns.iter().try_for_each(|name| to.text(name, "column"))?;
                rows.iter().try_for_each(|row| encode_row(row, to))?;
                to.u64(if *end == RowsEnd::Part { ROWS_PART } else { ROWS_DONE });
            }
            Response::Empty => to.u64(0),
            Response::Files(files) => {
                to.u64(files.len() as u64);
                for (name, content) in files {
                    to.text(name, "file name")?;
                    to.blob(content, "file")?;
                }
            }
            Response::Metadata { failure_domain, weight } => {
                to.u64(*failure_domain);
                to.u64(*weight);
            }
        }
        Ok(())
    }
}

fn decode_body(kind: ResponseKind, from: &mut Reader) -> Result<Response, WireError> {
    Ok(match kind {
        ResponseKind::Failure => return failure(from),
        ResponseKind::Server => {
            Response::Server { id: from.u64("id")?, address: from.text("address")? }
        }
        ResponseKind::Welcome => Response::Welcome { heartbeat_timeout: from.u64("timeout")? },
        ResponseKind::Servers => {
            let count = count(from, "number of members", MEMBERS_MAX)?;
            let member = |_| Ok((from.u64("id")?, from.text("address")?, from.u64("role")?));
            Response::Servers((0..count).map(member).collect::<Result<_, WireError>>()?)
        }
        ResponseKind::Database => {
            let id = from.u32("db")?;
            from.u32("padding")?;
            Response::Database { id }
        }
        ResponseKind::Statement => Response::Statement {
            db: from.u32("db")?,
            id: from.u32("statement")?,
            params: from.u64("params")?,
        },
        ResponseKind::Result => Response::Result {
            last_insert_id: from.u64("last insert id")?,
            rows_affected: from.u64("rows affected")?,
        },
        ResponseKind::Rows => rows(from)?,
        ResponseKind::Empty => {
            from.u64("unused")?;
            Response::Empty
        }
        ResponseKind::Files => {
            let count = count(from, "number of files", FILES_MAX)?;
            let file = |_| Ok((from.text("file name")?, from.blob("file")?));
            Response::Files((0..count).map(file).collect::<Result<_, WireError>>()?)
        }
        ResponseKind::Metadata => Response::Metadata {
            failure_domain: from.u64("failure domain")?,
            weight: from.u64("weight")?,
        },
    })
}

fn count(from: &mut Reader, what: &'static str, max: usize) -> Result<usize, WireError> {
    let value = from.u64(what)?;
    if value > max as u64 {
        return Err(WireError::TooLarge { what, value, max: max as u64 });
    }
    Ok(value as usize)
}

fn column_names(from: &mut Reader) -> Result<Vec<String>, WireError> {
    let columns = count(from, "number of columns", COLUMNS_MAX)?;
    (0..columns).map(|_| from.text("column")).collect()
}

fn rows(from: &mut Reader) -> Result<Response, WireError> {
    let columns = column_names(from)?;
    let mut rows = Vec::new();
    loop {
        // No row begins like a mark: no type has the code 14 or 15.
        let end = match from.peek_u64() {
            Some(ROWS_PART) => RowsEnd::Part,
            Some(ROWS_DONE) => RowsEnd::Done,
            _ => {
                rows.push(decode_row(columns.len(), from)?);
                continue;
            }
        };
        from.u64("end of rows")?;
        return Ok(Response::Rows { columns, rows, end });
    }
}

fn failure(from: &mut Reader) -> Result<Response, WireError> {
    Ok(Response::Failure { code: from.u64("code")?, message: from.text("message")? })
}

/// Reads a failure, also one with part of a result before it.
///
/// When a query fails while it gives rows (a bad cast, an interrupt), libdqlite 1.18 appends the
/// failure to what it had collected: the column count stands where the code should be. A clean
/// failure fills its message to the last byte; the other is found behind the names and rows, at the
/// first place from which a failure does.
fn decode_failure(body: Bytes) -> Result<Response, WireError> {
    let whole = |from: &Reader| {
        let mut from = from.clone();
        let found = failure(&mut from)?;
        from.end("failure").map(|()| found)
    };
    let clean = whole(&Reader::new(body.clone()));
    if clean.is_ok() {
        return clean;
    }
    let mut from = Reader::new(body);
    let Ok(columns) = column_names(&mut from) else {
        return clean;
    };
    loop {
        if let Ok(found) = whole(&from) {
            return Ok(found);
        }
        if decode_row(columns.len(), &mut from).is_err() {
            return clean;
        }
    }
}
