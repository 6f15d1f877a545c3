//! Channels of our own protocol to other members.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use dqlite::MemberId;
use http::Uri;
use hyper_util::rt::TokioIo;
use tonic::Request;
use tonic::codegen::Service;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};

use super::roster::Roster;
use super::tls::Identity;
use super::wire::{Dial, Duplex, Target as Wired, TlsDial};
use crate::database::Database;
use crate::proto::peer::members_client::MembersClient;
use crate::proto::peer::peer_client::PeerClient;

/// A silent connection is asked for life this often,
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// and given up after so long without an answer, in a good network.
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// The largest message: a row or a chunk, whatever it takes.
pub const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// Where what is about the database `cluster` is asked for. Members that don't
/// serve it know no such path.
pub const CLUSTER_PATH: &str = "/cluster";
const CLUSTER_ORIGIN: &str = "http://member/cluster";

/// Marks what was passed on once already.
const PASSED_ON: &str = "skiff-passed-on";

/// A request that is passed on to the leader, and must not be again.
pub fn pass_on<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(PASSED_ON, MetadataValue::from_static("1"));
    request
}

/// Whether another member passed it on.
pub fn is_passed_on<T>(request: &Request<T>) -> bool {
    request.metadata().contains_key(PASSED_ON)
}

/// Where a channel leads.
#[derive(Clone)]
enum Target {
    /// A member, wherever it is at the moment of connecting.
    Member(MemberId),
    /// An address, and the node that must be there; empty when only the address is known.
    Address { address: String, node: String },
}

/// Dials for tonic.
#[derive(Clone)]
struct Dialer {
    roster: Arc<Roster>,
    dial: Arc<dyn Dial>,
    target: Target,
}

type Connecting = Pin<Box<dyn Future<Output = io::Result<TokioIo<Box<dyn Duplex>>>> + Send>>;

impl Service<Uri> for Dialer {
    type Response = TokioIo<Box<dyn Duplex>>;
    type Error = io::Error;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Dialer { roster, dial, target } = self.clone();
        Box::pin(async move {
            let patience = roster.patience();
            let wired = match target {
                Target::Address { address, node } => Wired { address, node },
                Target::Member(id) => roster
                    .peer(id)
                    .filter(|peer| !peer.removed)
                    .map(|peer| Wired { address: peer.address, node: peer.node })
                    .ok_or_else(|| io::Error::other(format!("no member {id}")))?,
            };
            Ok(TokioIo::new(dial.dial(wired, patience).await?))
        })
    }
}

/// A client of another member; cheap to clone.
pub type Client = PeerClient<Channel>;

fn open(dialer: Dialer) -> Channel {
    let patience = dialer.roster.patience();
    Endpoint::from_static("http://member")
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT + patience)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .connect_with_connector_lazy(dialer)
}

fn client(channel: Channel, database: Database) -> Client {
    let client = match database {
        Database::Kube => PeerClient::new(channel),
        Database::Cluster => PeerClient::with_origin(channel, Uri::from_static(CLUSTER_ORIGIN)),
    };
    client.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// Channels to members, made when first needed and kept.
pub struct Channels {
    roster: Arc<Roster>,
    dial: Arc<dyn Dial>,
    open: Mutex<HashMap<MemberId, Channel>>,
}

impl Channels {
    /// None yet.
    pub fn new(roster: Arc<Roster>, identity: &Identity) -> Channels {
        Channels::over(roster, Arc::new(TlsDial { identity: identity.clone() }))
    }

    /// The same over streams of another kind.
    pub fn over(roster: Arc<Roster>, dial: Arc<dyn Dial>) -> Channels {
        Channels { roster, dial, open: Mutex::default() }
    }

    /// A client of the member `id`; connects when it is used.
    pub fn to(&self, id: MemberId) -> Client {
        self.to_database(id, Database::Kube)
    }

    /// The same for what is about one of the databases.
    pub fn to_database(&self, id: MemberId, database: Database) -> Client {
        client(self.channel(id), database)
    }

    /// A client of the member `id` for what operators ask.
    pub fn operator(&self, id: MemberId) -> MembersClient<Channel> {
        MembersClient::new(self.channel(id))
    }

    fn channel(&self, id: MemberId) -> Channel {
        let mut all = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(id).or_insert_with(|| open(self.dialer(Target::Member(id)))).clone()
    }

    /// A client of whoever listens at `address`.
    pub fn to_address(&self, address: &str) -> Client {
        self.to_node_at(address, "")
    }

    /// The same, should that be the node's.
    pub fn to_node_at(&self, address: &str, node: &str) -> Client {
        let target = Target::Address { address: address.to_owned(), node: node.to_owned() };
        client(open(self.dialer(target)), Database::Kube)
    }

    fn dialer(&self, target: Target) -> Dialer {
        Dialer { roster: self.roster.clone(), dial: self.dial.clone(), target }
    }
}
