//! A mounted disk as processes see it. Needs root and /dev/fuse; skips without.
#![allow(clippy::unwrap_used)] // a test that panics says where

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use lossy_disk::{Disk, Faults, Loss};
use nix::fcntl::OFlag;
use tempfile::TempDir;

fn mount(home: &TempDir) -> Option<Disk> {
    if !nix::unistd::getuid().is_root() || fs::metadata("/dev/fuse").is_err() {
        eprintln!("skipped: a file system in user space needs root and /dev/fuse");
        return None;
    }
    let at = home.path().join("disk");
    fs::create_dir(&at).unwrap();
    Some(Disk::mount(&at, 1 << 20).unwrap())
}

fn sync_dir(dir: &Path) {
    File::open(dir).unwrap().sync_all().unwrap();
}

#[test]
fn files_names_and_directories_live_as_long_as_they_were_synced() {
    let home = TempDir::new().unwrap();
    let Some(mut disk) = mount(&home) else { return };
    let path = disk.path().to_owned();
    fs::create_dir(path.join("dir")).unwrap();
    let mut file = File::create(path.join("dir/file")).unwrap();
    file.write_all(b"synced").unwrap();
    file.sync_all().unwrap();
    sync_dir(&path.join("dir"));
    sync_dir(&path);
    file.write_all(b" and not").unwrap();
    fs::write(path.join("dir/other"), "nameless").unwrap();
    fs::rename(path.join("dir"), path.join("moved")).unwrap();
    assert_eq!(fs::read(path.join("moved/file")).unwrap(), b"synced and not");
    drop(file);
    disk.power_cut(Loss::All).unwrap();
    assert_eq!(fs::read(path.join("dir/file")).unwrap(), b"synced");
    assert_eq!(fs::read_dir(path.join("dir")).unwrap().count(), 1);
    assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
}

#[test]
fn a_write_that_is_asked_to_be_synced_is_durable_and_counted_once() {
    let home = TempDir::new().unwrap();
    let Some(mut disk) = mount(&home) else { return };
    let path = disk.path().join("file");
    let flags = OFlag::O_DSYNC.bits();
    let mut options = File::options();
    let mut file = options.create(true).write(true).custom_flags(flags).open(&path).unwrap();
    sync_dir(disk.path());
    let before = disk.counts();
    for _ in 0..10 {
        file.write_all(&[7; 100]).unwrap();
    }
    let after = disk.counts();
    assert_eq!(
        (after.syncs - before.syncs, after.written_bytes - before.written_bytes),
        (10, 1000)
    );
    drop(file);
    disk.power_cut(Loss::All).unwrap();
    assert_eq!(fs::read(&path).unwrap(), [7; 1000]);
}

#[test]
fn a_disk_is_full_ill_slow_and_well_again() {
    let home = TempDir::new().unwrap();
    let Some(disk) = mount(&home) else { return };
    let path = disk.path().join("file");
    let full = fs::write(&path, vec![1; 2 << 20]).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    disk.set_capacity(4 << 20);
    fs::write(&path, vec![1; 2 << 20]).unwrap();
    assert_eq!(disk.used(), 2 << 20);

    disk.set_faults(Faults { fail_writes: true, ..Faults::default() });
    let ill = fs::write(&path, "x").unwrap_err();
    assert_eq!(ill.raw_os_error(), Some(nix::errno::Errno::EIO as i32));

    let delay = Duration::from_millis(50);
    disk.set_faults(Faults { sync_delay: delay, ..Faults::default() });
    let mut file = File::create(&path).unwrap();
    file.write_all(b"x").unwrap();
    let began = Instant::now();
    file.sync_all().unwrap();
    assert!(began.elapsed() >= delay);
}
