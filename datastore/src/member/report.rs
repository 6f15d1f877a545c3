//! What operators are told of the members.

use std::time::Duration;

use serde::Serialize;
use tonic::{Code, Status};

use crate::listen::Listen;
use crate::probe::{ProbeError, connect, probe_at};
use crate::proto::peer::members_client::MembersClient;
use crate::proto::peer::{ListRequest, ListResponse, RemoveRequest, Role};

/// What an endpoint may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// What a removal may take, leadership's moving included; whoever lists members may wait as long.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(15);

/// The members and what each endpoint said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The member that leads; nothing when nobody does or nobody knows.
    pub leader: Option<String>,
    pub members: Vec<MemberReport>,
    pub endpoints: Vec<EndpointReport>,
}

/// One member, as the first endpoint that answered sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberReport {
    /// Its number, in hexadecimal as etcd's tools print it.
    pub id: String,
    pub role: &'static str,
    pub leads: bool,
    pub reachable: bool,
    pub revision: i64,
    /// Revisions that it is behind the newest one that is known.
    pub lag: i64,
    pub size_bytes: u64,
    pub round_trip_us: u64,
    pub failure_domain: String,
    pub address: String,
    /// The node that it runs on; empty where members are told by their numbers alone.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node: String,
}

/// One endpoint that was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EndpointReport {
    pub endpoint: String,
    /// Which member answered.
    pub member: Option<String>,
    pub leader: Option<String>,
    pub revision: Option<i64>,
    /// Alarms that are raised, as etcd words them.
    pub alarms: Vec<String>,
    /// Why it did not answer.
    pub error: Option<String>,
}

/// Why an operator's wish was not fulfilled.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    #[error("can't connect to {listen}")]
    Connect {
        listen: Listen,
        #[source]
        source: tonic::transport::Error,
    },
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Unavailable(String),
    #[error("no answer from {listen} within {} s", REMOVE_TIMEOUT.as_secs())]
    TimedOut { listen: Listen },
    #[error("{0:?} is no member's number: take it from the status")]
    NoId(String),
}

/// Asks every endpoint; none of them keeps another waiting.
pub async fn report(endpoints: &[Listen]) -> Report {
    let answers = futures::future::join_all(endpoints.iter().map(ask)).await;
    let mut report = Report::default();
    for (listen, answer) in endpoints.iter().zip(answers) {
        let (endpoint, list) = answer;
        if let Some(list) = list
            && report.members.is_empty()
        {
            report.leader = id_of(list.leader);
            report.members = members_of(&list);
        }
        report.endpoints.push(EndpointReport { endpoint: listen.to_string(), ..endpoint });
    }
    report
}

async fn ask(listen: &Listen) -> (EndpointReport, Option<ListResponse>) {
    let mut report = EndpointReport {
        endpoint: String::new(),
        member: None,
        leader: None,
        revision: None,
        alarms: Vec::new(),
        error: None,
    };
    match probe_at(listen).await {
        Ok(probed) => {
            report.revision = Some(probed.revision);
            report.alarms = probed.alarms;
        }
        Err(error) => {
            report.error = Some(chain(&error));
            return (report, None);
        }
    }
    let list = match tokio::time::timeout(ANSWER_TIMEOUT, list(listen)).await {
        Ok(Ok(list)) => list,
        // A single member has nobody to list.
        Ok(Err(_)) | Err(_) => return (report, None),
    };
    report.member = id_of(list.answered_by);
    report.leader = id_of(list.leader);
    (report, Some(list))
}

async fn list(listen: &Listen) -> Result<ListResponse, OperatorError> {
    let channel = connect(listen)
        .await
        .map_err(|source| OperatorError::Connect { listen: listen.clone(), source })?;
    let answer = MembersClient::new(channel).list(ListRequest {}).await;
    answer.map(tonic::Response::into_inner).map_err(|status| refused(&status))
}

/// The members, as the one that listens there knows.
pub async fn members(listen: &Listen) -> Result<Vec<MemberReport>, OperatorError> {
    match tokio::time::timeout(REMOVE_TIMEOUT, list(listen)).await {
        Ok(list) => Ok(members_of(&list?)),
        Err(_) => Err(OperatorError::TimedOut { listen: listen.clone() }),
    }
}

fn refused(status: &Status) -> OperatorError {
    let message = status.message().to_owned();
    match status.code() {
        Code::Unavailable => OperatorError::Unavailable(message),
        _ => OperatorError::Refused(message),
    }
}

fn members_of(list: &ListResponse) -> Vec<MemberReport> {
    let newest = list.members.iter().map(|member| member.revision).max().unwrap_or(0);
    let members = list.members.iter().map(|member| MemberReport {
        id: format!("{:x}", member.id),
        role: match member.role() {
            Role::Voter => "voter",
            Role::Standby => "stand-by",
            Role::Spare => "spare",
        },
        leads: member.is_leader,
        reachable: member.reachable,
        revision: member.revision,
        lag: newest - member.revision,
        size_bytes: member.size_bytes,
        round_trip_us: member.round_trip_us,
        failure_domain: member.failure_domain.clone(),
        address: member.address.clone(),
        node: member.node.clone(),
    });
    members.collect()
}

fn id_of(id: u64) -> Option<String> {
    (id != 0).then(|| format!("{id:x}"))
}

fn chain(error: &ProbeError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Removes a member for good; any member may be asked.
pub async fn remove(listen: &Listen, id: &str) -> Result<(), OperatorError> {
    let id = u64::from_str_radix(id, 16).map_err(|_| OperatorError::NoId(id.to_owned()))?;
    let channel = connect(listen)
        .await
        .map_err(|source| OperatorError::Connect { listen: listen.clone(), source })?;
    let mut client = MembersClient::new(channel);
    let removed = tokio::time::timeout(REMOVE_TIMEOUT, client.remove(RemoveRequest { id })).await;
    match removed {
        Err(_) => Err(OperatorError::TimedOut { listen: listen.clone() }),
        Ok(Err(status)) => Err(refused(&status)),
        Ok(Ok(_)) => Ok(()),
    }
}
