//! From layers to one table: what is read later wins, and every value remembers its place.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IntoDeserializer;
use toml::Value;
use toml::de::DeTable;

use super::error::Mistake;
use super::shared::Own;
use super::source::{self, Sources};
use super::{Config, ConfigError, setting};

/// Where a value comes from, in the order of the layers.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    #[default]
    Default,
    /// `skiff.toml` or a drop-in, which comes after it by its path, too.
    File {
        path: PathBuf,
        line: usize,
    },
    Snap,
    /// What the cluster was begun with.
    Cluster,
    /// `skiff set`, with the revision of the settings.
    Set(u64),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Snap => f.write_str("snap"),
            Self::Cluster => f.write_str("cluster"),
            Self::Set(revision) => write!(f, "set (revision {revision})"),
        }
    }
}

/// All layers as one.
#[derive(Clone, Debug, Default)]
pub struct Merged {
    pub table: toml::Table,
    pub origins: BTreeMap<String, Origin>,
    /// What the node's own layers say of settings that the cluster has.
    pub own: BTreeMap<String, Own>,
    pub mistakes: Vec<Mistake>,
}

/// Reads every layer. Mistakes inside of them are gathered; a file that cannot be read, or that
/// strangers may write, ends the reading.
pub fn read(sources: &Sources) -> Result<Merged, ConfigError> {
    let mut merged = Merged::default();
    for file in sources.files()? {
        if let Some(bytes) = source::read(&file)? {
            merged.add_file(&file, &bytes);
        }
    }
    if let Some(file) = &sources.snap
        && let Some(bytes) = source::read(file)?
    {
        merged.add_snap(&bytes);
    }
    Ok(merged)
}

impl Merged {
    fn add_file(&mut self, path: &Path, bytes: &[u8]) {
        let at = |line| Origin::File { path: path.to_path_buf(), line };
        // In bytes: a parser may point into the middle of a character.
        let line_of = |offset: usize| {
            1 + bytes[..offset.min(bytes.len())].iter().filter(|byte| **byte == b'\n').count()
        };
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                return self.mistake(at(line_of(error.valid_up_to())), "this is not UTF-8");
            }
        };
        let (root, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let line = line_of(error.span().map_or(0, |span| span.start));
            self.mistake(at(line), error.message());
        }
        if !errors.is_empty() {
            // What was meant is a guess.
            return;
        }
        for (group, settings) in root.get_ref().iter() {
            let origin = at(line_of(group.span().start));
            let group = group.get_ref().as_ref();
            let settings = settings.get_ref().as_table();
            if !self.accept_group(&origin, group, settings.map(|settings| settings.len())) {
                continue;
            }
            for (name, value) in settings.into_iter().flat_map(|settings| settings.iter()) {
                let origin = at(line_of(name.span().start));
                let name = name.get_ref().as_ref();
                match Value::deserialize(value.clone().into_deserializer()) {
                    Ok(value) => self.set(origin, group, name, value),
                    // A number that TOML can write and nobody can hold.
                    Err(error) => {
                        self.mistake(origin, format!("{group}.{name}: {}", error.message()));
                    }
                }
            }
        }
    }

    /// A null is what snapd says of a setting that was taken back.
    fn add_snap(&mut self, bytes: &[u8]) {
        let groups: serde_json::Map<String, serde_json::Value> = match serde_json::from_slice(bytes)
        {
            Ok(groups) => groups,
            Err(error) => return self.mistake(Origin::Snap, format!("no object of JSON: {error}")),
        };
        for (group, settings) in groups.iter().filter(|(_, settings)| !settings.is_null()) {
            let settings = settings.as_object();
            if !self.accept_group(&Origin::Snap, group, settings.map(serde_json::Map::len)) {
                continue;
            }
            let settings = settings.into_iter().flatten().filter(|(_, value)| !value.is_null());
            for (name, value) in settings {
                match Value::deserialize(value) {
                    Ok(value) => self.set(Origin::Snap, group, name, value),
                    Err(error) => self.mistake(Origin::Snap, format!("{group}.{name}: {error}")),
                }
            }
        }
    }

    /// Whether the settings of a group are worth a look: `settings` is how many there are, none
    /// when it is no table. Those of an unknown group are named one by one.
    fn accept_group(&mut self, origin: &Origin, group: &str, settings: Option<usize>) -> bool {
        match (setting::is_group(group), settings) {
            (true, None) => {
                self.mistake(origin.clone(), format!("{group} is a group of settings: [{group}]"));
                false
            }
            (false, None | Some(0)) => {
                let like = setting::like_group(group).map(|like| format!("[{like}]"));
                self.mistake(origin.clone(), unknown("group", group, like.as_deref()));
                false
            }
            _ => true,
        }
    }

    fn set(&mut self, origin: Origin, group: &str, name: &str, value: Value) {
        let key = format!("{group}.{name}");
        let Some(known) = setting::known(&key) else {
            return self.mistake(origin, unknown("setting", &key, setting::like(&key)));
        };
        if !fits(&key, &value) {
            let text = format!("{key} must be {}, not {}", known.kind, shown(&value));
            return self.mistake(origin, text);
        }
        self.put(origin, group, name, value);
    }

    /// The value that holds so far; none that nobody wrote.
    pub(super) fn value(&self, key: &str) -> Option<Value> {
        let (group, name) = key.split_once('.')?;
        self.table.get(group)?.get(name).cloned()
    }

    pub(super) fn put(&mut self, origin: Origin, group: &str, name: &str, value: Value) {
        self.origins.insert(format!("{group}.{name}"), origin);
        let settings = self.table.entry(group).or_insert_with(|| Value::Table(toml::Table::new()));
        if let Some(settings) = settings.as_table_mut() {
            settings.insert(name.to_owned(), value);
        }
    }

    fn mistake(&mut self, origin: Origin, text: impl Into<String>) {
        self.mistakes.push(Mistake::new(origin, text));
    }
}

/// Whether a value is of the kind that a setting takes. Alone, so that a mistake is its own.
pub(super) fn fits(key: &str, value: &Value) -> bool {
    let Some((group, name)) = key.split_once('.') else { return false };
    let alone = toml::Table::from_iter([(name.to_owned(), value.clone())]);
    let alone = toml::Table::from_iter([(group.to_owned(), Value::Table(alone))]);
    Config::deserialize(Value::Table(alone)).is_ok()
}

pub(super) fn unknown(what: &str, name: &str, like: Option<&str>) -> String {
    match like {
        Some(like) => format!("there is no {what} {name}; did you mean {like}?"),
        None => format!("there is no {what} {name}"),
    }
}

/// In one line that is not too long.
pub(super) fn shown(value: &Value) -> String {
    const CHARACTERS_MAX: usize = 40;
    let text = value.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
