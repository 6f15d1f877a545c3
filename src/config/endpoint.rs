//! A datastore that somebody else runs, as `datastore.endpoint` names it. Pure.
//!
//! ```text
//!   https://192.0.2.7:2379,https://192.0.2.8:2379    etcd, which the API server asks itself
//!   postgres://skiff@db.example.org/skiff            a database, which it asks through kine
//!   mysql://skiff@db.example.org:3306/skiff
//! ```
//!
//! No password is part of it: settings are shown to whoever may ask skiffd.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::Uri;

const ETCD_PORT: u16 = 2379;
/// etcd has at most so many members that make sense; more are a mistake of another kind.
const SERVERS_MAX: usize = 16;

/// See the module's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Etcd(Vec<EtcdServer>),
    Database(Database),
}

/// One member of an etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdServer {
    pub tls: bool,
    /// IPv6 addresses without their brackets.
    pub host: String,
    pub port: u16,
}

/// A database of a server of SQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    pub server: DatabaseServer,
    pub user: String,
    pub host: String,
    pub port: u16,
    pub name: String,
}

/// What speaks SQL there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseServer {
    Postgres,
    /// And MariaDB.
    Mysql,
}

impl Endpoint {
    /// Whether both name the same datastore: members of an etcd may come and go, and a database is
    /// the same for every user.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Etcd(these), Self::Etcd(those)) => these.iter().any(|this| {
                those.iter().any(|that| (&this.host, this.port) == (&that.host, that.port))
            }),
            (Self::Database(this), Self::Database(that)) => {
                let place = |it: &Database| (it.server, it.host.clone(), it.port, it.name.clone());
                place(this) == place(that)
            }
            _ => false,
        }
    }

    /// Whether all of it is encrypted or stays on this machine.
    fn check_transport(servers: &[EtcdServer]) -> Result<(), String> {
        match servers.iter().find(|server| !server.tls && !is_loopback(&server.host)) {
            Some(server) => Err(format!(
                "names {server}, where everybody on the way reads along: https://, or http:// for \
                 this machine itself"
            )),
            None => Ok(()),
        }
    }
}

impl FromStr for Endpoint {
    /// Follows the name of the setting. Never holds a password.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let scheme = text.split_once("://").map(|(scheme, _)| scheme);
        match scheme {
            Some("http" | "https") => {
                let servers: Vec<_> =
                    text.split(',').map(|one| etcd(one.trim())).collect::<Result<_, _>>()?;
                if servers.len() > SERVERS_MAX {
                    return Err(format!("names more than {SERVERS_MAX} members"));
                }
                Self::check_transport(&servers)?;
                Ok(Self::Etcd(servers))
            }
            Some("postgres" | "postgresql") => database(DatabaseServer::Postgres, text),
            // As the driver wants it, and kine's users are used to.
            Some("mysql") => database(
                DatabaseServer::Mysql,
                &text.replacen("@tcp(", "@", 1).replacen(')', "", 1),
            ),
            _ => Err("begins with none of https://, http://, postgres:// and mysql://".into()),
        }
    }
}

fn etcd(text: &str) -> Result<EtcdServer, String> {
    let uri = parse(text)?;
    let tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err("names a member of etcd that is no https:// or http:// URL".into()),
    };
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err("has something behind the port of a member of etcd".into());
    }
    let (user, host, port) = authority(&uri)?;
    if user.is_some() {
        return Err("names a user, whom etcd knows by datastore.cert-file".into());
    }
    Ok(EtcdServer { tls, host, port: port.unwrap_or(ETCD_PORT) })
}

fn database(server: DatabaseServer, text: &str) -> Result<Endpoint, String> {
    let uri = parse(text)?;
    let (user, host, port) = authority(&uri)?;
    let example = format!("{}://USER@HOST/DATABASE", server.scheme());
    let user = user.ok_or_else(|| format!("names no user: {example}"))?;
    if !is_word(&user) {
        return Err("names a user with other letters than a-z, A-Z, 0-9, '-', '_' and '.'".into());
    }
    if uri.query().is_some() {
        return Err(format!("has options behind a '?', which are not passed on: {example}"));
    }
    let name = uri.path().trim_start_matches('/').to_owned();
    if !is_word(&name) || name.chars().any(|c| c.is_ascii_uppercase()) {
        let rule = "a-z, 0-9, '-', '_' and '.'";
        return Err(format!("names no database of the letters {rule}: {example}"));
    }
    let port = port.unwrap_or_else(|| server.port());
    Ok(Endpoint::Database(Database { server, user, host, port, name }))
}

fn parse(text: &str) -> Result<Uri, String> {
    // The text is not repeated: it may hold a password.
    text.parse().map_err(|_| "has a part that is no URL".into())
}

/// User, host and port.
fn authority(uri: &Uri) -> Result<(Option<String>, String, Option<u16>), String> {
    let authority = uri.authority().ok_or("names no host")?;
    let user = authority.as_str().rsplit_once('@').map(|(user, _)| user.to_owned());
    if user.as_ref().is_some_and(|user| user.contains(':')) {
        return Err(
            "holds a password, which others could read here: put it into a file of root's \
                    with mode 0600, and name that as datastore.password-file"
                .into(),
        );
    }
    let host = authority.host().trim_matches(['[', ']']).to_owned();
    if host.is_empty() {
        return Err("names no host".into());
    }
    let given = authority.as_str().rsplit('@').next().unwrap_or_default();
    let has_port = given.rsplit(']').next().unwrap_or_default().contains(':');
    match authority.port_u16() {
        Some(0) => Err("names port 0".into()),
        None if has_port => Err("has a port that is no number up to 65535".into()),
        port => Ok((user, host, port)),
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl DatabaseServer {
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Postgres => 5432,
            Self::Mysql => 3306,
        }
    }
}

/// `host:port`, with brackets where they are needed.
pub fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl fmt::Display for EtcdServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", host_port(&self.host, self.port))
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = host_port(&self.host, self.port);
        write!(f, "{}://{}@{place}/{}", self.server.scheme(), self.user, self.name)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Etcd(servers) => {
                let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
                f.write_str(&servers.join(","))
            }
            Self::Database(database) => database.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Endpoint {
        text.parse().unwrap_or_else(|error| panic!("{text} {error}"))
    }

    #[test]
    fn what_is_left_out_is_added() {
        for (text, whole) in [
            ("https://192.0.2.7", "https://192.0.2.7:2379"),
            ("https://etcd-1/, https://etcd-2:4001", "https://etcd-1:2379,https://etcd-2:4001"),
            ("http://[::1]:2379", "http://[::1]:2379"),
            ("http://localhost", "http://localhost:2379"),
            ("postgresql://skiff@db/kube", "postgres://skiff@db:5432/kube"),
            ("postgres://a.b@[2001:db8::1]:1/x", "postgres://a.b@[2001:db8::1]:1/x"),
            ("mysql://skiff@tcp(db:3307)/kube", "mysql://skiff@db:3307/kube"),
            ("mysql://skiff@192.0.2.9/kube", "mysql://skiff@192.0.2.9:3306/kube"),
        ] {
            assert_eq!(read(text).to_string(), whole);
            assert_eq!(read(whole).to_string(), whole);
        }
    }

    #[test]
    fn each_mistake_has_its_sentence_and_none_repeats_a_password() {
        for (text, part) in [
            ("", "begins with none of"),
            ("etcd:2379", "begins with none of"),
            ("sqlite:///x", "begins with none of"),
            ("http://192.0.2.7:2379", "names http://192.0.2.7:2379, where everybody"),
            ("https://a,http://b", "names http://b:2379, where everybody"),
            ("https://a,b", "names a member of etcd that is no"),
            ("https://a:99999", "has a"),
            ("https://a:0", "names port 0"),
            ("https://a/registry", "something behind the port"),
            ("https://root:hunter2@a", "holds a password"),
            ("https://root@a", "names a user"),
            ("postgres://db/kube", "names no user: postgres://USER@HOST/DATABASE"),
            ("postgres://skiff@db", "names no database"),
            ("postgres://skiff@db/Kube", "names no database"),
            ("postgres://skiff@db/a/b", "names no database"),
            ("postgres://skiff@db/kube?password=hunter2", "has options"),
            ("postgres://skiff:hunter2@db/kube", "holds a password"),
            ("mysql://skiff:hunter2@tcp(db:3306)/kube", "holds a password"),
            ("mysql://skiff:hunter2/x@tcp(db:3306)/kube", "has a"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{text}: {error}");
        }
    }

    #[test]
    fn a_datastore_is_the_same_while_something_of_it_stays() {
        for (one, other, same) in [
            ("https://a,https://b", "https://b:2379,https://c", true),
            ("https://a,https://b", "https://c,https://d", false),
            ("https://a:2379", "https://a:2479", false),
            ("postgres://skiff@db/kube", "postgres://other@db:5432/kube", true),
            ("postgres://skiff@db/kube", "postgres://skiff@db/test", false),
            ("postgres://skiff@db/kube", "postgres://skiff@db2/kube", false),
            ("postgres://skiff@db:3306/kube", "mysql://skiff@db/kube", false),
        ] {
            assert_eq!(read(one).is_same(&read(other)), same, "{one} {other}");
        }
    }
}
