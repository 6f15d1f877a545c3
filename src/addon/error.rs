//! Why an addon is not what it was asked to be.

use super::definition::DefinitionError;
use super::image::ImageError;
use super::order::OrderError;
use crate::distribution::DistributionError;
use crate::kube::{ClusterError, WaitError};

#[derive(Debug, thiserror::Error)]
pub enum AddonError {
    #[error("there is no addon {name}")]
    Unknown { name: String, near: Vec<String> },
    #[error("{name} is always on and no addon: {fact}")]
    Inherent { name: String, fact: &'static str },
    #[error(transparent)]
    Order(#[from] OrderError),
    #[error(transparent)]
    Definition(#[from] DefinitionError),
    #[error("{addon} cannot be enabled with these options: {}", .problems.join("; "))]
    Options { addon: String, problems: Vec<String> },
    #[error("the manifests of {addon} cannot be filled in: {}", .problems.join("; "))]
    Manifests { addon: String, problems: Vec<String> },
    #[error("{addon} does not run on {arch}, only on {}", .possible.join(", "))]
    Architecture { addon: String, arch: String, possible: Vec<String> },
    #[error("{addon} cannot be enabled together with {other}, which is")]
    Conflict { addon: String, other: String },
    #[error("{addon} cannot be disabled: it is needed by {}", .by.join(", "))]
    Needed { addon: String, by: Vec<String> },
    #[error("the repository {name} is refused: {}", .problems.join("; "))]
    Repository { name: String, problems: Vec<String> },
    #[error("there is no repository {name}")]
    NoRepository { name: String },
    #[error("the repository {name} is needed: enabled, or with data that is kept, are {}",
        .addons.join(", "))]
    RepositoryUsed { name: String, addons: Vec<String> },
    #[error("{addon} is not enabled")]
    NotEnabled { addon: String },
    #[error("{now}, since the change failed")]
    Returned { now: String, source: Box<Self> },
    #[error("{addon} could not be brought back to what it was ({reason}), and its change failed")]
    Stuck { addon: String, reason: String, source: Box<Self> },
    #[error("{addon} is being changed by somebody else at the same time")]
    Busy { addon: String },
    #[error("{addon}: {object} belongs to {owner}")]
    Foreign { addon: String, object: String, owner: String },
    #[error("{addon} did not become healthy{}", cause_of(.cause))]
    Unhealthy { addon: String, cause: Option<String>, source: WaitError },
    #[error("{addon} is not removed completely")]
    Remaining { addon: String, source: WaitError },
    #[error("the image {image} of {addon} is not on this node")]
    Image { addon: String, image: String, source: ImageError },
    #[error(transparent)]
    Distribution(#[from] DistributionError),
    #[error("{addon}: cannot do it in the cluster")]
    Cluster { addon: String, source: ClusterError },
    #[error("the cluster cannot be asked for its addons")]
    List(#[source] ClusterError),
}

fn cause_of(cause: &Option<String>) -> String {
    cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default()
}

impl AddonError {
    /// What to type next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown { near, .. } if !near.is_empty() => {
                Some(format!("did you mean {}?", near.join(", ")))
            }
            Self::Unknown { .. } | Self::Options { .. } => Some("skiff addons list".into()),
            Self::Needed { by, .. } => Some(format!("skiff disable {}", by.join(" "))),
            Self::Conflict { other, .. } => Some(format!("skiff disable {other}")),
            Self::Repository { .. } => Some("skiff addons lint FOLDER".into()),
            Self::NoRepository { .. } => Some("skiff addons repo list".into()),
            Self::RepositoryUsed { addons, .. } => {
                Some(format!("skiff disable {} --delete-data", addons.join(" ")))
            }
            Self::NotEnabled { addon } => Some(format!("skiff enable {addon}")),
            Self::Returned { source, .. } => match &**source {
                Self::Unhealthy { .. } => None,
                other => other.hint(),
            },
            Self::Stuck { addon, .. } => Some(format!("skiff addons diff {addon}")),
            Self::Busy { addon } | Self::Remaining { addon, .. } => {
                Some(format!("skiff addons show {addon}"))
            }
            Self::Unhealthy { addon, .. } => Some(format!(
                "skiff kubectl get pods --all-namespaces --selector skiff.io/addon={addon}"
            )),
            Self::Cluster { source: ClusterError::Unreachable(_), .. }
            | Self::List(ClusterError::Unreachable(_)) => Some("skiff status".into()),
            _ => None,
        }
    }

    pub(super) fn cluster(addon: &str) -> impl Fn(ClusterError) -> Self + use<'_> {
        move |source| {
            if source.is_conflict() {
                return Self::Busy { addon: addon.into() };
            }
            Self::Cluster { addon: addon.into(), source }
        }
    }
}
