//! A tar.gz that is written as it grows, so that a crash leaves what was gathered so far.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::tar::{BLOCK, header, padding};

/// An archive of text files in one folder.
pub struct Archive {
    out: GzEncoder<File>,
    folder: String,
    time_s: u64,
}

impl Archive {
    /// Makes `path`, readable by its owner only; it must not be there.
    pub fn create(path: &Path, folder: &str, time_s: u64) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Self {
            out: GzEncoder::new(file, Compression::default()),
            folder: folder.into(),
            time_s,
        })
    }

    /// Adds one file.
    pub fn add(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let name = format!("{}/{name}", self.folder);
        self.out.write_all(&header(&name, content.len() as u64, self.time_s)?)?;
        self.out.write_all(content)?;
        self.out.write_all(&[0; BLOCK][..padding(content.len() as u64)])
    }

    /// Two empty blocks end an archive.
    pub fn finish(mut self) -> io::Result<()> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.finish()?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tar_reads_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar.gz");
        let mut archive = Archive::create(&path, "inspect", 1_700_000_000).unwrap();
        archive.add("one.txt", b"content").unwrap();
        archive.add("logs/two.log", &[b'x'; 1024]).unwrap();
        archive.finish().unwrap();
        let out = std::process::Command::new("tar")
            .args(["xzf", "a.tar.gz"])
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        assert_eq!(std::fs::read(dir.path().join("inspect/one.txt")).unwrap(), b"content");
        assert_eq!(std::fs::read(dir.path().join("inspect/logs/two.log")).unwrap().len(), 1024);
    }

    #[test]
    fn a_file_that_is_there_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar.gz");
        std::fs::write(&path, "mine").unwrap();
        assert!(Archive::create(&path, "inspect", 0).is_err());
        assert_eq!(std::fs::read_to_string(path).unwrap(), "mine");
    }
}
