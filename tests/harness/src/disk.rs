//! A disk of a test's own: a file with a file system in it, which can be filled and made read-only
//! without harm to the machine.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{FallocateFlags, fallocate};

use crate::run::run;

/// Mounted as long as it lives.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    place: PathBuf,
}

impl Disk {
    /// Makes a disk of that size and mounts it on the directory `place`.
    #[track_caller]
    pub fn mounted(place: &Path, mib: u64) -> Self {
        let image = place.with_extension("disk");
        let file = File::create(&image).expect("a file for the disk");
        file.set_len(mib << 20).expect("a sparse file");
        // No blocks are kept for root alone: full means full for every daemon.
        let make = ["-q", "-t", "ext4", "-m", "0", "-F"];
        run(Command::new("mke2fs").args(make).arg(&image)).must();
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(place)).must();
        Self { image, place: place.to_path_buf() }
    }

    /// `ro`, `rw`, `noexec`, …, as mount(8) has them.
    #[track_caller]
    pub fn remount(&self, option: &str) {
        let option = format!("remount,{option}");
        run(Command::new("mount").args(["-o", &option]).arg(&self.place)).must();
    }

    /// Takes every block that is free; dropping what it answers gives them back. The blocks are
    /// taken and not written: the disk under this one stays as empty as it was.
    #[track_caller]
    pub fn fill(&self) -> Filler {
        let path = self.place.join("filler");
        let file = File::create(&path).expect("a file that fills the disk");
        let mut taken = 0;
        for step in [1 << 30, 1 << 24, 1 << 16, 1 << 12] {
            while fallocate(&file, FallocateFlags::empty(), taken, step).is_ok() {
                taken += step;
            }
        }
        Filler { path }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = run(Command::new("umount").arg(&self.place));
        if !unmounted.ok() {
            eprintln!("{} stays mounted: {}", self.place.display(), unmounted.stderr);
        }
        let _ = std::fs::remove_file(&self.image);
    }
}

/// A file that takes all the room there was.
#[derive(Debug)]
pub struct Filler {
    path: PathBuf,
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
