//! The table of settings: every name once, with what it holds and what it does.

use std::fmt;
use std::ops::RangeInclusive;

/// IPv4 demands the first (RFC 791); links have no more than the second.
pub const MTU: RangeInclusive<u32> = 576..=65535;
/// Up to a year. Leaves are renewed while everything runs, so that a longer life is only a longer
/// time for a thief; and it has to end within the authority's.
pub const LEAF_TTL_MINUTES: RangeInclusive<u32> = 1..=365 * 24 * 60;

/// One setting.
#[derive(Debug)]
pub struct Known {
    /// Dotted: group, then name.
    pub key: &'static str,
    pub kind: Kind,
    /// One sentence.
    pub description: &'static str,
    /// Why it cannot change once the node has been started; none when it can.
    pub fixed: Option<&'static str>,
    pub scope: Scope,
}

/// Whose a setting is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Each node has its own.
    Node,
    /// The cluster's, by `skiff set`: its value decides.
    Cluster,
    /// Flags of a daemon of every node: the cluster's, and the node's own after them.
    Both,
    /// The cluster's since it was begun, and why nobody sets it later.
    Decided(&'static str),
}

impl Scope {
    /// As people are told.
    pub fn word(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Cluster | Self::Decided(_) => "cluster",
            Self::Both => "both",
        }
    }
}

/// What a setting holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Name,
    Address,
    Range,
    Domain,
    PacketBytes,
    Port,
    Minutes,
    Names,
    Flags,
    Endpoint,
    File,
    Schedule,
    Place,
    Recipients,
    Path,
    Choice,
    Count,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("a name like \"alpha\""),
            Self::Address => f.write_str("an IP address like \"192.0.2.1\""),
            Self::Range => f.write_str("a range of addresses like \"10.1.0.0/16\""),
            Self::Domain => f.write_str("a domain like \"cluster.local\""),
            Self::PacketBytes => {
                write!(f, "a number of bytes, 0 or from {} to {}", MTU.start(), MTU.end())
            }
            Self::Port => write!(f, "a port from 1 to {}", u16::MAX),
            Self::Minutes => {
                let (least, most) = (LEAF_TTL_MINUTES.start(), LEAF_TTL_MINUTES.end());
                write!(f, "a number of minutes from {least} to {most}")
            }
            Self::Names => f.write_str("a list of names and addresses like [\"kube.example.org\"]"),
            Self::Flags => f.write_str("a list of flags like [\"--v=2\"]"),
            Self::Endpoint => f.write_str(
                "URLs like \"https://192.0.2.7:2379,https://192.0.2.8:2379\" (etcd), \
                 \"postgres://skiff@db.example.org/skiff\" or \
                 \"mysql://skiff@db.example.org/skiff\"",
            ),
            Self::File => f.write_str("the path of a file like \"/etc/skiff/datastore-ca.pem\""),
            Self::Schedule => f.write_str("\"off\" or a time like \"6h\""),
            Self::Place => f.write_str("a directory or a bucket like \"s3://backups/skiff\""),
            Self::Recipients => f.write_str("a list of public keys of age like [\"age1…\"]"),
            Self::Path => f.write_str("the path of a file"),
            Self::Choice => f.write_str("true or false"),
            Self::Count => f.write_str("a number"),
        }
    }
}

const fn free(key: &'static str, kind: Kind, scope: Scope, description: &'static str) -> Known {
    Known { key, kind, description, fixed: None, scope }
}

/// The cluster's since its first start.
const fn fixed(
    key: &'static str,
    kind: Kind,
    description: &'static str,
    reason: &'static str,
) -> Known {
    Known { key, kind, description, fixed: Some(reason), scope: Scope::Decided(reason) }
}

pub const KNOWN: &[Known] = &[
    Known {
        key: "node.name",
        kind: Kind::Name,
        description: "the node's name; the machine's host name when absent",
        fixed: Some("the Node object and certificates carry it"),
        scope: Scope::Node,
    },
    free(
        "node.address",
        Kind::Address,
        Scope::Node,
        "the address by which others reach it; followed when absent",
    ),
    fixed(
        "network.pod-cidr",
        Kind::Range,
        "addresses of pods; each node gets a /24 of it",
        "pods have addresses of it",
    ),
    fixed(
        "network.service-cidr",
        Kind::Range,
        "addresses of Services; the API server has the first",
        "Services have addresses of it",
    ),
    free(
        "network.dns-address",
        Kind::Address,
        Scope::Decided("pods that run ask there"),
        "where pods ask for names, inside the Services' addresses",
    ),
    fixed(
        "network.dns-domain",
        Kind::Domain,
        "the domain of names inside the cluster",
        "pods, tokens and certificates carry it",
    ),
    free(
        "network.mtu",
        Kind::PacketBytes,
        Scope::Cluster,
        "largest packet of pods in bytes; 0 takes that of the machine's link",
    ),
    free(
        "api.port",
        Kind::Port,
        Scope::Decided(
            "kubeconfigs name it; the only control-plane node may have another one in its skiff.toml",
        ),
        "where the API server listens",
    ),
    free(
        "api.extra-sans",
        Kind::Names,
        Scope::Cluster,
        "names and addresses that its certificate holds besides its own",
    ),
    fixed(
        "datastore.endpoint",
        Kind::Endpoint,
        "who keeps Kubernetes' objects; Skiff's own datastore when absent",
        "objects do not move by themselves (docs/how-to/use-an-external-datastore.md)",
    ),
    free(
        "datastore.ca-file",
        Kind::File,
        Scope::Node,
        "the authority that its certificate must be of",
    ),
    free("datastore.cert-file", Kind::File, Scope::Node, "the certificate that is shown to it"),
    free("datastore.key-file", Kind::File, Scope::Node, "the key of that certificate"),
    free(
        "datastore.password-file",
        Kind::File,
        Scope::Node,
        "the password of a database's user, alone in a file that only root may read",
    ),
    free(
        "datastore.adopt",
        Kind::Choice,
        Scope::Node,
        "whether a new cluster takes over objects that an external datastore holds already",
    ),
    free(
        "pki.leaf-ttl-minutes",
        Kind::Minutes,
        Scope::Cluster,
        "life of certificates, renewed at half of it; those of joined nodes live a day at most",
    ),
    free(
        "kube.api-server-args",
        Kind::Flags,
        Scope::Cluster,
        "flags of kube-apiserver, after Skiff's own",
    ),
    free(
        "kube.controller-manager-args",
        Kind::Flags,
        Scope::Cluster,
        "flags of kube-controller-manager",
    ),
    free("kube.scheduler-args", Kind::Flags, Scope::Cluster, "flags of kube-scheduler"),
    free("kube.kubelet-args", Kind::Flags, Scope::Both, "flags of the kubelet"),
    free("kube.proxy-args", Kind::Flags, Scope::Both, "flags of kube-proxy"),
    free(
        "backup.schedule",
        Kind::Schedule,
        Scope::Cluster,
        "how often skiffd takes an archive of the cluster",
    ),
    free("backup.place", Kind::Place, Scope::Cluster, "where archives are kept"),
    free("backup.encrypt-to", Kind::Recipients, Scope::Cluster, "whose keys open them"),
    free(
        "backup.unencrypted",
        Kind::Choice,
        Scope::Cluster,
        "whether anybody opens them: an archive holds every key of the cluster",
    ),
    free(
        "backup.environment-file",
        Kind::Path,
        Scope::Node,
        "lines NAME=VALUE that say who we are to the bucket: AWS_ACCESS_KEY_ID and others",
    ),
    free("backup.keep-last", Kind::Count, Scope::Cluster, "archives that stay, the newest first"),
    free(
        "backup.keep-daily",
        Kind::Count,
        Scope::Cluster,
        "days of which the last archive stays as well",
    ),
    free(
        "backup.keep-weekly",
        Kind::Count,
        Scope::Cluster,
        "weeks of which the last archive stays as well",
    ),
    free(
        "backup.keep-monthly",
        Kind::Count,
        Scope::Cluster,
        "months of which the last archive stays as well",
    ),
];

/// The one with that name.
pub fn known(key: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.key == key)
}

/// Whether `skiff set` has anything to do with it.
pub fn is_cluster_wide(key: &str) -> bool {
    known(key).is_some_and(|known| known.scope != Scope::Node)
}

pub fn is_group(name: &str) -> bool {
    groups().any(|group| group == name)
}

/// The known name that looks most like it, if any does.
pub fn like(key: &str) -> Option<&'static str> {
    most_like(key, KNOWN.iter().map(|known| known.key))
}

pub fn like_group(name: &str) -> Option<&'static str> {
    most_like(name, groups())
}

fn groups() -> impl Iterator<Item = &'static str> {
    KNOWN.iter().filter_map(|known| known.key.split('.').next())
}

fn most_like(name: &str, all: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    /// Below this it is another word, not a slip (Jaro-Winkler, 0 to 1).
    const LIKENESS_MIN: f64 = 0.85;
    let scored = all.map(|known| (strsim::jaro_winkler(name, known), known));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= LIKENESS_MIN).then_some(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    /// Settings that are absent unless somebody writes them.
    const OPTIONAL: &str = r#"
        node = {name = "a", address = "192.0.2.1"}
        datastore = {endpoint = "", ca-file = "", cert-file = "", key-file = "", password-file = ""}
        backup = {place = "/b", environment-file = "/e"}
    "#;

    #[test]
    fn the_table_and_the_types_have_the_same_settings() {
        let config: Config = toml::from_str(OPTIONAL).unwrap();
        let value = toml::Value::try_from(&config).unwrap();
        let mut names: Vec<String> = Vec::new();
        for (group, settings) in value.as_table().unwrap() {
            names.extend(settings.as_table().unwrap().keys().map(|name| format!("{group}.{name}")));
        }
        let mut known: Vec<&str> = KNOWN.iter().map(|known| known.key).collect();
        names.sort();
        known.sort_unstable();
        assert_eq!(names, known);
    }

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        assert_eq!(like("network.pod-cdir"), Some("network.pod-cidr"));
        assert_eq!(like("kube.kublet-args"), Some("kube.kubelet-args"));
        assert_eq!(like("storage.size"), None);
        assert_eq!(like_group("netwrok"), Some("network"));
        assert_eq!(like_group("storage"), None);
    }
}
