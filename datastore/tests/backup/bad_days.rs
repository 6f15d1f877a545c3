//! Harmed files, killed processes, full disks, wrong directories.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use skiff_datastore::backup::build::look;
use skiff_datastore::backup::place::PlaceError;
use skiff_datastore::backup::restore::verify;
use skiff_datastore::backup::{BackupError, Opening, RestoreError, restore, take};
use skiff_datastore::digest::Digest;
use skiff_datastore::snapshot::SnapshotError;
use tempfile::TempDir;

use crate::child::{start_backup, start_restore};
use crate::daemon::Daemon;
use crate::{backup, names, restore_options, take_options};

/// Where the frames of a plain backup begin.
fn frames(bytes: &[u8]) -> Vec<usize> {
    let mut places = vec![0, 8, 9, 49];
    let mut place = 49;
    loop {
        let length = u32::from_le_bytes(bytes[place..place + 4].try_into().unwrap()) as usize;
        place += 4 + length;
        places.extend([place, place + 4]);
        if length == 0 {
            return places;
        }
    }
}

#[tokio::test]
async fn a_file_that_was_harmed_or_cut_anywhere_is_refused_and_touches_nothing() {
    let home = TempDir::new().unwrap();
    let daemon = Daemon::start(&home.path().join("data")).await;
    daemon.fill(3000).await;
    let taken = backup(daemon.listen(), home.path()).await.unwrap();
    let good = std::fs::read(&taken.path).unwrap();
    let frames = frames(&good);
    assert!(frames.len() > 8, "several frames: {frames:?}");
    let options = restore_options(home.path().join("new"));
    let bad = home.path().join("bad");
    let sampled = (0..good.len()).step_by(good.len() / 200);
    let around = frames.iter().flat_map(|place| place.saturating_sub(2)..place + 3);
    for place in around.chain(sampled).filter(|place| *place < good.len()) {
        let mut bytes = good.clone();
        bytes[place] ^= 1;
        std::fs::write(&bad, bytes).unwrap();
        let error = restore(&bad, &options).await.expect_err(&format!("flipped at {place}"));
        assert!(matches!(error, RestoreError::Backup { .. }), "{place}: {error:?}");
        std::fs::write(&bad, &good[..place]).unwrap();
        let error = restore(&bad, &options).await.expect_err(&format!("cut at {place}"));
        assert!(matches!(error, RestoreError::Backup { .. }), "{place}: {error:?}");
    }
    let mut newer = good;
    newer[8] += 1;
    std::fs::write(&bad, newer).unwrap();
    let error = restore(&bad, &options).await.unwrap_err();
    let RestoreError::Backup { source: SnapshotError::NewerFormat { found: 3 }, .. } = error else {
        panic!("{error:?}");
    };
    let left = names(home.path());
    assert_eq!(left, ["backup", "bad", "data", "data.socket"]);
}

#[tokio::test]
async fn a_directory_in_use_or_not_empty_is_refused_and_a_replaced_one_is_kept() {
    let home = TempDir::new().unwrap();
    let dir = home.path().join("data");
    let daemon = Daemon::start(&dir).await;
    daemon.fill(50).await;
    let taken = backup(daemon.listen(), home.path()).await.unwrap();
    let later = daemon.put("later", "lost by the restore").await;
    let mut options = restore_options(dir.clone());
    let error = restore(&taken.path, &options).await.unwrap_err();
    assert!(matches!(error, RestoreError::Place(PlaceError::NotEmpty { .. })), "{error:?}");
    options.replace = true;
    let error = restore(&taken.path, &options).await.unwrap_err();
    assert!(matches!(error, RestoreError::Place(PlaceError::Runs { .. })), "{error:?}");
    assert_eq!(daemon.put("alive", "still").await, later + 1);
    drop(daemon);
    std::fs::remove_file(home.path().join("data.socket")).unwrap();
    let restored = restore(&taken.path, &options).await.unwrap();
    let former = home.path().join("data.former-now");
    assert_eq!(restored.former.as_deref(), Some(former.as_path()));
    assert_eq!(names(home.path()), ["backup", "data", "data.former-now"]);
    assert_eq!(look(&former).await.unwrap().revision.0, later + 1);
    assert_eq!(look(&dir).await.unwrap().digest, taken.summary.digest);
    let error = restore(&taken.path, &restore_options(taken.path.clone())).await.unwrap_err();
    assert!(matches!(error, RestoreError::Place(PlaceError::NotADirectory { .. })), "{error:?}");
}

/// A directory with a backup of something else than it holds, and the digests.
async fn two_states(home: &Path) -> (PathBuf, PathBuf, [Digest; 2]) {
    let dir = home.join("data");
    let daemon = Daemon::start(&dir).await;
    daemon.fill(600).await;
    let taken = backup(daemon.listen(), home).await.unwrap();
    daemon.put("later", "in the directory only").await;
    drop(daemon);
    std::fs::remove_file(home.join("data.socket")).unwrap();
    let old = look(&dir).await.unwrap().digest;
    (dir, taken.path, [old, taken.summary.digest])
}

#[tokio::test]
async fn a_restore_that_is_killed_leaves_the_old_state_or_the_new_one() {
    let home = TempDir::new().unwrap();
    let (dir, file, [old, new]) = two_states(home.path()).await;
    let began = Instant::now();
    assert!(start_restore(&file, &home.path().join("timing")).wait().unwrap().success());
    let whole = began.elapsed();
    let mut seen = [0, 0];
    for round in 0..12 {
        let mut child = start_restore(&file, &dir);
        // From its middle until shortly after its usual end.
        std::thread::sleep(whole.mul_f64(0.3 + 0.07 * f64::from(round)));
        child.kill().unwrap();
        child.wait().unwrap();
        let found = look(&dir).await.unwrap().digest;
        assert!(found == old || found == new, "round {round}");
        seen[usize::from(found == new)] += 1;
    }
    println!("{seen:?} old and new after {whole:?}");
    assert!(seen[0] > 0, "no restore was killed in time");
    assert!(start_restore(&file, &dir).wait().unwrap().success());
    assert_eq!(look(&dir).await.unwrap().digest, new);
    let left = names(home.path());
    assert!(!left.iter().any(|name| name.starts_with('.')), "{left:?}");
    // The first directory is still there under another name.
    let mut kept = 0;
    for name in left.iter().filter(|name| name.starts_with("data.former-")) {
        kept += usize::from(look(&home.path().join(name)).await.unwrap().digest == old);
    }
    assert_eq!(kept, 1, "{left:?}");
}

#[tokio::test]
async fn a_restore_ends_what_a_power_cut_interrupted() {
    let home = TempDir::new().unwrap();
    let (dir, file, [old, new]) = two_states(home.path()).await;
    // Cut while building, and cut right after the swap.
    std::fs::create_dir(home.path().join(".data.restoring-1")).unwrap();
    std::fs::write(home.path().join(".data.restoring-1/half"), "half").unwrap();
    std::fs::rename(&dir, home.path().join(".data.restored-2")).unwrap();
    std::fs::create_dir(home.path().join(".other.restoring-1")).unwrap();
    restore(&file, &restore_options(dir.clone())).await.unwrap();
    assert_eq!(look(&dir).await.unwrap().digest, new);
    assert_eq!(look(&home.path().join("data.former-2")).await.unwrap().digest, old);
    assert_eq!(names(home.path()), [".other.restoring-1", "backup", "data", "data.former-2"]);
}

#[tokio::test]
async fn a_backup_that_is_killed_leaves_the_former_file_or_a_whole_one() {
    let home = TempDir::new().unwrap();
    let daemon = Daemon::start(&home.path().join("data")).await;
    daemon.fill(600).await;
    let target = TempDir::new().unwrap();
    let began = Instant::now();
    assert!(start_backup(&daemon.listen(), target.path()).wait().unwrap().success());
    let whole = began.elapsed();
    let file = target.path().join("backup");
    let mut former = verify(&file, &Opening::Plain).await.unwrap();
    let mut kept = 0;
    for round in 0..10 {
        daemon.put("round", &round.to_string()).await;
        let mut child = start_backup(&daemon.listen(), target.path());
        std::thread::sleep(whole.mul_f64(0.1 + 0.1 * f64::from(round)));
        child.kill().unwrap();
        child.wait().unwrap();
        let found = verify(&file, &Opening::Plain).await.unwrap();
        assert!(found.revision >= former.revision);
        kept += usize::from(found == former);
        former = found;
    }
    assert!(kept > 0, "no backup was killed in time");
    backup(daemon.listen(), target.path()).await.unwrap();
    let left = names(target.path());
    assert!(!left.iter().any(|name| name.ends_with(".partial")), "{left:?}");
}

#[tokio::test]
async fn a_source_that_dies_or_is_not_there_leaves_no_backup() {
    let home = TempDir::new().unwrap();
    let target = TempDir::new().unwrap();
    let nobody = skiff_datastore::Listen::Unix(home.path().join("nobody"));
    let error = backup(nobody, target.path()).await.unwrap_err();
    assert!(matches!(error, BackupError::Source(_)), "{error:?}");
    let daemon = Daemon::start(&home.path().join("data")).await;
    daemon.fill(600).await;
    let from = daemon.listen();
    let path = target.path().to_owned();
    let taking = tokio::spawn(async move { backup(from, &path).await });
    tokio::time::sleep(Duration::from_millis(15)).await;
    drop(daemon);
    // Whatever it had by then: a good backup or an error.
    match taking.await.unwrap() {
        Ok(taken) => drop(verify(&taken.path, &Opening::Plain).await.unwrap()),
        Err(error) => {
            assert!(matches!(error, BackupError::Source(_)), "{error:?}");
            assert!(names(target.path()).is_empty());
        }
    }
}

/// A small file system, gone with its value.
struct Small(TempDir);

impl Small {
    fn mount(size: &str) -> Option<Small> {
        let dir = TempDir::new().unwrap();
        let option = format!("size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &option, "tmpfs"]).arg(dir.path());
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        if !mounted {
            eprintln!("skipped: a file system can't be mounted here (needs root)");
        }
        mounted.then_some(Small(dir))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "it stays mounted");
    }
}

#[tokio::test]
async fn a_full_target_is_named_and_keeps_its_former_backup() {
    let home = TempDir::new().unwrap();
    let daemon = Daemon::start(&home.path().join("data")).await;
    daemon.fill(50).await;
    let Some(small) = Small::mount("1m") else { return };
    let target = small.0.path();
    let options = take_options(daemon.listen(), home.path());
    let taken = take(&options, target, |_| "backup".into()).await.unwrap();
    let free = (1 << 20) - taken.bytes as usize - (16 << 10);
    std::fs::write(target.join("filler"), vec![0; free]).unwrap();
    for number in 0..3000 {
        daemon.put(&format!("more{number}"), &number.to_string()).await;
    }
    let error = take(&options, target, |_| "backup".into()).await.unwrap_err();
    let BackupError::Write { source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(names(target), ["backup", "filler"]);
    assert_eq!(verify(&taken.path, &Opening::Plain).await.unwrap(), taken.summary);
}

#[tokio::test]
async fn a_restore_without_space_leaves_the_directory_as_it_was() {
    let home = TempDir::new().unwrap();
    let (_, file, _) = two_states(home.path()).await;
    let Some(small) = Small::mount("40m") else { return };
    let options = restore_options(small.0.path().join("data"));
    let error = restore(&file, &options).await.unwrap_err();
    assert!(matches!(error, RestoreError::Build { .. }), "{error:?}");
    assert!(names(small.0.path()).is_empty());
}
