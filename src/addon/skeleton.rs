//! The beginning of an addon, for who writes one.

use std::fs;
use std::io;
use std::path::Path;

/// Stands for the addon's name in the files.
const NAME: &str = "NAME";

/// What a new addon consists of: it can be enabled as it is.
const FILES: [(&str, &str); 4] = [
    ("addon.toml", include_str!("skeleton/addon.toml")),
    ("README.md", include_str!("skeleton/README.md")),
    ("manifests/config.yaml", include_str!("skeleton/manifests/config.yaml")),
    ("manifests/workload.yaml", include_str!("skeleton/manifests/workload.yaml")),
];

/// Writes a new addon into a folder that is not there yet.
pub fn write(name: &str, folder: &Path) -> io::Result<()> {
    fs::create_dir(folder)?;
    fs::create_dir(folder.join("manifests"))?;
    for (path, text) in FILES {
        fs::write(folder.join(path), text.replace(NAME, name))?;
    }
    Ok(())
}
