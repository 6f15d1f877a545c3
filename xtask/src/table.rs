//! `components/components.toml`: the one table of what is built and where it goes.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// The whole table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// The oldest Go that builds all components.
    pub go: String,
    #[serde(rename = "component")]
    pub components: Vec<Component>,
    #[serde(rename = "image", default)]
    pub images: Vec<Image>,
}

/// Something that is built from pinned sources.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Component {
    pub name: String,
    /// Below `components/`, when it has another name: two programs of one module share a folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    folder: Option<String>,
    pub version: String,
    pub license: String,
    /// The upstream Go module; its exact version stands in the folder's go.mod.
    #[serde(default)]
    pub module: Option<String>,
    #[serde(default)]
    pub language: Language,
    #[serde(default, rename = "for")]
    pub purpose: Purpose,
    #[serde(default)]
    pub tags: Vec<String>,
    /// `importpath.name=value`, set by the linker; `{version}` is replaced.
    #[serde(default)]
    pub variables: Vec<String>,
    #[serde(default)]
    pub cgo: Option<Cgo>,
    pub programs: Vec<Program>,
    /// What a first build takes on two cores, for the user to know.
    #[serde(skip_serializing)]
    pub usual_seconds: u64,
}

/// What a component written for cgo links with, statically.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Cgo {
    pub pkg_config: Vec<String>,
    /// The Debian packages that bring it.
    pub debian: Vec<String>,
}

/// One executable of a component.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// A Go package, or a C file of the component's folder.
    pub package: String,
    /// Where it goes below the distribution.
    pub file: String,
}

/// An OCI archive made from built programs.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    pub name: String,
    pub reference: String,
    pub file: String,
    #[serde(default, rename = "for")]
    pub purpose: Purpose,
    #[serde(default)]
    pub user: String,
    pub entrypoint: Vec<String>,
    #[serde(default)]
    pub command: Vec<String>,
    #[serde(default)]
    pub environment: Vec<String>,
    #[serde(default)]
    pub ports: Vec<String>,
    #[serde(default)]
    pub folders: Vec<String>,
    pub contents: Vec<Content>,
    #[serde(default)]
    pub links: Option<Links>,
}

/// A file of an image: of a component, or of an installed Debian package.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    #[serde(default)]
    pub component: Option<String>,
    #[serde(default)]
    pub debian: Option<String>,
    pub file: String,
    pub to: String,
}

/// Names in one folder that all point to one file.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Links {
    pub to: String,
    pub folder: String,
    pub names: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    #[default]
    Go,
    C,
}

/// Shipped, or only there for tests, or for measurements alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    #[default]
    Node,
    Test,
    Measure,
}

impl Table {
    pub fn read(path: &Path) -> Result<Self> {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is wrong", path.display()))
    }

    pub fn parse(text: &str) -> Result<Self> {
        let table: Self = toml::from_str(text)?;
        table.check()?;
        Ok(table)
    }

    pub fn component(&self, name: &str) -> Option<&Component> {
        self.components.iter().find(|component| component.name == name)
    }

    /// Refuses what the types allow and a build would trip over later.
    fn check(&self) -> Result<()> {
        let mut names = BTreeSet::new();
        let mut files = BTreeSet::new();
        for component in &self.components {
            ensure!(
                names.insert(&component.name),
                "component {} stands there twice",
                component.name
            );
            ensure!(!component.programs.is_empty(), "component {} has no program", component.name);
            for program in &component.programs {
                ensure!(files.insert(&program.file), "{} is built twice", program.file);
            }
            if component.language == Language::Go {
                ensure!(component.module.is_some(), "component {} names no module", component.name);
            }
        }
        for image in &self.images {
            ensure!(files.insert(&image.file), "{} is built twice", image.file);
            for content in &image.contents {
                self.check_content(image, content)?;
            }
        }
        Ok(())
    }

    fn check_content(&self, image: &Image, content: &Content) -> Result<()> {
        ensure!(!content.to.starts_with('/'), "{} starts with a slash", content.to);
        match (&content.component, &content.debian) {
            (Some(name), None) => {
                let component = self
                    .component(name)
                    .with_context(|| format!("image {} wants component {name}", image.name))?;
                ensure!(
                    component.programs.iter().any(|program| program.file == content.file),
                    "component {name} has no {}",
                    content.file
                );
                Ok(())
            }
            (None, Some(_)) => Ok(()),
            _ => bail!("{} of image {} needs one source", content.to, image.name),
        }
    }
}

impl Component {
    /// The folder below `components/` with its sources.
    pub fn folder(&self) -> &str {
        self.folder.as_deref().unwrap_or(&self.name)
    }

    /// The linker's variables with the version filled in.
    pub fn linker_variables(&self) -> Vec<String> {
        self.variables.iter().map(|v| v.replace("{version}", &self.version)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REAL: &str = include_str!("../../components/components.toml");

    #[test]
    fn the_table_of_the_repository_is_valid() {
        let table = Table::parse(REAL).unwrap();
        assert!(table.component("kube").is_some());
        assert!(table.images.iter().any(|image| image.name == "dns"));
    }

    #[test]
    fn an_image_of_an_unknown_component_is_refused() {
        let text = REAL.replace("component = \"coredns\"", "component = \"absent\"");
        let error = Table::parse(&text).unwrap_err();
        assert_eq!(error.to_string(), "image dns wants component absent");
    }

    #[test]
    fn two_components_of_one_name_are_refused() {
        let text = REAL.replace("name = \"runc\"", "name = \"cni\"");
        let error = Table::parse(&text).unwrap_err();
        assert_eq!(error.to_string(), "component cni stands there twice");
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        assert!(Table::parse(&REAL.replace("cgo = ", "cg0 = ")).is_err());
    }

    #[test]
    fn the_version_reaches_the_linker() {
        let table = Table::parse(REAL).unwrap();
        let runc = table.component("runc").unwrap();
        assert_eq!(runc.linker_variables(), [format!("main.version={}", runc.version)]);
    }

    #[test]
    fn every_pin_of_the_table_is_the_one_in_go_mod() {
        let table = Table::parse(REAL).unwrap();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../components");
        for component in table.components.iter().filter(|c| c.language == Language::Go) {
            let module = component.module.as_deref().unwrap();
            let text = fs::read_to_string(folder.join(component.folder()).join("go.mod")).unwrap();
            let pin = format!("{module} v{}", component.version);
            assert!(
                text.lines()
                    .any(|line| line.trim().trim_start_matches("require ").starts_with(&pin)),
                "{}: go.mod does not say {pin}",
                component.name
            );
        }
    }
}
