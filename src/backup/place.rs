//! Who we are to a bucket: variables of the environment, or of a file, since skiffd has no
//! environment of anybody's.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use skiff_datastore::backup::{S3, S3Error, Target};

/// Variables by name; those of the process count where the file has none.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<String, String>);

/// Why a file gives no variables.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}:{line}: this is not NAME=VALUE", path.display())]
    Line { path: PathBuf, line: usize },
    #[error("{} can be read by others, and holds secrets", .0.display())]
    Open(PathBuf),
    #[error(transparent)]
    Bucket(#[from] S3Error),
}

impl Environment {
    /// Reads lines of `NAME=VALUE`; empty ones and those that begin with # say nothing.
    pub fn read(path: Option<&Path>) -> Result<Self, EnvironmentError> {
        let Some(path) = path else { return Ok(Self::default()) };
        let failed = |source| EnvironmentError::Read { path: path.to_path_buf(), source };
        let text = fs::read_to_string(path).map_err(failed)?;
        let data = fs::metadata(path).map_err(failed)?;
        if data.permissions().mode() & 0o077 != 0 {
            return Err(EnvironmentError::Open(path.to_path_buf()));
        }
        let mut variables = BTreeMap::new();
        for (number, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bad = || EnvironmentError::Line { path: path.to_path_buf(), line: number + 1 };
            let (name, value) = line.split_once('=').ok_or_else(bad)?;
            let value = value.trim();
            let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            variables.insert(name.trim().to_owned(), quoted.unwrap_or(value).to_owned());
        }
        Ok(Self(variables))
    }

    /// The directory or the bucket that an address names.
    pub fn target(&self, address: &Path) -> Result<Target, EnvironmentError> {
        Ok(match S3::is_address(address) {
            true => Target::S3(Box::new(self.bucket(address)?)),
            false => Target::Directory(address.to_path_buf()),
        })
    }

    /// The bucket that `s3://BUCKET/PREFIX` names.
    pub fn bucket(&self, address: &Path) -> Result<S3, EnvironmentError> {
        let text = address.to_string_lossy();
        let variable =
            |name: &'static str| self.0.get(name).cloned().or_else(|| std::env::var(name).ok());
        Ok(S3::new(&text, variable)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_come_from_a_file_that_nobody_else_may_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("environment");
        fs::write(&path, "# who we are\nAWS_ACCESS_KEY_ID=me\n\nAWS_REGION = \"eu\"\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let read = Environment::read(Some(&path)).unwrap();
        assert_eq!((&*read.0["AWS_ACCESS_KEY_ID"], &*read.0["AWS_REGION"]), ("me", "eu"));
        fs::write(&path, "a=b\nnothing\n").unwrap();
        let error = Environment::read(Some(&path)).unwrap_err();
        assert!(error.to_string().ends_with(":2: this is not NAME=VALUE"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Environment::read(Some(&path)), Err(EnvironmentError::Open(_))));
    }
}
