//! `addon.toml`: what an addon is, checked as a whole.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::option::{OptionDefinition, is_word};

/// An addon as its author describes it.
///
/// ```toml
/// description = "names for Services"
/// version = "1.15.0"
/// images = ["dns"]
/// positional = "upstream"
///
/// [[option]]
/// name = "upstream"
/// type = "list"
/// items = "ip-port"
/// description = "resolvers for all other names"
///
/// [[manifest]]
/// file = "upstream.yaml"
/// when = ["upstream"]
///
/// [[health]]
/// kind = "Deployment"
/// name = "coredns"
/// ```
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Definition {
    pub description: String,
    /// Version of what it installs.
    pub version: String,
    /// Other names that people know it by.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Namespace of the objects that name none.
    #[serde(default = "kube_system")]
    pub namespace: String,
    /// Addons that must be enabled first.
    #[serde(default)]
    pub needs: Vec<String>,
    /// Addons that must not be enabled at the same time.
    #[serde(default)]
    pub conflicts: Vec<String>,
    /// Where it runs; everywhere when empty.
    #[serde(default)]
    pub architectures: Vec<String>,
    /// Images of the distribution that it uses, by their short names.
    #[serde(default)]
    pub images: Vec<String>,
    /// The option that a value without a name is meant for.
    #[serde(default)]
    pub positional: Option<String>,
    #[serde(default, rename = "option")]
    pub options: Vec<OptionDefinition>,
    /// Manifests that are applied on a condition; those not named here always are.
    #[serde(default, rename = "manifest")]
    pub manifests: Vec<ManifestCondition>,
    #[serde(default, rename = "health")]
    pub health: Vec<HealthCondition>,
    /// What belongs to the user and is never removed unasked.
    #[serde(default, rename = "user-data")]
    pub user_data: Vec<UserData>,
}

/// When a manifest file is applied.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ManifestCondition {
    /// Below `manifests/`.
    pub file: String,
    /// Names of options or facts that must have a value, or with `!` in front must have none.
    pub when: Vec<String>,
}

/// Something that is true of a healthy addon.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HealthCondition {
    pub kind: String,
    /// Needed for kinds that are not Kubernetes' own.
    #[serde(default)]
    pub api_version: Option<String>,
    /// The addon's own when absent.
    #[serde(default)]
    pub namespace: Option<String>,
    pub name: String,
    /// A condition of the object's status; each of Kubernetes' own kinds has one by default.
    #[serde(default)]
    pub condition: Option<String>,
}

/// An object that holds what users stored: one of the manifests, or one that the addon makes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct UserData {
    pub kind: String,
    /// Needed for kinds that are not Kubernetes' own.
    #[serde(default)]
    pub api_version: Option<String>,
    /// The addon's own when absent.
    #[serde(default)]
    pub namespace: Option<String>,
    pub name: String,
    pub description: String,
}

/// Everything that is wrong with a definition.
#[derive(Debug, thiserror::Error)]
#[error("the addon {addon} is not well defined: {}", .problems.join("; "))]
pub struct DefinitionError {
    pub addon: String,
    pub problems: Vec<String>,
}

fn kube_system() -> String {
    "kube-system".into()
}

impl Definition {
    /// Reads and checks `addon.toml`. `known_images` are those of the distribution.
    pub fn parse(addon: &str, text: &str, known_images: &[&str]) -> Result<Self, DefinitionError> {
        let failed = |problems| DefinitionError { addon: addon.into(), problems };
        let definition: Self = toml::from_str(text)
            .map_err(|e| failed(vec![format!("addon.toml: {}", e.to_string().trim_end())]))?;
        let problems = definition.problems(addon, known_images);
        if problems.is_empty() { Ok(definition) } else { Err(failed(problems)) }
    }

    fn problems(&self, addon: &str, known_images: &[&str]) -> Vec<String> {
        let mut problems = Vec::new();
        if !is_word(addon) {
            problems.push(format!("{addon:?}: a name is lower-case letters, digits and -"));
        }
        for (field, text) in [("description", &self.description), ("version", &self.version)] {
            if text.trim().is_empty() || text.chars().any(char::is_control) {
                problems.push(format!("{field} is empty or more than one line"));
            }
        }
        for alias in self.aliases.iter().filter(|alias| *alias == addon || !is_word(alias)) {
            problems
                .push(format!("{alias:?} cannot be an alias: it is no name or the addon's own"));
        }
        problems.extend(twice("alias", self.aliases.iter().map(String::as_str)));
        for option in &self.options {
            problems.extend(option.problems());
        }
        let names: Vec<&str> = self.options.iter().map(|option| option.name.as_str()).collect();
        problems.extend(twice("option", names.iter().copied()));
        if let Some(positional) = &self.positional
            && !names.contains(&positional.as_str())
        {
            problems.push(format!("positional names no option: {positional}"));
        }
        for image in self.images.iter().filter(|image| !known_images.contains(&image.as_str())) {
            problems.push(format!("the distribution has no image {image}"));
        }
        for other in self.needs.iter().chain(&self.conflicts) {
            if other == addon {
                problems.push("it needs or excludes itself".into());
            } else if !is_word(other) {
                problems.push(format!("{other:?} is not the name of an addon"));
            }
        }
        for other in self.needs.iter().filter(|other| self.conflicts.contains(other)) {
            problems.push(format!("it needs {other} and excludes it"));
        }
        problems.extend(self.health.iter().filter_map(HealthCondition::problem));
        problems.extend(self.user_data.iter().filter_map(UserData::problem));
        problems.extend(twice("manifest", self.manifests.iter().map(|m| m.file.as_str())));
        problems
    }

    /// The condition of a manifest file; none: it is always applied.
    pub fn condition_of(&self, file: &str) -> &[String] {
        let found = self.manifests.iter().find(|manifest| manifest.file == file);
        found.map_or(&[], |manifest| manifest.when.as_slice())
    }
}

impl HealthCondition {
    /// The API version, given or known.
    pub fn api_version(&self) -> Option<&str> {
        self.api_version.as_deref().or(match self.kind.as_str() {
            "Deployment" | "DaemonSet" | "StatefulSet" => Some("apps/v1"),
            "Job" => Some("batch/v1"),
            "Service" => Some("v1"),
            "APIService" => Some("apiregistration.k8s.io/v1"),
            "CustomResourceDefinition" => Some("apiextensions.k8s.io/v1"),
            _ => None,
        })
    }

    fn problem(&self) -> Option<String> {
        let Self { kind, name, .. } = self;
        if self.api_version().is_none() {
            return Some(format!("health of {kind} {name}: api-version is missing"));
        }
        let known = matches!(
            kind.as_str(),
            "Deployment"
                | "DaemonSet"
                | "StatefulSet"
                | "Job"
                | "Service"
                | "APIService"
                | "CustomResourceDefinition"
        );
        (!known && self.condition.is_none())
            .then(|| format!("health of {kind} {name}: condition is missing"))
    }
}

impl UserData {
    /// The API version, given or known.
    pub fn api_version(&self) -> Option<&str> {
        self.api_version.as_deref().or(match self.kind.as_str() {
            "PersistentVolumeClaim" | "PersistentVolume" | "Secret" | "ConfigMap" => Some("v1"),
            _ => None,
        })
    }

    fn problem(&self) -> Option<String> {
        let Self { kind, name, description, .. } = self;
        if self.api_version().is_none() {
            return Some(format!("user-data {kind} {name}: api-version is missing"));
        }
        description.trim().is_empty().then(|| {
            format!("user-data {kind} {name}: the description is empty: who keeps it must know it")
        })
    }
}

fn twice<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    names
        .filter(|name| !seen.insert(*name))
        .map(|name| format!("{what} {name} is there twice"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "description = 'one'\nversion = '1'\n";

    fn problems(text: &str) -> Vec<String> {
        Definition::parse("sample", text, &["dns"]).unwrap_err().problems
    }

    #[test]
    fn the_smallest_definition_is_a_description_and_a_version() {
        let definition = Definition::parse("sample", SMALL, &[]).unwrap();
        assert_eq!(definition.namespace, "kube-system");
        assert!(definition.condition_of("any.yaml").is_empty());
    }

    #[test]
    fn an_unknown_field_is_refused_with_its_line() {
        let problems = problems(&format!("{SMALL}colour = 'red'\n"));
        assert!(problems[0].contains("colour") && problems[0].contains("line 3"), "{problems:?}");
    }

    #[test]
    fn every_problem_is_listed() {
        let text = "description = ''\nversion = '1'\nneeds = ['sample', 'X y']\nimages = ['gone']\n\
                    positional = 'nothing'\n[[option]]\nname = 'a'\ntype = 'int'\n\
                    description = 'd'\ndefault = 'x'\n[[option]]\nname = 'a'\ntype = 'bool'\n\
                    description = 'd'\n[[health]]\nkind = 'Widget'\nname = 'w'\n\
                    [[user-data]]\nkind = 'Widget'\nname = 'w'\ndescription = 'd'\n\
                    [[user-data]]\nkind = 'Secret'\nname = 's'\ndescription = ' '\n";
        assert_eq!(
            problems(text),
            [
                "description is empty or more than one line",
                "option a: its default: \"x\" is not a whole number",
                "option a is there twice",
                "positional names no option: nothing",
                "the distribution has no image gone",
                "it needs or excludes itself",
                "\"X y\" is not the name of an addon",
                "health of Widget w: api-version is missing",
                "user-data Widget w: api-version is missing",
                "user-data Secret s: the description is empty: who keeps it must know it",
            ]
        );
    }

    #[test]
    fn an_alias_is_another_name_and_there_once() {
        let problems = problems(&format!("{SMALL}aliases = ['sample', '../x', 'a', 'a']\n"));
        assert_eq!(
            problems,
            [
                "\"sample\" cannot be an alias: it is no name or the addon's own",
                "\"../x\" cannot be an alias: it is no name or the addon's own",
                "alias a is there twice",
            ]
        );
    }

    #[test]
    fn a_name_that_could_leave_its_folder_is_refused() {
        assert!(Definition::parse("../etc", SMALL, &[]).is_err());
    }
}
