//! What a distribution holds: `components.toml` and the places around it.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use serde::Deserialize;
use skiff_api::Component;

/// The table of contents of a distribution.
pub const MANIFEST: &str = "components.toml";

/// A directory that holds everything a node needs.
#[derive(Clone, Debug)]
pub struct Distribution {
    dir: PathBuf,
    pub arch: String,
    pub components: Vec<Component>,
    pub images: Vec<Image>,
}

/// An OCI archive that is imported when the node lacks the image.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Image {
    /// What manifests call it: `pause`, `dns`.
    pub name: String,
    /// The full reference: `skiff.local/pause:1`.
    pub reference: String,
    /// The archive, relative to the distribution.
    pub file: PathBuf,
    /// Of the image in it; an archive with another one is not taken.
    #[serde(default)]
    pub digest: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum DistributionError {
    #[error("the components are not here: looked in {}", list(.0))]
    NotFound(Vec<PathBuf>),
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    #[error("{} is damaged", .0.display())]
    Parse(PathBuf, #[source] Box<toml::de::Error>),
    #[error("component {name} is missing: {} does not exist", path.display())]
    Missing { name: String, path: PathBuf },
    #[error("the distribution has no image called {0}")]
    NoImage(String),
}

#[derive(Deserialize)]
struct Manifest {
    arch: String,
    #[serde(default, rename = "component")]
    components: Vec<ManifestComponent>,
    #[serde(default, rename = "image")]
    images: Vec<Image>,
}

#[derive(Deserialize)]
struct ManifestComponent {
    name: String,
    version: String,
}

impl Distribution {
    /// Looks in `$SKIFF_DIST`, `$SNAP`, beside this executable, and where a build leaves it.
    pub fn find() -> Result<Self, DistributionError> {
        let mut places: Vec<PathBuf> =
            ["SKIFF_DIST", "SNAP"].iter().filter_map(env::var_os).map(PathBuf::from).collect();
        if let Some(bin) = env::current_exe().ok().as_deref().and_then(Path::parent) {
            places.extend(bin.parent().map(Path::to_path_buf));
            places.extend(bin.parent().map(|target| target.join("dist")));
        }
        match places.iter().find(|place| place.join(MANIFEST).is_file()) {
            Some(place) => Self::open(place),
            None => Err(DistributionError::NotFound(places)),
        }
    }

    /// Reads the table of contents of the distribution in `dir`.
    pub fn open(dir: &Path) -> Result<Self, DistributionError> {
        let path = dir.join(MANIFEST);
        let text = fs::read_to_string(&path)
            .map_err(|source| DistributionError::Read(path.clone(), source))?;
        let manifest: Manifest =
            toml::from_str(&text).map_err(|e| DistributionError::Parse(path, Box::new(e)))?;
        let components = manifest
            .components
            .into_iter()
            .map(|c| Component { name: c.name, version: c.version })
            .collect();
        Ok(Self {
            dir: dir.to_path_buf(),
            arch: manifest.arch,
            components,
            images: manifest.images,
        })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A program of the distribution; not checked to exist.
    pub fn bin(&self, name: &str) -> PathBuf {
        self.dir.join("bin").join(name)
    }

    pub fn cni(&self) -> PathBuf {
        self.dir.join("cni")
    }

    pub fn addons(&self) -> PathBuf {
        self.dir.join("addons")
    }

    pub fn image(&self, name: &str) -> Result<&Image, DistributionError> {
        self.images
            .iter()
            .find(|image| image.name == name)
            .ok_or_else(|| DistributionError::NoImage(name.into()))
    }

    /// What manifests of addons may call images.
    pub fn image_names(&self) -> Vec<&str> {
        self.images.iter().map(|image| &*image.name).collect()
    }

    pub fn version_of(&self, component: &str) -> &str {
        self.components
            .iter()
            .find(|c| c.name == component)
            .map_or("unknown", |c| c.version.as_str())
    }

    /// Everything that a node cannot start without; the first one that is not there is the error.
    pub fn require_complete(&self) -> Result<(), DistributionError> {
        let programs = ["skiff", "kube", "containerd", "containerd-shim-runc-v2", "ctr", "runc"];
        let plugins = ["bridge", "host-local", "loopback", "portmap"];
        let files = programs
            .iter()
            .map(|name| (*name, self.bin(name)))
            .chain(plugins.iter().map(|name| (*name, self.cni().join(name))))
            .chain(self.images.iter().map(|i| (i.name.as_str(), self.dir.join(&i.file))));
        for (name, path) in files {
            if !path.is_file() {
                return Err(DistributionError::Missing { name: name.into(), path });
            }
        }
        self.image("pause").map(|_| ())
    }
}

fn list(places: &[PathBuf]) -> String {
    places.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
}
