//! A client's connection to one node: one database, one request at a time.

mod cluster;
mod open_queries;
mod rows;
mod socket;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

pub use cluster::Metadata;
pub(crate) use open_queries::OpenQueries;
pub use rows::{Row, RowStream, Rows};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::busy::{BusyPolicy, is_single_statement, may_retry_busy, plan_busy_retry};
use crate::error::{Error, UnknownCause};
use crate::identity::DatabaseName;
use crate::wire::{Request, Response, Value, WireError};
use rows::Part;
use socket::Socket;

/// The number that libdqlite gives to the one database of a connection.
const DATABASE: u32 = 0;

/// A connection to a node.
///
/// It carries one request at a time, hence `&mut self`; several connections work side by side, and
/// of several writers to a database one writes while the others queue. A connection is used with one
/// database, opened once.
///
/// **Cancelling**: a call whose future is dropped before its end leaves the connection unusable
/// ([`Connection::is_usable`]): the answer would be taken for that of the next request. Whether a
/// write that was cancelled has been committed is unknown. Open a new connection.
///
/// **Transactions** belong to the connection: `BEGIN IMMEDIATE` takes the writer's place at once and
/// is the right beginning for all that write; a plain `BEGIN` that reads and then writes may fail
/// with 517 because the data has moved on. Closing the connection rolls back.
pub struct Connection {
    /// `None` only while the connection is dropped.
    socket: Option<Socket>,
    phase: Phase,
    busy: BusyPolicy,
    open_queries: Arc<OpenQueries>,
}

/// What the connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing: the next request may be sent.
    Idle,
    /// A request is on its way, perhaps half of it.
    Sending,
    /// An answer of one message.
    Answer,
    /// An answer of one or more messages of rows.
    Rows,
    /// The connection or its database is lost.
    Broken,
}

/// What a statement without rows did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecResult {
    /// The row that the last insert of this connection made.
    pub last_insert_id: i64,
    /// The rows that the last statement inserted, updated or deleted. A statement that changes no
    /// rows by nature (BEGIN, COMMIT) repeats the number of the one before.
    pub rows_affected: u64,
}

/// A compiled statement of one connection. It is only a number: using it on another connection runs
/// what that one has under the number.
#[derive(Debug, PartialEq, Eq)]
pub struct Statement {
    id: u32,
    params: u64,
    reads_only: bool,
}

impl Statement {
    /// How many parameters the statement takes. Missing ones are NULL, additional ones refused.
    pub fn params(&self) -> u64 {
        self.params
    }
}

impl Connection {
    /// Takes over a connected socket and greets. Must be called within a tokio runtime.
    pub async fn from_fd(fd: OwnedFd) -> Result<Connection, Error> {
        Connection::counted(fd, Arc::default()).await
    }

    /// Speaks over a stream that is connected already, whatever carries it: the seam for a
    /// simulated node.
    pub async fn over(
        stream: impl AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static,
    ) -> Result<Connection, Error> {
        Connection::begin(Socket::over(Box::new(stream)), Arc::default()).await
    }

    /// The same, with the count of open queries that the node looks at when it ends.
    pub(crate) async fn counted(
        fd: OwnedFd,
        open_queries: Arc<OpenQueries>,
    ) -> Result<Connection, Error> {
        let io = |source| Error::Io { during: "connecting to the node", source };
        Connection::begin(Socket::from_fd(fd).map_err(io)?, open_queries).await
    }

    async fn begin(
        mut socket: Socket,
        open_queries: Arc<OpenQueries>,
    ) -> Result<Connection, Error> {
        let io = |source| Error::Io { during: "connecting to the node", source };
        socket.handshake().await.map_err(io)?;
        let (socket, busy) = (Some(socket), BusyPolicy::default());
        Ok(Connection { socket, phase: Phase::Idle, busy, open_queries })
    }

    /// Whether further calls can succeed. False after a failure of the connection, an answer that
    /// was not understood, a call that was cancelled and a stream of rows that was not read to its end.
    pub fn is_usable(&self) -> bool {
        self.phase == Phase::Idle
    }

    /// How long a busy database is waited for.
    pub fn set_busy_policy(&mut self, policy: BusyPolicy) {
        self.busy = policy;
    }

    /// Opens the connection's database, and creates it when missing. Only the leader does.
    pub async fn open(&mut self, name: &DatabaseName) -> Result<(), Error> {
        let request = Request::Open { name: name.as_str().into() };
        match self.ask(&request, true).await? {
            Response::Database { id: DATABASE } => Ok(()),
            other => Err(self.unexpected(&request, &other)),
        }
    }

    /// Runs statements that give no rows.
    ///
    /// `sql` may hold several statements, separated by `;`: one round trip for a whole transaction.
    /// Parameters are used up from one statement to the next, and the result is that of the last.
    /// When one fails the ones after it are not run, and a transaction that was begun stays open:
    /// roll it back.
    pub async fn exec(&mut self, sql: &str, params: &[Value]) -> Result<ExecResult, Error> {
        let request = Request::ExecSql { db: DATABASE, sql: sql.into(), params: params.into() };
        self.run_exec(&request, sql).await
    }

    /// Runs one statement that gives rows and collects them.
    pub async fn query(&mut self, sql: &str, params: &[Value]) -> Result<Rows, Error> {
        self.query_stream(sql, params).await?.collect().await
    }

    /// Runs one statement that gives rows, to be read as they arrive.
    pub async fn query_stream(
        &mut self,
        sql: &str,
        params: &[Value],
    ) -> Result<RowStream<'_>, Error> {
        let request = Request::QuerySql { db: DATABASE, sql: sql.into(), params: params.into() };
        self.run_query(&request, reads_only(sql)).await
    }

    /// Compiles one statement. The node keeps it until it is finalized or the connection ends.
    pub async fn prepare(&mut self, sql: &str) -> Result<Statement, Error> {
        let request = Request::Prepare { db: DATABASE, sql: sql.into() };
        let mut waits = Waits::new(self.busy);
        loop {
            match self.ask(&request, true).await {
                Err(Error::Busy { message, .. }) => waits.pause(message).await?,
                Err(e) => return Err(e),
                Ok(Response::Statement { db: DATABASE, id, params }) => {
                    return Ok(Statement { id, params, reads_only: reads_only(sql) });
                }
                Ok(other) => return Err(self.unexpected(&request, &other)),
            }
        }
    }

    /// Runs a prepared statement that gives no rows.
    pub async fn exec_prepared(
        &mut self,
        statement: &Statement,
        params: &[Value],
    ) -> Result<ExecResult, Error> {
        let statement = statement.id;
        let request = Request::Exec { db: DATABASE, statement, params: params.into() };
        self.run_exec(&request, "").await
    }

    /// Runs a prepared statement that gives rows and collects them.
    pub async fn query_prepared(
        &mut self,
        statement: &Statement,
        params: &[Value],
    ) -> Result<Rows, Error> {
        self.query_prepared_stream(statement, params).await?.collect().await
    }

    /// Runs a prepared statement that gives rows, to be read as they arrive.
    pub async fn query_prepared_stream(
        &mut self,
        statement: &Statement,
        params: &[Value],
    ) -> Result<RowStream<'_>, Error> {
        let reads_only = statement.reads_only;
        let statement = statement.id;
        let request = Request::Query { db: DATABASE, statement, params: params.into() };
        self.run_query(&request, reads_only).await
    }

    /// Forgets a prepared statement.
    pub async fn finalize(&mut self, statement: Statement) -> Result<(), Error> {
        let request = Request::Finalize { db: DATABASE, statement: statement.id };
        self.ask_empty(&request).await
    }

    /// Asks the node to stop what this connection runs. Between statements, which is when a
    /// connection can be called, there is nothing to stop; see [`RowStream`] for what works instead.
    pub async fn interrupt(&mut self) -> Result<(), Error> {
        self.ask_empty(&Request::Interrupt { db: DATABASE }).await
    }

    async fn run_exec(&mut self, request: &Request<'_>, sql: &str) -> Result<ExecResult, Error> {
        let mut waits = Waits::new(self.busy);
        loop {
            match self.ask(request, false).await {
                Err(Error::Busy { message, .. }) if may_retry_busy(sql, &message) => {
                    waits.pause(message).await?;
                }
                Err(e) => return Err(e),
                Ok(Response::Result { last_insert_id, rows_affected }) => {
                    let last_insert_id = last_insert_id.cast_signed();
                    return Ok(ExecResult { last_insert_id, rows_affected });
                }
                Ok(other) => return Err(self.unexpected(request, &other)),
            }
        }
    }

    async fn run_query(
        &mut self,
        request: &Request<'_>,
        reads_only: bool,
    ) -> Result<RowStream<'_>, Error> {
        let mut waits = Waits::new(self.busy);
        loop {
            self.send(request, Phase::Rows).await?;
            match self.receive_rows(reads_only).await {
                Err(Error::Busy { message, .. }) => waits.pause(message).await?,
                Err(e) => return Err(barrier_failure(request, e)),
                Ok(part) => return Ok(RowStream::new(self, reads_only, part)),
            }
        }
    }

    /// Sends a request that is answered by one message, and receives that. `reads_only` tells what a
    /// lost answer means.
    async fn ask(&mut self, request: &Request<'_>, reads_only: bool) -> Result<Response, Error> {
        self.send(request, Phase::Answer).await?;
        let response = self.receive(reads_only).await?;
        self.phase = Phase::Idle;
        self.checked(response, reads_only)
    }

    /// The same for requests that have nothing to answer.
    async fn ask_empty(&mut self, request: &Request<'_>) -> Result<(), Error> {
        match self.ask(request, true).await? {
            Response::Empty => Ok(()),
            other => Err(self.unexpected(request, &other)),
        }
    }

    /// Sends a request; until its answer is read whole the connection is unusable.
    async fn send(&mut self, request: &Request<'_>, next: Phase) -> Result<(), Error> {
        let (Phase::Idle, Some(socket)) = (self.phase, self.socket.as_mut()) else {
            return Err(Error::Unusable);
        };
        socket.output.clear();
        request.encode(&mut socket.output).map_err(Error::Parameter)?;
        self.phase = Phase::Sending;
        if let Err(source) = socket.send().await {
            self.phase = Phase::Broken;
            return Err(Error::Io { during: "sending the request", source });
        }
        self.phase = next;
        if next == Phase::Rows {
            self.open_queries.began();
        }
        Ok(())
    }

    async fn receive(&mut self, reads_only: bool) -> Result<Response, Error> {
        let unknown = |cause| Error::OutcomeUnknown { cause };
        let Some(socket) = self.socket.as_mut() else {
            return Err(Error::Unusable);
        };
        let received = socket.receive().await;
        let (header, body) = match received {
            Ok(message) => message,
            Err(source) => {
                self.phase = Phase::Broken;
                return Err(match reads_only {
                    true => Error::Io { during: "waiting for the answer", source },
                    false => unknown(UnknownCause::ConnectionLost(source)),
                });
            }
        };
        Response::decode(header, body).map_err(|e| {
            self.phase = Phase::Broken;
            match reads_only {
                true => Error::Protocol(e),
                false => unknown(UnknownCause::BadAnswer(e)),
            }
        })
    }

    /// Receives one message of rows; the last, or a failure, makes the connection usable again.
    async fn receive_rows(&mut self, reads_only: bool) -> Result<Part, Error> {
        let response = self.receive(reads_only).await?;
        if !open_queries::goes_on(&response) {
            self.open_queries.ended();
            self.phase = Phase::Idle;
        }
        match self.checked(response, true)? {
            Response::Rows { columns, rows, end } => Ok(Part { columns, rows, end }),
            other => {
                self.phase = Phase::Broken;
                let got = other.kind().name();
                Err(Error::Protocol(WireError::Unexpected { asked: "query", got }))
            }
        }
    }

    /// Turns a failure into an error, and notices when the node has closed the database.
    fn checked(&mut self, response: Response, reads_only: bool) -> Result<Response, Error> {
        let Response::Failure { code, message } = response else {
            return Ok(response);
        };
        let error = Error::from_failure(code, message, reads_only);
        if matches!(error, Error::DatabaseClosed { .. }) {
            self.phase = Phase::Broken;
        }
        Err(error)
    }

    fn unexpected(&mut self, request: &Request<'_>, response: &Response) -> Error {
        self.phase = Phase::Broken;
        let (asked, got) = (request.kind().name(), response.kind().name());
        Error::Protocol(WireError::Unexpected { asked, got })
    }
}

impl Drop for Connection {
    /// An answer of rows must be read to its end, or libdqlite never lets go of the query.
    fn drop(&mut self) {
        if let (Phase::Rows, Some(socket)) = (self.phase, self.socket.take()) {
            open_queries::finish_in_background(socket, self.open_queries.clone());
        }
    }
}

/// What a failed query of SQL text really means.
///
/// When the node loses leadership while a query waits for its barrier, libdqlite 1.18 forgets why it
/// failed and complains about the text behind the statement, also when there is none.
fn barrier_failure(request: &Request<'_>, error: Error) -> Error {
    match (request, error) {
        (Request::QuerySql { sql, .. }, Error::Sql { code: 1, message })
            if message == "nonempty statement tail" && is_single_statement(sql) =>
        {
            Error::NotLeader { message: "leadership lost before the query".to_string() }
        }
        (_, error) => error,
    }
}

/// The pauses of one call.
struct Waits {
    policy: BusyPolicy,
    attempts: u32,
    waited: Duration,
}

impl Waits {
    fn new(policy: BusyPolicy) -> Waits {
        Waits { policy, attempts: 0, waited: Duration::ZERO }
    }

    /// Pauses as the policy says, or gives up.
    async fn pause(&mut self, message: String) -> Result<(), Error> {
        self.attempts += 1;
        let Some(pause) = plan_busy_retry(self.policy, self.attempts, self.waited) else {
            return Err(Error::Busy { message, waited: self.waited });
        };
        tokio::time::sleep(pause).await;
        self.waited += pause;
        Ok(())
    }
}

/// Whether a statement certainly writes nothing, judged by its first word.
fn reads_only(sql: &str) -> bool {
    let first = sql.split_whitespace().next().unwrap_or_default();
    let reading = ["select", "values", "explain", "pragma"];
    reading.iter().any(|word| first.eq_ignore_ascii_case(word))
}
