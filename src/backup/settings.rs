//! Settings in an archive, and those that hold after a restore.
//!
//! A machine that has settings of its own keeps them: its address and its links are not those of
//! the machine of before. One without any gets the archive's. Either must go with what the cluster
//! was begun with; a name that nobody has written is given by a drop-in.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use microcluster::record::ClusterSettings;

use super::part::{self, PartError, SETTINGS};
use crate::config::{ChoiceError, Choices, Config, ConfigError, Origin, Sources};
use crate::host::address;
use crate::node::cluster::Membership;
use crate::node::prepare::{self, PrepareError};
use crate::node::settings::{Kept, KeptError};
use crate::paths::Paths;
use crate::pki::{StoreError, write_private};

const FILE: &str = "settings/skiff.toml";
const DROP_INS: &str = "settings/skiff.toml.d/";
/// The snap's settings become a drop-in, which comes last as they do.
const SNAP: &str = "zz-snap.toml";
/// And what was set after it.
const SET: &str = "zzz-set.toml";
/// The drop-in that says what the machine's own settings do not.
const RESTORED: &str = "restored.toml";

/// Whose settings hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingsOf {
    Machine,
    Archive,
}

/// What holds, and what is to be written for it.
pub struct Plan {
    pub config: Config,
    pub of: SettingsOf,
    /// What lies in the small root, and where it belongs.
    pub files: Vec<(PathBuf, PathBuf)>,
}

/// Why neither settings do.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error(transparent)]
    Load(#[from] ConfigError),
    #[error("the settings do not go with the cluster in the archive")]
    Choice(#[source] ChoiceError),
    #[error("node.address is {address}, and this machine has no such address")]
    Address { address: IpAddr },
    #[error(transparent)]
    Name(#[from] PrepareError),
    #[error(transparent)]
    Write(#[from] StoreError),
    #[error("cannot make {}", path.display())]
    Directory { path: PathBuf, source: io::Error },
}

/// All that somebody wrote, as parts.
pub fn gather(sources: &Sources) -> Result<BTreeMap<String, Vec<u8>>, PartError> {
    let mut parts = BTreeMap::new();
    for path in sources.files()? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let name = match path == sources.file {
            true => FILE.to_owned(),
            false => format!("{DROP_INS}{name}"),
        };
        match part::read(&path) {
            Err(PartError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            bytes => drop(parts.insert(name, bytes?)),
        }
    }
    if let Some(snap) = sources.snap.as_ref().filter(|snap| snap.exists()) {
        let text = as_toml(&part::read(snap)?).ok_or_else(|| PartError::Snap(snap.clone()))?;
        parts.insert(format!("{DROP_INS}{SNAP}"), text.into_bytes());
    }
    Ok(parts)
}

/// What was set on a lone node, as the last drop-in. That of a cluster is in its record.
pub fn gather_set(paths: &Paths) -> Result<BTreeMap<String, Vec<u8>>, PartError> {
    let dir = paths.node();
    let set = Kept::read(&dir)?.unwrap_or_default().set.values;
    let is_alone = Membership::read(&dir).map_err(KeptError::from)?.is_none();
    if set.is_empty() || !is_alone {
        return Ok(BTreeMap::new());
    }
    let mut groups = toml::Table::new();
    for (key, value) in &set {
        let Some((group, name)) = key.split_once('.') else { continue };
        let (Ok(value), Some(group)) = (
            toml::Value::try_from(value),
            groups.entry(group).or_insert_with(|| toml::Table::new().into()).as_table_mut(),
        ) else {
            continue;
        };
        group.insert(name.to_owned(), value);
    }
    Ok([(format!("{DROP_INS}{SET}"), groups.to_string().into_bytes())].into())
}

/// A null is a setting that was taken back.
fn as_toml(json: &[u8]) -> Option<String> {
    let mut groups: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(json).ok()?;
    groups.retain(|_, group| !group.is_null());
    for group in groups.values_mut().filter_map(serde_json::Value::as_object_mut) {
        group.retain(|_, value| !value.is_null());
    }
    toml::to_string(&groups).ok()
}

/// Decides whose settings hold, and puts what is to be written into `staged`.
pub fn plan(
    parts: &BTreeMap<String, Vec<u8>>,
    sources: &Sources,
    staged: &Path,
    began: &Choices,
    cluster: Option<&ClusterSettings>,
) -> Result<Plan, SettingsError> {
    let drop_ins = drop_ins_of(&sources.file);
    let has_own = sources.files()?.iter().chain(&sources.snap).any(|path| path.exists());
    let mut files = Vec::new();
    let (mut config, of) = match has_own {
        true => (Config::load(sources)?, SettingsOf::Machine),
        false => {
            for (name, bytes) in parts.iter().filter(|(name, _)| name.starts_with(SETTINGS)) {
                let to = match name.strip_prefix(DROP_INS) {
                    Some(name) => drop_ins.join(name),
                    None if name == FILE => sources.file.clone(),
                    None => continue,
                };
                files.push((write(&staged.join(name), bytes)?, to));
            }
            let sources = Sources { file: staged.join(FILE), snap: None };
            (Config::load(&sources)?, SettingsOf::Archive)
        }
    };
    let former = match of {
        SettingsOf::Machine => drop_ins.join(RESTORED),
        SettingsOf::Archive => staged.join(DROP_INS).join(RESTORED),
    };
    // Of a restore before this one.
    let former = std::fs::read_to_string(former).ok().and_then(|text| text.parse().ok());
    let former: toml::Table = former.unwrap_or_default();
    let unsaid = complete(&mut config, former.clone(), began, cluster);
    if unsaid != former {
        let text = format!("# What the cluster of the archive was begun with.\n{unsaid}");
        let place = staged.join(DROP_INS).join(RESTORED);
        files.push((write(&place, text.as_bytes())?, drop_ins.join(RESTORED)));
    }
    let now = prepare::choices(&config)?;
    now.hold_to(began, &config, &sources.file).map_err(SettingsError::Choice)?;
    if let Some(address) = config.node.address
        && !address::candidates().iter().any(|candidate| candidate.address == address)
    {
        return Err(SettingsError::Address { address });
    }
    Ok(Plan { config, of, files })
}

/// Gives the settings that nobody has written what the cluster has; adds them to a drop-in. A node
/// that joined had most of them from its cluster, and not from a file.
fn complete(
    config: &mut Config,
    mut unsaid: toml::Table,
    began: &Choices,
    cluster: Option<&ClusterSettings>,
) -> toml::Table {
    let is_called_so = prepare::choices(config).is_ok_and(|now| now.node_name == began.node_name);
    let mut put = |group: &str, name: &str, value: toml::Value| {
        let group = unsaid.entry(group).or_insert_with(|| toml::Table::new().into());
        if let Some(group) = group.as_table_mut() {
            group.insert(name.into(), value);
        }
    };
    if config.node.name.is_none() && !is_called_so {
        put("node", "name", began.node_name.clone().into());
        config.node.name = Some(began.node_name.clone());
    }
    let is_open = |key: &str| config.origin(key) == Origin::Default;
    let open = ["pod-cidr", "service-cidr", "dns-domain"].map(|n| is_open(&format!("network.{n}")));
    let dns_address = cluster.filter(|_| is_open("network.dns-address"));
    let port = cluster.filter(|_| is_open("api.port"));
    let names = cluster.filter(|_| is_open("api.extra-sans"));
    let network = &mut config.network;
    for (is_open, name, now, then) in [
        (open[0], "pod-cidr", &mut network.pod_cidr, &began.pod_cidr),
        (open[1], "service-cidr", &mut network.service_cidr, &began.service_cidr),
        (open[2], "dns-domain", &mut network.dns_domain, &began.dns_domain),
    ] {
        if is_open && now != then {
            now.clone_from(then);
            put("network", name, then.clone().into());
        }
    }
    if let Some(cluster) = dns_address.filter(|c| c.dns_address != network.dns_address) {
        network.dns_address = cluster.dns_address;
        put("network", "dns-address", cluster.dns_address.to_string().into());
    }
    if let Some(cluster) = port.filter(|c| c.api_port != config.api.port) {
        config.api.port = cluster.api_port;
        put("api", "port", i64::from(cluster.api_port).into());
    }
    if let Some(cluster) = names.filter(|c| c.api_names != config.api.extra_sans) {
        config.api.extra_sans.clone_from(&cluster.api_names);
        put("api", "extra-sans", cluster.api_names.clone().into());
    }
    unsaid
}

fn drop_ins_of(file: &Path) -> PathBuf {
    let mut path = OsString::from(file);
    path.push(".d");
    path.into()
}

/// Root obeys what it says, so nobody else may write it.
pub fn write(path: &Path, bytes: &[u8]) -> Result<PathBuf, SettingsError> {
    if let Some(dir) = path.parent() {
        let made = DirBuilder::new().recursive(true).mode(0o755).create(dir);
        made.map_err(|source| SettingsError::Directory { path: dir.to_path_buf(), source })?;
    }
    write_private(path, bytes, 0o644, (0, 0))?;
    Ok(path.to_path_buf())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn began() -> Choices {
        Choices {
            node_name: "alpha".into(),
            pod_cidr: "10.1.0.0/16".into(),
            service_cidr: "10.152.183.0/24".into(),
            dns_domain: "cluster.local".into(),
            datastore: None,
        }
    }

    fn parts(text: &str) -> BTreeMap<String, Vec<u8>> {
        let drop_in = format!("{DROP_INS}10-mtu.toml");
        [(FILE.to_owned(), text.into()), (drop_in, b"network.mtu = 1400\n".to_vec())].into()
    }

    fn planned(parts: &BTreeMap<String, Vec<u8>>, dir: &Path) -> Result<Plan, SettingsError> {
        let sources = Sources { file: dir.join("own/skiff.toml"), snap: None };
        plan(parts, &sources, &dir.join("staged"), &began(), None)
    }

    #[test]
    fn a_machine_without_settings_gets_those_of_the_archive() {
        let dir = tempfile::tempdir().unwrap();
        let plan = planned(&parts("node.name = \"alpha\"\n"), dir.path()).unwrap();
        assert_eq!((plan.of, plan.config.network.mtu), (SettingsOf::Archive, 1400));
        let to: Vec<_> = plan.files.iter().map(|(_, to)| to.clone()).collect();
        let own = dir.path().join("own");
        assert_eq!(to, [own.join("skiff.toml"), own.join("skiff.toml.d/10-mtu.toml")]);
    }

    #[test]
    fn a_machine_with_settings_keeps_them_and_is_called_as_the_node_was() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("own")).unwrap();
        let file = dir.path().join("own/skiff.toml");
        write(&file, b"network.mtu = 1300\n").unwrap();
        let plan = planned(&parts("node.name = \"alpha\"\n"), dir.path()).unwrap();
        assert_eq!((plan.of, plan.config.network.mtu), (SettingsOf::Machine, 1300));
        let [(staged, to)] = &plan.files[..] else { panic!("{:?}", plan.files) };
        assert_eq!(*to, dir.path().join("own/skiff.toml.d/restored.toml"));
        assert!(fs::read_to_string(staged).unwrap().contains("name = \"alpha\""));
        let other = |text: &[u8]| {
            write(&file, text).unwrap();
            planned(&parts(""), dir.path()).err().expect("it is refused")
        };
        assert!(matches!(other(b"node.name = \"beta\"\n"), SettingsError::Choice(_)));
        let ranges = b"network.pod-cidr = \"10.2.0.0/16\"\n";
        assert!(matches!(other(ranges), SettingsError::Choice(_)));
        let address = b"node.address = \"192.0.2.99\"\n";
        assert!(matches!(other(address), SettingsError::Address { .. }));
    }

    /// As a node that joined had them: from its cluster.
    #[test]
    fn what_the_cluster_was_begun_with_and_nobody_has_written_is_given_by_a_drop_in() {
        let dir = tempfile::tempdir().unwrap();
        let cluster: ClusterSettings = serde_json::from_value(serde_json::json!({
            "cluster": "c", "pod_cidrs": ["10.2.0.0/16"], "service_cidrs": ["10.9.0.0/24"],
            "dns_domain": "cluster.local", "dns_address": "10.9.0.10", "api_port": 16443,
            "api_names": ["api.example.org"], "authorities": [],
        }))
        .unwrap();
        let began = Choices {
            pod_cidr: "10.2.0.0/16".into(),
            service_cidr: "10.9.0.0/24".into(),
            ..began()
        };
        let sources = Sources { file: dir.path().join("own/skiff.toml"), snap: None };
        let parts = parts("node.name = \"alpha\"\n");
        let staged = dir.path().join("staged");
        let plan = plan(&parts, &sources, &staged, &began, Some(&cluster)).unwrap();
        assert_eq!(plan.config.network.pod_cidr, "10.2.0.0/16");
        // And so it is read at the next start.
        let sources = Sources { file: staged.join(FILE), snap: None };
        let read = Config::load(&sources).unwrap();
        let network = &read.network;
        assert_eq!((&*network.pod_cidr, &*network.service_cidr), ("10.2.0.0/16", "10.9.0.0/24"));
        assert_eq!(network.dns_address, cluster.dns_address);
        assert_eq!((read.api.port, &read.api.extra_sans), (16443, &cluster.api_names));
        assert_eq!(network.mtu, 1400);
    }

    #[test]
    fn what_was_set_on_a_lone_node_is_the_last_drop_in() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        fs::create_dir(paths.node()).unwrap();
        assert!(gather_set(&paths).unwrap().is_empty());
        let set = serde_json::from_value(serde_json::json!({
            "revision": 2, "values": {"network.mtu": 1400, "kube.proxy-args": ["--v=2"]},
        }));
        Kept::running(&set.unwrap()).write(&paths.node()).unwrap();
        let parts = gather_set(&paths).unwrap();
        let text = String::from_utf8(parts[&format!("{DROP_INS}{SET}")].clone()).unwrap();
        assert_eq!(text, "[kube]\nproxy-args = [\"--v=2\"]\n\n[network]\nmtu = 1400\n");
    }

    #[test]
    fn what_was_gathered_is_what_lay_there_the_snap_last() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("skiff.toml");
        write(&file, b"node.name = \"a\"\n").unwrap();
        write(&dir.path().join("skiff.toml.d/10.toml"), b"network.mtu = 1400\n").unwrap();
        let snap = dir.path().join("snap.json");
        fs::write(&snap, r#"{"network": {"mtu": 1300, "dns-domain": null}, "api": null}"#).unwrap();
        let parts = gather(&Sources { file, snap: Some(snap) }).unwrap();
        let names: Vec<&str> = parts.keys().map(String::as_str).collect();
        let drop_ins = [format!("{DROP_INS}10.toml"), format!("{DROP_INS}{SNAP}")];
        assert_eq!(names, [FILE, &drop_ins[0], &drop_ins[1]]);
        let text = String::from_utf8(parts[&drop_ins[1]].clone()).unwrap();
        assert_eq!(text, "[network]\nmtu = 1300\n");
    }
}
