//! Objects that every cluster of ours has: who may do what beyond upstream's own roles.

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};

/// Field manager of everything that skiffd applies.
pub const FIELD_MANAGER: &str = "skiff";
/// People with all rights: the group in the certificates of `skiff config` and `skiff kubectl`.
/// Unlike `system:masters`, its binding can be taken away.
pub const ADMIN_GROUP: &str = "skiff:cluster-admins";
/// The network between pods of different nodes, which must see all of these.
pub const NETWORK_GROUP: &str = "skiff:networks";
/// The API server's own identity towards kubelets.
const KUBELET_CLIENT: &str = "kube-apiserver-kubelet-client";

/// Applies them; safe to repeat.
pub async fn apply(client: &Client) -> Result<(), kube::Error> {
    for binding in bindings() {
        apply_binding(client, &binding).await?;
    }
    Ok(())
}

/// Applies what a cluster of several nodes needs besides.
pub async fn apply_network(client: &Client) -> Result<(), kube::Error> {
    let name = NETWORK_GROUP;
    let role = ClusterRole {
        metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
        rules: Some(vec![PolicyRule {
            api_groups: Some(vec![String::new()]),
            resources: Some(vec!["nodes".into()]),
            verbs: vec!["list".into(), "watch".into()],
            ..PolicyRule::default()
        }]),
        ..ClusterRole::default()
    };
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let api: Api<ClusterRole> = Api::all(client.clone());
    api.patch(name, &params, &Patch::Apply(&role)).await?;
    apply_binding(client, &binding(name, name, "Group", NETWORK_GROUP)).await
}

async fn apply_binding(client: &Client, binding: &ClusterRoleBinding) -> Result<(), kube::Error> {
    let api: Api<ClusterRoleBinding> = Api::all(client.clone());
    let name = binding.metadata.name.clone().expect("bindings have names");
    let params = PatchParams::apply(FIELD_MANAGER).force();
    api.patch(&name, &params, &Patch::Apply(binding)).await.map(drop)
}

fn bindings() -> [ClusterRoleBinding; 2] {
    [
        binding("skiff:cluster-admins", "cluster-admin", "Group", ADMIN_GROUP),
        binding("skiff:kubelet-api", "system:kubelet-api-admin", "User", KUBELET_CLIENT),
    ]
}

fn binding(name: &str, role: &str, kind: &str, subject: &str) -> ClusterRoleBinding {
    ClusterRoleBinding {
        metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
        role_ref: RoleRef {
            api_group: Some("rbac.authorization.k8s.io".into()),
            kind: "ClusterRole".into(),
            name: role.into(),
        },
        subjects: Some(vec![Subject {
            api_group: Some("rbac.authorization.k8s.io".into()),
            kind: kind.into(),
            name: subject.into(),
            namespace: None,
        }]),
    }
}
