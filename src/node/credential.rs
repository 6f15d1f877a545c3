//! Certificates for people: short ones for the node's own users, longer ones for other machines.

use skiff_api::{ClientCertificate, CredentialRequest, KubeconfigRequest};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::authorities::Authorities;
use crate::pki::{Issuer, LeafSpec, Usage, embedded};

/// Life of a certificate that the exec plugin gets; kubectl asks again when it is over.
const CREDENTIAL_TTL: Duration = Duration::hours(1);
/// Bounds of what a kubeconfig may ask for.
const TTL_MIN: Duration = Duration::minutes(10);
const TTL_MAX: Duration = Duration::days(366);

#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    #[error("{0:?} is not a name for a user or a group")]
    Name(String),
    #[error("{0:?} is reserved: names that begin with system: belong to Kubernetes itself")]
    Reserved(String),
    #[error("a life of {0} s is not between {min} s and {max} s", min = TTL_MIN.whole_seconds(), max = TTL_MAX.whole_seconds())]
    Ttl(u64),
    #[error("this node is a worker: only nodes that run the control plane can sign certificates")]
    Worker,
    #[error("cannot sign the certificate")]
    Sign(#[source] rcgen::Error),
}

/// For the exec plugin.
pub fn certificate(
    authorities: &Authorities,
    request: &CredentialRequest,
    now: OffsetDateTime,
) -> Result<ClientCertificate, CredentialError> {
    let (certificate_pem, key_pem) =
        sign(authorities, &request.user, &request.groups, now, CREDENTIAL_TTL)?;
    let expires = (now + CREDENTIAL_TTL).format(&Rfc3339).unwrap_or_default();
    Ok(ClientCertificate { certificate_pem, key_pem, expires })
}

/// For another machine: everything within.
pub fn kubeconfig(
    authorities: &Authorities,
    request: &KubeconfigRequest,
    server: &str,
    now: OffsetDateTime,
) -> Result<String, CredentialError> {
    let ttl = i64::try_from(request.ttl_s).map(Duration::seconds);
    let ttl = ttl
        .ok()
        .filter(|ttl| (TTL_MIN..=TTL_MAX).contains(ttl))
        .ok_or(CredentialError::Ttl(request.ttl_s))?;
    let (certificate, key) = sign(authorities, &request.user, &request.groups, now, ttl)?;
    let server = request.server.as_deref().unwrap_or(server);
    let believed = &authorities.believed().cluster;
    Ok(embedded(server, believed, &request.user, &certificate, &key))
}

fn sign(
    authorities: &Authorities,
    user: &str,
    groups: &[String],
    now: OffsetDateTime,
    ttl: Duration,
) -> Result<(String, String), CredentialError> {
    for name in std::iter::once(user).chain(groups.iter().map(String::as_str)) {
        if name.is_empty() || name.len() > 64 || name.chars().any(char::is_control) {
            return Err(CredentialError::Name(name.into()));
        }
        if name.starts_with("system:") {
            return Err(CredentialError::Reserved(name.into()));
        }
    }
    let spec = LeafSpec {
        path: Default::default(),
        issuer: Issuer::Cluster,
        common_name: user.into(),
        organisations: groups.to_vec(),
        id: None,
        dns_names: vec![],
        addresses: vec![],
        usage: Usage::Client,
        owner: (0, 0),
    };
    authorities.cluster.issue(&spec, now, ttl).map_err(CredentialError::Sign)
}
