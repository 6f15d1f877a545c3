//! The texts that an addon consists of, and the addon that they make.

use std::collections::BTreeMap;
use std::path::Path;

use super::definition::{Definition, DefinitionError};
use super::facts::Facts;
use super::folder::{list_yaml, read_text};
use super::manifest::{self, Manifest};
use super::object::CONFIG_DIGEST;
use super::registry::Addon;
use super::template;

/// Name of the definition in an addon's folder.
pub const DEFINITION: &str = "addon.toml";
/// What is told to people who want to know more.
pub const README: &str = "README.md";
/// Folder of the manifests in an addon's folder.
const MANIFESTS: &str = "manifests";
/// Largest `addon.toml` or `README.md`, in bytes.
const TEXT_BYTES_MAX: u64 = 256 << 10;
/// Largest manifest file, in bytes; the largest that upstreams publish are CRDs of about 1 MiB.
const MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// Most manifest files of an addon.
const MANIFESTS_MAX: usize = 200;

/// Files of an addon by their path in its folder.
pub type Texts = BTreeMap<String, String>;

/// Reads an addon's folder, which may come from anybody. What is not part of an addon is not
/// looked at.
pub fn read(folder: &Path) -> Result<Texts, Vec<String>> {
    let definition = read_text(folder, DEFINITION, TEXT_BYTES_MAX)
        .map_err(|problem| vec![format!("cannot read {DEFINITION}: {problem}")])?;
    let mut texts = Texts::from([(DEFINITION.to_owned(), definition)]);
    let mut problems = Vec::new();
    let manifests = folder.join(MANIFESTS);
    // An addon may consist of what it needs.
    let names = match manifests.symlink_metadata() {
        Err(_) => Vec::new(),
        Ok(_) => list_yaml(&manifests, MANIFESTS_MAX).map_err(|problem| vec![problem])?,
    };
    for name in names {
        match read_text(&manifests, &name, MANIFEST_BYTES_MAX) {
            Ok(text) => drop(texts.insert(format!("{MANIFESTS}/{name}"), text)),
            Err(problem) => problems.push(format!("{name}: {problem}")),
        }
    }
    if folder.join(README).symlink_metadata().is_ok() {
        match read_text(folder, README, TEXT_BYTES_MAX) {
            Ok(text) => drop(texts.insert(README.to_owned(), text)),
            Err(problem) => problems.push(format!("{README}: {problem}")),
        }
    }
    if problems.is_empty() { Ok(texts) } else { Err(problems) }
}

/// The addon that its texts make. All of a kind of problems at once.
pub fn parse(name: &str, texts: &Texts, images: &[&str]) -> Result<Addon, DefinitionError> {
    let failed = |problems| DefinitionError { addon: name.into(), problems };
    let definition = texts.get(DEFINITION).map_or("", String::as_str);
    let definition = Definition::parse(name, definition, images)?;
    let files = texts.iter().filter_map(|(path, text)| {
        let file = path.strip_prefix(MANIFESTS)?.strip_prefix('/')?;
        Some((file, text.as_str()))
    });
    let manifests = manifest::parse_all(files).map_err(failed)?;
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
    Ok(Addon { name: name.into(), definition, manifests, repository: None })
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
    use std::fs;

    use super::*;

    #[test]
    fn only_what_an_addon_consists_of_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| fs::write(dir.path().join(path), text).unwrap();
        fs::create_dir(dir.path().join(MANIFESTS)).unwrap();
        put(DEFINITION, "description = 'd'\nversion = '1'\n");
        put("manifests/a.yaml", "apiVersion: v1\nkind: A\nmetadata: {name: a}\n");
        put("manifests/notes.txt", "x");
        put("enable", "#!/bin/sh\n");
        let texts = read(dir.path()).unwrap();
        let names: Vec<&str> = texts.keys().map(String::as_str).collect();
        assert_eq!(names, [DEFINITION, "manifests/a.yaml"]);
        assert_eq!(parse("sample", &texts, &[]).unwrap().manifests.len(), 1);
        put(README, "# sample\n");
        assert_eq!(read(dir.path()).unwrap()[README], "# sample\n");
        fs::remove_file(dir.path().join(README)).unwrap();
        std::os::unix::fs::symlink("addon.toml", dir.path().join(README)).unwrap();
        let problems = read(dir.path()).unwrap_err();
        assert_eq!(problems, ["README.md: it is a link, which is not followed"]);
    }

    #[test]
    fn a_placeholder_that_nobody_fills_in_is_found_when_the_addon_is_read() {
        let texts = |manifest: &str| {
            let definition = "description='d'\nversion='1'\n[[manifest]]\nfile='a.yaml'\nwhen=[]\n";
            [
                (DEFINITION, definition),
                (
                    manifest,
                    "apiVersion: v1\nkind: A\nmetadata: {name: a}\nx: '${node.domain} ${gone}'\n",
                ),
            ]
            .map(|(name, text)| (name.to_owned(), text.to_owned()))
            .into()
        };
        let problems = parse("sample", &texts("manifests/a.yaml"), &[]).unwrap_err().problems;
        assert_eq!(problems, ["a.yaml: there is no value gone"]);
        let problems = parse("sample", &texts("manifests/b.yaml"), &[]).unwrap_err().problems;
        assert_eq!(problems, ["manifests/a.yaml is not there"]);
        let problems = parse("sample", &Texts::new(), &[]).unwrap_err().problems;
        assert!(problems[0].contains("missing field"), "{problems:?}");
    }
}
