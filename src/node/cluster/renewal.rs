//! New certificates for this node, which its cluster signs: at half the life of the old ones, when the
//! node is another one than the cluster knows, and for a step of new authorities.

use microcluster::message::{Answer, Refusal, RefusalCode, Renew, Request};
use microcluster::record::NodeRole;
use microcluster::trust::Purpose;
use skiff_api::Notice;
use time::OffsetDateTime;

use super::ask::AskError;
use super::keys::{self, Keys};
use super::upkeep::note;
use super::{Cluster, UpkeepError, release};
use crate::node::account;
use crate::node::authorities::{Standing, store_public};
use crate::node::core::Node;
use crate::paths::Paths;
use crate::pki;

/// The notice of a node whose address the cluster does not take.
const ADDRESS_NOTICE: &str = "address-refused";

/// Asks for new certificates at half the life of the old ones, and tells what has changed here.
pub async fn renew_when_due(node: &Node, cluster: &Cluster) -> Result<(), UpkeepError> {
    let membership = cluster.membership();
    let now = OffsetDateTime::now_utc();
    let address = node.context().address;
    let is_over = |purpose: &Purpose| is_half_over(&keys::place(&cluster.paths, *purpose), now);
    let has_changed = membership.own().is_none_or(|own| {
        own.addresses.first() != Some(&address)
            || own.kubernetes != node.kubernetes()
            || own.release != release()
            || own.expires.is_none()
    });
    let is_due = keys::of(membership.role).iter().any(is_over);
    if !has_changed && !is_due {
        return Ok(());
    }
    renew(node, cluster, is_due).await
}

/// Who is asked by a node that decides itself, if it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    Cluster,
    Others,
}

/// Tells what has changed here, for which new certificates are the answer; when they are due, also
/// without a change that is refused.
pub async fn renew(node: &Node, cluster: &Cluster, is_due: bool) -> Result<(), UpkeepError> {
    renew_by(node, cluster, is_due, Asks::Cluster).await
}

/// The same, asked of somebody.
pub async fn renew_by(
    node: &Node,
    cluster: &Cluster,
    is_due: bool,
    asks: Asks,
) -> Result<(), UpkeepError> {
    let _turn = cluster.renewing.lock().await;
    let membership = cluster.membership();
    let keys = match membership.role {
        NodeRole::Worker => Keys::generate(keys::of(membership.role))?,
        // Its first key is what the record was founded with.
        NodeRole::ControlPlane => Keys::of_node(&cluster.paths)?,
    };
    let renew = Renew {
        requests: keys.requests()?,
        addresses: Some(vec![node.context().address]),
        kubernetes: Some(node.kubernetes()),
        failure_domain: None,
        settings: None,
        rotation: None,
    };
    let mut answer = ask_by(cluster, asks, Request::Renew(renew.clone())).await;
    let refused = refused_address(&answer).cloned();
    tell_address(node, refused.as_ref());
    if refused.is_some() {
        if !is_due {
            return Ok(());
        }
        // Certificates do not wait until another node has given the address up.
        let renew = Renew { addresses: None, ..renew };
        answer = ask_by(cluster, asks, Request::Renew(renew)).await;
    }
    if let Answer::Renewed(renewed) = answer? {
        let agent = account::ensure_agent()?;
        keys.store(&renewed.leaves, &cluster.paths, agent)?;
        let is_settled = renewed.settings.rotation.current.is_none();
        // Otherwise a step says whom it believes.
        if membership.role == NodeRole::Worker && is_settled && !is_between(&cluster.paths) {
            store_public(&cluster.paths.pki().join("ca.crt"), &renewed.bundle.cluster)?;
        }
        note(node, cluster, renewed.members, Some(renewed.settings)).await?;
        tracing::info!("the cluster renewed this node's certificates");
    }
    Ok(())
}

async fn ask_by(cluster: &Cluster, asks: Asks, request: Request) -> Result<Answer, AskError> {
    match asks {
        Asks::Cluster => cluster.ask(request).await,
        Asks::Others => cluster.ask_others(request).await,
    }
}

/// Shows the identity that the node has now: the record forgets the former one with that.
pub async fn show_identity(cluster: &Cluster) -> Result<(), UpkeepError> {
    cluster.ask(Request::Renew(Renew::default())).await?;
    Ok(())
}

/// Why the cluster does not take this node's address, if that is all that it refuses.
fn refused_address(answer: &Result<Answer, AskError>) -> Option<&Refusal> {
    let Err(AskError::Refused(refusal)) = answer else { return None };
    let of_address = [RefusalCode::AddressTaken, RefusalCode::AddressInvalid];
    of_address.contains(&refusal.code).then_some(refusal)
}

fn tell_address(node: &Node, refusal: Option<&Refusal>) {
    let notice = refusal.map(|refusal| Notice {
        name: ADDRESS_NOTICE.into(),
        message: refusal.message.clone(),
        remedy: Some(refusal.hint.clone()).filter(|hint| !hint.is_empty()),
    });
    node.board.update(|observed| {
        observed.notices.retain(|notice| notice.name != ADDRESS_NOTICE);
        observed.notices.extend(notice);
    });
}

/// A leaf that cannot be read is over.
fn is_half_over(path: &std::path::Path, now: OffsetDateTime) -> bool {
    pki::inspect(path).is_none_or(|leaf| now >= leaf.due())
}

/// Whether new authorities are on their way here; also when that cannot be read.
fn is_between(paths: &Paths) -> bool {
    Standing::read(&paths.pki()).map_or(true, |standing| standing.two.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_anothers_is_told_from_what_refuses_the_node() {
        let refused = |code| Err(AskError::Refused(Refusal::new(code, "no")));
        for (answer, is_address) in [
            (refused(RefusalCode::AddressTaken), true),
            (refused(RefusalCode::AddressInvalid), true),
            (refused(RefusalCode::Removed), false),
            (refused(RefusalCode::Busy), false),
            (Err(AskError::Answer), false),
            (Ok(Answer::Confirmed {}), false),
        ] {
            assert_eq!(refused_address(&answer).is_some(), is_address, "{answer:?}");
        }
    }
}
