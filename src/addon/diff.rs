//! What a change of an addon would do, asked of the API server itself: options, versions and drift
//! alike.

use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::Value;
use skiff_api::{AddonDiff, ChangeAction, FieldChange, ObjectChange};

use super::compare::compare;
use super::error::AddonError;
use super::record::{ObjectRef, Record};
use super::work::Work;
use crate::kube::{ClusterError, type_of};

/// Compares what is there with `objects`, of which `next` would be the record.
pub(super) async fn diff(
    work: &Work<'_>,
    next: &Record,
    objects: &[DynamicObject],
) -> Result<AddonDiff, AddonError> {
    let former = work.stored.as_ref().map(|stored| &stored.record);
    let changes = changes(work, former, next, objects).await;
    Ok(AddonDiff {
        name: work.name.into(),
        from: former.filter(|f| f.is_enabled()).map_or_else(String::new, |f| f.version.clone()),
        to: next.version.clone(),
        changes: changes.map_err(AddonError::cluster(work.name))?,
    })
}

async fn changes(
    work: &Work<'_>,
    former: Option<&Record>,
    next: &Record,
    objects: &[DynamicObject],
) -> Result<Vec<ObjectChange>, ClusterError> {
    let mut changes = Vec::new();
    for object in objects {
        changes.extend(change_of(work, object).await?);
    }
    for object in Record::pruned(former, next) {
        let namespace = object.namespace.as_deref();
        if work.resources.metadata(&object.types, namespace, &object.name).await?.is_some() {
            changes.push(change(&object, ChangeAction::Remove, vec![]));
        }
    }
    Ok(changes)
}

async fn change_of(
    work: &Work<'_>,
    object: &DynamicObject,
) -> Result<Option<ObjectChange>, ClusterError> {
    let named = ObjectRef::of(object);
    let namespace = object.metadata.namespace.as_deref();
    let found = work.resources.get(&type_of(object), namespace, &object.name_any()).await?;
    let Some(found) = found else { return Ok(Some(change(&named, ChangeAction::Create, vec![]))) };
    let preview = work.resources.preview(object).await?;
    let fields = compare(&plain(&found), &plain(&preview));
    Ok((!fields.is_empty()).then(|| change(&named, ChangeAction::Change, fields)))
}

fn change(object: &ObjectRef, action: ChangeAction, fields: Vec<FieldChange>) -> ObjectChange {
    ObjectChange { object: object.to_string(), action, fields }
}

fn plain(object: &DynamicObject) -> Value {
    serde_json::to_value(object).expect("objects are JSON")
}

/// A line for each change, as steps tell it.
pub(super) fn sentences(diff: &AddonDiff) -> Vec<String> {
    let mut lines = Vec::new();
    for ObjectChange { object, action, fields } in &diff.changes {
        let verb = match action {
            ChangeAction::Create => "create",
            ChangeAction::Change => "change",
            ChangeAction::Remove => "remove",
        };
        let paths: Vec<&str> = fields.iter().map(|field| field.path.as_str()).collect();
        let paths =
            if paths.is_empty() { String::new() } else { format!(": {}", paths.join(", ")) };
        lines.push(format!("would {verb} {object}{paths}"));
    }
    if lines.is_empty() {
        lines.push("everything is applied already".into());
    }
    lines
}
