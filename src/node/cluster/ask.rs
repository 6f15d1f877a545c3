//! Asks the cluster as this node: here, when it decides itself, or whoever of the control plane
//! answers.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use microcluster::client::{Client, ClientError};
use microcluster::message::{Answer, Message, Refusal, Request};
use microcluster::protocol::Caller;
use microcluster::tls::{Identity, IdentityFiles, Pin, TlsError};
use time::OffsetDateTime;
use x509_parser::pem::Pem;

use super::listener::Greeting;
use super::{Cluster, release, ways};
use crate::daemons::agent;

/// Where messages of `skiff-cluster/1` are answered.
pub const PATH: &str = "/cluster/1";
/// What helps when nobody is where everybody was.
const ELSEWHERE: &str = "are they elsewhere now, say where: sudo skiff start --peer ADDRESS";
/// Who only wants to know the time does not wait longer for it.
const CLOCK_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("this node has no identity that can be read in {}", .0.display())]
    NoIdentity(PathBuf),
    #[error("this node's identity cannot be used")]
    Identity(#[from] TlsError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{0}")]
    Refused(Refusal),
    #[error("the answer is none to what was asked")]
    Answer,
}

impl AskError {
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Refused(refusal) => Some(refusal.hint.clone()).filter(|hint| !hint.is_empty()),
            Self::Client(ClientError::Unreached(_)) => Some(ELSEWHERE.into()),
            _ => None,
        }
    }
}

impl Cluster {
    /// A refusal is an error.
    pub async fn ask(&self, request: Request) -> Result<Answer, AskError> {
        let answer = match &self.desk {
            Some(desk) => {
                let message = message(request);
                let caller =
                    Caller::of(Some(&self.own_certificate()?)).map_err(AskError::Refused)?;
                desk.answer(&message.to_bytes(), &caller).await
            }
            None => return self.ask_others(request).await,
        };
        granted(answer)
    }

    /// What time it is in the cluster, asked without showing who asks and whatever time it is here.
    /// None on a node that decides itself, and when nobody answers soon.
    pub async fn clock(&self) -> Option<OffsetDateTime> {
        let membership = self.membership();
        if self.desk.is_some() {
            return None;
        }
        // Of two, whoever is asked may show either.
        for authority in membership.settings.authorities {
            let pin = Pin::told(*authority.as_bytes());
            let client = Client::joiner(self.places(), pin).ok()?;
            let asked = client.get::<Greeting>(PATH);
            if let Ok(Ok(greeting)) = tokio::time::timeout(CLOCK_TIMEOUT, asked).await {
                return Some(greeting.now);
            }
        }
        None
    }

    /// Also where the record is at hand, and perhaps out of date or out of reach.
    pub async fn ask_others(&self, request: Request) -> Result<Answer, AskError> {
        self.ask_at(self.places(), request).await
    }

    /// Whether somebody answers where the record says.
    pub(super) async fn is_answered_by_record(&self) -> bool {
        let places = self.membership().recorded();
        !places.is_empty() && self.ask_at(places, Request::Members {}).await.is_ok()
    }

    async fn ask_at(&self, places: Vec<String>, request: Request) -> Result<Answer, AskError> {
        let certificate = agent::identity(&self.paths);
        let key = certificate.clone();
        let authority = self.paths.pki().join("ca.crt");
        let identity = Identity::load(IdentityFiles { certificate, key, authority, former: None })?;
        let client = Client::member(places, Arc::new(identity));
        granted(ask_in_turn(&client, request).await?)
    }

    /// Where others were heard of last, and where they may be otherwise.
    fn places(&self) -> Vec<String> {
        let membership = self.membership();
        let mut places = membership.others();
        let more = ways::of(&self.paths, &membership);
        places.extend(more.into_iter().filter(|place| !membership.others().contains(place)));
        places
    }

    fn own_certificate(&self) -> Result<Vec<u8>, AskError> {
        let path = agent::identity(&self.paths);
        let text = fs::read(&path).unwrap_or_default();
        let blocks = Pem::iter_from_buffer(&text).filter_map(Result::ok);
        let leaf = blocks.into_iter().find(|block| block.label == "CERTIFICATE");
        leaf.map(|block| block.contents).ok_or(AskError::NoIdentity(path))
    }
}

/// Says it to the first member that can do it, or to one alone what must not be said to several.
pub async fn ask_in_turn(client: &Client, request: Request) -> Result<Answer, ClientError> {
    let moves_on = request.is_repeatable();
    let cannot = |answer: &Answer| moves_on && answer.is_unable();
    client.post_on(PATH, &message(request), cannot).await
}

/// A request as it is said now.
pub fn message(request: Request) -> Message {
    Message { release: release(), sent: OffsetDateTime::now_utc(), request }
}

pub fn granted(answer: Answer) -> Result<Answer, AskError> {
    match answer {
        Answer::Refused(refusal) => Err(AskError::Refused(refusal)),
        answer => Ok(answer),
    }
}
