//! kine: answers the API server as etcd would, out of a database of somebody else's. Unprivileged:
//! it reads the database's password and what it connects with, and answers on a socket that only
//! the control plane's user may open.

use std::path::PathBuf;

use serde_json::json;
use skiff_supervisor::{DaemonSpec, Probe};

use super::context::Context;
use super::external::{External, data_source};
use super::yaml;
use crate::config::Database;
use crate::paths::Paths;

pub const NAME: &str = "kine";

pub fn spec(context: &Context, external: &External) -> DaemonSpec {
    let socket = context.paths.kine_socket();
    context
        .daemon(NAME, "kine")
        .args(["--config", &config(&context.paths).to_string_lossy()])
        .env("GOGC", "50")
        .input("datastore", &external.digest)
        .user(context.accounts.datastore)
        .readiness(Probe::UnixConnect(socket))
        .build()
}

/// Its settings, the password among them.
pub fn config(paths: &Paths) -> PathBuf {
    paths.daemon_pki(NAME).join("kine.json")
}

/// What they are. Holds the password.
pub fn settings(
    paths: &Paths,
    external: &External,
    database: &Database,
    password: Option<&str>,
) -> String {
    let files = external.files(paths);
    let mut settings = json!({
        "endpoint": data_source(database, password),
        "listen": paths.kine_socket(),
    });
    if external.has_authority {
        settings["ca"] = json!(files.authority);
    }
    if external.has_certificate {
        settings["certificate"] = json!(files.certificate);
        settings["key"] = json!(files.key);
    }
    yaml::text(&settings)
}
