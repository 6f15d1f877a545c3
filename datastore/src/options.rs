//! What the datastore can be told at start.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;

use crate::listen::Listen;

/// What `--max-request-bytes` may be: tried with one member, and far below what
/// members read from each other in one message.
const REQUEST_BYTES_MAX: u64 = 64 << 20;

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

    /// Tell silent watchers this often how far they have come
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    pub watch_progress_notify_interval: Duration,

    /// Log requests that take longer than this
    #[arg(long, value_name = "DURATION", default_value = "300ms", value_parser = parse_duration)]
    pub warning_unary_request_duration: Duration,

    #[command(flatten)]
    pub traces: TraceOptions,

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
    #[arg(long, value_name = "ADDRESS", requires = "pki")]
    pub peer_listen: Option<String>,

    /// The address at which others reach --peer-listen, if it is another one
    #[arg(long, value_name = "ADDRESS", requires = "peer_listen")]
    pub peer_advertise: Option<String>,

    /// Find ca.crt, member.crt and member.key in this directory
    ///
    /// `skiff datastore pki DIR` makes them for tests.
    #[arg(long, value_name = "DIR", requires = "peer_listen")]
    pub pki: Option<PathBuf>,

    /// Join through any of these members; the first member goes without
    ///
    /// Nothing happens when this member has joined before.
    #[arg(long, value_name = "ADDRESS,…", value_delimiter = ',', requires = "peer_listen")]
    pub join: Vec<String>,

    /// What shares this member's fate, such as a rack: voters are spread
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub failure_domain: String,
}

/// Whether and where requests are traced; etcd's options.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct TraceOptions {
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
