//! A small JSON file that outlives damage to its blocks: it ends in its checksum, and there are two.
//!
//! ```text
//! member.json        text, "sha256 <64 hex digits>"
//! member.json.copy   the same, written after it
//! ```
//!
//! Each is written beside its place and moved there, so a crash leaves either the former one or the
//! new one, and both of one content but between the two moves. The copy is read only when the first
//! is damaged or gone. A first one without a checksum is taken as it is: earlier versions wrote it.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use sha2::{Digest, Sha256};
use tracing::error;

const MARK: &[u8] = b"sha256 ";

/// What lies at a place.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    Nothing,
    Text(Vec<u8>),
    /// Both are harmed.
    Damage,
}

/// Whether there is one of the two.
pub fn exists(path: &Path) -> bool {
    path.exists() || copy_of(path).exists()
}

/// Reads the one that is sound.
pub fn read(path: &Path) -> io::Result<Found> {
    let first = read_one(path)?;
    if let Found::Text(_) = first {
        return Ok(first);
    }
    match (first, read_one(&copy_of(path))?) {
        (first, Found::Text(text)) => {
            let how = if first == Found::Nothing { "gone" } else { "damaged" };
            error!(path = %path.display(), "this file is {how}; its copy is used");
            Ok(Found::Text(text))
        }
        (Found::Nothing, Found::Nothing) => Ok(Found::Nothing),
        _ => Ok(Found::Damage),
    }
}

/// Writes both; on an error one or both are as before.
pub fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut content = text.to_vec();
    if !content.ends_with(b"\n") {
        content.push(b'\n');
    }
    let sum = hex(&content);
    content.extend_from_slice(MARK);
    content.extend_from_slice(sum.as_bytes());
    content.push(b'\n');
    write_one(path, &content)?;
    write_one(&copy_of(path), &content)
}

fn copy_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".copy");
    name.into()
}

fn read_one(path: &Path) -> io::Result<Found> {
    match std::fs::read(path) {
        Ok(content) => Ok(verified(content).map_or(Found::Damage, Found::Text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
        Err(error) => Err(error),
    }
}

/// The text without its checksum, if that is right.
fn verified(mut content: Vec<u8>) -> Option<Vec<u8>> {
    let line = content.strip_suffix(b"\n").unwrap_or(&content);
    let start = line.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let Some(sum) = line[start..].strip_prefix(MARK) else {
        // Of an earlier version, if it is whole.
        return serde_json::from_slice::<IgnoredAny>(&content).is_ok().then_some(content);
    };
    let right = sum == hex(&content[..start]).as_bytes();
    content.truncate(start);
    right.then_some(content)
}

fn hex(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn write_one(path: &Path, content: &[u8]) -> io::Result<()> {
    let unready = path.with_extension("new");
    let mut file = File::create(&unready)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&unready, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"{\n  \"id\": 7,\n  \"peers\": {}\n}\n";

    fn written() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("member.json");
        write(&path, TEXT).unwrap();
        (dir, path)
    }

    #[test]
    fn any_one_damage_of_either_file_is_survived() {
        let (_dir, path) = written();
        let sound =
            |found| matches!(found, Found::Text(text) if text.trim_ascii() == TEXT.trim_ascii());
        let whole = std::fs::read(&path).unwrap();
        for place in [path.clone(), copy_of(&path)] {
            for at in 0..whole.len() {
                let mut harmed = whole.clone();
                harmed[at] ^= 0x10;
                std::fs::write(&place, &harmed).unwrap();
                assert!(sound(read(&path).unwrap()), "byte {at}");
                std::fs::write(&place, &whole[..at]).unwrap();
                assert!(sound(read(&path).unwrap()), "cut at {at}");
            }
            std::fs::remove_file(&place).unwrap();
            assert_eq!(read(&path).unwrap(), Found::Text(TEXT.into()));
            std::fs::write(&place, &whole).unwrap();
        }
    }

    #[test]
    fn damage_of_both_is_told_and_nothing_is_nothing() {
        let (_dir, path) = written();
        for place in [path.clone(), copy_of(&path)] {
            std::fs::write(place, b"\0\0\0").unwrap();
        }
        assert_eq!(read(&path).unwrap(), Found::Damage);
        for place in [path.clone(), copy_of(&path)] {
            std::fs::remove_file(place).unwrap();
        }
        assert_eq!(read(&path).unwrap(), Found::Nothing);
    }

    #[test]
    fn a_file_of_an_earlier_version_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("member.json");
        std::fs::write(&path, TEXT).unwrap();
        assert_eq!(read(&path).unwrap(), Found::Text(TEXT.into()));
    }
}
