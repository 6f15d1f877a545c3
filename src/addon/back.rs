//! When a change fails, the addon becomes what it was before.

use std::sync::atomic::Ordering;

use skiff_api::EnableRequest;

use super::applied;
use super::error::AddonError;
use super::record::Record;
use super::remove;
use super::work::Work;
use crate::kube::ClusterError;

/// Whether a failure will not pass by itself. What was only interrupted (the API server went away,
/// somebody else changes the addon) is finished by the next command.
pub(super) fn is_final(error: &AddonError) -> bool {
    match error {
        AddonError::Unhealthy { .. } | AddonError::Foreign { .. } => true,
        AddonError::Cluster { source, .. } => matches!(
            source,
            ClusterError::UnknownKind { .. } | ClusterError::Refused { code: 400..=403 | 422, .. }
        ),
        _ => false,
    }
}

/// Undoes a change that ended with `error`; `former` is the record from before, `refused` the
/// version that did not come up. Answers what is to be told.
pub(super) async fn back(
    work: &mut Work<'_>,
    former: Option<&Record>,
    refused: &str,
    error: AddonError,
) -> AddonError {
    work.tell(format!("{error}: going back"));
    let outcome = match former.filter(|former| former.is_enabled()) {
        Some(former) => again(work, former, refused).await,
        None => gone(work, former.is_none()).await,
    };
    match outcome {
        Ok(Some(now)) => AddonError::Returned { now, source: Box::new(error) },
        Ok(None) => error,
        Err(second) => {
            let addon = work.name.to_owned();
            AddonError::Stuck { addon, reason: second.to_string(), source: Box::new(error) }
        }
    }
}

/// Applies what was applied before, if that is known.
async fn again(
    work: &mut Work<'_>,
    former: &Record,
    refused: &str,
) -> Result<Option<String>, AddonError> {
    let name = work.name;
    let read = applied::read(work.resources.client(), name).await;
    let kept = read.map_err(AddonError::cluster(name))?;
    let Some(kept) = kept.filter(|kept| kept.record.digest == former.digest) else {
        work.tell("what was applied before is not known: it stays as it is now");
        return Ok(None);
    };
    let version = kept.record.version.clone();
    let mut next = kept.record;
    next.refused = (version != refused).then(|| refused.to_owned());
    work.apply(next, &kept.objects).await?;
    Ok(Some(format!("{name} is at {version} as it was before")))
}

/// Removes what was begun. Where nothing was before, nothing can have been stored.
async fn gone(work: &mut Work<'_>, was_unknown: bool) -> Result<Option<String>, AddonError> {
    let delete_data = was_unknown && !work.found.load(Ordering::Relaxed);
    let request = EnableRequest { delete_data, ..EnableRequest::default() };
    remove::remove(work, Vec::new(), &request).await?;
    Ok(Some(format!("{} is not enabled, as it was before", work.name)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_what_does_not_pass_by_itself_is_undone() {
        let refused = |code| {
            let (what, message) = ("applying".into(), "no".into());
            AddonError::cluster("a")(ClusterError::Refused { what, code, message })
        };
        for code in [400, 403, 422] {
            assert!(is_final(&refused(code)), "{code}");
        }
        // A conflict, the API server's own trouble, a namespace that is only just being made.
        for code in [404, 409, 429, 500, 503] {
            assert!(!is_final(&refused(code)), "{code}");
        }
        let (what, bound) = ("applying".into(), Duration::from_secs(1));
        assert!(!is_final(&AddonError::cluster("a")(ClusterError::Timeout { what, bound })));
    }
}
