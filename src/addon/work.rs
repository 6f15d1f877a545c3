//! One addon in one cluster, while it is being changed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use kube::ResourceExt;
use kube::api::{DynamicObject, PartialObjectMeta};
use skiff_api::Progress;
use tokio::time::Instant;

use super::applied::Applied as Kept;
use super::check::{self, checks};
use super::definition::UserData;
use super::error::AddonError;
use super::object::{self, OWNER_LABEL, Objects};
use super::order::rank;
use super::record::{DataRef, ObjectRef, Phase, Record};
use super::registry::Addon;
use super::store::{Store, Stored};
use super::{applied, cause, remove};
use crate::kube::{
    Applied, FIELD_MANAGER, Resources, Selection, TypeRef, WaitError, type_of, wait_until,
};

/// How long a new kind may take to be served.
const KIND_TIMEOUT: Duration = Duration::from_secs(30);
/// How often pods are asked for their trouble while health is waited for.
const CAUSE_INTERVAL: Duration = Duration::from_secs(3);

/// Where steps of long work are told.
pub type Report<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// An addon with the cluster and the record that it is changed in.
pub(super) struct Work<'a> {
    pub name: &'a str,
    pub resources: Resources,
    pub store: Store,
    pub stored: Option<Stored>,
    pub report: Report<'a>,
    /// Whether anything of the addon was there before it was applied now.
    pub found: AtomicBool,
}

impl Work<'_> {
    pub fn tell(&self, sentence: impl std::fmt::Display) {
        (self.report)(step(format!("{}: {sentence}", self.name)));
    }

    pub fn record(&self) -> Option<&Record> {
        self.stored.as_ref().map(|stored| &stored.record)
    }

    /// What will be remembered of an addon when these objects are applied.
    pub fn next_record(
        &self,
        addon: &Addon,
        options: &[(String, String)],
        objects: &mut Objects,
    ) -> Record {
        let brought = object::cluster_wide_kinds(&objects.list);
        for object in &mut objects.list {
            let types = type_of(object);
            let kind = (types.group().to_owned(), types.kind.clone());
            if self.resources.is_cluster_wide(&types) || brought.contains(&kind) {
                object.metadata.namespace = None;
            }
        }
        let next = Record {
            phase: Phase::Enabled,
            version: addon.definition.version.clone(),
            options: options.iter().cloned().collect::<BTreeMap<_, _>>(),
            digest: objects.digest.clone(),
            objects: objects.list.iter().map(ObjectRef::of).collect(),
            data: data_of(&self.resources, addon),
            refused: None,
        };
        next.keeping_data(self.record())
    }

    /// Writes down what will exist, makes it exist, removes what should no more. Answers whether
    /// anything was different from before.
    pub async fn apply(
        &mut self,
        next: Record,
        objects: &[DynamicObject],
    ) -> Result<bool, AddonError> {
        let former = self.record().cloned();
        let next = next.keeping_data(former.as_ref());
        let same = former.as_ref() == Some(&next);
        if !same {
            self.write(Record::begin(former.as_ref(), &next)).await?;
        }
        let mut changed = !same;
        let ranked = objects.chunk_by(|a, b| rank_of(a) == rank_of(b));
        for peers in ranked {
            changed |= self.apply_peers(peers).await?;
        }
        if !same {
            for object in Record::pruned(former.as_ref(), &next) {
                remove::remove_object(self, &object).await?;
            }
            self.write(next).await?;
        }
        Ok(changed)
    }

    /// Applies objects that do not need each other, at the same time.
    async fn apply_peers(&mut self, objects: &[DynamicObject]) -> Result<bool, AddonError> {
        for object in objects {
            let known = self.resources.resolve_fresh(&type_of(object)).await;
            known.map_err(AddonError::cluster(self.name))?;
        }
        let work = &*self;
        // All are waited for: what is under way when one fails must not come after it is undone.
        let outcomes = join_all(objects.iter().map(|object| work.apply_one(object))).await;
        let outcomes = outcomes.into_iter().collect::<Result<Vec<_>, _>>()?;
        for (object, applied) in objects.iter().zip(&outcomes) {
            let name = object::name_of(object);
            match applied {
                Applied::Created => self.tell(format!("{name} is created")),
                Applied::Changed => self.tell(format!("{name} is changed")),
                Applied::Unchanged => continue,
            }
            if type_of(object).kind == "CustomResourceDefinition" {
                self.wait_served(object, &type_of(object)).await?;
            }
        }
        Ok(outcomes.iter().any(|applied| *applied != Applied::Unchanged))
    }

    /// What another addon or a person made is not ours to overwrite.
    async fn apply_one(&self, object: &DynamicObject) -> Result<Applied, AddonError> {
        let failed = AddonError::cluster(self.name);
        let namespace = object.metadata.namespace.as_deref();
        let found = self.resources.metadata(&type_of(object), namespace, &object.name_any()).await;
        let found = found.map_err(&failed)?;
        let owner = found.as_ref().and_then(|found| found.labels().get(OWNER_LABEL));
        if let Some(owner) = owner.filter(|owner| *owner != self.name) {
            return Err(AddonError::Foreign {
                addon: self.name.into(),
                object: object::name_of(object),
                owner: format!("the addon {owner}"),
            });
        }
        if owner.is_none() && found.as_ref().is_some_and(|found| !is_applied_by_us(found)) {
            return Err(AddonError::Foreign {
                addon: self.name.into(),
                object: object::name_of(object),
                owner: "somebody else: it was there before".into(),
            });
        }
        self.found.fetch_or(found.is_some(), Ordering::Relaxed);
        let version = found.as_ref().and_then(|found| found.resource_version());
        self.resources.apply(object, version.as_deref()).await.map_err(&failed)
    }

    async fn wait_served(&self, object: &DynamicObject, types: &TypeRef) -> Result<(), AddonError> {
        let name = object.name_any();
        let api = self.resources.api(types, None).map_err(AddonError::cluster(self.name))?;
        let established = |objects: &[&DynamicObject]| {
            let conditions = objects.first().and_then(|o| o.data.pointer("/status/conditions"));
            let holds = conditions.and_then(|c| c.as_array()).is_some_and(|conditions| {
                conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True")
            });
            if holds { Ok(()) } else { Err("it is not served yet".to_owned()) }
        };
        let what = format!("{name} to be served");
        let selection = Selection::Name(name);
        wait_until(api, &selection, &what, KIND_TIMEOUT, established, |_| {}).await.map_err(
            |source| AddonError::Unhealthy { addon: self.name.into(), cause: None, source },
        )
    }

    pub async fn write(&mut self, record: Record) -> Result<(), AddonError> {
        let written = self.store.write(self.name, self.stored.as_ref(), record).await;
        self.stored = Some(written.map_err(AddonError::cluster(self.name))?);
        Ok(())
    }

    /// Keeps what was applied, as the way back from the next change.
    pub async fn keep(&self, applied: Kept) -> Result<(), AddonError> {
        let client = self.resources.client();
        let failed = AddonError::cluster(self.name);
        if applied::read(client, self.name).await.map_err(&failed)?.as_ref() == Some(&applied) {
            return Ok(());
        }
        if !applied::keep(client, self.name, &applied).await.map_err(&failed)? {
            self.tell("it is too large to be kept: a change that fails will not be undone");
        }
        Ok(())
    }

    /// Waits for every health condition, and tells what stands in the way.
    pub async fn wait_healthy(&self, addon: &Addon, bound: Duration) -> Result<(), AddonError> {
        let deadline = Instant::now() + bound;
        for check in checks(&addon.definition) {
            let left = deadline.saturating_duration_since(Instant::now());
            let tell = |sentence: &str| self.tell(sentence);
            let waited = tokio::select! {
                waited = check::wait(&self.resources, &check, left, tell) => waited,
                never = self.tell_causes() => match never {},
            };
            if let Err(source) = waited {
                let cause = cause::find(self.resources.client(), self.name).await;
                let cause = cause.map(|cause| cause.sentence).or(Some(source.last.clone()));
                let source = WaitError { bound, ..source };
                return Err(AddonError::Unhealthy { addon: self.name.into(), cause, source });
            }
        }
        Ok(())
    }

    /// Tells every new trouble of the pods; ends only by being dropped.
    async fn tell_causes(&self) -> std::convert::Infallible {
        let mut last = None;
        loop {
            tokio::time::sleep(CAUSE_INTERVAL).await;
            let found = cause::find(self.resources.client(), self.name).await;
            let failing = found.filter(|cause| cause.failing).map(|cause| cause.sentence);
            if let Some(sentence) = &failing
                && failing != last
            {
                self.tell(sentence);
            }
            last = failing.or(last);
        }
    }
}

/// Where users' data lies, as the definition says it.
pub(super) fn data_of(resources: &Resources, addon: &Addon) -> Vec<DataRef> {
    let data = |data: &UserData| {
        let types = TypeRef::new(data.api_version().unwrap_or_default(), &data.kind);
        let namespace = data.namespace.as_ref().unwrap_or(&addon.definition.namespace);
        let namespace = (!resources.is_cluster_wide(&types)).then(|| namespace.clone());
        let object = ObjectRef { types, namespace, name: data.name.clone() };
        DataRef { object, description: data.description.clone() }
    };
    addon.definition.user_data.iter().map(data).collect()
}

/// Who takes our label away does not make it another's: we are still one of its field managers.
fn is_applied_by_us(object: &PartialObjectMeta<DynamicObject>) -> bool {
    object.managed_fields().iter().any(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER))
}

fn rank_of(object: &DynamicObject) -> u8 {
    rank(&type_of(object).kind)
}

pub(super) fn step(message: String) -> Progress {
    Progress::Step { message }
}
