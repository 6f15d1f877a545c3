//! Credentials for people and programs outside the node's daemons.

use serde::{Deserialize, Serialize};

/// `POST /v1/kubeconfig`: answers the kubeconfig as YAML text, certificate and key within.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubeconfigRequest {
    /// Common name of the certificate: the user that RBAC sees.
    pub user: String,
    /// Organisations of the certificate: the groups that RBAC sees.
    pub groups: Vec<String>,
    /// Life of the certificate, in seconds; bounded by the server.
    pub ttl_s: u64,
    /// Address that goes into the file, `https://HOST:PORT`; the node's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
}

/// `POST /v1/credential`: a short-lived certificate for the exec plugin `skiff credential`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialRequest {
    pub user: String,
    pub groups: Vec<String>,
}

/// Answer to a [`CredentialRequest`]: what client.authentication.k8s.io/v1 asks of an exec plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientCertificate {
    pub certificate_pem: String,
    pub key_pem: String,
    /// RFC 3339.
    pub expires: String,
}
