//! One step of new authorities on this node: whom it believes, what signs here, what it shows.
//!
//! Nothing of it is lost by a crash: what is aimed at is written down first, and each part is done
//! again from what lies there.

use microcluster::record::{FailedStep, Fingerprint, Position, Rotation, RotationStep, Side};
use time::OffsetDateTime;

use super::{
    Authorities, AuthoritiesError, Pair, Standing, StandingError, TwoSides, View, forget_next,
    store_public,
};
use crate::daemons::kube_control;
use crate::node::core::{Node, RenewError};
use crate::node::prepare::{self, PrepareError};
use crate::node::settings::{TakeUpError, wait_until_well};
use crate::pki::StoreError;

#[derive(Debug, thiserror::Error)]
pub enum StepError {
    #[error(transparent)]
    Authorities(#[from] AuthoritiesError),
    #[error(transparent)]
    Standing(#[from] StandingError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    #[error(transparent)]
    Renew(#[from] RenewError),
    #[error("the daemons were not told")]
    Supervisor(#[from] skiff_supervisor::HandleError),
    #[error("the control plane does not run with them: {0}")]
    Unwell(String),
    #[error("cannot remove the keys that are over")]
    Forget(#[source] std::io::Error),
    #[error("the cluster's authorities are others than this node knows or is given")]
    Unknown,
}

impl Standing {
    /// Writes down that the node is on its way.
    fn aim(
        &mut self,
        own: &Fingerprint,
        rotation: &Rotation,
        is_worker: bool,
    ) -> Result<(), StepError> {
        let known = self.two.as_deref();
        let is_same = |two: &TwoSides| {
            (two.old.fingerprint(), two.new.fingerprint())
                == (rotation.old.fingerprint(), rotation.new.fingerprint())
        };
        let at = match known {
            Some(two) if is_same(two) => two.at,
            Some(_) => return Err(StepError::Unknown),
            None if rotation.old.fingerprint().as_ref() == Some(own) => Position::Old,
            None if rotation.new.fingerprint().as_ref() == Some(own) => Position::New,
            // It was off when its own was replaced, and has certificates of what signs now.
            None if is_worker => Position::Old,
            None => return Err(StepError::Unknown),
        };
        let (old, mut new) = (rotation.old.clone(), rotation.new.clone());
        if rotation.distrust && rotation.target == Position::New {
            // Whoever believes only the old one is not to be served.
            new.crossed.clear();
        }
        self.two = Some(Box::new(TwoSides { old, new, at, doing: Some(rotation.target) }));
        Ok(())
    }
}

/// Believes and shows what the target asks for, and what was believed before too. `own` is the
/// authority that the node has when it hears of this for the first time.
pub(in crate::node) async fn begin(
    node: &Node,
    own: &Fingerprint,
    rotation: &Rotation,
) -> Result<(), StepError> {
    let pki = node.paths().pki();
    let mut standing = Standing::read(&pki)?;
    standing.aim(own, rotation, node.authorities.is_none())?;
    standing.write(&pki)?;
    let view = standing.two.as_deref().ok_or(StepError::Unknown)?.view();
    show(node, &standing, view).await
}

/// Believes nobody else, and is there.
pub(in crate::node) async fn end(node: &Node, step: RotationStep) -> Result<(), StepError> {
    let pki = node.paths().pki();
    let mut standing = Standing::read(&pki)?;
    let Some(to) = standing.two.as_deref().and_then(|two| two.doing) else { return Ok(()) };
    show(node, &standing, View::of(to)).await?;
    if let Some(two) = standing.two.as_deref_mut() {
        (two.at, two.doing) = (to, None);
    }
    (standing.step, standing.failed) = (step, None);
    standing.write(&pki)?;
    tracing::info!(%step, at = ?to, "the cluster's authorities are those of this step here");
    Ok(())
}

/// Goes back to where the node was, and says why.
pub(in crate::node) async fn give_up(
    node: &Node,
    step: RotationStep,
    reason: String,
) -> Result<(), StepError> {
    tracing::error!(%step, reason, "a step of the cluster's authorities was not done");
    let pki = node.paths().pki();
    let mut standing = Standing::read(&pki)?;
    let Some(two) = standing.two.as_deref_mut() else { return Ok(()) };
    two.doing = None;
    let view = two.view();
    standing.failed = Some(FailedStep { step, reason });
    standing.write(&pki)?;
    show(node, &standing, view).await
}

/// One of the two is all that there is from now on.
pub(in crate::node) fn settle(
    node: &Node,
    left: Side,
    step: RotationStep,
) -> Result<(), StepError> {
    let paths = node.paths();
    let pki = paths.pki();
    let mut standing = Standing::read(&pki)?;
    let Some(two) = standing.two.as_deref() else { return Ok(()) };
    if node.authorities.is_some() && left == Side::New {
        // From here on both places hold them; which one counts is known by what it fits.
        let pair = Pair::find(&pki, &two.new).ok_or(AuthoritiesError::Keyless)?;
        pair.store_keys(&pki)?;
    }
    store_public(&pki.join(super::CLUSTER_CERTIFICATE), &two.side(left).cluster)?;
    (standing.two, standing.step, standing.failed) = (None, step, None);
    standing.write(&pki)?;
    if let Some(shared) = &node.authorities {
        shared.set(Authorities::ensure(&pki, OffsetDateTime::now_utc())?);
    }
    forget_next(&pki).map_err(StepError::Forget)?;
    tracing::info!(?left, "the cluster has one set of authorities");
    Ok(())
}

/// Writes the files of a view, signs leaves, and has the control plane start anew where it must.
async fn show(node: &Node, standing: &Standing, view: View) -> Result<(), StepError> {
    let paths = node.paths();
    let Some(shared) = &node.authorities else {
        let two = standing.two.as_deref().ok_or(StepError::Unknown)?;
        let believed = two.believed(view, |side| &side.cluster);
        return Ok(store_public(&paths.pki().join(super::CLUSTER_CERTIFICATE), &believed)?);
    };
    let now = OffsetDateTime::now_utc();
    let authorities = Authorities::between(&paths.pki(), standing, view, now)?;
    prepare::show(&node.context(), &authorities)?;
    let stamp = authorities.stamp();
    shared.set(authorities);
    node.renew_leaves(now)?;
    if node.context().authorities == stamp {
        return Ok(());
    }
    let context = node.update_context(|context| context.authorities = stamp);
    let before = node.supervisor.snapshot();
    node.supervisor.reconfigure(node.specs(&context)).await?;
    let names = [kube_control::NAME.to_owned()];
    match wait_until_well(node, &names, &before).await {
        Err(TakeUpError::Unwell { reason, .. }) => Err(StepError::Unwell(reason)),
        Err(TakeUpError::Supervisor(error)) => Err(error.into()),
        Err(error) => Err(StepError::Unwell(error.to_string())),
        Ok(()) => Ok(()),
    }
}
