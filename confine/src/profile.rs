//! What a daemon may do.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Keep;

/// Everything that a daemon is granted; what is not named here it does not get.
///
/// Users are numbers: names are resolved by the caller, so that nothing here reads `/etc`.
/// Later steps have their place as fields here and as files in `step/`: a mount namespace with
/// the daemon's own directories only, Landlock, a system call filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Profile {
    /// Who it runs as; whoever starts it when absent.
    pub user: Option<User>,
    pub capabilities: Keep,
    /// Set-user-id programs and file capabilities give it nothing.
    pub no_new_privileges: bool,
    /// Permissions that files it makes never have. An octal string in files: `"0027"`.
    #[serde(with = "octal")]
    pub umask: u32,
    pub limits: Limits,
    /// -1000 (never ended when memory is short) to 1000; lowering it needs CAP_SYS_RESOURCE.
    pub oom_score_adj: Option<i32>,
    /// How late the kernel may be with a timer, so that it wakes up for many at once, in
    /// milliseconds (PR_SET_TIMERSLACK, prctl(2)). Processes that it starts inherit it.
    pub timer_slack_ms: Option<u32>,
    /// Memory comes in small pages only (PR_SET_THP_DISABLE, prctl(2)), also where the machine
    /// gives huge ones to everybody. Processes that it starts inherit it.
    pub no_huge_pages: bool,
    pub working_directory: PathBuf,
    /// The whole environment: nothing is inherited.
    pub environment: Vec<(String, String)>,
    /// `cgroup.procs` files to join.
    pub cgroups: Vec<PathBuf>,
}

/// A user with its groups, by number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups; none of the starter's are kept.
    #[serde(default)]
    pub groups: Vec<u32>,
}

/// Resource limits; absent ones are left as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Descriptors it may have open.
    pub open_files: Option<u64>,
    /// Processes and threads of its user.
    pub processes: Option<u64>,
    /// Size of a core dump in bytes; 0 for daemons that hold secrets in memory.
    pub core_bytes: Option<u64>,
    /// Memory that it may lock, in bytes.
    pub locked_bytes: Option<u64>,
}

/// A profile that is not well formed.
#[derive(Debug, thiserror::Error)]
#[error("the profile is not well formed")]
pub struct ProfileError(#[from] toml::de::Error);

impl Default for Profile {
    fn default() -> Self {
        Self {
            user: None,
            capabilities: Keep::All("no profile was given".into()),
            no_new_privileges: false,
            umask: 0o027,
            limits: Limits::default(),
            oom_score_adj: None,
            timer_slack_ms: None,
            no_huge_pages: false,
            working_directory: "/".into(),
            environment: Vec::new(),
            cgroups: Vec::new(),
        }
    }
}

impl Profile {
    /// The profile that we ship for a daemon: `profiles/<daemon>.toml`.
    pub fn named(daemon: &str) -> Option<Self> {
        let text = SHIPPED.iter().find(|(name, _)| *name == daemon)?.1;
        Some(Self::from_toml(text).expect("a test reads every profile that we ship"))
    }

    pub fn from_toml(text: &str) -> Result<Self, ProfileError> {
        Ok(toml::from_str(text)?)
    }
}

const SHIPPED: [(&str, &str); 6] = [
    ("agent", include_str!("../profiles/agent.toml")),
    ("containerd", include_str!("../profiles/containerd.toml")),
    ("datastore", include_str!("../profiles/datastore.toml")),
    ("kine", include_str!("../profiles/kine.toml")),
    ("kube-control", include_str!("../profiles/kube-control.toml")),
    ("kube-node", include_str!("../profiles/kube-node.toml")),
];

mod octal {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{value:04o}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        let text = String::deserialize(deserializer)?;
        u32::from_str_radix(&text, 8)
            .ok()
            .filter(|value| *value <= 0o777)
            .ok_or_else(|| serde::de::Error::custom(format!("umask {text:?} is not octal")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_that_we_ship_is_well_formed() {
        for (name, text) in SHIPPED {
            Profile::from_toml(text).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        }
    }

    #[test]
    fn every_kept_capability_says_why() {
        for (name, text) in SHIPPED {
            match Profile::from_toml(text).expect("well formed").capabilities {
                Keep::All(reason) => assert!(reason.len() > 20, "{name} says why"),
                Keep::Only(kept) => {
                    for (capability, reason) in kept {
                        assert!(reason.len() > 10, "{name} says why it keeps {capability:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn unprivileged_daemons_keep_nothing() {
        for name in ["datastore", "kine", "kube-control"] {
            let profile = Profile::named(name).expect("shipped");
            assert_eq!(profile.capabilities, Keep::none(), "{name}");
            assert!(profile.no_new_privileges, "{name}");
        }
    }

    #[test]
    fn a_misspelt_field_is_refused() {
        assert!(Profile::from_toml("umaks = \"0027\"").is_err());
        assert!(Profile::from_toml("umask = \"0999\"").is_err());
    }

    #[test]
    fn a_profile_survives_its_way_through_json() {
        let mut profile = Profile::named("kube-node").expect("shipped");
        profile.user = Some(User { uid: 7, gid: 8, groups: vec![9] });
        let json = serde_json::to_string(&profile).expect("serializes");
        assert_eq!(serde_json::from_str::<Profile>(&json).expect("reads"), profile);
    }
}
