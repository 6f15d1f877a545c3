//! The addons that a distribution brings.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::definition::{Definition, DefinitionError};
use super::facts::Facts;
use super::folder::read_text;
use super::inherent;
use super::manifest::{Manifest, read_folder};
use super::object::CONFIG_DIGEST;
use super::order::{self, OrderError};
use super::template;
use crate::distribution::Distribution;

/// Largest `addon.toml`, in bytes.
const DEFINITION_BYTES_MAX: u64 = 256 << 10;

/// One addon, read and checked.
#[derive(Clone, Debug)]
pub struct Addon {
    pub name: String,
    pub definition: Definition,
    pub manifests: Vec<Manifest>,
}

/// Every addon by its name.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    addons: BTreeMap<String, Addon>,
    /// The addon that each alias stands for.
    aliases: BTreeMap<String, String>,
}

impl Registry {
    /// Reads all addons of a distribution. One that is not well defined is left out and told of:
    /// it must not take the others along.
    pub fn load(distribution: &Distribution) -> (Self, Vec<DefinitionError>) {
        let images: Vec<&str> = distribution.images.iter().map(|image| &*image.name).collect();
        let mut addons = BTreeMap::new();
        let mut errors = Vec::new();
        for entry in fs::read_dir(distribution.addons()).into_iter().flatten().flatten() {
            let folder = entry.path();
            let Some(name) = folder.file_name().and_then(|name| name.to_str()) else { continue };
            if name.starts_with('.') || !folder.is_dir() {
                continue;
            }
            match load(name, &folder, &images) {
                Ok(addon) => drop(addons.insert(name.to_owned(), addon)),
                Err(error) => errors.push(error),
            }
        }
        let (registry, clashes) = Self::of(addons.into_values());
        errors.extend(clashes);
        (registry, errors)
    }

    /// An alias that means something else already leaves its addon out: what a name stands for
    /// must not depend on who else is there.
    pub(super) fn of(addons: impl IntoIterator<Item = Addon>) -> (Self, Vec<DefinitionError>) {
        let mut addons: BTreeMap<_, _> =
            addons.into_iter().map(|addon| (addon.name.clone(), addon)).collect();
        let claims = addons.values().flat_map(|addon| &addon.definition.aliases);
        let mut claimed = BTreeMap::<String, usize>::new();
        claims.for_each(|alias| *claimed.entry(alias.clone()).or_default() += 1);
        let names: BTreeSet<String> = addons.keys().cloned().collect();
        let taken = |alias: &str| {
            names.contains(alias) || claimed[alias] > 1 || inherent::look_up(alias).is_some()
        };
        let mut errors = Vec::new();
        addons.retain(|name, addon| {
            let clashing = addon.definition.aliases.iter().filter(|alias| taken(alias));
            let mut problems: Vec<String> =
                clashing.map(|alias| format!("the alias {alias} is another's name too")).collect();
            if let Some(fact) = inherent::look_up(name) {
                problems.push(format!("the name means something else: {fact}"));
            }
            let is_clear = problems.is_empty();
            if !is_clear {
                errors.push(DefinitionError { addon: name.clone(), problems });
            }
            is_clear
        });
        let aliases = addons
            .values()
            .flat_map(|addon| {
                let name = &addon.name;
                addon.definition.aliases.iter().map(move |alias| (alias.clone(), name.clone()))
            })
            .collect();
        (Self { addons, aliases }, errors)
    }

    /// The addon of this name or alias.
    pub fn get(&self, name: &str) -> Option<&Addon> {
        let name = self.aliases.get(name).map_or(name, String::as_str);
        self.addons.get(name)
    }

    /// The addon of exactly this name, as records have it.
    pub(super) fn named(&self, name: &str) -> Option<&Addon> {
        self.addons.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Addon> {
        self.addons.values()
    }

    /// Names that come near to one that is not there.
    pub fn nearest(&self, name: &str) -> Vec<&str> {
        let known = self.addons.keys().chain(self.aliases.keys());
        order::nearest(name, known.map(String::as_str).chain(inherent::names()))
    }

    /// The addon and all that it needs, each after what it needs itself.
    pub fn order_needs(&self, name: &str) -> Result<Vec<String>, OrderError> {
        let needs = self.iter().map(|a| (a.name.clone(), a.definition.needs.clone())).collect();
        order::order_needs(name, &needs)
    }
}

fn load(name: &str, folder: &Path, images: &[&str]) -> Result<Addon, DefinitionError> {
    let failed = |problems| DefinitionError { addon: name.into(), problems };
    let text = read_text(folder, "addon.toml", DEFINITION_BYTES_MAX)
        .map_err(|problem| failed(vec![format!("cannot read addon.toml: {problem}")]))?;
    let definition = Definition::parse(name, &text, images)?;
    let manifests = read_folder(&folder.join("manifests")).map_err(failed)?;
    let missing: Vec<String> = definition
        .manifests
        .iter()
        .filter(|condition| !manifests.iter().any(|manifest| manifest.file == condition.file))
        .map(|condition| format!("manifests/{} is not there", condition.file))
        .collect();
    if !missing.is_empty() {
        return Err(failed(missing));
    }
    let unknown = unknown_names(&definition, &manifests);
    if !unknown.is_empty() {
        return Err(failed(unknown));
    }
    Ok(Addon { name: name.into(), definition, manifests })
}

/// Placeholders and conditions that nothing will ever fill in.
fn unknown_names(definition: &Definition, manifests: &[Manifest]) -> Vec<String> {
    let known = |name: &str| {
        Facts::NAMES.contains(&name)
            || name == CONFIG_DIGEST
            || definition.options.iter().any(|option| option.name == name)
            || name
                .strip_prefix("image.")
                .is_some_and(|image| definition.images.iter().any(|known| known == image))
    };
    let mut problems = Vec::new();
    for manifest in manifests {
        let conditions = definition.condition_of(&manifest.file).iter();
        let conditions = conditions.map(|term| term.trim_start_matches('!').to_owned());
        for name in manifest.documents.iter().flat_map(template::names).chain(conditions) {
            if !known(&name) {
                problems.push(format!("{}: there is no value {name}", manifest.file));
            }
        }
    }
    problems.dedup();
    problems
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::addon::object;
    use crate::addon::option;

    /// The addons of this repository, with a distribution around them.
    fn registry() -> (Registry, Vec<DefinitionError>) {
        let dir = tempfile::tempdir().unwrap();
        let addons = Path::new(env!("CARGO_MANIFEST_DIR")).join("addons");
        std::os::unix::fs::symlink(addons, dir.path().join("addons")).unwrap();
        fs::write(
            dir.path().join("components.toml"),
            "arch = 'amd64'\n[[image]]\nname = 'dns'\nreference = 'skiff.local/coredns:1'\n\
             file = 'images/coredns.tar'\n",
        )
        .unwrap();
        Registry::load(&Distribution::open(dir.path()).unwrap())
    }

    #[test]
    fn every_addon_that_we_ship_is_well_defined() {
        let (registry, errors) = registry();
        assert!(errors.is_empty(), "{errors:?}");
        assert!(registry.get("dns").is_some());
    }

    fn addon(name: &str, aliases: &[&str]) -> Addon {
        let text = format!("description = 'd'\nversion = '1'\naliases = {aliases:?}\n");
        let definition = Definition::parse(name, &text, &[]).unwrap();
        Addon { name: name.into(), definition, manifests: vec![] }
    }

    #[test]
    fn an_alias_finds_its_addon_and_is_among_what_may_be_meant() {
        let (shipped, _) = registry();
        assert_eq!(shipped.get("coredns").unwrap().name, "dns");
        let (registry, errors) = Registry::of([addon("metrics", &["metrics-server"])]);
        assert!(errors.is_empty());
        assert_eq!(registry.get("metrics-server").unwrap().name, "metrics");
        assert_eq!(registry.nearest("metric-server"), ["metrics-server"]);
        assert_eq!(registry.iter().count(), 1, "an alias is no addon of its own");
    }

    #[test]
    fn an_alias_that_means_something_else_leaves_its_addon_out() {
        let all = [
            addon("dns", &[]),
            addon("thief", &["dns"]),
            addon("one", &["same"]),
            addon("two", &["same"]),
            addon("free", &["rbac"]),
            addon("ha-cluster", &[]),
        ];
        let (registry, errors) = Registry::of(all);
        let left: Vec<&str> = registry.iter().map(|addon| addon.name.as_str()).collect();
        assert_eq!(left, ["dns"]);
        let first = errors.iter().find(|error| error.addon == "thief").unwrap();
        assert_eq!(first.problems, ["the alias dns is another's name too"]);
        assert_eq!(errors.len(), 5);
        assert_eq!(registry.get("dns").unwrap().name, "dns");
        assert!(registry.get("same").is_none());
    }

    #[test]
    fn a_folder_that_is_a_link_is_no_addon() {
        let dir = tempfile::tempdir().unwrap();
        let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("addons/dns");
        fs::create_dir(dir.path().join("addons")).unwrap();
        std::os::unix::fs::symlink(ours, dir.path().join("addons/dns")).unwrap();
        fs::write(dir.path().join("components.toml"), "arch = 'amd64'\n").unwrap();
        let (registry, errors) = Registry::load(&Distribution::open(dir.path()).unwrap());
        assert!(registry.get("dns").is_none());
        assert!(errors[0].to_string().ends_with("is a link, which is not followed"), "{errors:?}");
    }

    #[test]
    fn dns_forwards_to_what_is_named_or_to_the_node_or_to_nobody() {
        let (registry, _) = registry();
        let dns = registry.get("dns").unwrap();
        let upstream = |given: &str, resolvers: &[&str]| {
            let given = [(String::new(), given.to_owned())];
            let options = &dns.definition.options;
            let mut values =
                option::resolve(options, dns.definition.positional.as_deref(), &given).unwrap();
            values.extend([
                ("node.dnsAddress".to_owned(), json!("10.152.183.10")),
                ("node.domain".to_owned(), json!("cluster.local")),
                ("host.resolvers".to_owned(), json!(resolvers)),
                ("image.dns".to_owned(), json!("skiff.local/coredns:1")),
            ]);
            let objects = object::build(dns, &values).unwrap();
            assert_eq!(objects.list.len(), 7);
            let name = |object: &&kube::api::DynamicObject| {
                object.metadata.name.as_deref() == Some("coredns-upstream")
            };
            let found = objects.list.iter().find(name).unwrap();
            found.data["data"]["upstream.conf"].as_str().unwrap().to_owned()
        };
        assert!(upstream("10.0.0.1,fd00::1", &[]).starts_with("forward . 10.0.0.1 fd00::1 {\n"));
        assert!(upstream("", &["192.0.2.1"]).starts_with("forward . /etc/resolv.conf {\n"));
        assert!(upstream("", &[]).starts_with("file root.zone . {\n"));
    }

    #[test]
    fn a_placeholder_that_nobody_fills_in_is_found_when_the_addon_is_read() {
        let definition = Definition::parse("sample", "description='d'\nversion='1'", &[]).unwrap();
        let text = "apiVersion: v1\nkind: A\nmetadata: {name: a}\nx: '${node.domain} ${gone}'\n";
        let documents = crate::addon::manifest::parse(text).unwrap();
        let manifest = Manifest { file: "a.yaml".into(), documents };
        assert_eq!(unknown_names(&definition, &[manifest]), ["a.yaml: there is no value gone"]);
    }
}
