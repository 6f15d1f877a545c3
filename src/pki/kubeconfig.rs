//! Kubeconfigs: for daemons they name files, for people they carry everything.

use std::path::Path;

use serde_json::{Value, json};

use super::secret::base64;

/// For a daemon: its leaf is a file, read again when it is renewed.
pub fn naming_files(server: &str, authority: &Path, leaf: &Path) -> String {
    let user = json!({ "client-certificate": leaf, "client-key": leaf });
    text(&kubeconfig(server, json!({ "certificate-authority": authority }), "skiff", user))
}

/// For a person or a program elsewhere: certificate and key within.
pub fn embedded(
    server: &str,
    authority_pem: &str,
    user: &str,
    certificate_pem: &str,
    key_pem: &str,
) -> String {
    let credentials = json!({
        "client-certificate-data": base64(certificate_pem.as_bytes()),
        "client-key-data": base64(key_pem.as_bytes()),
    });
    let cluster = json!({ "certificate-authority-data": base64(authority_pem.as_bytes()) });
    text(&kubeconfig(server, cluster, user, credentials))
}

fn kubeconfig(server: &str, mut cluster: Value, user: &str, credentials: Value) -> Value {
    cluster["server"] = json!(server);
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "skiff", "cluster": cluster }],
        "users": [{ "name": user, "user": credentials }],
        "contexts": [{ "name": "skiff", "context": { "cluster": "skiff", "user": user } }],
        "current-context": "skiff",
    })
}

fn text(value: &Value) -> String {
    serde_yaml::to_string(value).expect("a JSON value is YAML")
}
