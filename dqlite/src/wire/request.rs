//! What a client asks.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

use super::{
    HEADER_BYTES, Header, REQUEST_BODY_BYTES_MAX, Reader, Value, WORD_BYTES, WireError, Writer,
    decode_params, encode_params,
};

/// The schema in which we send parameters: four bytes for the count.
const PARAMS_SCHEMA: u8 = 1;

/// The table of requests. `db` is always 0: a connection opens one database.
#[derive(Debug, Clone, PartialEq)]
pub enum Request<'a> {
    /// Who leads?
    Leader,
    /// A client introduces itself; answered with a heartbeat timeout.
    Client {
        /// A number of the client's choice.
        id: u64,
    },
    /// Opens, and creates when missing, a database.
    Open {
        /// Its name.
        name: Cow<'a, str>,
    },
    /// Compiles one statement.
    Prepare {
        /// The open database.
        db: u32,
        /// The statement.
        sql: Cow<'a, str>,
    },
    /// Runs a prepared statement that gives no rows.
    Exec {
        /// The open database.
        db: u32,
        /// The prepared statement.
        statement: u32,
        /// Its parameters.
        params: Cow<'a, [Value]>,
    },
    /// Runs a prepared statement that gives rows.
    Query {
        /// The open database.
        db: u32,
        /// The prepared statement.
        statement: u32,
        /// Its parameters.
        params: Cow<'a, [Value]>,
    },
    /// Forgets a prepared statement.
    Finalize {
        /// The open database.
        db: u32,
        /// The prepared statement.
        statement: u32,
    },
    /// Runs statements that give no rows; parameters are used up from one to the next.
    ExecSql {
        /// The open database.
        db: u32,
        /// One or more statements.
        sql: Cow<'a, str>,
        /// Their parameters.
        params: Cow<'a, [Value]>,
    },
    /// Runs one statement that gives rows.
    QuerySql {
        /// The open database.
        db: u32,
        /// The statement.
        sql: Cow<'a, str>,
        /// Its parameters.
        params: Cow<'a, [Value]>,
    },
    /// Stops the statement that is giving rows.
    Interrupt {
        /// The open database.
        db: u32,
    },
    /// Turns the connection into a raft stream from another member.
    Connect {
        /// The member that connects.
        id: u64,
        /// Its address.
        address: Cow<'a, str>,
    },
    /// Adds a member as a spare.
    Add {
        /// The new member.
        id: u64,
        /// Its address.
        address: Cow<'a, str>,
    },
    /// Changes a member's role.
    Assign {
        /// The member.
        id: u64,
        /// The role's code.
        role: u64,
    },
    /// Removes a member.
    Remove {
        /// The member.
        id: u64,
    },
    /// Asks for the files of a database.
    Dump {
        /// Its name.
        name: Cow<'a, str>,
    },
    /// Asks for the configuration, with roles.
    Cluster,
    /// Gives leadership to a member, 0 for any.
    Transfer {
        /// The member.
        id: u64,
    },
    /// Asks for failure domain and weight of the answering node.
    Describe,
    /// Sets the weight of the answering node.
    Weight {
        /// The weight.
        weight: u64,
    },
}

/// Codes of the requests. 2 was a heartbeat once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "each is documented at its namesake in Request")]
pub enum RequestKind {
    Leader = 0,
    Client = 1,
    Open = 3,
    Prepare = 4,
    Exec = 5,
    Query = 6,
    Finalize = 7,
    ExecSql = 8,
    QuerySql = 9,
    Interrupt = 10,
    Connect = 11,
    Add = 12,
    Assign = 13,
    Remove = 14,
    Dump = 15,
    Cluster = 16,
    Transfer = 17,
    Describe = 18,
    Weight = 19,
}

const KINDS: [(RequestKind, &str); 19] = [
    (RequestKind::Leader, "leader"),
    (RequestKind::Client, "client"),
    (RequestKind::Open, "open"),
    (RequestKind::Prepare, "prepare"),
    (RequestKind::Exec, "exec"),
    (RequestKind::Query, "query"),
    (RequestKind::Finalize, "finalize"),
    (RequestKind::ExecSql, "exec sql"),
    (RequestKind::QuerySql, "query sql"),
    (RequestKind::Interrupt, "interrupt"),
    (RequestKind::Connect, "connect"),
    (RequestKind::Add, "add"),
    (RequestKind::Assign, "assign"),
    (RequestKind::Remove, "remove"),
    (RequestKind::Dump, "dump"),
    (RequestKind::Cluster, "cluster"),
    (RequestKind::Transfer, "transfer"),
    (RequestKind::Describe, "describe"),
    (RequestKind::Weight, "weight"),
];

impl RequestKind {
    /// The kind behind a code, if there is one.
    pub fn from_code(code: u8) -> Result<RequestKind, WireError> {
        let found = KINDS.iter().find(|(kind, _)| *kind as u8 == code);
        let unknown = WireError::Unknown { what: "request", code: code.into() };
        found.map(|(kind, _)| *kind).ok_or(unknown)
    }

    /// The request's name, for messages.
    pub fn name(self) -> &'static str {
        KINDS.iter().find(|(kind, _)| *kind == self).map_or("request", |(_, name)| name)
    }
}

impl Request<'_> {
    /// Which row of the table this is.
    pub fn kind(&self) -> RequestKind {
        match self {
            Request::Leader => RequestKind::Leader,
            Request::Client { .. } => RequestKind::Client,
            Request::Open { .. } => RequestKind::Open,
            Request::Prepare { .. } => RequestKind::Prepare,
            Request::Exec { .. } => RequestKind::Exec,
            Request::Query { .. } => RequestKind::Query,
            Request::Finalize { .. } => RequestKind::Finalize,
            Request::ExecSql { .. } => RequestKind::ExecSql,
            Request::QuerySql { .. } => RequestKind::QuerySql,
            Request::Interrupt { .. } => RequestKind::Interrupt,
            Request::Connect { .. } => RequestKind::Connect,
            Request::Add { .. } => RequestKind::Add,
            Request::Assign { .. } => RequestKind::Assign,
            Request::Remove { .. } => RequestKind::Remove,
            Request::Dump { .. } => RequestKind::Dump,
            Request::Cluster => RequestKind::Cluster,
            Request::Transfer { .. } => RequestKind::Transfer,
            Request::Describe => RequestKind::Describe,
            Request::Weight { .. } => RequestKind::Weight,
        }
    }

    /// Which layout the request is sent in.
    pub fn schema(&self) -> u8 {
        match self {
            Request::Exec { .. }
            | Request::Query { .. }
            | Request::ExecSql { .. }
            | Request::QuerySql { .. } => PARAMS_SCHEMA,
            _ => 0,
        }
    }

    /// Roughly the length of the message, to reserve space once.
    fn size_hint(&self) -> usize {
        let values = |params: &[Value]| params.iter().map(|value| value.size_hint() + 2).sum();
        let (text, values): (usize, usize) = match self {
            Request::Exec { params, .. } | Request::Query { params, .. } => (0, values(params)),
            Request::ExecSql { sql, params, .. } | Request::QuerySql { sql, params, .. } => {
                (sql.len(), values(params))
            }
            Request::Prepare { sql, .. } => (sql.len(), 0),
            _ => (64, 0),
        };
        HEADER_BYTES + text + values + 64
    }

    /// Appends header and body. On an error `to` is as it was.
    pub fn encode(&self, to: &mut BytesMut) -> Result<(), WireError> {
        let start = to.len();
        to.reserve(self.size_hint());
        to.extend_from_slice(&[0; HEADER_BYTES]);
        let mut body = Writer::new(to);
        let length = self.encode_body(&mut body).map(|()| body.written());
        let length = length.inspect_err(|_| to.truncate(start))?;
        debug_assert!(length.is_multiple_of(WORD_BYTES), "bodies are whole words");
        if length > REQUEST_BODY_BYTES_MAX {
            to.truncate(start);
            let (value, max) = (length as u64, REQUEST_BODY_BYTES_MAX as u64);
            return Err(WireError::TooLarge { what: "request", value, max });
        }
        let words = (length / WORD_BYTES) as u32;
        let header = Header { words, kind: self.kind() as u8, schema: self.schema() };
        to[start..start + HEADER_BYTES].copy_from_slice(&header.encode());
        Ok(())
    }

    /// Never writes an empty body: libdqlite would wait for it for ever.
    fn encode_body(&self, to: &mut Writer<'_>) -> Result<(), WireError> {
        match self {
            Request::Leader | Request::Describe => to.u64(0),
            Request::Cluster => to.u64(1),
            Request::Client { id } | Request::Remove { id } | Request::Transfer { id } => {
                to.u64(*id);
            }
            Request::Open { name } => {
                to.text(name, "name")?;
                to.u64(0);
                to.text("", "vfs")?;
            }
            Request::Prepare { db, sql } => {
                to.u64(u64::from(*db));
                to.text(sql, "sql")?;
            }
            Request::Exec { db, statement, params } | Request::Query { db, statement, params } => {
                to.u32(*db);
                to.u32(*statement);
                encode_params(params, to)?;
            }
            Request::Finalize { db, statement } => {
                to.u32(*db);
                to.u32(*statement);
            }
            Request::ExecSql { db, sql, params } | Request::QuerySql { db, sql, params } => {
                to.u64(u64::from(*db));
                to.text(sql, "sql")?;
                encode_params(params, to)?;
            }
            Request::Interrupt { db } => to.u64(u64::from(*db)),
            Request::Connect { id, address } | Request::Add { id, address } => {
                to.u64(*id);
                to.text(address, "address")?;
            }
            Request::Assign { id, role } => {
                to.u64(*id);
                to.u64(*role);
            }
            Request::Dump { name } => to.text(name, "name")?,
            Request::Weight { weight } => to.u64(*weight),
        }
        Ok(())
    }

    /// Reads the body of a request.
    pub fn decode(header: Header, body: Bytes) -> Result<Request<'static>, WireError> {
        let kind = RequestKind::from_code(header.kind)?;
        let mut from = Reader::new(body);
        let request = decode_body(kind, header.schema, &mut from)?;
        from.end(kind.name())?;
        Ok(request)
    }
}

fn decode_body(
    kind: RequestKind,
    schema: u8,
    from: &mut Reader,
) -> Result<Request<'static>, WireError> {
    let takes_params = matches!(
        kind,
        RequestKind::Exec | RequestKind::Query | RequestKind::ExecSql | RequestKind::QuerySql
    );
    if schema > u8::from(takes_params) {
        return Err(WireError::Unknown { what: "schema", code: schema.into() });
    }
    Ok(match kind {
        RequestKind::Leader => {
            from.u64("unused")?;
            Request::Leader
        }
        RequestKind::Client => Request::Client { id: from.u64("id")? },
        RequestKind::Open => {
            let name = from.text("name")?.into();
            from.u64("flags")?;
            from.text("vfs")?;
            Request::Open { name }
        }
        RequestKind::Prepare => {
            Request::Prepare { db: database(from)?, sql: from.text("sql")?.into() }
        }
        RequestKind::Exec => {
            let (db, statement) = (from.u32("db")?, from.u32("statement")?);
            Request::Exec { db, statement, params: decode_params(schema, from)?.into() }
        }
        RequestKind::Query => {
            let (db, statement) = (from.u32("db")?, from.u32("statement")?);
            Request::Query { db, statement, params: decode_params(schema, from)?.into() }
        }
        RequestKind::Finalize => {
            Request::Finalize { db: from.u32("db")?, statement: from.u32("statement")? }
        }
        RequestKind::ExecSql => {
            let (db, sql) = (database(from)?, from.text("sql")?.into());
            Request::ExecSql { db, sql, params: decode_params(schema, from)?.into() }
        }
        RequestKind::QuerySql => {
            let (db, sql) = (database(from)?, from.text("sql")?.into());
            Request::QuerySql { db, sql, params: decode_params(schema, from)?.into() }
        }
        _ => decode_cluster_body(kind, from)?,
    })
}

/// The requests that are not about SQL.
fn decode_cluster_body(
    kind: RequestKind,
    from: &mut Reader,
) -> Result<Request<'static>, WireError> {
    Ok(match kind {
        RequestKind::Interrupt => Request::Interrupt { db: database(from)? },
        RequestKind::Connect => {
            Request::Connect { id: from.u64("id")?, address: from.text("address")?.into() }
        }
        RequestKind::Add => {
            Request::Add { id: from.u64("id")?, address: from.text("address")?.into() }
        }
        RequestKind::Assign => Request::Assign { id: from.u64("id")?, role: from.u64("role")? },
        RequestKind::Remove => Request::Remove { id: from.u64("id")? },
        RequestKind::Dump => Request::Dump { name: from.text("name")?.into() },
        RequestKind::Cluster => match from.u64("format")? {
            1 => Request::Cluster,
            code => return Err(WireError::Unknown { what: "cluster format", code }),
        },
        RequestKind::Transfer => Request::Transfer { id: from.u64("id")? },
        RequestKind::Describe => match from.u64("format")? {
            0 => Request::Describe,
            code => return Err(WireError::Unknown { what: "describe format", code }),
        },
        RequestKind::Weight => Request::Weight { weight: from.u64("weight")? },
        other => return Err(WireError::Unknown { what: "request", code: other as u64 }),
    })
}

/// The number of a database where it takes a whole word.
fn database(from: &mut Reader) -> Result<u32, WireError> {
    let value = from.u64("db")?;
    let max = u64::from(u32::MAX);
    u32::try_from(value).map_err(|_| WireError::TooLarge { what: "db", value, max })
}
