//! Enabling: from a definition, options and facts to healthy objects in the cluster.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use skiff_api::{EnableRequest, Progress};
use tokio::sync::Mutex;

use super::error::AddonError;
use super::facts::Facts;
use super::image::ImageStore;
use super::option::{self, Values};
use super::record::{Phase, merge_options};
use super::registry::{Addon, Registry};
use super::store::Store;
use super::work::{Report, Work, step};
use super::{inherent, object, remove};
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
    pub(super) registry: Registry,
    images: ImageStore,
    /// One change at a time on this node; between nodes the records decide.
    changing: Mutex<()>,
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
        if let Some(fact) = inherent::look_up(name) {
            return answer_inherent(name, fact, request);
        }
        let name = &self.find(name)?.name;
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
        let name = &self.find(name)?.name;
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
        let client =
            self.settings.clients.client().await.map_err(|e| AddonError::List(e.into()))?;
        let records = Store::new(client).list().await.map_err(AddonError::List)?;
        let request = EnableRequest::default();
        let mut changed = Vec::new();
        for (name, record) in records {
            let Some(addon) = self.registry.named(&name) else { continue };
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

    /// The addon of a name or alias.
    pub fn find(&self, name: &str) -> Result<&Addon, AddonError> {
        if let Some(fact) = inherent::look_up(name) {
            return Err(AddonError::Inherent { name: name.into(), fact });
        }
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
