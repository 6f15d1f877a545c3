//! What API servers tell API extensions to believe, in a ConfigMap of theirs: they add to it and never
//! take anything away. An authority that was dropped must not live on there.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, Preconditions};
use x509_parser::pem::Pem;

use crate::kube::ClientError;
use crate::node::core::Node;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";
const CLIENTS: &str = "client-ca-file";
const FRONT_PROXY: &str = "requestheader-client-ca-file";

#[derive(Debug, thiserror::Error)]
enum ExtensionError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the API server did not do it")]
    Kube(#[from] kube::Error),
}

/// Has it written anew when it holds more than is believed here; whether nothing is left to do. Called
/// when there is one set of authorities.
pub async fn forget(node: &Node) -> bool {
    if node.authorities.is_none() {
        return true;
    }
    match forget_once(node).await {
        Ok(()) => true,
        Err(error) => {
            let reason = crate::node::cluster::chain(&error);
            tracing::debug!(reason, "what extensions believe is looked at later");
            false
        }
    }
}

async fn forget_once(node: &Node) -> Result<(), ExtensionError> {
    let Some(authorities) = node.authorities() else { return Ok(()) };
    let believed = authorities.believed();
    let api: Api<ConfigMap> = Api::namespaced(node.clients.client().await?, NAMESPACE);
    let Some(found) = api.get_opt(NAME).await? else { return Ok(()) };
    let data = found.data.unwrap_or_default();
    let text = |key: &str| data.get(key).map(String::as_str).unwrap_or_default();
    if !has_more(text(CLIENTS), &believed.cluster)
        && !has_more(text(FRONT_PROXY), &believed.front_proxy)
    {
        return Ok(());
    }
    // API servers make it anew at once, of their own files.
    let preconditions =
        Preconditions { resource_version: found.metadata.resource_version, uid: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    api.delete(NAME, &params).await?;
    tracing::info!("API extensions are told whom to believe anew");
    Ok(())
}

/// Whether a text has a certificate that is not believed.
fn has_more(text: &str, believed: &str) -> bool {
    let certificates = |text: &str| -> Vec<Vec<u8>> {
        let blocks = Pem::iter_from_buffer(text.as_bytes()).filter_map(Result::ok);
        blocks.map(|block| block.contents).collect()
    };
    let believed = certificates(believed);
    certificates(text).iter().any(|one| !believed.contains(one))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::pki::Authority;

    #[test]
    fn what_is_believed_there_and_not_here_is_found() {
        let now = datetime!(2026-11-28 12:00 UTC);
        let pem = |name| Authority::fresh(name, now).unwrap().certificate_pem().to_owned();
        let (one, other) = (pem("skiff"), pem("skiff 2"));
        let both = format!("{one}{other}");
        assert!(has_more(&both, &one));
        assert!(!has_more(&both, &format!("{other}\n{one}")));
        assert!(!has_more(&one, &both));
        assert!(!has_more("", &one));
    }
}
