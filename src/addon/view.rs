//! The list of addons and their states, kept true by watches.
//!
//! ```text
//! records, repositories ──watch─┐
//! Deployments, EndpointSlices … ├─> View ── judge ──> list ── publish, when it changed
//!   with the owner label ─watch─┘                └─ not healthy: pods are asked for their trouble
//! ```
//!
//! Kinds are watched from the moment that an enabled addon's health asks for them, one watch a
//! kind. Kept in memory are the records, the repositories (compressed, as they are kept) and those
//! objects, without what nobody here reads.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DynamicObject};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};
use skiff_api::{Addon as State, AddonState};
use tokio::time::{Instant, sleep, sleep_until};

use super::cause::{self, Cause};
use super::check::{Check, checks};
use super::engine::Addons;
use super::object::OWNER_LABEL;
use super::record::{Phase, Record};
use super::registry::{Addon, Registry};
use super::repository;
use super::store::{self, Found, RECORD_LABEL};
use crate::kube::{ClusterError, Resources, TypeRef};

/// Pause before the cluster is asked again after it did not answer.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// How often renewed credentials are looked for; half an hour of their life is left then.
const CREDENTIALS_INTERVAL: Duration = Duration::from_secs(120);
/// How often pods are asked for their trouble while an addon is not healthy.
const TROUBLE_INTERVAL: Duration = Duration::from_secs(5);

/// Where a watched event comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Records,
    Repositories,
    Objects(TypeRef),
}

enum Seen {
    Map(Event<ConfigMap>),
    Object(Event<DynamicObject>),
}

type Watches = SelectAll<BoxStream<'static, (Source, Result<Seen, watcher::Error>)>>;

/// Why a round of watching ended.
enum End {
    /// New credentials lie there.
    Renewed,
    Unreachable,
}

impl Addons {
    /// Runs for ever and hands out the whole list whenever it changed. While the API server does
    /// not answer, the state of every addon is unknown.
    pub async fn follow(&self, publish: impl Fn(Vec<State>) + Send + Sync) {
        let mut healthy_once = BTreeSet::new();
        publish(unknown(&self.registry()));
        loop {
            match self.follow_once(&publish, &mut healthy_once).await {
                Ok(End::Renewed) => {}
                Ok(End::Unreachable) => publish(unknown(&self.registry())),
                Err(error) => {
                    tracing::debug!(%error, "the addons cannot be watched");
                    publish(unknown(&self.registry()));
                }
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    async fn follow_once(
        &self,
        publish: &(impl Fn(Vec<State>) + Send + Sync),
        healthy_once: &mut BTreeSet<String>,
    ) -> Result<End, ClusterError> {
        let client = self.settings.clients.client().await?;
        let generation = self.settings.clients.generation();
        let mut resources = Resources::discover(client.clone()).await?;
        let mut view = View::default();
        let mut watches = Watches::new();
        watches.push(watch_maps(client.clone(), RECORD_LABEL, Source::Records));
        watches.push(watch_maps(client.clone(), repository::LABEL, Source::Repositories));
        view.begun.extend([Source::Records, Source::Repositories]);
        let mut published = Vec::new();
        let mut has_news = false;
        let mut look_again = Instant::now() + CREDENTIALS_INTERVAL;
        loop {
            tokio::select! {
                seen = watches.next() => match seen {
                    Some((source, Ok(event))) => {
                        has_news |= source == Source::Repositories;
                        view.take(&source, event);
                    }
                    Some((_, Err(error))) if is_lost(&error) => return Ok(End::Unreachable),
                    Some((_, Err(_))) => sleep(RETRY_PAUSE).await,
                    None => return Ok(End::Unreachable),
                },
                () = sleep_until(look_again) => {
                    look_again = Instant::now() + CREDENTIALS_INTERVAL;
                    self.settings.clients.client().await?;
                    if self.settings.clients.generation() != generation {
                        return Ok(End::Renewed);
                    }
                }
            }
            if has_news && view.complete.contains(&Source::Repositories) {
                self.take_repositories(&view.repositories.values().collect::<Vec<_>>());
                has_news = false;
            }
            let registry = self.registry();
            for types in view.kinds_to_begin(&registry) {
                resources.resolve_fresh(&types).await?;
                // A kind that is not served yet is looked for again at the next event.
                if let Ok(api) = resources.api(&types, None) {
                    watches.push(watch_objects(api, types.clone()));
                    view.begun.insert(Source::Objects(types));
                }
            }
            if view.begun != view.complete {
                continue;
            }
            let trouble = view.trouble(&client, &registry).await;
            let states = view.states(&registry, healthy_once, &trouble);
            let settled = states.iter().all(|state| is_settled(state.state));
            look_again =
                Instant::now() + if settled { CREDENTIALS_INTERVAL } else { TROUBLE_INTERVAL };
            if states != published {
                publish(states.clone());
                published = states;
            }
        }
    }
}

fn is_settled(state: AddonState) -> bool {
    matches!(state, AddonState::Enabled | AddonState::Disabled)
}

/// Errors of the connection; others (a revision too old, a kind not served) heal by themselves.
fn is_lost(error: &watcher::Error) -> bool {
    let source = match error {
        watcher::Error::InitialListFailed(source)
        | watcher::Error::WatchStartFailed(source)
        | watcher::Error::WatchFailed(source) => source,
        _ => return false,
    };
    !matches!(source, kube::Error::Api(status) if status.code != 401 && status.code != 503)
}

fn watch_maps(
    client: Client,
    label: &str,
    source: Source,
) -> BoxStream<'static, (Source, Result<Seen, watcher::Error>)> {
    let api: Api<ConfigMap> = Api::namespaced(client, store::NAMESPACE);
    watcher(api, watcher::Config::default().labels(label))
        .map(move |event| (source.clone(), event.map(Seen::Map)))
        .boxed()
}

fn watch_objects(
    api: Api<DynamicObject>,
    types: TypeRef,
) -> BoxStream<'static, (Source, Result<Seen, watcher::Error>)> {
    watcher(api, watcher::Config::default().labels(OWNER_LABEL))
        .map(move |event| {
            let event = event.map(|event| Seen::Object(event.modify(slim)));
            (Source::Objects(types.clone()), event)
        })
        .boxed()
}

/// Drops what no check reads.
fn slim(object: &mut DynamicObject) {
    object.managed_fields_mut().clear();
    object.annotations_mut().clear();
    if let Some(spec) = object.data.get_mut("spec").and_then(serde_json::Value::as_object_mut) {
        spec.retain(|key, _| key == "replicas");
    }
}

/// What the watches have told so far.
#[derive(Default)]
struct View {
    records: BTreeMap<String, Record>,
    /// Addons whose record cannot be read.
    damaged: BTreeSet<String>,
    repositories: BTreeMap<String, ConfigMap>,
    objects: BTreeMap<TypeRef, BTreeMap<(String, String), DynamicObject>>,
    begun: BTreeSet<Source>,
    /// Watches whose first list is complete.
    complete: BTreeSet<Source>,
}

impl View {
    fn take(&mut self, source: &Source, seen: Seen) {
        match (source, seen) {
            (Source::Repositories, Seen::Map(event)) => self.take_repository(event),
            (_, Seen::Map(event)) => self.take_record(event),
            (Source::Objects(types), Seen::Object(event)) => self.take_object(types, event),
            (Source::Records | Source::Repositories, Seen::Object(_)) => {}
        }
    }

    fn take_repository(&mut self, event: Event<ConfigMap>) {
        match event {
            Event::Init => {
                self.repositories.clear();
                self.complete.remove(&Source::Repositories);
            }
            Event::InitDone => drop(self.complete.insert(Source::Repositories)),
            Event::Apply(map) | Event::InitApply(map) => {
                self.repositories.insert(map.name_any(), map);
            }
            Event::Delete(map) => drop(self.repositories.remove(&map.name_any())),
        }
    }

    fn take_record(&mut self, event: Event<ConfigMap>) {
        match event {
            Event::Init => {
                self.records.clear();
                self.damaged.clear();
                self.complete.remove(&Source::Records);
            }
            Event::InitDone => drop(self.complete.insert(Source::Records)),
            Event::Apply(map) | Event::InitApply(map) => {
                if let Some(addon) = store::addon_of(&map) {
                    self.take_found(addon, store::parse(&map));
                }
            }
            Event::Delete(map) => {
                if let Some(addon) = store::addon_of(&map) {
                    self.records.remove(addon);
                    self.damaged.remove(addon);
                }
            }
        }
    }

    fn take_found(&mut self, addon: &str, found: Found) {
        match found {
            Found::Record(stored) => {
                self.damaged.remove(addon);
                self.records.insert(addon.to_owned(), stored.record);
            }
            Found::Damaged { problem, .. } => {
                tracing::warn!(addon, problem, "the record of an addon is damaged");
                self.records.remove(addon);
                self.damaged.insert(addon.to_owned());
            }
        }
    }

    fn take_object(&mut self, types: &TypeRef, event: Event<DynamicObject>) {
        let source = Source::Objects(types.clone());
        let objects = self.objects.entry(types.clone()).or_default();
        let key =
            |object: &DynamicObject| (object.namespace().unwrap_or_default(), object.name_any());
        match event {
            Event::Init => {
                objects.clear();
                self.complete.remove(&source);
            }
            Event::InitDone => drop(self.complete.insert(source)),
            Event::Apply(object) | Event::InitApply(object) => {
                objects.insert(key(&object), object);
            }
            Event::Delete(object) => drop(objects.remove(&key(&object))),
        }
    }

    /// Kinds that enabled addons are judged by and that are not watched yet.
    fn kinds_to_begin(&self, registry: &Registry) -> BTreeSet<TypeRef> {
        let enabled = self.records.keys().filter_map(|name| registry.named(name));
        enabled
            .flat_map(|addon| checks(&addon.definition))
            .map(|check| check.types)
            .filter(|types| !self.begun.contains(&Source::Objects(types.clone())))
            .collect()
    }

    fn judge(&self, check: &Check) -> Result<(), String> {
        let objects: Vec<&DynamicObject> = self
            .objects
            .get(&check.types)
            .into_iter()
            .flatten()
            .filter(|((namespace, _), object)| {
                (namespace.is_empty() || *namespace == check.namespace) && check.selects(object)
            })
            .map(|(_, object)| object)
            .collect();
        check.judge(&objects)
    }

    /// The first health condition of an addon that does not hold.
    fn complaint(&self, registry: &Registry, name: &str) -> Option<String> {
        let addon = registry.named(name)?;
        checks(&addon.definition).iter().find_map(|check| self.judge(check).err())
    }

    /// What the pods of each addon that is not healthy say.
    async fn trouble(&self, client: &Client, registry: &Registry) -> BTreeMap<String, Cause> {
        let mut found = BTreeMap::new();
        for (name, record) in &self.records {
            if record.phase == Phase::Enabled
                && self.complaint(registry, name).is_some()
                && let Some(cause) = cause::find(client, name).await
            {
                found.insert(name.clone(), cause);
            }
        }
        found
    }

    /// Every addon of the registry as the cluster has it. Pure.
    fn states(
        &self,
        registry: &Registry,
        healthy_once: &mut BTreeSet<String>,
        trouble: &BTreeMap<String, Cause>,
    ) -> Vec<State> {
        let mut state = |addon: &Addon| {
            let (state, message) = self.state(registry, &addon.name, healthy_once, trouble);
            let record = self.records.get(&addon.name).filter(|record| record.is_enabled());
            let version = record.map(|record| &record.version);
            let another = version.filter(|version| **version != addon.definition.version);
            State {
                applied: another.cloned(),
                chosen: record.map(|record| record.options.clone()).unwrap_or_default(),
                ..plain(addon, state, message)
            }
        };
        registry.iter().map(|addon| state(addon)).collect()
    }

    fn state(
        &self,
        registry: &Registry,
        name: &str,
        healthy_once: &mut BTreeSet<String>,
        trouble: &BTreeMap<String, Cause>,
    ) -> (AddonState, String) {
        if self.damaged.contains(name) {
            let sentence = format!("its record is damaged: skiff enable {name} makes a new one");
            return (AddonState::Unhealthy, sentence);
        }
        let Some(record) = self.records.get(name) else {
            healthy_once.remove(name);
            return (AddonState::Disabled, String::new());
        };
        match record.phase {
            Phase::Enabling => {
                healthy_once.remove(name);
                return (AddonState::Progressing, "its objects are being applied".into());
            }
            Phase::Disabling => {
                return (AddonState::Progressing, "its objects are being removed".into());
            }
            Phase::Kept => {
                healthy_once.remove(name);
                let kept: Vec<&str> = record.data.iter().map(|d| d.description.as_str()).collect();
                return (
                    AddonState::Disabled,
                    format!("kept for the next time: {}", kept.join(", ")),
                );
            }
            Phase::Enabled => {}
        }
        let Some(complaint) = self.complaint(registry, name) else {
            healthy_once.insert(name.into());
            return (AddonState::Enabled, String::new());
        };
        let cause = trouble.get(name);
        let message = cause.map_or(complaint, |cause| cause.sentence.clone());
        if healthy_once.contains(name) || cause.is_some_and(|cause| cause.failing) {
            (AddonState::Unhealthy, message)
        } else {
            (AddonState::Progressing, message)
        }
    }
}

fn unknown(registry: &Registry) -> Vec<State> {
    let message = "the API server does not answer";
    registry.iter().map(|addon| plain(addon, AddonState::Unknown, message.into())).collect()
}

/// An addon of which the list does not know yet: its repository has only just come.
pub fn unseen(addon: &Addon) -> State {
    plain(addon, AddonState::Unknown, "the cluster was not asked for it yet".into())
}

/// What the definition says of an addon, with its state.
fn plain(addon: &Addon, state: AddonState, message: String) -> State {
    State {
        name: addon.name.clone(),
        description: addon.definition.description.clone(),
        version: addon.definition.version.clone(),
        applied: None,
        chosen: BTreeMap::new(),
        aliases: addon.definition.aliases.clone(),
        state,
        message,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::addon::definition::Definition;
    use crate::addon::record::{DataRef, ObjectRef};

    fn registry() -> Registry {
        let text =
            "description = 'd'\nversion = '1'\n[[health]]\nkind = 'Deployment'\nname = 'x'\n";
        let definition = Definition::parse("sample", text, &[]).unwrap();
        let (name, manifests) = ("sample".into(), vec![]);
        Registry::of([Addon { name, definition, manifests, repository: None }]).0
    }

    fn view(phase: Option<Phase>, available: Option<i64>) -> View {
        let mut view = View::default();
        if let Some(phase) = phase {
            let object = ObjectRef {
                types: TypeRef::new("v1", "PersistentVolumeClaim"),
                namespace: Some("kube-system".into()),
                name: "claim".into(),
            };
            let record = Record {
                phase,
                version: "0.9".into(),
                options: BTreeMap::from([("size".into(), "1Gi".into())]),
                digest: String::new(),
                objects: vec![],
                data: vec![DataRef { object, description: "images".into() }],
                refused: None,
            };
            view.records.insert("sample".into(), record);
        }
        if let Some(available) = available {
            let conditions = json!([{ "type": "Available", "status": "True" }]);
            let object = json!({
                "metadata": { "name": "x", "namespace": "kube-system" },
                "spec": { "replicas": 1 },
                "status": {
                    "replicas": 1, "updatedReplicas": 1, "availableReplicas": available,
                    "conditions": conditions,
                },
            });
            let event = Event::Apply(serde_json::from_value(object).unwrap());
            let types = TypeRef::new("apps/v1", "Deployment");
            view.take(&Source::Objects(types), Seen::Object(event));
        }
        view
    }

    fn state(view: &View, once: &mut BTreeSet<String>, cause: Option<Cause>) -> AddonState {
        let trouble = cause.into_iter().map(|cause| ("sample".to_owned(), cause)).collect();
        view.states(&registry(), once, &trouble)[0].state
    }

    #[test]
    fn states_follow_records_and_health() {
        let once = &mut BTreeSet::new();
        assert_eq!(state(&view(None, None), once, None), AddonState::Disabled);
        let enabling = view(Some(Phase::Enabling), None);
        assert_eq!(state(&enabling, once, None), AddonState::Progressing);
        assert_eq!(state(&view(Some(Phase::Enabled), None), once, None), AddonState::Progressing);
        assert_eq!(state(&view(Some(Phase::Enabled), Some(1)), once, None), AddonState::Enabled);
        // It was healthy: now it is not merely on its way.
        assert_eq!(state(&view(Some(Phase::Enabled), Some(0)), once, None), AddonState::Unhealthy);
        assert_eq!(state(&view(Some(Phase::Disabling), None), once, None), AddonState::Progressing);
        let kept = view(Some(Phase::Kept), None);
        assert_eq!(state(&kept, once, None), AddonState::Disabled);
        let shown = &kept.states(&registry(), once, &BTreeMap::new())[0];
        assert_eq!(shown.message, "kept for the next time: images");
    }

    #[test]
    fn what_the_user_chose_and_another_version_are_told_of_what_is_enabled() {
        let shown = |phase| {
            let states =
                view(phase, None).states(&registry(), &mut BTreeSet::new(), &BTreeMap::new());
            (states[0].applied.clone(), states[0].chosen.len())
        };
        assert_eq!(shown(Some(Phase::Enabled)), (Some("0.9".into()), 1));
        assert_eq!(shown(Some(Phase::Kept)), (None, 0));
        assert_eq!(shown(None), (None, 0));
    }

    #[test]
    fn a_damaged_record_is_not_taken_for_none() {
        let mut view = view(Some(Phase::Enabled), Some(1));
        let map = json!({ "metadata": { "name": "m", "labels": { RECORD_LABEL: "sample" } } });
        let map: ConfigMap = serde_json::from_value(map).unwrap();
        view.take(&Source::Records, Seen::Map(Event::Apply(map.clone())));
        let shown = &view.states(&registry(), &mut BTreeSet::new(), &BTreeMap::new())[0];
        assert_eq!(shown.state, AddonState::Unhealthy);
        assert_eq!(shown.message, "its record is damaged: skiff enable sample makes a new one");
        view.take(&Source::Records, Seen::Map(Event::Delete(map)));
        assert_eq!(state(&view, &mut BTreeSet::new(), None), AddonState::Disabled);
    }

    #[test]
    fn a_kind_is_watched_once_an_enabled_addon_is_judged_by_it() {
        let mut view = view(Some(Phase::Enabled), None);
        let types = TypeRef::new("apps/v1", "Deployment");
        assert_eq!(view.kinds_to_begin(&registry()), BTreeSet::from([types.clone()]));
        view.begun.insert(Source::Objects(types));
        assert!(view.kinds_to_begin(&registry()).is_empty());
    }

    #[test]
    fn nothing_is_told_before_every_list_is_complete() {
        let mut view = View::default();
        view.begun.insert(Source::Records);
        view.take(&Source::Records, Seen::Map(Event::Init));
        assert_ne!(view.begun, view.complete);
        view.take(&Source::Records, Seen::Map(Event::InitDone));
        assert_eq!(view.begun, view.complete);
    }
}
