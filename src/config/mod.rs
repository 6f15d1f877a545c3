//! Settings: defaults, then the file, then its drop-ins, then the snap's; each value knows where it
//! came from. No flag of a command sets one: `--config` names another file.
//!
//! Comes in: TOML files that root wrote, and JSON of snapd. Goes out: a [`Config`] in which
//! everything holds that can be said without looking at the machine, or every mistake at once, each
//! with its place.

mod choice;
mod endpoint;
mod error;
mod layer;
#[cfg(test)]
mod load_test;
#[cfg(test)]
mod reference_test;
mod setting;
mod shared;
mod source;
mod validate;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use layer::Merged;
use serde::{Deserialize, Serialize};
use skiff_api::{OwnSetting, Setting};
use skiff_datastore::options::parse_duration;

pub use choice::{ChoiceError, Choices, keep_name};
pub use endpoint::{Database, DatabaseServer, Endpoint, EtcdServer, host_port};
pub use error::{ConfigError, Problem};
pub use layer::Origin;
pub use setting::{is_cluster_wide, like};
pub use shared::{Own, Shared, datastore_name, read_value};
pub use source::{SNAP_VARIABLE, Sources, snap_file};
pub use validate::is_dns_name;

/// What shapes a node.
#[derive(Clone, Debug, Deserialize, Serialize, Default)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Config {
    pub node: Node,
    pub network: Network,
    pub api: Api,
    pub datastore: Datastore,
    pub pki: Pki,
    pub kube: Kube,
    pub backup: Backup,
    /// Where each value that was set comes from, by its dotted name.
    #[serde(skip)]
    origins: BTreeMap<String, Origin>,
    /// What the node's own layers say of settings of which the cluster decides.
    #[serde(skip)]
    own: BTreeMap<String, Own>,
    /// The node's own layers, as they were read.
    #[serde(skip)]
    layers: Merged,
}

#[derive(Clone, Debug, Deserialize, Serialize, Default)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Node {
    /// The machine's host name in lower case when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// That of the default route's link when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Network {
    pub pod_cidr: String,
    pub service_cidr: String,
    pub dns_address: IpAddr,
    pub dns_domain: String,
    pub mtu: u32,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            pod_cidr: "10.1.0.0/16".into(),
            service_cidr: "10.152.183.0/24".into(),
            dns_address: IpAddr::from([10, 152, 183, 10]),
            dns_domain: "cluster.local".into(),
            mtu: 0,
        }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Api {
    pub port: u16,
    pub extra_sans: Vec<String>,
}

impl Default for Api {
    fn default() -> Self {
        Self { port: 6443, extra_sans: Vec::new() }
    }
}

/// Skiff's own when nothing of it is set.
#[derive(Clone, Debug, Deserialize, Serialize, Default)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Datastore {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// A new cluster takes over what the external one holds.
    pub adopt: bool,
}

impl Datastore {
    /// Somebody else's datastore, if there is one. That it can be read was seen when the settings
    /// were loaded.
    pub fn endpoint(&self) -> Option<Endpoint> {
        self.endpoint.as_ref().and_then(|text| text.parse().ok())
    }

    /// The files that are named, by the names of their settings.
    pub fn files(&self) -> [(&'static str, Option<&PathBuf>); 4] {
        [
            ("datastore.ca-file", self.ca_file.as_ref()),
            ("datastore.cert-file", self.cert_file.as_ref()),
            ("datastore.key-file", self.key_file.as_ref()),
            ("datastore.password-file", self.password_file.as_ref()),
        ]
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Pki {
    /// Minutes.
    pub leaf_ttl_minutes: u32,
}

impl Default for Pki {
    fn default() -> Self {
        Self { leaf_ttl_minutes: 24 * 60 }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize, Default)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Kube {
    pub api_server_args: Vec<String>,
    pub controller_manager_args: Vec<String>,
    pub scheduler_args: Vec<String>,
    pub kubelet_args: Vec<String>,
    pub proxy_args: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Backup {
    /// `off`, or how often: `6h`.
    pub schedule: String,
    /// A directory, or `s3://BUCKET/PREFIX`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<PathBuf>,
    pub encrypt_to: Vec<String>,
    pub unencrypted: bool,
    /// With variables of a bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment_file: Option<PathBuf>,
    pub keep_last: u32,
    pub keep_daily: u32,
    pub keep_weekly: u32,
    pub keep_monthly: u32,
}

impl Default for Backup {
    fn default() -> Self {
        Self {
            schedule: SCHEDULE_OFF.into(),
            place: None,
            encrypt_to: Vec::new(),
            unencrypted: false,
            environment_file: None,
            keep_last: 4,
            keep_daily: 7,
            keep_weekly: 4,
            keep_monthly: 0,
        }
    }
}

/// No archives are taken.
pub const SCHEDULE_OFF: &str = "off";

impl Backup {
    /// How often an archive is due; never when the schedule is off.
    pub fn every(&self) -> Option<Duration> {
        parse_duration(&self.schedule).ok()
    }
}

impl Config {
    /// Reads every layer of the node's own; absent ones say nothing.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        Self::load_with(sources, &Shared::default())
    }

    /// Reads every layer of the node's own, with what all nodes share over them.
    pub fn load_with(sources: &Sources, shared: &Shared) -> Result<Self, ConfigError> {
        Self::of(layer::read(sources)?, shared)
    }

    /// The same with something else that all nodes share. The node's own files are not read again:
    /// what changes there counts from the next start on.
    pub fn with_shared(&self, shared: &Shared) -> Result<Self, ConfigError> {
        Self::of(self.layers.clone(), shared)
    }

    fn of(layers: Merged, shared: &Shared) -> Result<Self, ConfigError> {
        let mut merged = layers.clone();
        merged.add_shared(shared);
        let mut mistakes = merged.mistakes;
        let mut config: Self = match toml::Value::Table(merged.table).try_into() {
            Ok(config) => config,
            // Each value was tried alone: this one is a mistake of ours, and no value may be lost.
            Err(error) => {
                mistakes.push(error::Mistake::new(Origin::Default, error.to_string()));
                Self::default()
            }
        };
        (config.origins, config.own, config.layers) = (merged.origins, merged.own, layers);
        mistakes.extend(validate::alone(&config));
        if mistakes.is_empty() {
            mistakes = validate::together(&config);
        }
        match Problem::chain(mistakes) {
            Some(problem) => Err(ConfigError::Invalid(problem)),
            None => Ok(config),
        }
    }

    /// Where a value comes from; the defaults are nobody's.
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or_default()
    }

    /// What the node's own files say of settings of which the cluster decides, by dotted names.
    pub fn own(&self) -> &BTreeMap<String, Own> {
        &self.own
    }

    /// Every setting with its value, in the order of the table.
    pub fn settings(&self) -> Vec<Setting> {
        let values = toml::Value::try_from(self).unwrap_or(toml::Value::Boolean(false));
        let value = |key: &str| {
            let (group, name) = key.split_once('.')?;
            values.get(group)?.get(name).map(toml::Value::to_string)
        };
        let setting = |known: &setting::Known| Setting {
            key: known.key.into(),
            value: value(known.key).unwrap_or_default(),
            origin: self.origin(known.key).to_string(),
            scope: known.scope.word().into(),
            own: self.own.get(known.key).map(|own| OwnSetting {
                value: own.value.to_string(),
                origin: own.origin.to_string(),
                added: own.is_added,
            }),
            description: match known.fixed {
                Some(_) => format!("{} (decided by the first start)", known.description),
                None => known.description.into(),
            },
        };
        setting::KNOWN.iter().map(setting).collect()
    }
}
