//! The form of an archive: a tar file, so that `age --decrypt … | tar --list` opens one on a
//! machine without Skiff.
//!
//! ```text
//!   manifest.json            what follows, with the sha256 of each part
//!   kube.snapshot  pki/ca.key  …
//!   sha256                   of every byte before it: the manifest and the headers, too
//! ```
//!
//! The reader takes what the writer writes and nothing else; whoever reads believes nothing
//! before it has ended well.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::manifest::{self, FORMAT, Manifest};
use super::part;
use crate::tar::{BLOCK, Head, header, padding, read_header};

const MANIFEST: &str = "manifest.json";
const SUM: &str = "sha256";
/// Bytes copied at once.
const PIECE_BYTES: usize = 64 << 10;

/// Why a file is no good archive.
#[derive(Debug, thiserror::Error)]
pub enum FormError {
    #[error("the file is no archive of a cluster")]
    NotAnArchive,
    #[error("the archive is in form {found}, and this version reads up to {FORMAT}")]
    NewerFormat { found: u64 },
    #[error("the archive ends too early: it was cut, or not written to its end")]
    Cut,
    #[error("the archive is damaged: {0}")]
    Damaged(String),
    #[error("the archive cannot be read")]
    Read(#[source] io::Error),
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// What was read and compared.
#[derive(Debug)]
pub struct Contents {
    pub manifest: Manifest,
    /// All parts but the snapshots, which are files of the directory.
    pub small: BTreeMap<String, Vec<u8>>,
}

/// The sha256 in words.
pub fn sum_of(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

/// Writes an archive.
pub struct Writer<W> {
    out: W,
    sum: Sha256,
    time_s: u64,
}

impl<W: Write> Writer<W> {
    /// Begins with the manifest.
    pub fn begin(out: W, manifest: &Manifest) -> io::Result<Self> {
        let time_s = u64::try_from(manifest.taken.unix_timestamp()).unwrap_or_default();
        let mut writer = Self { out, sum: Sha256::new(), time_s };
        let bytes = manifest.to_bytes();
        writer.add(MANIFEST, bytes.len() as u64, &mut &*bytes)?;
        Ok(writer)
    }

    /// Adds a part, which must have as many bytes as it is said to have.
    pub fn add(&mut self, name: &str, bytes: u64, content: &mut dyn Read) -> io::Result<()> {
        self.put(&header(name, bytes, self.time_s)?)?;
        let mut left = bytes;
        let mut piece = vec![0; PIECE_BYTES];
        while left > 0 {
            let wanted = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            content.read_exact(&mut piece[..wanted])?;
            self.put(&piece[..wanted])?;
            left -= wanted as u64;
        }
        self.put(&[0; BLOCK][..padding(bytes)])
    }

    /// Ends it, and gives back what it was written to.
    pub fn finish(mut self) -> io::Result<W> {
        let sum = HEXLOWER.encode(&self.sum.clone().finalize());
        self.add(SUM, sum.len() as u64, &mut sum.as_bytes())?;
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.update(bytes);
        self.out.write_all(bytes)
    }
}

/// Reads an archive to its end and compares everything. Snapshots become files of `dir`; without
/// one they are only compared.
pub fn read(source: impl Read, dir: Option<&Path>) -> Result<Contents, FormError> {
    let mut reader = Reader { source, sum: Sha256::new() };
    let head = reader.head()?.filter(|head| head.name == MANIFEST);
    let head = head.ok_or(FormError::NotAnArchive)?;
    let manifest = Manifest::parse(&reader.small(&head, manifest::BYTES_MAX)?)?;
    let mut small = BTreeMap::new();
    for wanted in &manifest.parts {
        let name = &wanted.name;
        let is_it = |head: &Head| head.name == *name && head.size == wanted.bytes;
        let damaged = |what: &str| FormError::Damaged(format!("{name} {what}"));
        let head = reader.head()?.filter(is_it);
        let head = head.ok_or_else(|| damaged("is not where it should be"))?;
        let sum = match (part::is_small(name), dir) {
            (true, _) => {
                let bytes = reader.small(&head, part::BYTES_MAX)?;
                let sum = sum_of(&bytes);
                small.insert(name.clone(), bytes);
                sum
            }
            (false, Some(dir)) => {
                let path = dir.join(name);
                let failed = |source| FormError::Write { path: path.clone(), source };
                let mut file = File::create_new(&path).map_err(failed)?;
                reader.copy(head.size, |piece| file.write_all(piece).map_err(failed))?
            }
            (false, None) => reader.copy(head.size, |_| Ok(()))?,
        };
        if sum != wanted.sha256 {
            return Err(damaged("is not what the manifest says"));
        }
    }
    reader.end()?;
    Ok(Contents { manifest, small })
}

struct Reader<R> {
    source: R,
    sum: Sha256,
}

impl<R: Read> Reader<R> {
    fn head(&mut self) -> Result<Option<Head>, FormError> {
        let mut block = [0; BLOCK];
        self.fill(&mut block)?;
        Ok(read_header(&block))
    }

    /// Believes no length that is beyond the bound.
    fn small(&mut self, head: &Head, bytes_max: u64) -> Result<Vec<u8>, FormError> {
        if head.size > bytes_max {
            return Err(FormError::Damaged(format!("{} has {} bytes", head.name, head.size)));
        }
        let mut bytes = Vec::new();
        self.copy(head.size, |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(bytes)
    }

    /// Hands a part over piece by piece; answers its sha256.
    fn copy(
        &mut self,
        bytes: u64,
        mut each: impl FnMut(&[u8]) -> Result<(), FormError>,
    ) -> Result<String, FormError> {
        let mut sum = Sha256::new();
        let mut left = bytes;
        let mut piece = vec![0; PIECE_BYTES];
        while left > 0 {
            let wanted = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.fill(&mut piece[..wanted])?;
            sum.update(&piece[..wanted]);
            each(&piece[..wanted])?;
            left -= wanted as u64;
        }
        let mut zeroes = [0; BLOCK];
        let zeroes = &mut zeroes[..padding(bytes)];
        self.fill(zeroes)?;
        if zeroes.iter().any(|byte| *byte != 0) {
            return Err(FormError::Damaged("something stands between its parts".into()));
        }
        Ok(HEXLOWER.encode(&sum.finalize()))
    }

    /// The sum of everything, two empty blocks, and nothing more.
    fn end(mut self) -> Result<(), FormError> {
        let expected = HEXLOWER.encode(&self.sum.clone().finalize());
        let damaged = |what: &str| FormError::Damaged(what.into());
        let head = self.head()?.filter(|head| head.name == SUM);
        let head = head.ok_or_else(|| damaged("its sum is not where it should be"))?;
        if self.small(&head, BLOCK as u64)? != expected.as_bytes() {
            return Err(damaged("its sum is another"));
        }
        let mut end = [0; 2 * BLOCK];
        self.fill(&mut end)?;
        let mut beyond = [0; 1];
        let beyond = self.source.read(&mut beyond).map_err(failed)?;
        match end.iter().all(|byte| *byte == 0) && beyond == 0 {
            true => Ok(()),
            false => Err(damaged("something stands behind its end")),
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), FormError> {
        self.source.read_exact(bytes).map_err(failed)?;
        self.sum.update(bytes);
        Ok(())
    }
}

/// What the encryption says of bytes that are not as they were written comes as an error of
/// reading.
fn failed(error: io::Error) -> FormError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => FormError::Cut,
        io::ErrorKind::InvalidData => {
            FormError::Damaged("its encryption says that it was changed or cut".into())
        }
        _ => FormError::Read(error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::manifest::tests::sample;
    use super::*;

    const PARTS: [(&str, &[u8]); 3] =
        [("kube.snapshot", &[7; 1500]), ("pki/ca.key", b"a key"), ("settings/skiff.toml", b"")];

    fn archive() -> Vec<u8> {
        let mut writer = Writer::begin(Vec::new(), &sample(&PARTS)).unwrap();
        for (name, mut content) in PARTS {
            writer.add(name, content.len() as u64, &mut content).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn what_was_written_reads_back_and_tar_opens_it() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = archive();
        let contents = read(&*bytes, Some(dir.path())).unwrap();
        assert_eq!(contents.manifest, sample(&PARTS));
        assert_eq!(contents.small["pki/ca.key"], b"a key");
        assert_eq!(contents.small["settings/skiff.toml"], b"");
        assert_eq!(std::fs::read(dir.path().join("kube.snapshot")).unwrap(), [7; 1500]);
        std::fs::write(dir.path().join("a.tar"), &bytes).unwrap();
        let mut tar = std::process::Command::new("tar");
        let out = tar.args(["xf", "a.tar", "pki/ca.key"]).current_dir(dir.path()).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        assert_eq!(std::fs::read(dir.path().join("pki/ca.key")).unwrap(), b"a key");
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_noticed() {
        let bytes = archive();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(read(&*changed, None).is_err(), "byte {at}");
            let cut = read(&bytes[..at], None);
            assert!(matches!(cut, Err(FormError::Cut)), "cut at {at}: {cut:?}");
        }
        let longer = [&bytes[..], b"x"].concat();
        assert!(matches!(read(&*longer, None), Err(FormError::Damaged(_))));
    }

    #[test]
    fn something_else_is_no_archive() {
        let tar = header("other", 0, 0).unwrap();
        for bytes in [&[7; 5000][..], &tar] {
            assert!(matches!(read(bytes, None), Err(FormError::NotAnArchive)));
        }
    }
}
