//! Settings: defaults, then the file.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::Deserialize;
use skiff_api::Setting;

/// What shapes a node.
#[derive(Clone, Debug, Deserialize, Default)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Config {
    pub node: Node,
    pub network: Network,
    pub api: Api,
    pub pki: Pki,
    pub kube: Kube,
}

#[derive(Clone, Debug, Deserialize, Default)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Node {
    /// The machine's host name in lower case when absent.
    pub name: Option<String>,
    /// That of the default route's link when absent.
    pub address: Option<IpAddr>,
}

#[derive(Clone, Debug, Deserialize)]
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

#[derive(Clone, Debug, Deserialize)]
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

#[derive(Clone, Debug, Deserialize)]
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

#[derive(Clone, Debug, Deserialize, Default)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Kube {
    pub api_server_args: Vec<String>,
    pub controller_manager_args: Vec<String>,
    pub scheduler_args: Vec<String>,
    pub kubelet_args: Vec<String>,
    pub proxy_args: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    #[error("{} is not valid", .0.display())]
    Parse(PathBuf, #[source] Box<toml::de::Error>),
}

impl Config {
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        match fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text)
                .map_err(|e| ConfigError::Parse(path.to_path_buf(), Box::new(e))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(ConfigError::Read(path.to_path_buf(), e)),
        }
    }

    pub fn settings(&self) -> Vec<Setting> {
        Vec::new()
    }
}
