//! What a member of several can be told at start.

use std::path::PathBuf;

/// A datastore of several members
#[derive(Clone, Debug, Default, clap::Args)]
pub struct MemberOptions {
    /// Listen for other members here: HOST:PORT
    ///
    /// Mutual TLS with the identity in --pki. With this, the datastore can
    /// have several members.
    #[arg(long, value_name = "ADDRESS", requires = "pki")]
    pub peer_listen: Option<String>,

    /// The address at which others reach --peer-listen, if it is another one
    #[arg(long, value_name = "ADDRESS", requires = "peer_listen")]
    pub peer_advertise: Option<String>,

    /// Keep ca.crt, member.crt and member.key in this directory
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
