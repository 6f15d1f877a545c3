//! A modelled node as its process sees it: it speaks dqlite's protocol, so
//! that the client below the store is the one of production.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dqlite::wire::{HEADER_BYTES, Header, Request, Response, RowsEnd};
use dqlite::{Connection, DatabaseName, Error, MemberId, NodeError, Role, Value};
use skiff_datastore::member::peers::raft_address;
use skiff_datastore::store::node::SqlNode;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::cluster::{Cluster, Fate, Proposed, Refusal};
use super::plant::Plant;
use datastore_history::chance::Chance;

const NOT_LEADER: u64 = 10_250;
const LEADERSHIP_LOST: u64 = 10_506;
const BUSY: u64 = 5;
const NOT_FOUND: u64 = 12;
/// What a socket of the own process buffers.
const BUFFER_BYTES: usize = 64 << 10;
/// How often a change of roles is tried before it is refused.
const ASSIGN_TRIES: u32 = 50;

/// See the module's words.
pub struct SimNode {
    pub cluster: Arc<Cluster>,
    pub id: u64,
    pub killed: watch::Receiver<bool>,
    pub dir: PathBuf,
    /// Decides how long statements take, and when the database is busy.
    pub chance: Arc<Mutex<Chance>>,
    /// Of a thousand statements so many find the database busy.
    pub busy: u64,
    pub plant: Option<Plant>,
}

#[tonic::async_trait]
impl SqlNode for SimNode {
    fn id(&self) -> MemberId {
        MemberId(self.id)
    }

    fn data_dir(&self) -> &Path {
        &self.dir
    }

    async fn connect(&self) -> Result<Connection, Error> {
        if *self.killed.borrow() {
            let source = std::io::ErrorKind::ConnectionRefused.into();
            return Err(Error::Io { during: "connecting to the own node", source });
        }
        let (near, far) = tokio::io::duplex(BUFFER_BYTES);
        let talk = Talk {
            cluster: self.cluster.clone(),
            id: self.id,
            chance: self.chance.clone(),
            busy: self.busy,
            plant: self.plant,
            opened: None,
            statements: Vec::new(),
        };
        let mut killed = self.killed.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                _ = killed.wait_for(|killed| *killed) => {}
                _ = talk.serve(far) => {}
            }
        });
        Connection::over(near).await
    }

    async fn open_when_leader(
        &self,
        name: &DatabaseName,
        timeout: Duration,
    ) -> Result<Connection, Error> {
        let deadline = Instant::now() + timeout;
        loop {
            let mut connection = self.connect().await?;
            match connection.open(name).await {
                Ok(()) => return Ok(connection),
                Err(Error::NotLeader { .. }) if Instant::now() < deadline => {
                    sleep(Duration::from_millis(2)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// A modelled disk is slow or torn, and never refuses.
    fn is_broken(&self) -> bool {
        false
    }

    async fn end(self: Arc<Self>) -> Result<(), NodeError> {
        self.cluster.kill(self.id);
        Ok(())
    }
}

/// One connection.
struct Talk {
    cluster: Arc<Cluster>,
    id: u64,
    chance: Arc<Mutex<Chance>>,
    busy: u64,
    plant: Option<Plant>,
    /// The term in which the database was opened.
    opened: Option<u64>,
    statements: Vec<String>,
}

impl Talk {
    async fn serve(mut self, mut stream: DuplexStream) -> std::io::Result<()> {
        stream.read_u64_le().await?;
        loop {
            let mut header = [0; HEADER_BYTES];
            stream.read_exact(&mut header).await?;
            let header = Header::decode(header);
            let mut body = vec![0; header.body_bytes() as usize];
            stream.read_exact(&mut body).await?;
            self.cluster.awake(self.id).await;
            let request = Request::decode(header, Bytes::from(body)).expect("we speak it too");
            let response = match self.answer(request).await {
                Ok(response) => response,
                Err((code, message)) => Response::Failure { code, message },
            };
            let mut bytes = BytesMut::new();
            response.encode(&mut bytes).expect("it is small");
            self.cluster.awake(self.id).await;
            stream.write_all(&bytes).await?;
        }
    }

    async fn answer(&mut self, request: Request<'static>) -> Result<Response, (u64, String)> {
        match request {
            Request::Leader => {
                let leader = self.cluster.leader(self.id);
                let address = leader.map(|id| raft_address(MemberId(id)).to_string());
                let address = address.unwrap_or_default();
                Ok(Response::Server { id: leader.unwrap_or(0), address })
            }
            Request::Cluster => {
                let line = |(id, role): (&u64, &Role)| {
                    (*id, raft_address(MemberId(*id)).to_string(), role.code())
                };
                let members = self.cluster.members(self.id);
                Ok(Response::Servers(members.iter().map(line).collect()))
            }
            Request::Open { .. } => {
                self.opened = Some(self.cluster.leads(self.id).ok_or_else(not_leader)?);
                Ok(Response::Database { id: 0 })
            }
            Request::Prepare { sql, .. } => {
                self.ready().await?;
                let params = self.cluster.parameters(self.id, &sql).map_err(refused)?;
                self.statements.push(self.planted(sql));
                Ok(Response::Statement { db: 0, id: self.statements.len() as u32 - 1, params })
            }
            Request::Exec { statement, params, .. } => {
                let sql = self.statements[statement as usize].clone();
                self.exec(&sql, &params).await
            }
            Request::ExecSql { sql, params, .. } => {
                let sql = self.planted(sql);
                self.exec(&sql, &params).await
            }
            Request::QuerySql { sql, params, .. } => {
                self.ready().await?;
                let table = self.cluster.query(self.id, &sql, &params).map_err(refused)?;
                Ok(Response::Rows { columns: table.columns, rows: table.rows, end: RowsEnd::Done })
            }
            Request::Assign { id, role } => self.assign(id, role).await,
            Request::Transfer { id } => self.transfer(id).await,
            other => Err((1, format!("a modelled node does not {}", other.kind().name()))),
        }
    }

    /// The statement, with the mistake of this history.
    fn planted(&self, sql: Cow<'_, str>) -> String {
        if self.plant != Some(Plant::SkipEpochGuard) {
            return sql.into_owned();
        }
        let guard = "EXISTS (SELECT 1 FROM meta WHERE id = 1 AND epoch = ?)";
        sql.replace(guard, "EXISTS (SELECT 1 FROM meta WHERE id = 1 AND ? >= 0)")
    }

    /// Waits until the statement's turn has come, if this node leads.
    async fn ready(&mut self) -> Result<(), (u64, String)> {
        let (takes, is_busy) = {
            let mut chance = self.chance.lock().unwrap();
            (chance.time_us(20, 400), chance.happens(self.busy))
        };
        sleep(takes).await;
        if is_busy {
            return Err((BUSY, "checkpoint in progress".to_owned()));
        }
        loop {
            let term = self.cluster.leads(self.id);
            if self.opened.is_none() || (term.is_some() && term != self.opened) {
                return Err((NOT_FOUND, "no database opened".to_owned()));
            }
            match self.cluster.parameters(self.id, "SELECT 1") {
                Err(Refusal::NotReady) => sleep(Duration::from_millis(1)).await,
                Ok(_) => return Ok(()),
                Err(refusal) => return Err(refused(refusal)),
            }
        }
    }

    async fn exec(&mut self, sql: &str, values: &[Value]) -> Result<Response, (u64, String)> {
        self.ready().await?;
        let ran = match self.cluster.propose(self.id, sql, values).map_err(refused)? {
            Proposed::Unchanged(ran) => ran,
            Proposed::Waits(fate) => match fate.await {
                Ok(Fate::Done(ran)) => ran.map_err(|failed| (failed.code, failed.message))?,
                Ok(Fate::Lost) if self.plant == Some(Plant::UnknownAsRefused) => {
                    return Err(not_leader());
                }
                Ok(Fate::Lost) => return Err((LEADERSHIP_LOST, "leadership lost".to_owned())),
                // The process is gone, and this connection with it.
                Err(_) => std::future::pending().await,
            },
        };
        Ok(Response::Result {
            last_insert_id: ran.last_insert_id.cast_unsigned(),
            rows_affected: ran.rows_affected,
        })
    }

    async fn assign(&mut self, to: u64, role: u64) -> Result<Response, (u64, String)> {
        let role = Role::from_code(role).ok_or((1, "no such role".to_owned()))?;
        for _ in 0..ASSIGN_TRIES {
            self.cluster.leads(self.id).ok_or_else(not_leader)?;
            let Some(fate) = self.cluster.assign(self.id, to, role) else {
                sleep(Duration::from_millis(20)).await;
                continue;
            };
            return match fate.await {
                Ok(Fate::Done(_)) => Ok(Response::Empty),
                Ok(Fate::Lost) => Err((LEADERSHIP_LOST, "leadership lost".to_owned())),
                // The process is gone, and this connection with it.
                Err(_) => std::future::pending().await,
            };
        }
        Err((1, "a change of members is in progress".to_owned()))
    }

    async fn transfer(&mut self, to: u64) -> Result<Response, (u64, String)> {
        for _ in 0..50 {
            match self.cluster.leads(self.id) {
                None => return Ok(Response::Empty),
                Some(_) => self.cluster.transfer(self.id, to),
            };
            sleep(Duration::from_millis(20)).await;
        }
        Err((1, "leadership transfer failed".to_owned()))
    }
}

fn not_leader() -> (u64, String) {
    (NOT_LEADER, "not leader".to_owned())
}

fn refused(refusal: Refusal) -> (u64, String) {
    match refusal {
        Refusal::NotLeader => not_leader(),
        Refusal::Busy | Refusal::NotReady => (BUSY, "database is locked".to_owned()),
        Refusal::Sql(failed) => (failed.code, failed.message),
    }
}
