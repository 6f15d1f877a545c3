//! A datastore that somebody else runs: what the daemons of this node are told of it.

use std::path::PathBuf;

use super::{kine, kube_control};
use crate::config::{Database, DatabaseServer, Endpoint, host_port};
use crate::paths::Paths;

/// Decided before a daemon is described. Secrets lie in files, which [`Files`] names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct External {
    pub endpoint: Endpoint,
    /// Whether it is known by an authority, and whether a certificate is shown to it.
    pub has_authority: bool,
    pub has_certificate: bool,
    /// Another word when a secret is another one: whoever read it starts again.
    pub digest: String,
}

/// Where copies of what the settings name lie, for the daemon that connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    pub authority: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Who keeps Kubernetes' objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kept {
    /// Skiff's own datastore.
    #[default]
    Here,
    /// An etcd, which the API server asks itself.
    Etcd,
    /// A database, which it asks through kine.
    Database,
}

impl External {
    pub fn kept(&self) -> Kept {
        match self.endpoint {
            Endpoint::Etcd(_) => Kept::Etcd,
            Endpoint::Database(_) => Kept::Database,
        }
    }

    /// In the directory of the daemon that connects, who alone may read them.
    pub fn files(&self, paths: &Paths) -> Files {
        let dir = paths.daemon_pki(match self.kept() {
            Kept::Database => kine::NAME,
            Kept::Here | Kept::Etcd => kube_control::NAME,
        });
        Files {
            authority: dir.join("datastore-ca.crt"),
            certificate: dir.join("datastore.crt"),
            key: dir.join("datastore.key"),
        }
    }

    /// For people: what it is and where.
    pub fn sentence(&self) -> String {
        match &self.endpoint {
            Endpoint::Etcd(servers) => {
                let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
                format!("etcd at {}", servers.join(", "))
            }
            Endpoint::Database(database) => {
                let server = match database.server {
                    DatabaseServer::Postgres => "PostgreSQL",
                    DatabaseServer::Mysql => "MySQL",
                };
                let place = host_port(&database.host, database.port);
                format!("the database {} of {server} at {place}", database.name)
            }
        }
    }
}

/// The address of a database as kine's drivers take it. Holds the password.
pub fn data_source(database: &Database, password: Option<&str>) -> String {
    let Database { server, user, host, port, name } = database;
    let place = host_port(host, *port);
    match server {
        // A URL.
        DatabaseServer::Postgres => {
            let password = password.map(|text| format!(":{}", escaped(text)));
            format!("postgres://{user}{}@{place}/{name}", password.unwrap_or_default())
        }
        // Looks like one: taken apart from behind, and nothing in it is escaped.
        DatabaseServer::Mysql => {
            let password = password.map(|text| format!(":{text}"));
            format!("mysql://{user}{}@tcp({place})/{name}", password.unwrap_or_default())
        }
    }
}

/// As a part of a URL (RFC 3986).
fn escaped(text: &str) -> String {
    let unreserved = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    text.as_bytes()
        .iter()
        .map(|byte| match unreserved(byte) {
            true => char::from(*byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(text: &str) -> Database {
        match text.parse() {
            Ok(Endpoint::Database(database)) => database,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_password_of_any_letters_reaches_the_driver() {
        for (endpoint, password, source) in [
            (
                "postgres://skiff@db/kube",
                Some("p@ss:w/rd é?%"),
                "postgres://skiff:p%40ss%3Aw%2Frd%20%C3%A9%3F%25@db:5432/kube",
            ),
            ("postgres://skiff@db/kube", None, "postgres://skiff@db:5432/kube"),
            (
                "mysql://skiff@db/kube",
                Some("p@ss:w/rd"),
                "mysql://skiff:p@ss:w/rd@tcp(db:3306)/kube",
            ),
            ("mysql://skiff@[::1]:1/kube", None, "mysql://skiff@tcp([::1]:1)/kube"),
        ] {
            assert_eq!(data_source(&database(endpoint), password), source);
        }
    }

    #[test]
    fn people_are_told_what_it_is_and_where() {
        let of = |endpoint: &str| External {
            endpoint: endpoint.parse().unwrap(),
            has_authority: false,
            has_certificate: false,
            digest: String::new(),
        };
        for (endpoint, sentence) in [
            ("https://a,https://b", "etcd at https://a:2379, https://b:2379"),
            ("postgres://skiff@db/kube", "the database kube of PostgreSQL at db:5432"),
        ] {
            assert_eq!(of(endpoint).sentence(), sentence);
        }
    }
}
