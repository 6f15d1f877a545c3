//! From files to one table: what is read later wins, and every value remembers its place.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use serde::Deserialize;
use toml::Value;
use toml::de::DeTable;

use super::setting::{self, KNOWN};
use super::{Config, ConfigError};

/// Where a value comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    #[default]
    Default,
    File {
        path: PathBuf,
        line: usize,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
        }
    }
}

/// All files as one.
#[derive(Debug, Default)]
pub struct Merged {
    pub table: toml::Table,
    pub origins: BTreeMap<String, Origin>,
    /// Whole sentences, each with its place.
    pub problems: Vec<String>,
}

/// Reads the file and what lies in the directory beside it.
pub fn read(path: &Path) -> Result<Merged, ConfigError> {
    let mut merged = Merged::default();
    let mut drop_ins = path.as_os_str().to_owned();
    drop_ins.push(".d");
    let files = std::iter::once(path.to_path_buf()).chain(toml_files(Path::new(&drop_ins))?);
    for file in files {
        match fs::read(&file) {
            Ok(bytes) => {
                refuse_writable(&file)?;
                merged.add(&file, &bytes);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(ConfigError::Read(file, error)),
        }
    }
    Ok(merged)
}

/// By name; no directory has none.
fn toml_files(dir: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let unread = |error| ConfigError::Read(dir.to_path_buf(), error);
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(unread)?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(unread)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn refuse_writable(path: &Path) -> Result<(), ConfigError> {
    const OTHERS_WRITE: u32 = 0o022;
    let data = fs::metadata(path).map_err(|error| ConfigError::Read(path.into(), error))?;
    if data.permissions().mode() & OTHERS_WRITE != 0 {
        return Err(ConfigError::Writable { path: path.display().to_string() });
    }
    Ok(())
}

impl Merged {
    fn add(&mut self, path: &Path, bytes: &[u8]) {
        let Ok(text) = std::str::from_utf8(bytes) else {
            self.problems.push(format!("{} is not UTF-8", path.display()));
            return;
        };
        let line_of = |offset: usize| 1 + text[..offset.min(text.len())].matches('\n').count();
        let root = match DeTable::parse(text) {
            Ok(root) => root.into_inner(),
            Err(error) => {
                let line = line_of(error.span().map_or(0, |span| span.start));
                self.problem(path, line, error.message());
                return;
            }
        };
        // With values resolved; the other reading knows the places.
        let values: toml::Table = toml::from_str(text).unwrap_or_default();
        // Tables come sorted by name; mistakes are told in the order of the file.
        let mut groups: Vec<_> = root.iter().collect();
        groups.sort_by_key(|(name, _)| name.span().start);
        for (group, settings) in groups {
            let line = line_of(group.span().start);
            let group = group.get_ref().as_ref();
            let Some(settings) = settings.get_ref().as_table() else {
                self.problem(path, line, &unknown(group));
                continue;
            };
            if settings.is_empty() && !is_group(group) {
                self.problem(path, line, &format!("there is no group of settings {group}"));
            }
            let mut settings: Vec<_> = settings.iter().collect();
            settings.sort_by_key(|(name, _)| name.span().start);
            for (name, _) in settings {
                let line = line_of(name.span().start);
                let name = name.get_ref().as_ref();
                if let Some(value) = values.get(group).and_then(|table| table.get(name)) {
                    self.set(path, line, group, name, value.clone());
                }
            }
        }
    }

    fn set(&mut self, path: &Path, line: usize, group: &str, name: &str, value: Value) {
        let key = format!("{group}.{name}");
        if !KNOWN.iter().any(|known| known.key == key) {
            self.problem(path, line, &unknown(&key));
            return;
        }
        // Alone, so that a mistake is that of this value.
        let alone = toml::Table::from_iter([(name.to_owned(), value.clone())]);
        let alone = toml::Table::from_iter([(group.to_owned(), Value::Table(alone))]);
        if let Err(error) = Config::deserialize(Value::Table(alone)) {
            self.problem(path, line, &format!("{key}: {}", error.message()));
            return;
        }
        self.origins.insert(key, Origin::File { path: path.into(), line });
        let settings = self.table.entry(group).or_insert_with(|| Value::Table(toml::Table::new()));
        if let Some(settings) = settings.as_table_mut() {
            settings.insert(name.to_owned(), value);
        }
    }

    fn problem(&mut self, path: &Path, line: usize, what: &str) {
        self.problems.push(format!("{}:{line}: {what}", path.display()));
    }
}

fn is_group(name: &str) -> bool {
    KNOWN.iter().any(|known| known.key.split('.').next() == Some(name))
}

fn unknown(key: &str) -> String {
    match setting::like(key) {
        Some(like) => format!("there is no setting {key}; did you mean {like}?"),
        None => format!("there is no setting {key}"),
    }
}
