//! What a person is told of settings: own ones that do not count, and shared ones that could not be
//! taken up. Pure.

use skiff_api::Notice;

use super::Kept;
use crate::config::Config;

const IDLE: &str = "setting-idle";
const FAILED: &str = "settings-not-taken-up";

/// A line for each setting of the node's own files that does not count: what it says, and what holds.
pub fn idle(config: &Config) -> Vec<String> {
    let idle = config.own().iter().filter(|(_, own)| !own.is_added);
    idle.map(|(key, own)| {
        let holds = config.settings().into_iter().find(|setting| setting.key == *key);
        let holds = holds.map(|setting| setting.value).unwrap_or_default();
        format!("{}: {key} = {} does not count: the cluster has {holds}", own.origin, own.value)
    })
    .collect()
}

/// In the place of former ones of this kind, before all others.
pub fn renew(notices: &mut Vec<Notice>, config: &Config, kept: &Kept) {
    notices.retain(|notice| notice.name != IDLE && notice.name != FAILED);
    let idle = idle(config).into_iter().map(|message| Notice {
        name: IDLE.into(),
        message,
        remedy: Some("take that line out, or `skiff set` the value for all nodes".into()),
    });
    let failed = kept.failed.as_ref().map(|failed| Notice {
        name: FAILED.into(),
        message: format!(
            "this node goes on with the settings of revision {}; those of {} it could not take \
             up: {}",
            kept.set.revision, failed.revision, failed.reason
        ),
        remedy: Some("`skiff set` another value, or `skiff set --unset` it".into()),
    });
    notices.splice(0..0, failed.into_iter().chain(idle));
}

#[cfg(test)]
mod tests {
    use microcluster::record::{FailedSettings, SettingsRevision, SharedSettings};
    use serde_json::json;

    use super::*;
    use crate::config::{Shared, Sources};

    #[test]
    fn a_line_that_does_not_count_and_a_failure_are_told_until_they_are_over() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("skiff.toml");
        let text = "[network]\nmtu = 1300\n[kube]\nkubelet-args = [\"--v=2\"]\n";
        std::fs::write(&file, text).unwrap();
        let set = SharedSettings {
            revision: SettingsRevision(2),
            values: [
                ("network.mtu".to_owned(), json!(1400)),
                ("kube.kubelet-args".to_owned(), json!(["--v=3"])),
            ]
            .into(),
            ..SharedSettings::default()
        };
        let sources = Sources { file: file.clone(), snap: None };
        let config = Config::load_with(&sources, &Shared::set(set.clone())).unwrap();
        let failed = FailedSettings { revision: SettingsRevision(3), reason: "no".into() };
        let kept = Kept { set, failed: Some(failed) };
        let mut notices = vec![];
        for _ in 0..2 {
            renew(&mut notices, &config, &kept);
            let said: Vec<&str> = notices.iter().map(|notice| notice.message.as_str()).collect();
            let line = format!(
                "{}:2: network.mtu = 1300 does not count: the cluster has 1400",
                file.display()
            );
            let failed = "this node goes on with the settings of revision 2; those of 3 it could \
                          not take up: no";
            assert_eq!(said, [failed, &line], "flags that are added count");
        }
        renew(&mut notices, &Config::default(), &Kept::default());
        assert_eq!(notices, []);
    }
}
