//! Linux capabilities by name, and which of them a daemon keeps.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Names in the order of their numbers (capabilities(7)).
const NAMES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// One capability, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Capability(u8);

/// A name that capabilities(7) does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown capability {0:?}")]
pub struct UnknownCapability(String);

impl Capability {
    /// `name` is lower case and has no `cap_`: `net_admin`.
    pub fn named(name: &str) -> Result<Self, UnknownCapability> {
        NAMES
            .iter()
            .position(|known| *known == name)
            .map(|number| Self(number as u8))
            .ok_or_else(|| UnknownCapability(name.to_owned()))
    }

    pub fn number(self) -> u8 {
        self.0
    }

    pub fn name(self) -> &'static str {
        NAMES[usize::from(self.0)]
    }
}

/// Which capabilities a daemon keeps, each with the reason why it must.
///
/// Written as a table of name and reason; the one name `all` stands for every capability.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub enum Keep {
    /// Whatever the supervisor itself has, and why.
    All(String),
    /// These and no others; none when empty.
    Only(BTreeMap<Capability, String>),
}

impl Keep {
    pub fn none() -> Self {
        Self::Only(BTreeMap::new())
    }

    /// Bit n is capability n; `None` when all are kept.
    pub fn mask(&self) -> Option<u64> {
        match self {
            Self::All(_) => None,
            Self::Only(kept) => {
                Some(kept.keys().fold(0, |mask, capability| mask | 1 << capability.number()))
            }
        }
    }
}

impl TryFrom<BTreeMap<String, String>> for Keep {
    type Error = UnknownCapability;

    fn try_from(mut table: BTreeMap<String, String>) -> Result<Self, UnknownCapability> {
        if table.len() == 1
            && let Some(reason) = table.remove("all")
        {
            return Ok(Self::All(reason));
        }
        let named = |(name, reason): (String, String)| Ok((Capability::named(&name)?, reason));
        Ok(Self::Only(table.into_iter().map(named).collect::<Result<_, UnknownCapability>>()?))
    }
}

impl From<Keep> for BTreeMap<String, String> {
    fn from(keep: Keep) -> Self {
        match keep {
            Keep::All(reason) => [("all".to_owned(), reason)].into(),
            Keep::Only(kept) => {
                kept.into_iter().map(|(c, reason)| (c.name().to_owned(), reason)).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_kernel() {
        for (name, number) in [("chown", 0), ("net_admin", 12), ("sys_admin", 21), ("bpf", 39)] {
            assert_eq!(Capability::named(name).expect("known").number(), number);
        }
    }

    #[test]
    fn an_unknown_name_is_refused() {
        let table = BTreeMap::from([("net_amdin".to_owned(), String::new())]);
        let error = Keep::try_from(table).expect_err("refused");
        assert_eq!(error.to_string(), "unknown capability \"net_amdin\"");
    }
}
