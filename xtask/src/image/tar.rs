//! A tar writer for archives that come out the same, byte by byte, every time: no times, no
//! owners, no names of the machine.

use std::io::{self, Write};

const BLOCK: usize = 512;

/// Writes entries in the plain `ustar` form.
pub struct TarWriter<W: Write> {
    out: W,
}

impl<W: Write> TarWriter<W> {
    pub fn new(out: W) -> Self {
        Self { out }
    }

    pub fn folder(&mut self, name: &str, mode: u32) -> io::Result<()> {
        self.out.write_all(&header(&format!("{name}/"), mode, 0, b'5', "")?)
    }

    pub fn link(&mut self, name: &str, target: &str) -> io::Result<()> {
        self.out.write_all(&header(name, 0o777, 0, b'2', target)?)
    }

    pub fn file(&mut self, name: &str, mode: u32, data: &[u8]) -> io::Result<()> {
        self.out.write_all(&header(name, mode, data.len() as u64, b'0', "")?)?;
        self.out.write_all(data)?;
        let padding = data.len().next_multiple_of(BLOCK) - data.len();
        self.out.write_all(&[0; BLOCK][..padding])
    }

    /// Two empty blocks end an archive.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.out)
    }
}

fn header(name: &str, mode: u32, size: u64, kind: u8, target: &str) -> io::Result<[u8; BLOCK]> {
    if name.len() > 99 || target.len() > 99 {
        return Err(io::Error::other(format!("name too long for a tar header: {name} {target}")));
    }
    let mut block = [0u8; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, format!("{mode:07o}").as_bytes());
    put(108, b"0000000"); // owner
    put(116, b"0000000"); // group
    put(124, format!("{size:011o}").as_bytes());
    put(136, b"00000000000"); // time
    put(148, b"        "); // the checksum counts itself as spaces
    put(156, &[kind]);
    put(157, target.as_bytes());
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_tar_reads() {
        let mut writer = TarWriter::new(Vec::new());
        writer.folder("bin", 0o755).unwrap();
        writer.file("bin/one", 0o755, b"content").unwrap();
        writer.link("bin/two", "one").unwrap();
        let archive = writer.finish().unwrap();
        assert_eq!(archive.len(), BLOCK * (1 + 2 + 1 + 2));

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar");
        std::fs::write(&path, archive).unwrap();
        let out = std::process::Command::new("tar").arg("-tvf").arg(&path).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let listing = String::from_utf8(out.stdout).unwrap();
        let names: Vec<_> = listing.lines().map(|l| l.split_whitespace().nth(5).unwrap()).collect();
        assert_eq!(names, ["bin/", "bin/one", "bin/two"]);
    }

    #[test]
    fn a_name_that_does_not_fit_is_an_error() {
        assert!(TarWriter::new(Vec::new()).folder(&"x".repeat(100), 0o755).is_err());
    }
}
