//! Settings: defaults, then the file, then its drop-ins; each value knows where it came from.
//!
//! Comes in: TOML files that root wrote. Goes out: a [`Config`] in which everything holds that can
//! be said without looking at the machine, or every mistake at once, each with its place.

mod choice;
mod layer;
mod setting;
mod validate;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use serde::{Deserialize, Serialize};
use skiff_api::Setting;

pub use choice::{ChoiceError, Choices};
pub use layer::Origin;

/// What shapes a node.
#[derive(Clone, Debug, Deserialize, Serialize, Default)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Config {
    pub node: Node,
    pub network: Network,
    pub api: Api,
    pub pki: Pki,
    pub kube: Kube,
    /// Where each value that was set comes from, by its dotted name.
    #[serde(skip)]
    origins: BTreeMap<String, Origin>,
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

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    #[error("{path} may be written by others than root, and root obeys it: chmod go-w {path}")]
    Writable { path: String },
    #[error("the configuration is not valid")]
    Invalid(#[source] Problem),
}

/// One mistake, with the next one as its source: printing walks the chain and shows all.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    text: String,
    next: Option<Box<Problem>>,
}

impl Problem {
    /// None of no mistakes.
    fn chain(texts: Vec<String>) -> Option<Self> {
        texts
            .into_iter()
            .rev()
            .fold(None, |next, text| Some(Self { text, next: next.map(Box::new) }))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Problem {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.next.as_deref().map(|next| next as _)
    }
}

impl Config {
    /// Reads the file and its drop-ins (`<file>.d/*.toml`, by name); absent ones say nothing.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let merged = layer::read(path)?;
        let mut config: Self = match toml::Value::Table(merged.table).try_into() {
            Ok(config) => config,
            // Each value was tried alone, so this is only reached with other mistakes beside it.
            Err(_) => Self::default(),
        };
        config.origins = merged.origins;
        let mut problems = merged.problems;
        if problems.is_empty() {
            problems = validate::problems(&config);
        }
        match Problem::chain(problems) {
            Some(problem) => Err(ConfigError::Invalid(problem)),
            None => Ok(config),
        }
    }

    /// Where a value comes from; the defaults are nobody's.
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or_default()
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
            description: match known.fixed {
                true => format!("{} (decided by the first start)", known.description),
                false => known.description.into(),
            },
        };
        setting::KNOWN.iter().map(setting).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn file(dir: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// The error and its causes, without the directory.
    fn complaint(dir: &tempfile::TempDir, path: &Path) -> Vec<String> {
        let error = Config::load(path).unwrap_err();
        let mut lines = vec![error.to_string()];
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            lines.push(cause.to_string().replace(&format!("{}/", dir.path().display()), ""));
            source = cause.source();
        }
        lines
    }

    #[test]
    fn without_a_file_every_setting_has_its_default_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::load(&dir.path().join("skiff.toml")).unwrap();
        let settings = config.settings();
        assert_eq!(settings.len(), setting::KNOWN.len());
        assert!(settings.iter().all(|setting| setting.origin == "default"));
        let port = settings.iter().find(|setting| setting.key == "api.port").unwrap();
        assert_eq!(port.value, "6443");
    }

    #[test]
    fn a_drop_in_wins_over_the_file_and_the_last_over_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(&dir, "skiff.toml", "[api]\nport = 7000\n[node]\nname = \"alpha\"\n");
        file(&dir, "skiff.toml.d/10-site.toml", "api.port = 7001\nnetwork.mtu = 1400\n");
        let last = file(&dir, "skiff.toml.d/20-me.toml", "# mine\n[api]\nport = 7002\n");
        file(&dir, "skiff.toml.d/30-not.txt", "nonsense");
        let config = Config::load(&path).unwrap();
        assert_eq!((config.api.port, config.network.mtu), (7002, 1400));
        assert_eq!(config.node.name.as_deref(), Some("alpha"));
        assert_eq!(config.origin("api.port"), Origin::File { path: last.clone(), line: 3 });
        let port = config.settings().into_iter().find(|s| s.key == "api.port").unwrap();
        assert_eq!((port.value.as_str(), port.origin), ("7002", format!("{}:3", last.display())));
    }

    #[test]
    fn every_mistake_is_told_at_once_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let text = "[node]\nnmae = \"alpha\"\n[api]\nport = \"x\"\n[netwrok]\nmtu = 1\n[zzz]\n";
        let path = file(&dir, "skiff.toml", text);
        file(&dir, "skiff.toml.d/a.toml", "network.dns-domain = [1]\n");
        assert_eq!(
            complaint(&dir, &path),
            [
                "the configuration is not valid",
                "skiff.toml:2: there is no setting node.nmae; did you mean node.name?",
                "skiff.toml:4: api.port: invalid type: string \"x\", expected u16",
                "skiff.toml:6: there is no setting netwrok.mtu; did you mean network.mtu?",
                "skiff.toml:7: there is no group of settings zzz",
                "skiff.toml.d/a.toml:1: network.dns-domain: invalid type: sequence, expected a string",
            ]
        );
    }

    #[test]
    fn what_is_not_toml_is_told_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(&dir, "skiff.toml", "[node]\nname = alpha\n");
        let lines = complaint(&dir, &path);
        assert!(lines[1].starts_with("skiff.toml:2: "), "{lines:?}");
        let path = file(&dir, "skiff.toml", "x = 1\nx = 2\n");
        let lines = complaint(&dir, &path);
        assert!(lines[1].contains("duplicate key"), "{lines:?}");
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(complaint(&dir, &path)[1].contains("not UTF-8"));
    }

    #[test]
    fn values_that_cannot_go_together_are_told_with_the_place_of_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(&dir, "skiff.toml", "[network]\npod-cidr = \"10.152.0.0/16\"\n");
        assert_eq!(
            complaint(&dir, &path),
            [
                "the configuration is not valid",
                "skiff.toml:2: network.pod-cidr 10.152.0.0/16 overlaps network.service-cidr \
                 10.152.183.0/24",
            ]
        );
    }

    #[test]
    fn a_file_that_others_may_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = file(&dir, "skiff.toml", "");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        let error = Config::load(&path).unwrap_err().to_string();
        assert!(error.ends_with(&format!("chmod go-w {}", path.display())), "{error}");
    }
}
