//! Disabling: everything that an addon owns goes, in the order opposite to its coming.

use std::time::Duration;

use kube::ResourceExt;
use skiff_api::{EnableRequest, Progress};

use super::applied;
use super::error::AddonError;
use super::object::OWNER_LABEL;
use super::record::{ObjectRef, Phase, Record};
use super::stay::{self, Stay};
use super::work::Work;
use crate::kube::wait_gone;

/// How long one object may take to go when the request does not say: pods have their grace.
const GONE_TIMEOUT: Duration = Duration::from_secs(120);

/// Removes an addon. `needed_by` are addons that need it, enabled or not.
pub(super) async fn remove(
    work: &mut Work<'_>,
    needed_by: Vec<String>,
    request: &EnableRequest,
) -> Result<Progress, AddonError> {
    let name = work.name;
    let Some(record) = work.stored.as_ref().map(|stored| stored.record.clone()) else {
        return Ok(done(format!("{name} is not enabled"), false));
    };
    if record.phase == Phase::Kept && !request.delete_data {
        return Ok(done(format!("{name} is not enabled; {}", kept_sentence(name)), false));
    }
    require_unneeded(work, needed_by).await?;
    let stay = stay::find(work, &record, request.delete_data).await?;
    let going = going(&record, &stay);
    if request.dry_run {
        going.iter().for_each(|object| work.tell(format!("would remove {object}")));
        stay.sentences().iter().for_each(|what| work.tell(format!("would keep {what}")));
        return Ok(done(format!("nothing is changed: {name} was only looked at"), false));
    }
    if record.phase != Phase::Disabling {
        work.write(Record { phase: Phase::Disabling, ..record.clone() }).await?;
    }
    let bound = match request.timeout_s {
        0 => GONE_TIMEOUT,
        seconds => Duration::from_secs(seconds),
    };
    let mut ordered = Vec::new();
    for object in &going {
        if let Some(uid) = remove_object(work, object).await? {
            ordered.push((object, uid));
        }
    }
    for (object, uid) in ordered {
        wait(work, object, &uid, bound).await?;
    }
    stay.sentences().iter().for_each(|what| work.tell(format!("kept: {what}")));
    end(work, &record, &stay).await?;
    let message = match stay.data.is_empty() {
        true => format!("{name} is disabled"),
        false => format!("{name} is disabled; {}", kept_sentence(name)),
    };
    Ok(done(message, true))
}

/// What goes, first to last: the opposite of the order in which it came.
fn going(record: &Record, stay: &Stay) -> Vec<ObjectRef> {
    let unlisted = record.data.iter().map(|data| &data.object);
    let unlisted = unlisted.filter(|data| !record.objects.iter().any(|o| o.is_same(data)));
    let all = record.objects.iter().rev().chain(unlisted);
    all.filter(|object| !stay.keeps(object)).cloned().collect()
}

/// The record goes with the last object; as long as data stays, it says whose that is.
async fn end(work: &mut Work<'_>, record: &Record, stay: &Stay) -> Result<(), AddonError> {
    let forgotten = applied::forget(work.resources.client(), work.name).await;
    forgotten.map_err(AddonError::cluster(work.name))?;
    let objects = stay.deletable(record);
    if !objects.is_empty() || !stay.data.is_empty() {
        let digest = String::new();
        return work.write(Record { phase: Phase::Kept, objects, digest, ..record.clone() }).await;
    }
    match &work.stored {
        Some(stored) => work.store.remove(work.name, stored).await,
        None => Ok(()),
    }
    .map_err(AddonError::cluster(work.name))
}

fn kept_sentence(name: &str) -> String {
    format!("its data is kept: skiff disable {name} --delete-data deletes it")
}

fn done(message: String, changed: bool) -> Progress {
    Progress::Done { message, changed }
}

async fn require_unneeded(work: &Work<'_>, needed_by: Vec<String>) -> Result<(), AddonError> {
    let mut by = Vec::new();
    for other in needed_by {
        let found = work.store.read(&other).await.map_err(AddonError::cluster(work.name))?;
        if found.is_some_and(|found| found.is_enabled()) {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::addon::record::DataRef;
    use crate::kube::TypeRef;

    #[test]
    fn data_goes_only_when_it_does_not_stay_and_after_what_uses_it() {
        let object = |kind: &str, name: &str| ObjectRef {
            types: TypeRef::new("v1", kind),
            namespace: Some("n".into()),
            name: name.into(),
        };
        let (claim, pod) = (object("PersistentVolumeClaim", "c"), object("Pod", "p"));
        let made = object("PersistentVolumeClaim", "made-by-the-addon");
        let data = |object: &ObjectRef| DataRef { object: object.clone(), description: "d".into() };
        let record = Record {
            phase: Phase::Enabled,
            version: "1".into(),
            options: BTreeMap::new(),
            digest: String::new(),
            objects: vec![claim.clone(), pod.clone()],
            data: vec![data(&claim), data(&made)],
            refused: None,
        };
        let stay = Stay { data: record.data.clone(), held: vec![] };
        assert_eq!(going(&record, &stay), std::slice::from_ref(&pod));
        assert_eq!(going(&record, &Stay::default()), [pod, claim, made]);
    }
}
