//! Enabling: from a definition, options and facts to healthy objects in the cluster.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, RwLock, RwLockReadGuard};
use std::time::Duration;

use serde_json::json;
use skiff_api::{AddonDiff, EnableRequest, Progress};
use tokio::sync::Mutex;

use super::applied::Applied;
use super::error::AddonError;
use super::facts::Facts;
use super::image::ImageStore;
use super::object::Objects;
use super::option::{self, Values};
use super::record::{Phase, Record, merge_options};
use super::registry::{Addon, Registry};
use super::repositories::{self, Known};
use super::store::{Found, Store, Stored};
use super::work::{self, Report, Work, step};
use super::{back, diff, inherent, mend, object, remove};
use crate::distribution::Distribution;
use crate::kube::{ClientSource, Resources};

/// How long health is waited for when the request does not say.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(300);

/// What the engine needs of its node.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The build that runs: its addons and images.
    pub distribution: Distribution,
    pub clients: ClientSource,
    pub containerd_socket: PathBuf,
}

/// The addons of one node, and all that can be done with them.
pub struct Addons {
    pub(super) settings: Settings,
    /// What the build brings.
    pub(super) builtin: Vec<Addon>,
    /// That, and what the cluster has besides.
    pub(super) known: RwLock<Known>,
    images: ImageStore,
    /// One change at a time on this node; between nodes the records decide.
    pub(super) changing: Mutex<()>,
}

impl Addons {
    /// Reads every definition of the distribution. What is damaged is left out and logged.
    pub fn new(settings: Settings) -> Self {
        let (builtin, errors) = Registry::load(&settings.distribution);
        repositories::log(errors);
        Self::of(settings, builtin)
    }

    pub(super) fn of(settings: Settings, builtin: Vec<Addon>) -> Self {
        let ctr = settings.distribution.bin("ctr");
        let images = ImageStore::new(ctr, &settings.containerd_socket);
        let known = RwLock::new(Known::of(&builtin));
        Self { settings, builtin, known, images, changing: Mutex::new(()) }
    }

    pub fn registry(&self) -> Arc<Registry> {
        self.known().registry.clone()
    }

    pub(super) fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().expect("no holder of this lock panics")
    }

    /// Brings the images of an addon into this node's store: may be done before the API server
    /// answers, so that its pods start at once.
    pub async fn import_images(&self, name: &str) -> Result<(), AddonError> {
        let addon = self.find(name)?;
        self.images_of(&addon, &|_| {}).await
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
        if let Some(fact) = inherent::look_up(name) {
            return answer_inherent(name, fact, request);
        }
        let _changing = self.changing.lock().await;
        self.refresh().await;
        let addon = self.find(name)?;
        let name = &addon.name;
        let changed = self.enable_all(name, request, facts, report).await?;
        let message = match (request.dry_run, changed, request.wait) {
            (true, _, _) => format!("nothing is changed: {name} was only looked at"),
            (false, false, _) => format!("{name} is enabled already"),
            (false, true, true) => format!("{name} is enabled"),
            (false, true, false) => format!("{name} is applied and coming up"),
        };
        Ok(Progress::Done { message, changed: changed && !request.dry_run })
    }

    /// Brings an enabled addon to the version that this build has, with the options that it has,
    /// and waits until it is healthy. When it does not become so, it is as before.
    pub async fn upgrade(
        &self,
        name: &str,
        request: &EnableRequest,
        facts: &Facts,
        report: Report<'_>,
    ) -> Result<Progress, AddonError> {
        let _changing = self.changing.lock().await;
        self.refresh().await;
        let addon = self.find(name)?;
        let (name, to) = (&addon.name, &addon.definition.version);
        let former = self.begin(name, report).await?.stored.map(|stored| stored.record);
        let Some(former) = former.filter(Record::is_enabled) else {
            return Err(AddonError::NotEnabled { addon: name.clone() });
        };
        let request = EnableRequest { wait: true, ..request.clone() };
        let changed = self.enable_all(name, &request, facts, report).await?;
        let message = match (request.dry_run, changed, former.version == *to) {
            (true, _, _) => format!("nothing is changed: {name} was only looked at"),
            (false, false, _) => format!("{name} is at {to} already"),
            (false, true, true) => format!("{name} is at {to} as this build has it"),
            (false, true, false) => format!("{name} is upgraded from {} to {to}", former.version),
        };
        Ok(Progress::Done { message, changed: changed && !request.dry_run })
    }

    /// What enabling an addon again, or upgrading it, would change.
    pub async fn diff(&self, name: &str, facts: &Facts) -> Result<AddonDiff, AddonError> {
        self.refresh().await;
        let addon = self.find(name)?;
        let work = self.begin(&addon.name, &|_| {}).await?;
        if !work.record().is_some_and(Record::is_enabled) {
            return Err(AddonError::NotEnabled { addon: addon.name.clone() });
        }
        let (next, objects) = self.target(&work, &addon, &[], facts)?;
        diff::diff(&work, &next, &objects.list).await
    }

    /// Removes an addon completely.
    pub async fn disable(
        &self,
        name: &str,
        request: &EnableRequest,
        report: Report<'_>,
    ) -> Result<Progress, AddonError> {
        let _changing = self.changing.lock().await;
        self.refresh().await;
        let addon = self.find(name)?;
        let name = &addon.name;
        let mut work = self.begin(name, report).await?;
        remove::remove(&mut work, self.needed_by(name), request).await
    }

    /// Applies every enabled addon as this build and the present facts have it, and finishes what
    /// was interrupted. Answers the names of those that changed.
    pub async fn reconcile(
        &self,
        facts: &Facts,
        report: Report<'_>,
    ) -> Result<Vec<String>, AddonError> {
        let _changing = self.changing.lock().await;
        self.refresh().await;
        let client =
            self.settings.clients.client().await.map_err(|e| AddonError::List(e.into()))?;
        let records = Store::new(client).list().await.map_err(AddonError::List)?;
        let request = EnableRequest::default();
        let mut changed = Vec::new();
        for (name, record) in records {
            let registry = self.registry();
            let Some(addon) = registry.named(&name) else { continue };
            let differs = match record.phase {
                Phase::Kept => continue,
                Phase::Disabling => {
                    let mut work = self.begin(&name, report).await?;
                    remove::remove(&mut work, Vec::new(), &request).await?;
                    true
                }
                Phase::Enabled if is_left(addon, &record) => continue,
                _ => self.enable_one(addon, &[], &request, facts, report).await?,
            };
            if differs {
                changed.push(name);
            }
        }
        Ok(changed)
    }

    /// The addon of a name or alias.
    pub fn find(&self, name: &str) -> Result<Arc<Addon>, AddonError> {
        if let Some(fact) = inherent::look_up(name) {
            return Err(AddonError::Inherent { name: name.into(), fact });
        }
        let registry = self.registry();
        registry.get(name).cloned().ok_or_else(|| AddonError::Unknown {
            name: name.into(),
            near: registry.nearest(name).into_iter().map(str::to_owned).collect(),
        })
    }

    fn needed_by(&self, name: &str) -> Vec<String> {
        let needs = |addon: &&Arc<Addon>| addon.definition.needs.iter().any(|need| need == name);
        self.registry().iter().filter(needs).map(|addon| addon.name.clone()).collect()
    }

    async fn begin<'a>(&self, name: &'a str, report: Report<'a>) -> Result<Work<'a>, AddonError> {
        let failed = AddonError::cluster(name);
        let client = self.settings.clients.client().await.map_err(|e| failed(e.into()))?;
        let store = Store::new(client.clone());
        let (resources, found) =
            tokio::try_join!(Resources::discover(client), store.read(name)).map_err(&failed)?;
        let mut stored = match found {
            None => None,
            Some(Found::Record(stored)) => Some(stored),
            Some(Found::Damaged { problem, version }) => {
                tracing::warn!(addon = name, problem, "the record of an addon is damaged");
                report(step(format!("{name}: its record is damaged: its options are forgotten")));
                let record = mend::record(&resources, name).await.map_err(&failed)?;
                Some(Stored::mended(record, version))
            }
        };
        if let (Some(stored), Some(addon)) = (&mut stored, self.registry().named(name)) {
            // Also what an older version did not call data is not to be lost.
            stored.record.know_data(work::data_of(&resources, addon));
        }
        Ok(Work { name, resources, store, stored, report, found: AtomicBool::new(false) })
    }

    /// Enables what an addon needs and then itself.
    async fn enable_all(
        &self,
        name: &str,
        request: &EnableRequest,
        facts: &Facts,
        report: Report<'_>,
    ) -> Result<bool, AddonError> {
        let mut changed = false;
        for each in &self.registry().order_needs(name)? {
            let own = if each == name { request.options.as_slice() } else { &[] };
            let addon = self.find(each)?;
            changed |= self.enable_one(&addon, own, request, facts, report).await?;
        }
        Ok(changed)
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
        let (next, objects) = self.target(&work, addon, given, facts)?;
        if request.dry_run {
            let diff = diff::diff(&work, &next, &objects.list).await?;
            diff::sentences(&diff).iter().for_each(|sentence| work.tell(sentence));
            return Ok(true);
        }
        self.images_of(addon, report).await?;
        let former = work.record().cloned();
        let outcome = carry_out(&mut work, addon, next, &objects, request).await;
        match outcome {
            Err(error) if back::is_final(&error) => {
                let version = &addon.definition.version;
                Err(back::back(&mut work, former.as_ref(), version, error).await)
            }
            other => other,
        }
    }

    /// The objects that an addon comes to with its options, and the record of them.
    fn target(
        &self,
        work: &Work<'_>,
        addon: &Addon,
        given: &[(String, String)],
        facts: &Facts,
    ) -> Result<(Record, Objects), AddonError> {
        let positional = addon.definition.positional.as_deref();
        let options = merge_options(work.record(), given, positional);
        let values = self.values(addon, &options, facts)?;
        let mut objects = object::build(addon, &values)
            .map_err(|problems| AddonError::Manifests { addon: addon.name.clone(), problems })?;
        let next = work.next_record(addon, &options, &mut objects);
        Ok((next, objects))
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
        let registry = self.registry();
        let excluding = registry.iter().filter(|other| {
            addon.definition.conflicts.contains(&other.name)
                || other.definition.conflicts.contains(&addon.name)
        });
        for other in excluding {
            let found = store.read(&other.name).await.map_err(AddonError::cluster(&addon.name))?;
            if found.is_some_and(|found| found.is_enabled()) {
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
            let imported = self.images.ensure(image, self.settings.distribution.dir()).await;
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

/// Whether an addon stays as it is until somebody asks for a change: it is ahead of this build,
/// that version did not come up, or it does not come with the build.
fn is_left(addon: &Addon, record: &Record) -> bool {
    addon.repository.is_some() || record.is_ahead_of(&addon.definition.version)
}

/// Applies the objects, waits for health when that is asked for, and keeps what was applied.
async fn carry_out(
    work: &mut Work<'_>,
    addon: &Addon,
    next: Record,
    objects: &Objects,
    request: &EnableRequest,
) -> Result<bool, AddonError> {
    let changed = work.apply(next, &objects.list).await?;
    if request.wait {
        let bound = match request.timeout_s {
            0 => HEALTH_TIMEOUT,
            seconds => Duration::from_secs(seconds),
        };
        work.wait_healthy(addon, bound).await?;
    }
    if let Some(record) = work.record().cloned() {
        work.keep(Applied { record, objects: objects.list.clone() }).await?;
    }
    Ok(changed)
}

/// Enabling what is always on does nothing and says so; options it has none.
fn answer_inherent(
    name: &str,
    fact: &str,
    request: &EnableRequest,
) -> Result<Progress, AddonError> {
    option::resolve(&[], None, &request.options)
        .map_err(|problems| AddonError::Options { addon: name.into(), problems })?;
    Ok(Progress::Done { message: format!("{name} is always on: {fact}"), changed: false })
}
