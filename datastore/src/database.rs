//! The databases of one node. Each has an engine of its own: keys, revisions,
//! quota and alarms of one are nothing to the other.
//!
//! ```text
//!   clients of kube ────> engine ── store ──┐
//!                                           ├── one node of dqlite: one log,
//!   clients of cluster ─> engine ── store ──┘   one directory, the same leader
//! ```

use dqlite::DatabaseName;
use tracing::{Span, error_span};

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    /// Kubernetes' objects.
    Kube,
    /// Who belongs to the cluster: members, tokens, settings.
    Cluster,
}

impl Database {
    /// Its name in dqlite.
    pub fn name(self) -> DatabaseName {
        let name = match self {
            Database::Kube => "kube",
            Database::Cluster => "cluster",
        };
        DatabaseName::new(name).expect("the name is a plain word")
    }

    /// What stands before its lines in the log; nothing before those of `kube`.
    pub fn span(self) -> Span {
        match self {
            Database::Kube => Span::none(),
            Database::Cluster => error_span!("cluster"),
        }
    }
}

/// Something for each database that is served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Databases<T> {
    pub kube: T,
    pub cluster: Option<T>,
}

impl<T> Databases<T> {
    /// With `kube` alone.
    pub fn kube(kube: T) -> Databases<T> {
        Databases { kube, cluster: None }
    }

    /// That of one database.
    pub fn get(&self, database: Database) -> Option<&T> {
        match database {
            Database::Kube => Some(&self.kube),
            Database::Cluster => self.cluster.as_ref(),
        }
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.kube).chain(&self.cluster)
    }

    /// Each of them, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        std::iter::once(&mut self.kube).chain(&mut self.cluster)
    }

    /// The same of what is made of each.
    pub fn map<U>(self, mut make: impl FnMut(T) -> U) -> Databases<U> {
        Databases { kube: make(self.kube), cluster: self.cluster.map(make) }
    }

    /// The same by reference.
    pub fn as_ref(&self) -> Databases<&T> {
        Databases { kube: &self.kube, cluster: self.cluster.as_ref() }
    }
}

impl<T> IntoIterator for Databases<T> {
    type Item = T;
    type IntoIter = std::iter::Chain<std::iter::Once<T>, std::option::IntoIter<T>>;

    fn into_iter(self) -> Self::IntoIter {
        std::iter::once(self.kube).chain(self.cluster)
    }
}
