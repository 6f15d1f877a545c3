//! Where a node's settings lie, and reading them without obeying strangers.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::ConfigError;

/// Names the file with the settings of the snap: what `snapctl get -d` prints, groups of settings
/// as JSON. The snap's service sets it, nobody else has to.
pub const SNAP_VARIABLE: &str = "SKIFF_SNAP_SETTINGS";

/// The files of one node. Absent ones say nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// `skiff.toml`; its drop-ins lie in `skiff.toml.d` beside it.
    pub file: PathBuf,
    pub snap: Option<PathBuf>,
}

impl Sources {
    /// The file with its drop-ins, and what the environment names.
    pub fn of(file: PathBuf) -> Self {
        Self { file, snap: snap_file() }
    }

    /// The file, then its drop-ins by name.
    pub fn files(&self) -> Result<Vec<PathBuf>, ConfigError> {
        let mut drop_ins = OsString::from(&self.file);
        drop_ins.push(".d");
        let mut files = toml_files(Path::new(&drop_ins))?;
        files.sort();
        files.insert(0, self.file.clone());
        Ok(files)
    }
}

/// The file that [`SNAP_VARIABLE`] names.
pub fn snap_file() -> Option<PathBuf> {
    let named = std::env::var_os(SNAP_VARIABLE).filter(|path| !path.is_empty())?;
    std::path::absolute(named).ok()
}

/// The whole file; none when there is none.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, ConfigError> {
    let unread = |error| ConfigError::Read(path.to_path_buf(), error);
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(unread)?,
    };
    refuse_writable(path, &file.metadata().map_err(unread)?)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(unread)?;
    Ok(Some(bytes))
}

fn toml_files(dir: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let unread = |error| ConfigError::Read(dir.to_path_buf(), error);
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(unread)?,
    };
    // Whoever may write it adds a file of their own.
    refuse_writable(dir, &fs::metadata(dir).map_err(unread)?)?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(unread)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    Ok(files)
}

fn refuse_writable(path: &Path, data: &Metadata) -> Result<(), ConfigError> {
    const OTHERS_WRITE: u32 = 0o022;
    if data.permissions().mode() & OTHERS_WRITE != 0 {
        return Err(ConfigError::Writable(path.to_path_buf()));
    }
    Ok(())
}
