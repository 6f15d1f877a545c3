//! Disabling: everything that an addon owns goes, in the order opposite to its coming.

use std::time::Duration;

use kube::ResourceExt;
use skiff_api::{EnableRequest, Progress};

use super::error::AddonError;
use super::object::OWNER_LABEL;
use super::record::{ObjectRef, Phase, Record};
use super::work::Work;
use crate::kube::wait_gone;

/// How long one object may take to go when the request does not say: pods have their grace.
const GONE_TIMEOUT: Duration = Duration::from_secs(120);

/// Removes an addon. `needed_by` are addons that need it, enabled or not.
pub(super) async fn remove(
    mut work: Work<'_>,
    needed_by: Vec<String>,
    request: &EnableRequest,
) -> Result<Progress, AddonError> {
    let name = work.name;
    let Some(record) = work.stored.as_ref().map(|stored| stored.record.clone()) else {
        return Ok(done(format!("{name} is not enabled"), false));
    };
    require_unneeded(&work, needed_by).await?;
    if request.dry_run {
        for object in record.objects.iter().rev() {
            work.tell(format!("would remove {object}"));
        }
        return Ok(done(format!("nothing is changed: {name} was only looked at"), false));
    }
    if record.phase != Phase::Disabling {
        work.write(Record { phase: Phase::Disabling, ..record.clone() }).await?;
    }
    let bound = match request.timeout_s {
        0 => GONE_TIMEOUT,
        seconds => Duration::from_secs(seconds),
    };
    let mut going = Vec::new();
    for object in record.objects.iter().rev() {
        if let Some(uid) = remove_object(&work, object).await? {
            going.push((object, uid));
        }
    }
    for (object, uid) in going {
        wait(&work, object, &uid, bound).await?;
    }
    work.store.remove(name).await.map_err(AddonError::cluster(name))?;
    Ok(done(format!("{name} is disabled"), true))
}

fn done(message: String, changed: bool) -> Progress {
    Progress::Done { message, changed }
}

async fn require_unneeded(work: &Work<'_>, needed_by: Vec<String>) -> Result<(), AddonError> {
    let mut by = Vec::new();
    for other in needed_by {
        let stored = work.store.read(&other).await.map_err(AddonError::cluster(work.name))?;
        if stored.is_some() {
            by.push(other);
        }
    }
    if by.is_empty() { Ok(()) } else { Err(AddonError::Needed { addon: work.name.into(), by }) }
}

/// Orders the deletion of an object if it is still the addon's own; answers what is going.
pub(super) async fn remove_object(
    work: &Work<'_>,
    object: &ObjectRef,
) -> Result<Option<String>, AddonError> {
    let failed = AddonError::cluster(work.name);
    let namespace = object.namespace.as_deref();
    let found = work.resources.metadata(&object.types, namespace, &object.name).await;
    let Some(found) = found.map_err(&failed)? else { return Ok(None) };
    if found.labels().get(OWNER_LABEL).map(String::as_str) != Some(work.name) {
        work.tell(format!("{object} is kept: it is not the addon's any more"));
        return Ok(None);
    }
    let uid = found.uid().unwrap_or_default();
    let ordered = work.resources.delete(&object.types, namespace, &object.name, &uid).await;
    if !ordered.map_err(&failed)? {
        return Ok(None);
    }
    work.tell(format!("{object} is removed"));
    Ok(Some(uid))
}

async fn wait(
    work: &Work<'_>,
    object: &ObjectRef,
    uid: &str,
    bound: Duration,
) -> Result<(), AddonError> {
    let Ok(api) = work.resources.api(&object.types, object.namespace.as_deref()) else {
        return Ok(());
    };
    let tell = |sentence: &str| work.tell(format!("{object}: {sentence}"));
    wait_gone(api, &object.name, uid, bound, tell)
        .await
        .map_err(|source| AddonError::Remaining { addon: work.name.into(), source })
}
