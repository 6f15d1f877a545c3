//! The names of things: members, their addresses, their roles, databases.

use std::fmt;

use thiserror::Error;

/// Longest name of a database; it becomes part of messages on disk and wire.
pub const DATABASE_NAME_BYTES_MAX: usize = 64;

/// Identity of a member within its cluster; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberId(pub u64);

impl MemberId {
    /// The member that starts a cluster by itself: libdqlite bootstraps a fresh directory of id 1.
    pub const FIRST: MemberId = MemberId(1);

    /// An identity for a member that joins: a digest of its address and the clock, so that a member
    /// which returns under its old address is another one.
    pub fn generate(address: &MemberAddress) -> MemberId {
        crate::node::raw::generate_id(address)
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// How a member is named to the others: opaque to dqlite, resolved by a [`crate::Connector`].
///
/// Not a network address on purpose: members keep their identity when they move to another subnet.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberAddress(String);

impl MemberAddress {
    /// Takes any text; a NUL inside is refused where the address meets the C library.
    pub fn new(address: impl Into<String>) -> MemberAddress {
        MemberAddress(address.into())
    }

    /// The text as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for MemberAddress {
    fn from(address: &str) -> MemberAddress {
        MemberAddress::new(address)
    }
}

impl From<String> for MemberAddress {
    fn from(address: String) -> MemberAddress {
        MemberAddress(address)
    }
}

impl fmt::Display for MemberAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a member does for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Receives the log and counts for the majority.
    Voter,
    /// Receives the log, doesn't count, can be promoted quickly.
    Standby,
    /// Receives nothing.
    Spare,
}

impl Role {
    /// The number that stands for the role on the wire.
    pub fn code(self) -> u64 {
        match self {
            Role::Voter => dqlite_sys::DQLITE_VOTER,
            Role::Standby => dqlite_sys::DQLITE_STANDBY,
            Role::Spare => dqlite_sys::DQLITE_SPARE,
        }
    }

    /// The role behind a number of the wire, if there is one.
    pub fn from_code(code: u64) -> Option<Role> {
        [Role::Voter, Role::Standby, Role::Spare].into_iter().find(|role| role.code() == code)
    }
}

/// One line of the cluster's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberInfo {
    /// Who.
    pub id: MemberId,
    /// How the others name it.
    pub address: MemberAddress,
    /// What it does.
    pub role: Role,
}

/// Name of a database; one node carries several, each with its own writer.
///
/// A name may carry the version of what is kept inside, so that a migration can build the next
/// version beside the one in use:
///
/// ```
/// use dqlite::DatabaseName;
/// assert_eq!(DatabaseName::versioned("kube", 1)?.as_str(), "kube.v1");
/// assert!(DatabaseName::new("../kube").is_err());
/// # Ok::<(), dqlite::DatabaseNameError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DatabaseName(String);

impl DatabaseName {
    /// Checks and takes a name.
    pub fn new(name: &str) -> Result<DatabaseName, DatabaseNameError> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        if name.is_empty() || name.len() > DATABASE_NAME_BYTES_MAX {
            return Err(DatabaseNameError::Length { length: name.len() });
        }
        if !name.as_bytes()[0].is_ascii_lowercase() || !name.bytes().all(allowed) {
            return Err(DatabaseNameError::Characters { name: name.to_string() });
        }
        Ok(DatabaseName(name.to_string()))
    }

    /// The name of one version of a database: "kube", 1 gives "kube.v1".
    pub fn versioned(name: &str, version: u32) -> Result<DatabaseName, DatabaseNameError> {
        DatabaseName::new(&format!("{name}.v{version}"))
    }

    /// The name as the wire carries it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DatabaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is not the name of a database.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DatabaseNameError {
    /// Empty or too long.
    #[error("database name has {length} bytes, 1 to {DATABASE_NAME_BYTES_MAX} are allowed")]
    Length {
        /// Bytes of the name given.
        length: usize,
    },
    /// Something else than lower-case letters, digits, dot, dash and underscore.
    #[error("database name {name:?} may hold a-z 0-9 . _ - only and begins with a letter")]
    Characters {
        /// The name given.
        name: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn database_names_are_checked() {
        assert!(DatabaseName::new("cluster").is_ok());
        assert_eq!(DatabaseName::new(""), Err(DatabaseNameError::Length { length: 0 }));
        assert!(DatabaseName::new(&"a".repeat(65)).is_err());
        for bad in ["Kube", "a b", "a/b", "1a", ".a", "a\0"] {
            assert!(DatabaseName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn generated_identities_differ() {
        let address = MemberAddress::from("a\0b");
        assert_ne!(MemberId::generate(&address), MemberId::generate(&address));
        assert_ne!(MemberId::generate(&address), MemberId::FIRST);
    }

    #[test]
    fn every_role_survives_its_code() {
        for role in [Role::Voter, Role::Standby, Role::Spare] {
            assert_eq!(Role::from_code(role.code()), Some(role));
        }
        assert_eq!(Role::from_code(3), None);
    }
}
