//! The registry with the repositories that users added: kept in step with the cluster.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Client, ResourceExt};
use skiff_api::{Repository as Told, RepositoryContent};

use super::definition::DefinitionError;
use super::engine::Addons;
use super::error::AddonError;
use super::gzip::PACKED_BYTES_MAX;
use super::registry::{Addon, Registry};
use super::repository;
use super::store::Store;
use crate::kube::ClusterError;

/// The registry, and what it was made of.
#[derive(Debug)]
pub(super) struct Known {
    pub registry: Arc<Registry>,
    /// Name and state of each repository.
    states: Vec<(String, Option<String>)>,
}

impl Known {
    /// What a build brings, before anybody was asked for repositories.
    pub fn of(builtin: &[Addon]) -> Self {
        let (registry, clashes) = Registry::of(builtin.iter().cloned());
        log(clashes);
        Self { registry: Arc::new(registry), states: Vec::new() }
    }
}

impl Addons {
    /// Asks the cluster for its repositories. While it does not answer, those are known that were.
    pub(super) async fn refresh(&self) {
        let asked = async {
            let client = self.settings.clients.client().await?;
            repository::list(&client).await
        };
        match asked.await {
            Ok(maps) => self.take_repositories(&maps.iter().collect::<Vec<_>>()),
            Err(error) => tracing::debug!(%error, "the repositories of addons are not known"),
        }
    }

    /// Makes the registry anew when these are not the repositories that it was made of.
    pub(super) fn take_repositories(&self, maps: &[&ConfigMap]) {
        let state = |map: &&ConfigMap| (map.name_any(), map.resource_version());
        let mut states: Vec<_> = maps.iter().map(state).collect();
        states.sort();
        if self.known().states == states {
            return;
        }
        let images = self.settings.distribution.image_names();
        let mut all = self.builtin.clone();
        for map in maps {
            match repository::parse(map, &images) {
                Ok(repository) => all.extend(repository.addons),
                Err(problem) => {
                    let name = map.name_any();
                    tracing::error!(name, problem, "a repository of addons is left out");
                }
            }
        }
        let (registry, clashes) = Registry::of(all);
        log(clashes);
        let known = Known { registry: Arc::new(registry), states };
        *self.known.write().expect("no holder of this lock panics") = known;
    }

    /// Every repository that the cluster has.
    pub async fn repositories(&self) -> Result<Vec<Told>, AddonError> {
        let maps = self.repository_maps().await?;
        let images = self.settings.distribution.image_names();
        Ok(maps.iter().filter_map(|map| repository::tell(map, &images)).collect())
    }

    /// Adds a repository, or replaces what it has. Refused as a whole when one addon is not well
    /// defined, and when an enabled one would be gone.
    pub async fn put_repository(
        &self,
        name: &str,
        content: &RepositoryContent,
    ) -> Result<Told, AddonError> {
        let failed = |problems| AddonError::Repository { name: name.into(), problems };
        let images = self.settings.distribution.image_names();
        let told = repository::check(name, content, &images).map_err(failed)?.told;
        let Some(map) = repository::config_map(&told, content) else {
            let bound = PACKED_BYTES_MAX >> 10;
            return Err(failed(vec![format!(
                "it is more than {bound} KiB, compressed: divide it"
            )]));
        };
        let _changing = self.changing.lock().await;
        let client = self.client().await?;
        self.require_unused(&client, name, |addon| !content.addons.contains_key(addon)).await?;
        repository::write(&client, &map).await.map_err(AddonError::List)?;
        self.refresh().await;
        Ok(told)
    }

    /// Removes a repository of which nothing is enabled.
    pub async fn remove_repository(&self, name: &str) -> Result<(), AddonError> {
        let _changing = self.changing.lock().await;
        if !self.repository_maps().await?.iter().any(|map| is_named(map, name)) {
            return Err(AddonError::NoRepository { name: name.into() });
        }
        let client = self.client().await?;
        self.require_unused(&client, name, |_| true).await?;
        repository::remove(&client, name).await.map_err(AddonError::List)?;
        self.refresh().await;
        Ok(())
    }

    /// An addon that is enabled, or whose data is kept, needs its definition to be removed.
    async fn require_unused(
        &self,
        client: &Client,
        name: &str,
        goes: impl Fn(&str) -> bool,
    ) -> Result<(), AddonError> {
        let records = Store::new(client.clone()).list().await.map_err(AddonError::List)?;
        let of_it = |id: &String| {
            id.strip_prefix(name).and_then(|rest| rest.strip_prefix('.')).is_some_and(&goes)
        };
        let addons: Vec<String> = records.into_keys().filter(of_it).collect();
        match addons.is_empty() {
            true => Ok(()),
            false => Err(AddonError::RepositoryUsed { name: name.into(), addons }),
        }
    }

    async fn repository_maps(&self) -> Result<Vec<ConfigMap>, AddonError> {
        repository::list(&self.client().await?).await.map_err(AddonError::List)
    }

    async fn client(&self) -> Result<Client, AddonError> {
        let client = self.settings.clients.client().await;
        client.map_err(|error| AddonError::List(ClusterError::from(error)))
    }
}

fn is_named(map: &ConfigMap, name: &str) -> bool {
    map.labels().get(repository::LABEL).is_some_and(|label| label == name)
}

pub(super) fn log(errors: Vec<DefinitionError>) {
    for error in errors {
        tracing::error!(%error, "an addon, or a part of it, is left out");
    }
}
