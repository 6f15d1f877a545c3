//! Request and response types of the local API, and its typed client.
//!
//! What comes in: a path to skiffd's socket. What goes out: values of the types
//! below. The API is HTTP/1 with JSON bodies over a Unix socket; whoever may
//! open the socket (root and the group `skiff`) may use it. No server code
//! lives here, and no task.

pub mod addon;
pub mod backup;
pub mod certificate;
pub mod client;
pub mod cluster;
pub mod error;
pub mod kubeconfig;
pub mod node;
pub mod service;
pub mod setting;

pub use addon::{
    Addon, AddonAction, AddonDetails, AddonDiff, AddonOption, AddonState, ChangeAction,
    EnableRequest, FieldChange, ObjectChange, Progress, Repository, RepositoryContent,
};
pub use backup::BackupPart;
pub use certificate::{
    AuthorityRotation, Certificate, CertificateState, Certificates, RotateAuthorities, RotationNode,
};
pub use client::{Client, ClientError};
pub use cluster::{
    ClusterNode, ClusterPart, NodeSettings, NodeState, Quorum, QuorumMember, RemoveRequest,
    Removed, Token, TokenRequest, TokenState,
};
pub use error::ErrorBody;
pub use kubeconfig::{ClientCertificate, CredentialRequest, KubeconfigRequest};
pub use node::{Component, Condition, Notice, Phase, Status, Version};
pub use service::{Service, ServiceAction, ServiceState};
pub use setting::{OwnSetting, SetOutcome, SetRequest, Setting, SettingChange};
