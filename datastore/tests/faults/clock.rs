//! Wall clocks that a test sets, one for each member: see `clock.c`.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What members need in their environment to see a clock.
pub struct Clock {
    file: std::fs::File,
    path: PathBuf,
    library: PathBuf,
}

/// Builds what is loaded into members.
pub fn build(dir: &Path) -> PathBuf {
    let library = dir.join("clock.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/clock.c");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
        .args([&library, &source])
        .output()
        .expect("the C compiler that builds dqlite is there");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    library
}

impl Clock {
    /// A clock that is right, kept in a file.
    pub fn new(library: &Path, path: PathBuf) -> Clock {
        let file = std::fs::File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let clock = Clock { file, path, library: library.to_owned() };
        clock.set(0);
        clock
    }

    /// Has it differ from the right time by so many seconds.
    pub fn set(&self, seconds: i64) {
        self.file.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }

    /// See above.
    pub fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        vec![("LD_PRELOAD", self.library.clone()), ("SKIFF_TEST_CLOCK", self.path.clone())]
    }
}
