//! What an author is told of an addon before anybody enables it. Pure but for reading the folder.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::definition::Definition;
use super::facts::Facts;
use super::object;
use super::option::{self, OptionType, Values};
use super::registry::Addon;
use super::template;
use super::texts::{self, README, Texts};

/// What was found in an addon's folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// With these it is refused.
    pub problems: Vec<String>,
    /// With these it may be enabled, and its users will miss something.
    pub advice: Vec<String>,
}

/// Looks at an addon's folder. `images` are those of a build.
pub fn lint(name: &str, folder: &Path, images: &[&str]) -> Findings {
    let found = texts::read(folder).and_then(|texts| {
        let addon = texts::parse(name, &texts, images).map_err(|error| error.problems)?;
        Ok((addon, texts))
    });
    match found {
        Ok((addon, texts)) => judge(&addon, &texts),
        Err(problems) => Findings { problems, advice: vec![] },
    }
}

fn judge(addon: &Addon, texts: &Texts) -> Findings {
    let mut findings = Findings { advice: advice(addon, texts), problems: vec![] };
    match values(&addon.definition) {
        Ok(values) => {
            for problem in object::build(addon, &values).err().unwrap_or_default() {
                // An option without a default may be one that has to be given.
                match problem.ends_with("has no value") {
                    true => findings.advice.push(format!("{problem} unless it is given")),
                    false => findings.problems.push(problem),
                }
            }
        }
        Err(problems) => findings.problems.extend(problems),
    }
    findings
}

/// Values as they would be on a node where nothing is chosen.
fn values(definition: &Definition) -> Result<Values, Vec<String>> {
    let mut values = option::resolve(&definition.options, None, &[])?;
    let facts = Facts {
        dns_address: [10, 152, 183, 10].into(),
        domain: "cluster.local".into(),
        pod_cidr: "10.1.0.0/16".into(),
        service_cidr: "10.152.183.0/24".into(),
        resolvers: vec![[192, 0, 2, 1].into()],
    };
    values.extend(facts.values());
    let images = definition.images.iter();
    values.extend(images.map(|image| (format!("image.{image}"), json!("image:1"))));
    Ok(values)
}

fn advice(addon: &Addon, texts: &Texts) -> Vec<String> {
    let definition = &addon.definition;
    let mut advice = Vec::new();
    if addon.manifests.is_empty() {
        advice.push("it has no manifests: enabling it does nothing".into());
    }
    if definition.health.is_empty() {
        advice.push("it has no [[health]]: it counts as enabled whatever its pods do".into());
    }
    if !texts.contains_key(README) {
        advice.push(format!("it has no {README}: nobody is told how to use it"));
    }
    advice.extend(unused(addon));
    for document in addon.manifests.iter().flat_map(|manifest| &manifest.documents) {
        let place = format!("{} {}", text(document, "/kind"), text(document, "/metadata/name"));
        images_in(document, &mut |image| {
            if !image.contains("@sha256:") && !image.contains("${") {
                advice.push(format!("{place}: the image {image} has no digest: it may change"));
            }
        });
        if text(document, "/kind") == "PersistentVolumeClaim"
            && !definition
                .user_data
                .iter()
                .any(|data| data.name == text(document, "/metadata/name"))
        {
            advice.push(format!("{place} is no [[user-data]]: it is deleted when it is disabled"));
        }
    }
    advice
}

/// Options that change nothing.
fn unused(addon: &Addon) -> Vec<String> {
    let documents = addon.manifests.iter().flat_map(|manifest| &manifest.documents);
    let mut used: BTreeSet<String> = documents.flat_map(template::names).collect();
    let terms = addon.definition.manifests.iter().flat_map(|condition| &condition.when);
    used.extend(terms.map(|term| term.trim_start_matches('!').to_owned()));
    let options = addon.definition.options.iter().filter(|option| !used.contains(&option.name));
    options
        .map(|option| match option.kind {
            OptionType::Bool => {
                format!("option {}: no manifest asks for it in `when`", option.name)
            }
            _ => format!("option {}: no manifest uses it", option.name),
        })
        .collect()
}

fn text<'a>(document: &'a Value, pointer: &str) -> &'a str {
    document.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Every image of a container below `value`.
fn images_in(value: &Value, tell: &mut impl FnMut(&str)) {
    match value {
        Value::Object(map) => {
            for (key, item) in map {
                match (key.as_str(), item) {
                    ("containers" | "initContainers", Value::Array(containers)) => {
                        let images = containers.iter().filter_map(|c| c.get("image")?.as_str());
                        images.for_each(&mut *tell);
                    }
                    _ => images_in(item, tell),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| images_in(item, tell)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::addon::skeleton;

    #[test]
    fn a_new_addon_has_nothing_to_complain_of() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("hello");
        skeleton::write("hello", &folder).unwrap();
        assert_eq!(lint("hello", &folder, &["pause"]), Findings::default());
        assert!(skeleton::write("hello", &folder).is_err(), "what is there is not overwritten");
    }

    #[test]
    fn every_addon_that_we_ship_has_nothing_to_complain_of() {
        let addons = Path::new(env!("CARGO_MANIFEST_DIR")).join("addons");
        for entry in fs::read_dir(addons).unwrap() {
            let folder = entry.unwrap().path();
            let name = folder.file_name().unwrap().to_str().unwrap();
            assert_eq!(lint(name, &folder, &[name]), Findings::default(), "{name}");
        }
    }

    #[test]
    fn what_users_will_miss_is_advised() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("manifests")).unwrap();
        let put = |path: &str, text: &str| fs::write(dir.path().join(path), text).unwrap();
        let option = "[[option]]\ndescription = 'd'\ntype = ";
        put(
            "addon.toml",
            &format!(
                "description = 'd'\nversion = '1'\n{option} 'bool'\nname = 'wide'\n\
                 {option} 'string'\nname = 'size'\n"
            ),
        );
        put(
            "manifests/a.yaml",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n    \
             - {name: c, image: 'example.org/x:latest', args: ['--size=${size}']}\n---\n\
             apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data}\n",
        );
        let findings = lint("sample", dir.path(), &[]);
        assert!(findings.problems.is_empty(), "{findings:?}");
        assert_eq!(
            findings.advice,
            [
                "it has no [[health]]: it counts as enabled whatever its pods do",
                "it has no README.md: nobody is told how to use it",
                "option wide: no manifest asks for it in `when`",
                "Pod p: the image example.org/x:latest has no digest: it may change",
                "PersistentVolumeClaim data is no [[user-data]]: it is deleted when it is disabled",
                "a.yaml: spec.containers[0].args[0]: size has no value unless it is given",
            ]
        );
    }

    #[test]
    fn what_is_refused_is_a_problem() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("hello");
        skeleton::write("hello", &folder).unwrap();
        let twice = fs::read_to_string(folder.join("manifests/config.yaml")).unwrap();
        fs::write(folder.join("manifests/other.yaml"), twice).unwrap();
        let problems = lint("hello", &folder, &["pause"]).problems;
        assert_eq!(problems, ["ConfigMap default/hello is there twice"]);
        assert_eq!(lint("hello", &folder, &[]).problems, ["the distribution has no image pause"]);
    }
}
