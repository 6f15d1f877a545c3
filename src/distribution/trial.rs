//! A build on trial: selected, and not yet seen to work.
//!
//! Whoever hands a node over goes back when the new build does not become ready. A power cut ends
//! it as well, and the boot after it starts what is selected. So the trial is written down before
//! the build is selected, with the boot it happens in, and taken away when the build has proven
//! itself; one from an earlier boot was cut short.

use std::fs;
use std::io;
use std::path::Path;

use super::stage::{BuildId, StageError, current, staged};
use crate::durable;

const FILE: &str = "trial.json";

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Trial {
    former: BuildId,
    boot: String,
}

/// What the kernel calls the time since it was started (random(4), `boot_id`).
pub fn boot() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Notes that another build than `former` is about to be selected.
pub fn begin_trial(builds: &Path, former: &BuildId, boot: String) -> Result<(), StageError> {
    let trial = Trial { former: former.clone(), boot };
    let path = builds.join(FILE);
    serde_json::to_vec(&trial)
        .map_err(io::Error::from)
        .and_then(|bytes| durable::replace(&path, &bytes, 0o600))
        .map_err(|source| StageError::Io { path, source })
}

/// The selected build stays selected. Nothing happens when none is on trial.
pub fn end_trial(builds: &Path) -> Result<(), StageError> {
    match fs::remove_file(builds.join(FILE)) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(StageError::Io { path: builds.join(FILE), source })
        }
        _ => Ok(()),
    }
}

/// The build to go back to: that of a trial which an earlier boot began and never ended, if it is
/// still on disk. One that cannot be read is none.
pub fn cut_short(builds: &Path, boot: &str) -> Option<BuildId> {
    let text = fs::read(builds.join(FILE)).ok()?;
    let trial: Trial = serde_json::from_slice(&text).ok()?;
    let former = staged(builds, &trial.former.to_string())?;
    let selected = current(builds).map(|(id, _)| id);
    (trial.boot != boot && selected.as_ref() != Some(&former)).then_some(former)
}

#[cfg(test)]
mod tests {
    use super::super::stage::select;
    use super::*;

    fn build(builds: &Path, name: &str) -> BuildId {
        fs::create_dir_all(builds.join(name)).unwrap();
        fs::write(builds.join(name).join("components.toml"), "").unwrap();
        staged(builds, name).unwrap()
    }

    #[test]
    fn a_trial_that_the_power_ended_goes_back_and_no_other_does() {
        let dir = tempfile::tempdir().unwrap();
        let builds = dir.path();
        let (former, new) = (build(builds, "former"), build(builds, "new"));
        select(builds, &new).unwrap();
        assert_eq!(cut_short(builds, "now"), None, "there is none");

        begin_trial(builds, &former, "now".into()).unwrap();
        assert_eq!(cut_short(builds, "now"), None, "it is still under way");
        assert_eq!(cut_short(builds, "later"), Some(former.clone()));
        select(builds, &former).unwrap();
        assert_eq!(cut_short(builds, "later"), None, "it is undone");
        select(builds, &new).unwrap();

        end_trial(builds).unwrap();
        end_trial(builds).unwrap();
        assert_eq!(cut_short(builds, "later"), None, "the build has proven itself");

        begin_trial(builds, &former, "now".into()).unwrap();
        fs::remove_dir_all(builds.join("former")).unwrap();
        assert_eq!(cut_short(builds, "later"), None, "there is nothing to go back to");
        fs::write(builds.join(FILE), "{").unwrap();
        assert_eq!(cut_short(builds, "later"), None);
        assert_eq!(boot().unwrap().len(), 36);
    }
}
