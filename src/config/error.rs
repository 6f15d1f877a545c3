//! What is wrong with a configuration: all of it at once, each mistake with its place.

use std::path::PathBuf;
use std::{fmt, io};

use super::Origin;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The place of the value, or of one of two that cannot go together.
    pub origin: Origin,
    /// Names the setting.
    pub text: String,
}

impl Mistake {
    pub fn new(origin: Origin, text: impl Into<String>) -> Self {
        Self { origin, text: text.into() }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Default => f.write_str(&self.text),
            Origin::File { .. } => write!(f, "{}: {}", self.origin, self.text),
            Origin::Snap => write!(f, "snap settings: {}", self.text),
            Origin::Cluster => write!(f, "the cluster's settings: {}", self.text),
            Origin::Set(_) => write!(f, "what was set: {}", self.text),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    #[error("{} may be written by others than root, and root obeys it", .0.display())]
    Writable(PathBuf),
    #[error("the configuration is not valid")]
    Invalid(#[source] Problem),
}

impl ConfigError {
    /// What to type next, when that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Read(..) => None,
            Self::Writable(path) => Some(format!("sudo chmod go-w {}", path.display())),
            Self::Invalid(_) => Some("sudo skiff start, when these lines are right".into()),
        }
    }
}

/// One mistake, with the next one as its source: printing walks the chain and shows all.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    text: String,
    next: Option<Box<Problem>>,
}

impl Problem {
    /// In the order of the layers and of their lines; none of no mistakes.
    pub(super) fn chain(mut mistakes: Vec<Mistake>) -> Option<Self> {
        mistakes.sort_by(|a, b| a.origin.cmp(&b.origin));
        mistakes.iter().rev().fold(None, |next, mistake| {
            Some(Self { text: mistake.to_string(), next: next.map(Box::new) })
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Problem {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.next.as_deref().map(|next| next as _)
    }
}
