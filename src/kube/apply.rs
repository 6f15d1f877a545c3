//! Server-side apply and deletion of objects of any kind.

use std::time::Duration;

use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, PartialObjectMeta, Patch, PatchParams,
    Preconditions,
};
use kube::core::{ApiResource, GroupVersionKind};
use kube::discovery::{ApiCapabilities, Discovery, Scope};
use kube::{Client, ResourceExt};
use serde::{Deserialize, Serialize};

use super::error::ClusterError;

/// Field manager of everything that skiffd applies.
pub const FIELD_MANAGER: &str = "skiff";

/// Longest time for one request: an API server that needs more is as good as gone.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// A kind and the version of the API that it is spoken to in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TypeRef {
    pub api_version: String,
    pub kind: String,
}

impl TypeRef {
    pub fn new(api_version: impl Into<String>, kind: impl Into<String>) -> Self {
        Self { api_version: api_version.into(), kind: kind.into() }
    }

    /// Empty for Kubernetes' first kinds.
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    fn gvk(&self) -> GroupVersionKind {
        let (group, version) = self.api_version.split_once('/').unwrap_or(("", &self.api_version));
        GroupVersionKind::gvk(group, version, &self.kind)
    }
}

/// The type of an object; empty words when it has none.
pub fn type_of(object: &DynamicObject) -> TypeRef {
    let types = object.types.clone().unwrap_or_default();
    TypeRef::new(types.api_version, types.kind)
}

/// What an apply did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    Created,
    Changed,
    Unchanged,
}

/// Answers of the API server to who asks for a kind that cannot be listed.
const ABSENT: &[u16] = &[404, 405];

/// An object of a listing: its kind, and its name and labels.
pub type Listed = (TypeRef, PartialObjectMeta<DynamicObject>);

/// The kinds that a cluster serves, and requests on objects of any of them.
pub struct Resources {
    client: Client,
    discovery: Discovery,
}

impl Resources {
    /// Asks the API server for its kinds: two requests.
    pub async fn discover(client: Client) -> Result<Self, ClusterError> {
        let what = "asking the API server for its kinds";
        let run = Discovery::new(client.clone()).run_aggregated();
        let discovery = bounded(what, run).await?;
        Ok(Self { client, discovery })
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether the kind is served, and as what.
    pub fn resolve(&self, types: &TypeRef) -> Option<(ApiResource, ApiCapabilities)> {
        self.discovery.resolve_gvk(&types.gvk())
    }

    /// Whether objects of the kind live outside namespaces; `false` for an unknown kind.
    pub fn is_cluster_wide(&self, types: &TypeRef) -> bool {
        self.resolve(types).is_some_and(|(_, kind)| kind.scope == Scope::Cluster)
    }

    /// Asks again when a kind is unknown: a CustomResourceDefinition may just have been applied.
    pub async fn resolve_fresh(&mut self, types: &TypeRef) -> Result<(), ClusterError> {
        if self.resolve(types).is_none() {
            *self = Self::discover(self.client.clone()).await?;
        }
        Ok(())
    }

    /// Requests on one kind. The namespace is left out where the kind has none.
    pub fn api(
        &self,
        types: &TypeRef,
        namespace: Option<&str>,
    ) -> Result<Api<DynamicObject>, ClusterError> {
        let Some((resource, capabilities)) = self.resolve(types) else {
            return Err(ClusterError::UnknownKind {
                kind: types.kind.clone(),
                api_version: types.api_version.clone(),
            });
        };
        Ok(match (capabilities.scope, namespace) {
            (Scope::Namespaced, Some(namespace)) => {
                Api::namespaced_with(self.client.clone(), namespace, &resource)
            }
            _ => Api::all_with(self.client.clone(), &resource),
        })
    }

    /// Makes the fields that `object` names so, creating it when it is not there. Fields that
    /// others set stay; of ours that `object` names no more, none remains. `before` is the resource
    /// version of what is there.
    pub async fn apply(
        &self,
        object: &DynamicObject,
        before: Option<&str>,
    ) -> Result<Applied, ClusterError> {
        let (types, name) = (type_of(object), object.name_any());
        let what = format!("applying {} {name}", types.kind);
        let api = self.api(&types, object.metadata.namespace.as_deref())?;
        let mut object = object.clone();
        if self.is_cluster_wide(&types) {
            object.metadata.namespace = None;
        }
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let after = bounded(&what, api.patch(&name, &params, &Patch::Apply(&object))).await?;
        Ok(match before {
            None => Applied::Created,
            Some(_) if before == after.metadata.resource_version.as_deref() => Applied::Unchanged,
            Some(_) => Applied::Changed,
        })
    }

    /// What an apply would make of an object, without doing it.
    pub async fn preview(&self, object: &DynamicObject) -> Result<DynamicObject, ClusterError> {
        let (types, name) = (type_of(object), object.name_any());
        let what = format!("asking what an apply would make of {} {name}", types.kind);
        let api = self.api(&types, object.metadata.namespace.as_deref())?;
        let params = PatchParams::apply(FIELD_MANAGER).force().dry_run();
        bounded(&what, api.patch(&name, &params, &Patch::Apply(object))).await
    }

    /// The labels and other metadata of an object, `None` when it (or its kind) is not there.
    pub async fn metadata(
        &self,
        types: &TypeRef,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<PartialObjectMeta<DynamicObject>>, ClusterError> {
        let Ok(api) = self.api(types, namespace) else { return Ok(None) };
        bounded(&format!("reading {} {name}", types.kind), api.get_metadata_opt(name)).await
    }

    /// A whole object, `None` when it (or its kind) is not there.
    pub async fn get(
        &self,
        types: &TypeRef,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<DynamicObject>, ClusterError> {
        let Ok(api) = self.api(types, namespace) else { return Ok(None) };
        bounded(&format!("reading {} {name}", types.kind), api.get_opt(name)).await
    }

    /// Every object of one kind, in all namespaces; none of a kind that is not served.
    pub async fn list_kind(
        &self,
        types: &TypeRef,
    ) -> Result<Vec<PartialObjectMeta<DynamicObject>>, ClusterError> {
        let Ok(api) = self.api(types, None) else { return Ok(Vec::new()) };
        list_metadata(&api, &types.kind, &ListParams::default(), ABSENT).await
    }

    /// Orders the deletion of exactly this object; its dependents go first. `false`: it is gone
    /// already, or another one bears its name now.
    pub async fn delete(
        &self,
        types: &TypeRef,
        namespace: Option<&str>,
        name: &str,
        uid: &str,
    ) -> Result<bool, ClusterError> {
        let api = self.api(types, namespace)?;
        let params = DeleteParams::foreground()
            .preconditions(Preconditions { uid: Some(uid.into()), resource_version: None });
        let what = format!("deleting {} {name}", types.kind);
        match bounded(&what, api.delete(name, &params)).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Every object with these labels, of every kind that can be listed and deleted.
    pub async fn list_labelled(&self, selector: &str) -> Result<Vec<Listed>, ClusterError> {
        let params = ListParams::default().labels(selector);
        // An extension API whose server is away owns nothing of ours.
        let silent = &[ABSENT, &[503]].concat();
        let all =
            |resource: &ApiResource, _: &Scope| Some(Api::all_with(self.client.clone(), resource));
        self.list_all(&params, silent, all).await
    }

    /// Everything in a namespace that can be listed and deleted. An API that does not answer is an
    /// error: who asks wants to know that nothing is there.
    pub async fn list_inside(&self, namespace: &str) -> Result<Vec<Listed>, ClusterError> {
        self.list_all(&ListParams::default(), ABSENT, |resource, scope| {
            let inside = *scope == Scope::Namespaced;
            inside.then(|| Api::namespaced_with(self.client.clone(), namespace, resource))
        })
        .await
    }

    async fn list_all(
        &self,
        params: &ListParams,
        none: &[u16],
        choose: impl Fn(&ApiResource, &Scope) -> Option<Api<DynamicObject>>,
    ) -> Result<Vec<Listed>, ClusterError> {
        let mut found = Vec::new();
        for group in self.discovery.groups() {
            for (resource, capabilities) in group.recommended_resources() {
                let works = |verb| capabilities.supports_operation(verb);
                if !works("list") || !works("delete") {
                    continue;
                }
                let Some(api) = choose(&resource, &capabilities.scope) else { continue };
                let list = list_metadata(&api, &resource.plural, params, none).await?;
                let types = TypeRef::new(&resource.api_version, &resource.kind);
                found.extend(list.into_iter().map(|object| (types.clone(), object)));
            }
        }
        Ok(found)
    }
}

async fn list_metadata(
    api: &Api<DynamicObject>,
    name: &str,
    params: &ListParams,
    none: &[u16],
) -> Result<Vec<PartialObjectMeta<DynamicObject>>, ClusterError> {
    match bounded(&format!("listing {name}"), api.list_metadata(params)).await {
        Ok(list) => Ok(list.items),
        Err(ClusterError::Refused { code, .. }) if none.contains(&code) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// One request with its bound, its error in our words.
pub async fn bounded<T>(
    what: &str,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ClusterError> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(outcome) => outcome.map_err(|e| ClusterError::new(what, e)),
        Err(_) => Err(ClusterError::Timeout { what: what.into(), bound: REQUEST_TIMEOUT }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_kinds_have_an_empty_group() {
        let gvk = TypeRef::new("v1", "Service").gvk();
        assert_eq!((gvk.group.as_str(), gvk.version.as_str()), ("", "v1"));
        let gvk = TypeRef::new("apps/v1", "Deployment").gvk();
        assert_eq!((gvk.group.as_str(), gvk.version.as_str()), ("apps", "v1"));
    }
}
