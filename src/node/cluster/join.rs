//! The joiner: from a token to a machine that is set up as a node, up to where its daemons start.
//!
//! Nothing is written before the cluster has said that it would take this machine. From then on a
//! line on the disk says how the join is taken back, until the membership takes its place.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use microcluster::client::{Client, ClientError};
use microcluster::dial::DialFailure;
use microcluster::message::{
    Answer, Applicant, Asked, Choices as Written, Enter, Entered, Entrant, GivenUp, Refusal,
    RefusalCode, Request, Undo,
};
use microcluster::protocol::CLOCKS_APART_MAX;
use microcluster::reach::{self, ListenError, Listening};
use microcluster::record::{Fingerprint, NodeRole};
use microcluster::tls::Pin;
use microcluster::token::{JoinToken, Proven};
use microcluster::version::Version;
use time::OffsetDateTime;
use x509_parser::pem::Pem;

use super::ask::{AskError, PATH, ask_in_turn, granted};
use super::fit::{self, FitError};
use super::keys::{self, KeyError, Keys};
use super::listener::Greeting;
use super::membership::shared;
use super::seal::{Opener, SealError};
use super::{Begun, Cluster, GroundError, Membership, MembershipError, Stage, ground};
use crate::config::{Choices, Config, ConfigError, Origin, datastore_name};
use crate::host::address;
use crate::node::authorities::{Standing, TwoSides, store_public};
use crate::node::prepare::{self, PrepareError};
use crate::paths::Paths;
use crate::pki::StoreError;

/// A request whose outcome is not known is made again so often: it is the same join.
const TRIES_MAX: u32 = 5;
const TRY_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("the cluster cannot be reached")]
    Look(#[source] AskError),
    #[error("the clock of this machine is {0} off from that of the cluster")]
    Clock(String),
    #[error("the cluster does not take this machine")]
    Refused(#[source] AskError),
    #[error("the cluster answered with authorities of which none is the token's")]
    Authority,
    #[error("this machine's settings do not go with those of the cluster")]
    Settings(#[source] ConfigError),
    #[error("this machine has no address but loopback: give it one, or set node.address")]
    NoAddress,
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("this machine and the cluster do not go together")]
    Fit(#[from] FitError),
    #[error("the request cannot be written")]
    State(#[source] serde_json::Error),
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    #[error(transparent)]
    Ground(#[from] GroundError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Membership(#[from] MembershipError),
    #[error("cannot remove the line that says how the join is taken back")]
    Forget(#[source] io::Error),
    #[error("no connection can be made")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl JoinError {
    /// What to do next, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Clock(_) => Some("timedatectl set-ntp true, then try again".into()),
            Self::Refused(error) => error.hint(),
            Self::Listen(_) => Some("skiff check, which says who has it".into()),
            Self::Fit(error) => Some(error.hint()),
            Self::Settings(_) => Some("make these lines go together, then try again".into()),
            Self::Look(AskError::Client(ClientError::Unreached(failures))) => {
                let other = |(_, failure): &(String, DialFailure)| {
                    matches!(failure, DialFailure::OtherAuthority { .. })
                };
                Some(
                    match failures.iter().any(other) {
                        true => {
                            "is the token of this cluster? `skiff add-node` there makes a new one"
                        }
                        false => {
                            "can this machine reach port 7443 there? `skiff status` says how it is"
                        }
                    }
                    .into(),
                )
            }
            _ => None,
        }
    }
}

/// What the cluster said to a machine that it would take.
pub struct Welcome {
    client: Client,
    keys: Keys,
    /// Of a machine that would run the control plane.
    opener: Option<Opener>,
    applicant: Applicant,
    cluster: Asked,
}

/// A machine that would be a node.
pub struct Joiner<'a> {
    pub role: NodeRole,
    pub paths: &'a Paths,
    pub config: &'a Config,
    pub kubernetes: Version,
    pub token: &'a JoinToken,
}

impl Joiner<'_> {
    /// Whether the cluster would take this machine; nothing has changed then, here or there.
    pub async fn ask(&self, say: &dyn Fn(&str)) -> Result<Welcome, JoinError> {
        say("looking for the cluster");
        self.look().await?;
        let client = client(self.token, Pin::strict(*self.token.authority().as_bytes()))?;
        let (purposes, opener) = match self.role {
            NodeRole::ControlPlane => (&keys::OF_CONTROL_PLANE[..], Some(Opener::generate())),
            NodeRole::Worker => (&keys::OF_WORKER[..], None),
        };
        let keys = Keys::generate(purposes)?;
        let applicant = self.applicant(&keys)?;
        say("asking whether it takes this machine");
        let cluster = {
            let _reachable = self.listen(&applicant).await?;
            let asked = Request::Ask(state(self.token, &applicant)?);
            match ask(&client, asked).await.map_err(JoinError::Refused)? {
                Answer::Asked(cluster) => cluster,
                _ => return Err(JoinError::Refused(AskError::Answer)),
            }
        };
        self.check_settings(&cluster)?;
        fit::check(&cluster).await?;
        Ok(Welcome { client, keys, opener, applicant, cluster })
    }

    /// Joins, up to where the daemons start. A failure leaves at most what [`Begun`] is about.
    pub async fn enter(
        &self,
        welcome: Welcome,
        say: &dyn Fn(&str),
    ) -> Result<Membership, JoinError> {
        let Welcome { client, keys, opener, mut applicant, cluster } = welcome;
        say(&format!("entering as {}", applicant.name));
        prepare::ground(self.paths)?;
        let begun = Begun { token: self.token.to_string(), id: applicant.id };
        begun.write(&self.paths.node())?;
        // Putting the components in place may have taken minutes.
        applicant.sent = OffsetDateTime::now_utc();
        let recipient = opener.as_ref().map(Opener::recipient);
        let entered = self.ask_to_enter(&client, applicant, &keys, recipient).await?;
        say("writing certificates and settings");
        self.settle(&cluster, entered, &keys, opener)
    }

    /// Whether the machine's own settings go with those that it takes over.
    fn check_settings(&self, cluster: &Asked) -> Result<(), JoinError> {
        let settings = &cluster.settings;
        let shared = shared(settings, self.role, false, settings.shared.clone());
        self.config.with_shared(&shared).map(drop).map_err(JoinError::Settings)
    }

    /// Finds a member of the token's cluster, without a secret, and compares the clocks.
    async fn look(&self) -> Result<(), JoinError> {
        let pin = Pin::told(*self.token.authority().as_bytes());
        let client = client(self.token, pin.clone())?;
        let greeting: Greeting =
            client.get(PATH).await.map_err(|error| JoinError::Look(error.into()))?;
        let apart = (OffsetDateTime::now_utc() - greeting.now).abs();
        if apart > CLOCKS_APART_MAX || pin.doubt().is_some() {
            return Err(JoinError::Clock(in_words(apart)));
        }
        Ok(())
    }

    /// While it asks, the cluster tries the ports that it will need.
    async fn listen(&self, applicant: &Applicant) -> Result<Listening, JoinError> {
        let ports = reach::ports(applicant.role);
        let address = applicant.addresses.first().copied().ok_or(JoinError::NoAddress)?;
        Ok(reach::listen(self.token, applicant.id, address, ports).await?)
    }

    fn applicant(&self, keys: &Keys) -> Result<Applicant, JoinError> {
        let config = self.config;
        let chosen = |key: &str| config.origin(key) != Origin::Default;
        let range = |key: &str, text: &str| {
            let range = text.parse::<ipnet::IpNet>().ok().filter(|_| chosen(key));
            range.map(|range| vec![range.trunc()])
        };
        let network = &config.network;
        let choices = Written {
            pod_cidrs: range("network.pod-cidr", &network.pod_cidr),
            service_cidrs: range("network.service-cidr", &network.service_cidr),
            dns_domain: chosen("network.dns-domain").then(|| network.dns_domain.clone()),
            dns_address: chosen("network.dns-address").then_some(network.dns_address),
            // A worker keeps no objects.
            datastore: datastore_name(config.datastore.endpoint())
                .filter(|_| self.role == NodeRole::ControlPlane),
        };
        let address = config.node.address.or_else(address::choose);
        Ok(Applicant {
            id: keys.id(),
            name: prepare::choices(config)?.node_name,
            role: self.role,
            addresses: vec![address.ok_or(JoinError::NoAddress)?],
            kubernetes: self.kubernetes,
            failure_domain: String::new(),
            choices,
            member_of: None,
            sent: OffsetDateTime::now_utc(),
        })
    }

    async fn ask_to_enter(
        &self,
        client: &Client,
        applicant: Applicant,
        keys: &Keys,
        recipient: Option<String>,
    ) -> Result<Entered, JoinError> {
        let requests = keys.requests()?;
        let entrant = Entrant { applicant, requests, recipient };
        let request = Request::Enter(Enter::Proven(state(self.token, &entrant)?));
        match ask(client, request).await.map_err(JoinError::Refused)? {
            Answer::Entered(entered) => Ok(*entered),
            _ => Err(JoinError::Refused(AskError::Answer)),
        }
    }

    /// Writes what the cluster has answered. The membership comes last: it is what counts.
    fn settle(
        &self,
        cluster: &Asked,
        entered: Entered,
        keys: &Keys,
        opener: Option<Opener>,
    ) -> Result<Membership, JoinError> {
        if !holds(&entered.bundle.cluster, self.token.authority()) {
            return Err(JoinError::Authority);
        }
        let members = match entered.members.is_empty() {
            true => cluster.members.clone(),
            false => entered.members,
        };
        let membership = Membership {
            name: entered.name,
            id: entered.id,
            role: entered.role,
            stage: Stage::Joining,
            settings: entered.settings,
            members,
            endpoints: self.token.addresses().to_vec(),
            labels: entered.labels,
            taints: entered.taints,
        };
        let agent = ground(self.paths, &membership)?.agent;
        match &opener {
            Some(opener) => {
                let rotation = membership.settings.rotation.current.as_deref();
                let sealed = entered.sealed.as_deref();
                let keys = opener.open(sealed, &entered.bundle, rotation)?;
                keys.store(rotation, &self.paths.pki())?;
            }
            None => self.settle_worker(&membership, &entered.bundle.cluster)?,
        }
        keys.store(&entered.leaves, self.paths, agent)?;
        membership.write(&self.paths.node())?;
        Begun::remove(&self.paths.node()).map_err(JoinError::Forget)?;
        Ok(membership)
    }
}

impl Joiner<'_> {
    /// Whom a worker believes; while new authorities take the place of the old ones, it begins where
    /// all go.
    fn settle_worker(&self, membership: &Membership, bundle: &str) -> Result<(), JoinError> {
        let pki = self.paths.pki();
        if let Some(rotation) = membership.settings.rotation.current.as_deref() {
            let two = TwoSides {
                old: rotation.old.clone(),
                new: rotation.new.clone(),
                at: rotation.target,
                doing: None,
            };
            let two = Some(Box::new(two));
            let standing = Standing { two, ..Standing::default() };
            standing.write(&pki).map_err(SealError::from)?;
        }
        Ok(store_public(&pki.join("ca.crt"), bundle)?)
    }
}

/// Tells the cluster that nothing becomes of a join. True when there is nothing to take back: it
/// was done already, and the node is a member.
pub async fn take_back(begun: &Begun) -> Result<bool, JoinError> {
    let Ok(token) = begun.token.parse::<JoinToken>() else { return Ok(false) };
    let client = client(&token, Pin::strict(*token.authority().as_bytes()))?;
    let undo = Undo::Proven(state(&token, &GivenUp { id: begun.id })?);
    match ask(&client, Request::Undo(undo)).await {
        Ok(_) => Ok(false),
        Err(AskError::Refused(Refusal { code: RefusalCode::AlreadyMember, .. })) => Ok(true),
        Err(error) => Err(JoinError::Refused(error)),
    }
}

/// Tells the cluster that nothing becomes of this node's join, by its own identity: with its state,
/// that goes too.
pub async fn give_up(paths: &Paths) -> Result<(), JoinError> {
    let Some(membership) = Membership::read(&paths.node())? else { return Ok(()) };
    let cluster = Cluster::of_disk(paths, membership);
    cluster.ask(Request::Undo(Undo::Own {})).await.map(drop).map_err(JoinError::Refused)
}

fn client(token: &JoinToken, pin: Arc<Pin>) -> Result<Client, JoinError> {
    let addresses = token.addresses().iter().map(ToString::to_string).collect();
    Client::joiner(addresses, pin).map_err(|error| JoinError::Tls(Box::new(error)))
}

fn state<S: microcluster::token::Statement>(
    token: &JoinToken,
    statement: &S,
) -> Result<Proven, JoinError> {
    Proven::state(token, statement).map_err(JoinError::State)
}

/// Asks again while nobody knows what became of it.
async fn ask(client: &Client, request: Request) -> Result<Answer, AskError> {
    let mut tries_left = TRIES_MAX;
    loop {
        let asked = ask_in_turn(client, request.clone()).await;
        let outcome = asked.map_err(AskError::from).and_then(granted);
        tries_left -= 1;
        let is_passing = match &outcome {
            Err(AskError::Client(ClientError::Broken { .. } | ClientError::Slow { .. })) => true,
            Err(AskError::Refused(refusal)) => refusal.is_passing(),
            _ => false,
        };
        if !is_passing || tries_left == 0 {
            return outcome;
        }
        tokio::time::sleep(TRY_PAUSE).await;
    }
}

/// Whether one of these certificates is the authority's.
fn holds(bundle: &str, authority: &Fingerprint) -> bool {
    let blocks = Pem::iter_from_buffer(bundle.as_bytes()).filter_map(Result::ok);
    blocks.into_iter().any(|block| Fingerprint::of(&block.contents) == *authority)
}

/// How far apart clocks are.
pub fn in_words(apart: time::Duration) -> String {
    match apart.whole_seconds() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// Where a join stands that this machine has begun, if there is one.
#[derive(Debug)]
pub enum Stand {
    /// The machine is free.
    Free,
    /// Cut off before it left more than a line.
    CutOff(Begun),
    /// Set up; its daemons finish it.
    Settled(Box<Membership>),
    /// It belongs to a cluster.
    Member(NodeRole),
    /// A node of its own was started here.
    Alone,
}

/// Looks at the disk.
pub fn stand(paths: &Paths) -> Result<Stand, MembershipError> {
    let dir = paths.node();
    if let Some(membership) = Membership::read(&dir)? {
        return Ok(match membership.stage {
            Stage::Joining => Stand::Settled(Box::new(membership)),
            Stage::Member => Stand::Member(membership.role),
        });
    }
    if let Some(begun) = Begun::read(&dir)? {
        return Ok(Stand::CutOff(begun));
    }
    Ok(if Choices::is_recorded(&dir) { Stand::Alone } else { Stand::Free })
}
