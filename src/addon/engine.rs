//! Enabling: from a definition, options and facts to healthy objects in the cluster.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::json;
use skiff_api::{EnableRequest, Progress};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::check::{self, checks};
use super::error::AddonError;
use super::image::ImageStore;
use super::object::{self, OWNER_LABEL, Objects};
use super::option::{self, Values};
use super::record::{ObjectRef, Phase, Record, merge_options};
use super::registry::{Addon, Registry};
use super::store::{Store, Stored};
use super::{cause, remove};
use crate::distribution::Distribution;
use crate::kube::{
    Applied, ClientSource, Resources, Selection, TypeRef, WaitError, type_of, wait_until,
};

/// How long health is waited for when the request does not say.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(300);
/// How long a new kind may take to be served.
const KIND_TIMEOUT: Duration = Duration::from_secs(30);
/// How often pods are asked for their trouble while health is waited for.
const CAUSE_INTERVAL: Duration = Duration::from_secs(3);

/// Where steps of long work are told.
pub type Report<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// What the engine needs of its node.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The build that runs: its addons and images.
    pub distribution: Distribution,
    pub clients: ClientSource,
    pub containerd_socket: PathBuf,
}

/// What manifests may ask of the node, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// `${node.dnsAddress}`: the address of the cluster's DNS.
    pub dns_address: IpAddr,
    /// `${node.domain}`: the domain of the cluster.
    pub domain: String,
    /// `${node.podCidr}` and `${node.serviceCidr}`.
    pub pod_cidr: String,
    pub service_cidr: String,
    /// `${host.resolvers}`: resolvers that pods of this node can reach; none in a cellar.
    pub resolvers: Vec<IpAddr>,
}

/// The addons of one node, and all that can be done with them.
pub struct Addons {
    pub(super) settings: Settings,
    pub(super) registry: Registry,
    images: ImageStore,
    /// One change at a time on this node; between nodes the records decide.
    changing: Mutex<()>,
}

/// One addon in one cluster, while it is being changed.
pub(super) struct Work<'a> {
    pub name: &'a str,
    pub resources: Resources,
    pub store: Store,
    pub stored: Option<Stored>,
    pub report: Report<'a>,
}

impl Addons {
    /// Reads every definition of the distribution. One that is damaged is left out and logged.
    pub fn new(settings: Settings) -> Self {
        let (registry, errors) = Registry::load(&settings.distribution);
        for error in errors {
            tracing::error!(%error, "an addon is left out");
        }
        let ctr = settings.distribution.bin("ctr");
        let images = ImageStore::new(ctr, &settings.containerd_socket);
        Self { settings, registry, images, changing: Mutex::new(()) }
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Brings the images of an addon into this node's store: may be done before the API server
    /// answers, so that its pods start at once.
    pub async fn import_images(&self, name: &str) -> Result<(), AddonError> {
        self.images_of(self.find(name)?, &|_| {}).await
    }

    /// Enables an addon and what it needs, or changes its options. Repeating it repairs what
    /// drifted. The answer is the last line of progress.
    pub async fn enable(
        &self,
        name: &str,
        request: &EnableRequest,
        facts: &Facts,
        report: Report<'_>,
    ) -> Result<Progress, AddonError> {
        self.find(name)?;
        let order = self.registry.order_needs(name)?;
        let _changing = self.changing.lock().await;
        let mut changed = false;
        for each in &order {
            let own = if each == name { request.options.as_slice() } else { &[] };
            changed |= self.enable_one(self.find(each)?, own, request, facts, report).await?;
        }
        let message = match (request.dry_run, changed, request.wait) {
            (true, _, _) => format!("nothing is changed: {name} was only looked at"),
            (false, false, _) => format!("{name} is enabled already"),
            (false, true, true) => format!("{name} is enabled"),
            (false, true, false) => format!("{name} is applied and coming up"),
        };
        Ok(Progress::Done { message, changed: changed && !request.dry_run })
    }

    /// Removes an addon completely.
    pub async fn disable(
        &self,
        name: &str,
        request: &EnableRequest,
        report: Report<'_>,
    ) -> Result<Progress, AddonError> {
        self.find(name)?;
        let _changing = self.changing.lock().await;
        let work = self.begin(name, report).await?;
        remove::remove(work, self.needed_by(name), request).await
    }

    /// Applies every enabled addon as this build and the present facts have it, and finishes what
    /// was interrupted. Answers the names of those that changed.
    pub async fn reconcile(
        &self,
        facts: &Facts,
        report: Report<'_>,
    ) -> Result<Vec<String>, AddonError> {
        let _changing = self.changing.lock().await;
        let client = self.settings.clients.client().await.map_err(|e| AddonError::List(e.into()))?;
        let records = Store::new(client).list().await.map_err(AddonError::List)?;
        let request = EnableRequest::default();
        let mut changed = Vec::new();
        for (name, record) in records {
            let Some(addon) = self.registry.get(&name) else { continue };
            let differs = match record.phase {
                Phase::Disabling => {
                    let work = self.begin(&name, report).await?;
                    remove::remove(work, Vec::new(), &request).await?;
                    true
                }
                _ => self.enable_one(addon, &[], &request, facts, report).await?,
            };
            if differs {
                changed.push(name);
            }
        }
        Ok(changed)
    }

    pub(super) fn find(&self, name: &str) -> Result<&Addon, AddonError> {
        self.registry.get(name).ok_or_else(|| AddonError::Unknown {
            name: name.into(),
            near: self.registry.nearest(name).into_iter().map(str::to_owned).collect(),
        })
    }

    fn needed_by(&self, name: &str) -> Vec<String> {
        let needs = |addon: &&Addon| addon.definition.needs.iter().any(|need| need == name);
        self.registry.iter().filter(needs).map(|addon| addon.name.clone()).collect()
    }

    async fn begin<'a>(&self, name: &'a str, report: Report<'a>) -> Result<Work<'a>, AddonError> {
        let failed = AddonError::cluster(name);
        let client = self.settings.clients.client().await.map_err(|e| failed(e.into()))?;
        let store = Store::new(client.clone());
        let (resources, stored) =
            tokio::try_join!(Resources::discover(client), store.read(name)).map_err(&failed)?;
        Ok(Work { name, resources, store, stored, report })
    }

    async fn enable_one(
        &self,
        addon: &Addon,
        given: &[(String, String)],
        request: &EnableRequest,
        facts: &Facts,
        report: Report<'_>,
    ) -> Result<bool, AddonError> {
        self.require_architecture(addon)?;
        let mut work = self.begin(&addon.name, report).await?;
        self.require_no_conflict(addon, &work.store).await?;
        let former = work.stored.as_ref().map(|stored| &stored.record);
        let positional = addon.definition.positional.as_deref();
        let options = merge_options(former, given, positional);
        let values = self.values(addon, &options, facts)?;
        let mut objects = object::build(addon, &values)
            .map_err(|problems| AddonError::Manifests { addon: addon.name.clone(), problems })?;
        if request.dry_run {
            work.announce(&objects);
            return Ok(true);
        }
        self.images_of(addon, report).await?;
        let changed = work.apply(addon, &options, &mut objects).await?;
        if request.wait {
            let bound = match request.timeout_s {
                0 => HEALTH_TIMEOUT,
                seconds => Duration::from_secs(seconds),
            };
            work.wait_healthy(addon, bound).await?;
        }
        Ok(changed)
    }

    fn require_architecture(&self, addon: &Addon) -> Result<(), AddonError> {
        let possible = &addon.definition.architectures;
        let arch = &self.settings.distribution.arch;
        if possible.is_empty() || possible.contains(arch) {
            return Ok(());
        }
        Err(AddonError::Architecture {
            addon: addon.name.clone(),
            arch: arch.clone(),
            possible: possible.clone(),
        })
    }

    async fn require_no_conflict(&self, addon: &Addon, store: &Store) -> Result<(), AddonError> {
        let excluding = self.registry.iter().filter(|other| {
            addon.definition.conflicts.contains(&other.name)
                || other.definition.conflicts.contains(&addon.name)
        });
        for other in excluding {
            let found = store.read(&other.name).await.map_err(AddonError::cluster(&addon.name))?;
            if found.is_some() {
                let (addon, other) = (addon.name.clone(), other.name.clone());
                return Err(AddonError::Conflict { addon, other });
            }
        }
        Ok(())
    }

    fn values(
        &self,
        addon: &Addon,
        options: &[(String, String)],
        facts: &Facts,
    ) -> Result<Values, AddonError> {
        let positional = addon.definition.positional.as_deref();
        let mut values = option::resolve(&addon.definition.options, positional, options)
            .map_err(|problems| AddonError::Options { addon: addon.name.clone(), problems })?;
        values.extend(facts.values());
        for name in &addon.definition.images {
            let image = self.settings.distribution.image(name)?;
            values.insert(format!("image.{name}"), json!(image.reference));
        }
        Ok(values)
    }

    async fn images_of(&self, addon: &Addon, report: Report<'_>) -> Result<(), AddonError> {
        for name in &addon.definition.images {
            let image = self.settings.distribution.image(name)?;
            let archive = self.settings.distribution.dir().join(&image.file);
            let imported = self.images.ensure(&image.reference, &archive).await;
            match imported {
                Ok(true) => report(step(format!("{}: image {name} is imported", addon.name))),
                Ok(false) => {}
                Err(source) => {
                    let (addon, image) = (addon.name.clone(), image.reference.clone());
                    return Err(AddonError::Image { addon, image, source });
                }
            }
        }
        Ok(())
    }
}

impl Facts {
    /// The names under which manifests ask for facts.
    pub const NAMES: [&str; 5] =
        ["node.dnsAddress", "node.domain", "node.podCidr", "node.serviceCidr", "host.resolvers"];

    fn values(&self) -> Values {
        Values::from([
            ("node.dnsAddress".into(), json!(self.dns_address)),
            ("node.domain".into(), json!(self.domain)),
            ("node.podCidr".into(), json!(self.pod_cidr)),
            ("node.serviceCidr".into(), json!(self.service_cidr)),
            ("host.resolvers".into(), json!(self.resolvers)),
        ])
    }
}

impl Work<'_> {
    pub fn tell(&self, sentence: impl std::fmt::Display) {
        (self.report)(step(format!("{}: {sentence}", self.name)));
    }

    fn announce(&self, objects: &Objects) {
        let record = self.stored.as_ref().map(|stored| &stored.record);
        let former: &[ObjectRef] = record.map_or(&[], |record| &record.objects);
        if record.is_some_and(|r| r.digest == objects.digest && r.phase == Phase::Enabled) {
            self.tell("everything is applied already");
            return;
        }
        let next: Vec<ObjectRef> = objects.list.iter().map(ObjectRef::of).collect();
        for object in &next {
            let verb = if former.contains(object) { "apply" } else { "create" };
            self.tell(format!("would {verb} {object}"));
        }
        for object in former.iter().filter(|object| !next.contains(object)) {
            self.tell(format!("would remove {object}"));
        }
    }

    /// Writes down what will exist, makes it exist, removes what should no more. Answers whether
    /// anything was different from before.
    async fn apply(
        &mut self,
        addon: &Addon,
        options: &[(String, String)],
        objects: &mut Objects,
    ) -> Result<bool, AddonError> {
        for object in &mut objects.list {
            if self.resources.is_cluster_wide(&type_of(object)) {
                object.metadata.namespace = None;
            }
        }
        let next = Record {
            phase: Phase::Enabled,
            version: addon.definition.version.clone(),
            options: options.iter().cloned().collect::<BTreeMap<_, _>>(),
            digest: objects.digest.clone(),
            objects: objects.list.iter().map(ObjectRef::of).collect(),
        };
        let former = self.stored.as_ref().map(|stored| stored.record.clone());
        let same = former.as_ref() == Some(&next);
        if !same {
            self.write(Record::begin(former.as_ref(), &next)).await?;
        }
        let mut changed = !same;
        for object in &objects.list {
            changed |= self.apply_one(object).await?;
        }
        if !same {
            for object in Record::pruned(former.as_ref(), &next) {
                remove::remove_object(self, &object).await?;
            }
            self.write(next).await?;
        }
        Ok(changed)
    }

    async fn apply_one(&mut self, object: &DynamicObject) -> Result<bool, AddonError> {
        let failed = AddonError::cluster(self.name);
        let types = type_of(object);
        self.resources.resolve_fresh(&types).await.map_err(&failed)?;
        self.require_ours(object, &types).await?;
        let applied = self.resources.apply(object).await.map_err(&failed)?;
        let name = object::name_of(object);
        match applied {
            Applied::Created => self.tell(format!("{name} is created")),
            Applied::Changed => self.tell(format!("{name} is changed")),
            Applied::Unchanged => {}
        }
        if types.kind == "CustomResourceDefinition" && applied != Applied::Unchanged {
            self.wait_served(object, &types).await?;
        }
        Ok(applied != Applied::Unchanged)
    }

    /// An object that somebody else made, or another addon, is not ours to overwrite.
    async fn require_ours(&self, object: &DynamicObject, types: &TypeRef) -> Result<(), AddonError> {
        let name = object.name_any();
        let found = self
            .resources
            .metadata(types, object.metadata.namespace.as_deref(), &name)
            .await
            .map_err(AddonError::cluster(self.name))?;
        let owner = found.as_ref().and_then(|found| found.labels().get(OWNER_LABEL));
        match owner {
            Some(owner) if owner != self.name => Err(AddonError::Foreign {
                addon: self.name.into(),
                object: object::name_of(object),
                owner: format!("the addon {owner}"),
            }),
            _ => Ok(()),
        }
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

    /// Waits for every health condition, and tells what stands in the way.
    async fn wait_healthy(&self, addon: &Addon, bound: Duration) -> Result<(), AddonError> {
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

pub(super) fn step(message: String) -> Progress {
    Progress::Step { message }
}
