//! The addons that a distribution brings.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;

use super::definition::{Definition, DefinitionError};
use super::inherent;
use super::manifest::Manifest;
use super::order::{self, OrderError};
use super::texts;
use crate::distribution::Distribution;

/// One addon, read and checked.
#[derive(Clone, Debug)]
pub struct Addon {
    /// `dns`; of a repository of users' own with its name: `mine.web`.
    pub name: String,
    pub definition: Definition,
    pub manifests: Vec<Manifest>,
    /// None of those that the build brings.
    pub repository: Option<String>,
}

impl Addon {
    /// As one of a repository of users' own.
    #[must_use]
    pub fn in_repository(self, repository: &str) -> Self {
        let name = format!("{repository}.{}", self.name);
        Self { name, repository: Some(repository.into()), ..self }
    }

    /// Its name within its repository.
    fn plain_name(&self) -> &str {
        self.name.rsplit_once('.').map_or(&self.name, |(_, name)| name)
    }
}

/// Every addon by its name.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    addons: BTreeMap<String, Arc<Addon>>,
    /// The addon that each alias stands for.
    aliases: BTreeMap<String, String>,
}

impl Registry {
    /// Reads all addons of a distribution. One that is not well defined is left out and told of:
    /// it must not take the others along.
    pub fn load(distribution: &Distribution) -> (Vec<Addon>, Vec<DefinitionError>) {
        let images = distribution.image_names();
        let mut addons = Vec::new();
        let mut errors = Vec::new();
        for entry in fs::read_dir(distribution.addons()).into_iter().flatten().flatten() {
            let folder = entry.path();
            let Some(name) = folder.file_name().and_then(|name| name.to_str()) else { continue };
            if name.starts_with('.') || !folder.is_dir() {
                continue;
            }
            let texts = texts::read(&folder);
            let texts = texts.map_err(|problems| DefinitionError { addon: name.into(), problems });
            match texts.and_then(|texts| texts::parse(name, &texts, &images)) {
                Ok(addon) => addons.push(addon),
                Err(error) => errors.push(error),
            }
        }
        (addons, errors)
    }

    /// What a name stands for must not depend on who else is there. An alias that means something
    /// else already is left out of its addon, and an addon whose name does is left out itself.
    /// Repositories of users' own come last: they take no name from what the build brings, and
    /// their addons are called by their own names as far as these are free.
    pub fn of(addons: impl IntoIterator<Item = Addon>) -> (Self, Vec<DefinitionError>) {
        let mut errors = Vec::new();
        let mut known: BTreeMap<String, Addon> = BTreeMap::new();
        for addon in addons {
            match inherent::look_up(&addon.name) {
                None => drop(known.insert(addon.name.clone(), addon)),
                Some(fact) => errors.push(DefinitionError {
                    problems: vec![format!("the name means something else: {fact}")],
                    addon: addon.name,
                }),
            }
        }
        let mut aliases = BTreeMap::new();
        for is_foreign in [false, true] {
            let claims =
                Claims::of(known.values().filter(|a| a.repository.is_some() == is_foreign));
            let is_free = |alias: &str, aliases: &BTreeMap<String, String>| {
                !known.contains_key(alias)
                    && !aliases.contains_key(alias)
                    && inherent::look_up(alias).is_none()
            };
            let granted: Vec<_> = claims.0.iter().filter(|(a, _)| is_free(a, &aliases)).collect();
            let granted: Vec<_> = granted.into_iter().filter(|(_, by)| by.len() == 1).collect();
            aliases.extend(granted.into_iter().map(|(alias, by)| (alias.clone(), by[0].clone())));
        }
        let names: BTreeSet<String> = known.keys().cloned().collect();
        for addon in known.values_mut() {
            errors.extend(settle(addon, &aliases, &names));
        }
        let addons = known.into_iter().map(|(name, addon)| (name, Arc::new(addon))).collect();
        (Self { addons, aliases }, errors)
    }

    /// The addon of this name or alias; one of a repository may be written `mine/web`.
    pub fn get(&self, name: &str) -> Option<&Arc<Addon>> {
        let name = name.replacen('/', ".", 1);
        self.addons.get(self.aliases.get(&name).unwrap_or(&name))
    }

    /// The addon of exactly this name, as records have it.
    pub(super) fn named(&self, name: &str) -> Option<&Arc<Addon>> {
        self.addons.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Addon>> {
        self.addons.values()
    }

    /// Names that come near to one that is not there: those of several repositories that have it,
    /// or those that are written much like it.
    pub fn nearest(&self, name: &str) -> Vec<&str> {
        let same = self.iter().filter(|addon| addon.plain_name() == name);
        let same: Vec<&str> = same.map(|addon| addon.name.as_str()).collect();
        if !same.is_empty() {
            return same;
        }
        let known = self.addons.keys().chain(self.aliases.keys());
        order::nearest(name, known.map(String::as_str).chain(inherent::names()))
    }

    /// The addon and all that it needs, each after what it needs itself.
    pub fn order_needs(&self, name: &str) -> Result<Vec<String>, OrderError> {
        let needs = self.iter().map(|a| (a.name.clone(), a.definition.needs.clone())).collect();
        order::order_needs(name, &needs)
    }
}

/// Which addons want to be called by a name that is not their own.
struct Claims(BTreeMap<String, Vec<String>>);

impl Claims {
    fn of<'a>(addons: impl Iterator<Item = &'a Addon>) -> Self {
        let mut claims = BTreeMap::<String, Vec<String>>::new();
        for addon in addons {
            let plain = addon.repository.is_some().then(|| addon.plain_name().to_owned());
            for alias in addon.definition.aliases.iter().cloned().chain(plain) {
                claims.entry(alias).or_default().push(addon.name.clone());
            }
        }
        Self(claims)
    }
}

/// Leaves to an addon the aliases that are its own, and has it mean the addons of its repository
/// before those that the build brings.
fn settle(
    addon: &mut Addon,
    aliases: &BTreeMap<String, String>,
    names: &BTreeSet<String>,
) -> Option<DefinitionError> {
    let mut problems = Vec::new();
    let own = &addon.name;
    addon.definition.aliases.retain(|alias| {
        let is_own = aliases.get(alias) == Some(own);
        if !is_own {
            problems.push(format!("the alias {alias} is another's name too: without it"));
        }
        is_own
    });
    if let Some(repository) = &addon.repository {
        let definition = &mut addon.definition;
        for name in definition.needs.iter_mut().chain(&mut definition.conflicts) {
            let beside = format!("{repository}.{name}");
            if names.contains(&beside) {
                *name = beside;
            }
        }
    }
    (!problems.is_empty()).then(|| DefinitionError { addon: addon.name.clone(), problems })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

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
        let (addons, mut errors) = Registry::load(&Distribution::open(dir.path()).unwrap());
        let (registry, clashes) = Registry::of(addons);
        errors.extend(clashes);
        (registry, errors)
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
        Addon { name: name.into(), definition, manifests: vec![], repository: None }
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
    fn an_alias_that_means_something_else_is_left_out_of_its_addon() {
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
        assert_eq!(left, ["dns", "free", "one", "thief", "two"]);
        assert!(registry.iter().all(|addon| addon.definition.aliases.is_empty()));
        let first = errors.iter().find(|error| error.addon == "thief").unwrap();
        assert_eq!(first.problems, ["the alias dns is another's name too: without it"]);
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
        let (addons, errors) = Registry::load(&Distribution::open(dir.path()).unwrap());
        assert!(addons.is_empty());
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
    fn a_repository_takes_no_name_from_the_build_nor_from_another_repository() {
        let all = [
            addon("dns", &["coredns"]),
            addon("dns", &["coredns", "resolver"]).in_repository("mine"),
            addon("web", &["site"]).in_repository("mine"),
            addon("web", &["site"]).in_repository("other"),
            addon("ha-cluster", &[]).in_repository("other"),
        ];
        let (registry, _) = Registry::of(all);
        let get = |name: &str| registry.get(name).map(|addon| addon.name.as_str());
        assert_eq!(get("dns"), Some("dns"));
        assert_eq!(get("coredns"), Some("dns"));
        assert_eq!(get("resolver"), Some("mine.dns"));
        assert_eq!((get("mine/dns"), get("mine.dns")), (Some("mine.dns"), Some("mine.dns")));
        assert_eq!((get("web"), get("site"), get("ha-cluster")), (None, None, None));
        assert_eq!(get("other/web"), Some("other.web"));
        assert_eq!(registry.nearest("web"), ["mine.web", "other.web"]);
    }

    #[test]
    fn needs_are_looked_for_in_the_own_repository_first() {
        let mut web = addon("web", &[]).in_repository("mine");
        web.definition.needs = vec!["dns".into(), "base".into()];
        let base = addon("base", &[]).in_repository("mine");
        let (registry, _) = Registry::of([addon("dns", &[]), addon("base", &[]), base, web]);
        assert_eq!(registry.order_needs("mine.web").unwrap(), ["dns", "mine.base", "mine.web"]);
    }
}
