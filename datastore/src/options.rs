//! What the datastore can be told at start.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;

use crate::database::{Database, Databases};
use crate::listen::Listen;
use crate::shared::Limits;

/// What `--max-request-bytes` may be: tried with one member, and far below what
/// members read from each other in one message.
const REQUEST_BYTES_MAX: u64 = 64 << 20;

/// What the database `cluster` may take in memory, history included: some ten
/// times the record of a cluster of 5000 nodes.
pub const CLUSTER_QUOTA_BYTES: u64 = 64 << 20;
/// Revisions of `cluster` that can still be read. Nobody else compacts it; a
/// watcher that is further behind begins anew.
pub const CLUSTER_REVISIONS_KEPT: i64 = 1000;

/// Serve etcd's v3 API from an embedded dqlite database
///
/// Everything acknowledged is on disk. Options that etcd has keep etcd's names.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Keep the database in this directory
    ///
    /// It is made when it is missing, for its owner alone.
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,

    /// Listen here: unix:PATH, or HOST:PORT on a loopback address
    ///
    /// There is no login: whoever can connect may do everything. Can be
    /// repeated.
    #[arg(long, value_name = "ADDRESS", required = true)]
    pub listen: Vec<Listen>,

    /// Speak TLS, with this certificate and what it is signed by
    #[arg(long, value_name = "FILE", requires = "key_file")]
    pub cert_file: Option<PathBuf>,

    /// The key of --cert-file
    #[arg(long, value_name = "FILE", requires = "cert_file")]
    pub key_file: Option<PathBuf>,

    /// Believe clients' certificates that these authorities have signed
    #[arg(long, value_name = "FILE", requires = "cert_file")]
    pub trusted_ca_file: Option<PathBuf>,

    /// Refuse clients without such a certificate
    #[arg(long, requires = "trusted_ca_file")]
    pub client_cert_auth: bool,

    /// Let this group connect to the unix socket, besides its owner
    #[arg(long, value_name = "GROUP")]
    pub socket_group: Option<String>,

    /// Permissions of the unix socket, in octal
    #[arg(long, value_name = "MODE", default_value = "660", value_parser = parse_mode)]
    pub socket_mode: u32,

    /// Keep a second database, `cluster`, and serve it at this socket: unix:PATH
    ///
    /// It is for what concerns members of a cluster, apart from Kubernetes'
    /// objects: the same API, and revisions, alarms and a quota (64 MiB) of its
    /// own. It compacts itself.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_socket)]
    pub cluster_listen: Option<Listen>,

    /// Permissions of that socket, in octal; its owner alone by default
    #[arg(long, value_name = "MODE", default_value = "600", value_parser = parse_mode,
        requires = "cluster_listen")]
    pub cluster_socket_mode: u32,

    /// Tell silent watchers this often how far they have come
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    pub watch_progress_notify_interval: Duration,

    /// Log requests that take longer than this
    #[arg(long, value_name = "DURATION", default_value = "300ms", value_parser = parse_duration)]
    pub warning_unary_request_duration: Duration,

    /// Send traces of requests to a collector of OpenTelemetry
    #[arg(long)]
    pub enable_distributed_tracing: bool,

    /// The collector: HOST:PORT, by OTLP over gRPC without TLS
    #[arg(long, value_name = "ADDRESS", default_value = "localhost:4317")]
    pub distributed_tracing_address: String,

    /// The name of this service in traces
    #[arg(long, value_name = "NAME", default_value = "skiff-datastore")]
    pub distributed_tracing_service_name: String,

    /// What tells this member from others in traces
    #[arg(long, value_name = "NAME")]
    pub distributed_tracing_instance_id: Option<String>,

    /// Of a million requests so many are traced, besides those whose caller
    /// traces
    #[arg(long, value_name = "NUMBER", default_value_t = 0,
        value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    pub distributed_tracing_sampling_rate: u32,

    /// Serve /metrics, /health and /version here too, by plain HTTP
    ///
    /// unix:PATH, or http://HOST:PORT on a loopback address. They are served
    /// at --listen in any case. Can be repeated.
    #[arg(long, value_name = "ADDRESS")]
    pub listen_metrics_urls: Vec<Listen>,

    /// Refuse requests larger than this, which may be 64 MiB
    #[arg(long, value_name = "BYTES", default_value_t = 1_572_864,
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=REQUEST_BYTES_MAX))]
    pub max_request_bytes: usize,

    /// Refuse writes when keys and history take more memory than this
    #[arg(long, value_name = "BYTES", default_value_t = 2 << 30)]
    pub quota_backend_bytes: u64,

    /// Listen for other members here: HOST:PORT
    ///
    /// Mutual TLS with the identity in --pki. With this, the datastore can
    /// have several members.
    #[arg(long, value_name = "ADDRESS", requires = "pki", group = "peers")]
    pub peer_listen: Option<String>,

    /// Take connections of other members over from the agent, at this socket
    ///
    /// In place of --peer-listen.
    #[arg(long, value_name = "SOCKET", group = "peers")]
    #[arg(requires = "pki", requires = "peer_advertise")]
    pub peer_handoff: Option<PathBuf>,

    /// The address at which others reach this member, if it is another one than
    /// --peer-listen
    #[arg(long, value_name = "ADDRESS", requires = "peers")]
    pub peer_advertise: Option<String>,

    /// The node that this member runs on, as its certificate names it
    #[arg(long, value_name = "ID", requires = "peers")]
    pub peer_node: Option<String>,

    /// Only members of the nodes in this file may be peers, as it is at the moment
    #[arg(long, value_name = "FILE", requires = "peers")]
    pub peer_nodes: Option<PathBuf>,

    /// Find ca.crt, member.crt and member.key in this directory
    ///
    /// member.pem may hold the latter two in one. They are followed when they
    /// change. `skiff datastore pki DIR` makes them for tests.
    #[arg(long, value_name = "DIR", requires = "peers")]
    pub pki: Option<PathBuf>,

    /// Join through any of these members; the first member goes without
    ///
    /// Nothing happens when this member has joined before.
    #[arg(long, value_name = "ADDRESS,…", value_delimiter = ',', requires = "peers")]
    pub join: Vec<String>,

    /// What shares this member's fate, such as a rack: voters are spread
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub failure_domain: String,
}

impl Options {
    /// The bounds of one of the databases.
    pub fn limits(&self, database: Database) -> Limits {
        let common = Limits { request_bytes_max: self.max_request_bytes, ..Limits::default() };
        match database {
            Database::Kube => Limits { quota_bytes: self.quota_backend_bytes, ..common },
            Database::Cluster => Limits {
                quota_bytes: CLUSTER_QUOTA_BYTES,
                revisions_kept: Some(CLUSTER_REVISIONS_KEPT),
                ..common
            },
        }
    }

    /// Whether there can be other members.
    pub fn has_peers(&self) -> bool {
        self.peer_listen.is_some() || self.peer_handoff.is_some()
    }

    /// The databases that are served.
    pub fn databases(&self) -> Databases<Database> {
        let cluster = self.cluster_listen.as_ref().map(|_| Database::Cluster);
        Databases { kube: Database::Kube, cluster }
    }
}

fn parse_socket(text: &str) -> Result<Listen, String> {
    match text.parse()? {
        Listen::Tcp(_) => Err(format!("{text:?} is no socket that its owner alone could open")),
        listen => Ok(listen),
    }
}

fn parse_mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err(format!("{text:?} is no octal mode such as 660")),
    }
}

/// Reads durations as Go writes them: `5s`, `100ms`, `10m`, `1h`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u64 =
        digits.parse().map_err(|_| format!("{text:?} is no duration such as 5s or 100ms"))?;
    let duration = match &text[digits.len()..] {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.saturating_mul(60)),
        "h" => Duration::from_secs(number.saturating_mul(3600)),
        unit => return Err(format!("{text:?} has the unit {unit:?}, known are ms, s, m and h")),
    };
    if duration.is_zero() { Err(format!("{text:?} is no time at all")) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_etcd_reads_them() {
        assert_eq!(parse_duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_duration("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(parse_duration("10m"), Ok(Duration::from_secs(600)));
        for bad in ["", "5", "s", "-1s", "5y", "0s", "5 s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(parse_mode("660"), Ok(0o660));
        assert!(parse_mode("999").is_err());
        assert!(parse_mode("7777").is_err());
    }
}
