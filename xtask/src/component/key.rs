//! What a component's build depends on, as one digest: the name of its place in the cache.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::hash::hex;
use crate::table::Component;

/// Raised when the same inputs are built differently from here on.
const RECIPE: u32 = 1;

/// The key of a build: everything that may change its outcome, and nothing else.
pub fn build_key(component: &Component, sources: &[Source], arch: &str, compiler: &str) -> String {
    let mut hash = Sha256::new();
    let table = serde_json::to_string(component).expect("a table entry is plain data");
    for part in [&RECIPE.to_string(), &table, arch, compiler] {
        feed(&mut hash, part.as_bytes());
    }
    for source in sources {
        feed(&mut hash, source.name.as_bytes());
        feed(&mut hash, &source.content);
    }
    hex(&hash.finalize())[..24].to_owned()
}

/// One file of a component's folder.
#[derive(Debug, Clone)]
pub struct Source {
    pub name: String,
    pub content: Vec<u8>,
}

/// The files of a component's folder, and of the folders beside it that its go.mod names, in a
/// fixed order, without tests and texts: these change nothing of what is built.
pub fn read_sources(folder: &Path) -> Result<Vec<Source>> {
    let mut sources = read_folder(folder)?;
    let module = sources.iter().find(|source| source.name == "go.mod");
    let module = module.map(|source| String::from_utf8_lossy(&source.content).into_owned());
    for neighbour in module.iter().flat_map(|module| neighbours(module)) {
        for source in read_folder(&folder.join("..").join(neighbour))? {
            sources.push(Source { name: format!("{neighbour}/{}", source.name), ..source });
        }
    }
    Ok(sources)
}

/// The folders that stand beside a module's own, by the `replace … => ../name` lines of its go.mod
/// (<https://go.dev/ref/mod#go-mod-file-replace>).
fn neighbours(module: &str) -> impl Iterator<Item = &str> {
    module
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .filter_map(|line| line.split_once("=>"))
        .filter_map(|(_, place)| place.trim().strip_prefix("../"))
}

fn read_folder(folder: &Path) -> Result<Vec<Source>> {
    let mut names = Vec::new();
    collect(folder, Path::new(""), &mut names)
        .with_context(|| format!("cannot read {}", folder.display()))?;
    names.sort();
    names
        .into_iter()
        .map(|name| {
            let path = folder.join(&name);
            let content =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok(Source { name: name.to_string_lossy().into_owned(), content })
        })
        .collect()
}

fn collect(folder: &Path, below: &Path, names: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder.join(below))? {
        let entry = entry?;
        let name = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            collect(folder, &name, names)?;
        } else if !is_test_or_text(&name) {
            names.push(name);
        }
    }
    Ok(())
}

fn is_test_or_text(name: &Path) -> bool {
    let name = name.to_string_lossy();
    name.ends_with("_test.go") || name.ends_with(".md")
}

/// The length goes first, so that no two lists of parts look the same.
fn feed(hash: &mut Sha256, part: &[u8]) {
    hash.update((part.len() as u64).to_le_bytes());
    hash.update(part);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Table;

    fn runc() -> Component {
        let table = Table::parse(include_str!("../../../components/components.toml")).unwrap();
        table.component("runc").unwrap().clone()
    }

    fn sources() -> Vec<Source> {
        vec![Source { name: "go.mod".into(), content: b"module a".to_vec() }]
    }

    fn key() -> String {
        build_key(&runc(), &sources(), "amd64", "go1.26.6")
    }

    #[test]
    fn a_module_beside_it_belongs_to_a_component() {
        let module = "module skiff.local/kube\n\nreplace skiff.local/resident => ../resident\n\
                      // replace skiff.local/old => ../old\n\
                      replace (\n\tk8s.io/api => k8s.io/api v0.36.3\n)\n";
        assert_eq!(neighbours(module).collect::<Vec<_>>(), ["resident"]);

        let root = tempfile::tempdir().unwrap();
        for (name, content) in [
            ("kube/go.mod", module),
            ("kube/main.go", "package main"),
            ("resident/program.go", "package resident"),
            ("resident/program_test.go", "package resident"),
        ] {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let sources = read_sources(&root.path().join("kube")).unwrap();
        let names: Vec<_> = sources.iter().map(|source| source.name.as_str()).collect();
        assert_eq!(names, ["go.mod", "main.go", "resident/program.go"]);
    }

    #[test]
    fn the_same_inputs_give_the_same_key() {
        assert_eq!(key(), key());
        assert_eq!(key().len(), 24);
    }

    #[test]
    fn each_input_changes_the_key() {
        let mut other = runc();
        other.version = "1.5.3".into();
        let mut more = sources();
        more[0].content.push(b'b');
        let keys = [
            build_key(&other, &sources(), "amd64", "go1.26.6"),
            build_key(&runc(), &more, "amd64", "go1.26.6"),
            build_key(&runc(), &sources(), "arm64", "go1.26.6"),
            build_key(&runc(), &sources(), "amd64", "go1.26.7"),
        ];
        for (at, one) in keys.iter().enumerate() {
            assert_ne!(*one, key());
            assert!(keys[at + 1..].iter().all(|two| two != one));
        }
    }

    #[test]
    fn how_long_a_build_takes_does_not_matter() {
        let mut other = runc();
        other.usual_seconds += 1;
        assert_eq!(build_key(&other, &sources(), "amd64", "go1.26.6"), key());
    }

    #[test]
    fn a_file_cut_in_two_is_not_the_same_source() {
        let part = |name: &str, text: &str| Source { name: name.into(), content: text.into() };
        let one = build_key(&runc(), &[part("a", "bc")], "amd64", "go1.26.6");
        let two = build_key(&runc(), &[part("ab", "c")], "amd64", "go1.26.6");
        assert_ne!(one, two);
    }

    #[test]
    fn tests_and_texts_are_no_sources() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["main.go", "main_test.go", "README.md", "go.mod"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        let names: Vec<_> =
            read_sources(folder.path()).unwrap().into_iter().map(|s| s.name).collect();
        assert_eq!(names, ["go.mod", "main.go"]);
    }
}
