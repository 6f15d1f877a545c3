//! What is counted while the datastore works, for Prometheus.
//!
//! Names are etcd's where the meaning is the same (etcd.io/docs/v3.6/metrics); what only we have
//! begins with `skiff_datastore_`. What can be asked at any time is asked when somebody looks.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::process;
use crate::record::Record;
use crate::shared::Shared;

/// Seconds; etcd's buckets for what waits for the disk: 1 ms to 8 s.
const SECONDS: [f64; 14] = [
    0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096,
    8.192,
];
/// Changes in one commit.
const CHANGES: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// Every method that somebody asks for.
const METHODS: [&str; 24] = [
    "etcdserverpb.KV/Range",
    "etcdserverpb.KV/RangeStream",
    "etcdserverpb.KV/Put",
    "etcdserverpb.KV/DeleteRange",
    "etcdserverpb.KV/Txn",
    "etcdserverpb.KV/Compact",
    "etcdserverpb.Watch/Watch",
    "etcdserverpb.Lease/LeaseGrant",
    "etcdserverpb.Lease/LeaseRevoke",
    "etcdserverpb.Lease/LeaseKeepAlive",
    "etcdserverpb.Lease/LeaseTimeToLive",
    "etcdserverpb.Lease/LeaseLeases",
    "etcdserverpb.Cluster/MemberAdd",
    "etcdserverpb.Cluster/MemberRemove",
    "etcdserverpb.Cluster/MemberUpdate",
    "etcdserverpb.Cluster/MemberList",
    "etcdserverpb.Cluster/MemberPromote",
    "etcdserverpb.Maintenance/Alarm",
    "etcdserverpb.Maintenance/Status",
    "etcdserverpb.Maintenance/Defragment",
    "etcdserverpb.Maintenance/Hash",
    "etcdserverpb.Maintenance/HashKV",
    "etcdserverpb.Maintenance/Snapshot",
    "etcdserverpb.Maintenance/MoveLeader",
];

/// One method of the API.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Method {
    grpc_service: &'static str,
    grpc_method: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Handled {
    grpc_service: &'static str,
    grpc_method: &'static str,
    grpc_code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Version {
    server_version: &'static str,
}

/// Counters that the datastore's parts count with, and gauges that are set on a look.
pub struct Metrics {
    registry: Registry,
    started: Family<Method, Counter>,
    handled: Family<Handled, Counter>,
    puts: Counter,
    deletes: Counter,
    /// How long rows of the log took to be durable.
    pub commit_seconds: Histogram,
    /// How many wishes shared a commit.
    pub commit_changes: Histogram,
    /// Commits that failed or whose outcome was unknown.
    pub commits_failed: Counter,
    /// How often this member saw another leader than before.
    pub leader_changes: Counter,
    pub events: Counter,
    pub leases_granted: Counter,
    pub leases_revoked: Counter,
    pub leases_renewed: Counter,
    pub leases_expired: Counter,
    pub slow_requests: Counter,
    /// How often this member was damaged and copied everything anew.
    pub renewals: Counter,
    gauges: Gauges,
}

/// Set anew on each look.
#[derive(Default)]
struct Gauges {
    has_leader: Gauge,
    is_leader: Gauge,
    size_total: Gauge,
    size_used: Gauge,
    quota: Gauge,
    no_space: Gauge,
    corrupt: Gauge,
    index_bytes: Gauge,
    keys: Gauge,
    revision: Gauge,
    compacted: Gauge,
    watchers: Gauge,
    watch_streams: Gauge,
    slow_watchers: Gauge,
    leases: Gauge,
    cpu_seconds: Counter<f64, AtomicU64>,
    resident_bytes: Gauge,
    open_files: Gauge,
    files_max: Gauge,
    started_at: Gauge<f64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut registry = Registry::default();
        let version = Family::<Version, Gauge>::default();
        let server_version = crate::server::status::ETCD_VERSION;
        version.get_or_create(&Version { server_version }).set(1);
        let metrics = Metrics {
            started: Family::default(),
            handled: Family::default(),
            puts: Counter::default(),
            deletes: Counter::default(),
            commit_seconds: Histogram::new(SECONDS),
            commit_changes: Histogram::new(CHANGES),
            commits_failed: Counter::default(),
            leader_changes: Counter::default(),
            events: Counter::default(),
            leases_granted: Counter::default(),
            leases_revoked: Counter::default(),
            leases_renewed: Counter::default(),
            leases_expired: Counter::default(),
            slow_requests: Counter::default(),
            renewals: Counter::default(),
            gauges: Gauges::default(),
            registry: Registry::default(),
        };
        macro_rules! register {
            ($($name:literal, $help:literal, $metric:expr;)*) => {
                $(registry.register($name, $help, $metric.clone());)*
            };
        }
        let Metrics { gauges, .. } = &metrics;
        register! {
            "etcd_server_version", "The version of etcd whose behaviour is offered", version;
            "etcd_server_has_leader", "Whether a leader is known", gauges.has_leader;
            "etcd_server_is_leader", "Whether this member leads", gauges.is_leader;
            "etcd_server_leader_changes_seen", "Leaders seen after the first",
                metrics.leader_changes;
            "etcd_server_proposals_failed", "Commits that failed", metrics.commits_failed;
            "etcd_server_quota_backend_bytes", "Bytes above which writes are refused",
                gauges.quota;
            "etcd_mvcc_db_total_size_in_bytes", "Bytes on disk", gauges.size_total;
            "etcd_mvcc_db_total_size_in_use_in_bytes", "Bytes of the database in use",
                gauges.size_used;
            "etcd_mvcc_put", "Keys put", metrics.puts;
            "etcd_mvcc_delete", "Keys deleted", metrics.deletes;
            "etcd_debugging_mvcc_keys_total", "Keys", gauges.keys;
            "etcd_debugging_mvcc_current_revision", "The newest revision", gauges.revision;
            "etcd_debugging_mvcc_compact_revision", "The revision compacted to",
                gauges.compacted;
            "etcd_debugging_mvcc_events", "Events sent to watchers", metrics.events;
            "etcd_debugging_mvcc_watcher_total", "Watchers", gauges.watchers;
            "etcd_debugging_mvcc_watch_stream_total", "Streams of watchers",
                gauges.watch_streams;
            "etcd_debugging_mvcc_slow_watcher_total", "Watchers that have not been sent all",
                gauges.slow_watchers;
            "etcd_debugging_lease_granted", "Leases granted", metrics.leases_granted;
            "etcd_debugging_lease_revoked", "Leases revoked, expired ones included",
                metrics.leases_revoked;
            "etcd_debugging_lease_renewed", "Leases renewed here", metrics.leases_renewed;
            "etcd_debugging_server_lease_expired", "Leases that ran out here",
                metrics.leases_expired;
            "grpc_server_started", "Requests begun", metrics.started;
            "grpc_server_handled", "Requests answered; a stream when it is refused",
                metrics.handled;
            "skiff_datastore_commit_duration_seconds", "Until a commit was durable",
                metrics.commit_seconds;
            "skiff_datastore_commit_changes", "Changes that shared a commit",
                metrics.commit_changes;
            "skiff_datastore_index_bytes", "Keys and history in memory; the quota's measure",
                gauges.index_bytes;
            "skiff_datastore_leases", "Leases", gauges.leases;
            "skiff_datastore_no_space", "Whether writes are refused for want of space",
                gauges.no_space;
            "skiff_datastore_corrupt", "Whether this member's data is damaged or in doubt", gauges.corrupt;
            "skiff_datastore_renewals", "Damages that were healed from other members",
                metrics.renewals;
            "skiff_datastore_slow_requests", "Requests that the log calls slow",
                metrics.slow_requests;
            "process_cpu_seconds", "Processor time", gauges.cpu_seconds;
            "process_resident_memory_bytes", "Resident memory", gauges.resident_bytes;
            "process_open_fds", "Open files", gauges.open_files;
            "process_max_fds", "Files that may be open", gauges.files_max;
            "process_start_time_seconds", "Start, since 1970", gauges.started_at;
        }
        Metrics { registry, ..metrics }
    }
}

impl Metrics {
    /// Counts a request; `path` is gRPC's, such as `/etcdserverpb.KV/Range`.
    pub fn begin(&self, path: &str) {
        let (grpc_service, grpc_method) = split(path);
        self.started.get_or_create(&Method { grpc_service, grpc_method }).inc();
    }

    /// Counts its answer.
    pub fn end(&self, path: &str, code: tonic::Code) {
        let (grpc_service, grpc_method) = split(path);
        let labels = Handled { grpc_service, grpc_method, grpc_code: name_of(code) };
        self.handled.get_or_create(&labels).inc();
    }

    /// Counts a commit that is durable.
    pub fn committed(&self, took: Duration, changes: usize) {
        self.commit_seconds.observe(took.as_secs_f64());
        self.commit_changes.observe(changes as f64);
    }

    /// Counts what became visible on this member.
    pub fn changed<'a>(&self, changes: impl IntoIterator<Item = &'a Record>) {
        let (mut puts, mut deletes) = (0, 0);
        for record in changes {
            if record.is_tombstone() { deletes += 1 } else { puts += 1 }
        }
        self.puts.inc_by(puts);
        self.deletes.inc_by(deletes);
    }

    /// Everything, in the text form of OpenMetrics 1.0.
    pub fn text(&self, shared: &Shared) -> String {
        self.look(shared);
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string cannot fail");
        text
    }

    fn look(&self, shared: &Shared) {
        let gauges = &self.gauges;
        let size = shared.size();
        gauges.size_total.set(size.total_bytes as i64);
        gauges.size_used.set(size.used_bytes as i64);
        gauges.quota.set(shared.limits.quota_bytes as i64);
        gauges.no_space.set(shared.no_space().into());
        gauges.corrupt.set(shared.is_corrupt().into());
        let leader = shared.leader();
        gauges.has_leader.set(leader.is_some().into());
        gauges.is_leader.set((leader == Some(shared.identity().member_id)).into());
        {
            let state = shared.read();
            gauges.index_bytes.set(state.index.size() as i64);
            gauges.keys.set(state.index.keys() as i64);
            gauges.revision.set(state.index.committed().0);
            gauges.compacted.set(state.index.compacted().0);
            gauges.leases.set(state.leases.all().count() as i64);
        }
        {
            let hub = shared.hub();
            gauges.watchers.set(hub.watchers() as i64);
            gauges.watch_streams.set(hub.streams() as i64);
            gauges.slow_watchers.set(hub.behind() as i64);
        }
        let process = process::usage();
        let counted = gauges.cpu_seconds.get();
        gauges.cpu_seconds.inc_by((process.cpu_seconds - counted).max(0.0));
        gauges.resident_bytes.set(process.resident_bytes as i64);
        gauges.open_files.set(process.open_files as i64);
        gauges.files_max.set(process.files_max as i64);
        gauges.started_at.set(process.started_at);
    }
}

/// Service and method. Others than these are counted together, so that nobody can fill the memory
/// with names.
fn split(path: &str) -> (&'static str, &'static str) {
    let path = path.trim_start_matches('/');
    let known = METHODS.iter().find(|known| **known == path);
    known.and_then(|known| known.split_once('/')).unwrap_or(("unknown", "unknown"))
}

/// As Go's gRPC names it.
fn name_of(code: tonic::Code) -> &'static str {
    use tonic::Code;
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}
