//! Former authorities on this node: what is shown behind its leaves for those who know nothing else,
//! and whom the door lets in to ask for a new certificate.

use std::path::PathBuf;

use microcluster::record::{Fingerprint, RotationRecord};
use time::OffsetDateTime;
use x509_parser::pem::Pem;

use crate::node::authorities::step::StepError;
use crate::node::authorities::{
    Authorities, CLUSTER_CERTIFICATE, FORMER_CERTIFICATES, Standing, store_public,
};
use crate::node::core::Node;
use crate::paths::Paths;

/// Takes over what the record says of them.
pub fn keep(node: &Node, rotation: &RotationRecord) -> Result<(), StepError> {
    let (pki, now) = (node.paths().pki(), OffsetDateTime::now_utc());
    let mut standing = Standing::read(&pki)?;
    let former: Vec<_> = rotation.former_at(now).cloned().collect();
    if rotation.step < standing.step || standing.former == former {
        return Ok(());
    }
    if node.authorities.is_some() {
        let text: String = former.iter().map(|former| former.cluster.as_str()).collect();
        store_public(&pki.join(FORMER_CERTIFICATES), &text)?;
    }
    standing.former = former;
    standing.write(&pki)?;
    if let Some(shared) = &node.authorities {
        shared.set(Authorities::ensure(&pki, now)?);
    }
    Ok(())
}

/// Of all certificates in the file of those whom this node believes.
pub fn believed(paths: &Paths) -> Vec<Fingerprint> {
    let path: PathBuf = paths.pki().join(CLUSTER_CERTIFICATE);
    let text = std::fs::read(path).unwrap_or_default();
    let blocks = Pem::iter_from_buffer(&text).filter_map(Result::ok);
    blocks.map(|block| Fingerprint::of(&block.contents)).collect()
}
