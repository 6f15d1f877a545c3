//! Encryption of backups, in the format of age (age-encryption.org/v1): what
//! we seal, `age` opens, also on a machine without Skiff.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use age::secrecy::{ExposeSecret, SecretString};
use age::{Decryptor, Encryptor, Identity, Recipient, scrypt, x25519};

/// What an age file begins with.
const MAGIC: &[u8] = b"age-encryption.org/v1\n";
/// A passphrase is stretched 2^this times: about a second, as `age` does it.
const WORK_FACTOR: u8 = 18;
/// A file that asks for more work than this (16 s) is refused.
const WORK_FACTOR_MAX: u8 = 22;
/// A file of keys or a passphrase is no longer than this.
const KEY_FILE_BYTES_MAX: u64 = 64 << 10;

/// Why a backup can't be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("can't read {path}")]
    KeyFile {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} holds no passphrase")]
    EmptyPassphrase { path: PathBuf },
    #[error("{path} holds no identity (a line that begins with AGE-SECRET-KEY-1)")]
    NoIdentity { path: PathBuf },
    #[error("{text:?} is no recipient (age1…)")]
    Recipient { text: String },
    #[error("the backup is encrypted, and no key was given")]
    Locked,
    #[error("the backup is encrypted for other keys than the one given")]
    WrongKey,
    #[error("the passphrase is another one")]
    WrongPassphrase,
    #[error("the backup is encrypted with a passphrase, and none was given")]
    WantsPassphrase,
    #[error("the backup is encrypted for an identity, and a passphrase was given")]
    WantsIdentity,
    #[error("the encryption is damaged or of an unknown kind")]
    Damaged(#[source] age::DecryptError),
    #[error("can't read the backup")]
    Read(#[source] io::Error),
}

/// How a new backup is encrypted.
#[derive(Clone, Default)]
pub enum Sealing {
    /// Not at all.
    #[default]
    Plain,
    /// For the owners of these keys.
    Recipients(Vec<x25519::Recipient>),
    /// For who knows this.
    Passphrase(SecretString),
}

/// What opens backups.
#[derive(Clone, Default)]
pub enum Opening {
    /// Nothing: only plain ones.
    #[default]
    Plain,
    Identities(Vec<x25519::Identity>),
    Passphrase(SecretString),
}

impl Sealing {
    /// Reads recipients as `age-keygen` prints them.
    pub fn recipients(texts: &[String]) -> Result<Sealing, SealError> {
        let each = texts.iter().map(|text| {
            x25519::Recipient::from_str(text.trim())
                .map_err(|_| SealError::Recipient { text: text.clone() })
        });
        Ok(Sealing::Recipients(each.collect::<Result<_, _>>()?))
    }

    /// Reads a passphrase, the first line of a file.
    pub fn passphrase_file(path: &Path) -> Result<Sealing, SealError> {
        passphrase(path).map(Sealing::Passphrase)
    }

    /// Whether files are encrypted at all.
    pub fn is_sealed(&self) -> bool {
        !matches!(self, Sealing::Plain)
    }

    /// A way to write one file, and what opens that file again right away.
    /// For recipients that is a further key that lives in memory only: the
    /// file can be verified, and the owners' keys need not be here.
    pub fn begin(&self) -> (Seal, Opening) {
        match self {
            Sealing::Plain => (Seal(None), Opening::Plain),
            Sealing::Recipients(recipients) => {
                let own = x25519::Identity::generate();
                let own_recipient = own.to_public();
                let all =
                    recipients.iter().chain([&own_recipient]).map(|one| one as &dyn Recipient);
                let encryptor = Encryptor::with_recipients(all).expect("there is a recipient");
                (Seal(Some(encryptor)), Opening::Identities(vec![own]))
            }
            Sealing::Passphrase(passphrase) => {
                let mut recipient = scrypt::Recipient::new(passphrase.clone());
                recipient.set_work_factor(WORK_FACTOR);
                let all = std::iter::once(&recipient as &dyn Recipient);
                let encryptor = Encryptor::with_recipients(all).expect("there is a recipient");
                (Seal(Some(encryptor)), Opening::Passphrase(passphrase.clone()))
            }
        }
    }
}

/// Writes one file.
pub struct Seal(Option<Encryptor>);

impl Seal {
    /// Writes `file`, encrypted or not.
    pub fn write(self, file: File) -> io::Result<Sealed> {
        Ok(match self.0 {
            None => Sealed::Plain(file),
            Some(encryptor) => Sealed::Age(Box::new(encryptor.wrap_output(file)?)),
        })
    }
}

/// A file that is being written.
pub enum Sealed {
    Plain(File),
    Age(Box<age::stream::StreamWriter<File>>),
}

impl Sealed {
    /// Ends the encryption; without this the file can't be opened.
    pub fn finish(self) -> io::Result<File> {
        match self {
            Sealed::Plain(file) => Ok(file),
            Sealed::Age(writer) => writer.finish(),
        }
    }
}

impl Write for Sealed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Sealed::Plain(file) => file.write(bytes),
            Sealed::Age(writer) => writer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Sealed::Plain(file) => file.flush(),
            Sealed::Age(writer) => writer.flush(),
        }
    }
}

impl Opening {
    /// Reads identities as `age-keygen` writes them.
    pub fn identity_file(path: &Path) -> Result<Opening, SealError> {
        let text = read_key_file(path)?;
        let lines = text.expose_secret().lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let identities: Vec<_> =
            lines.filter_map(|line| x25519::Identity::from_str(line).ok()).collect();
        if identities.is_empty() {
            return Err(SealError::NoIdentity { path: path.to_owned() });
        }
        Ok(Opening::Identities(identities))
    }

    /// Reads a passphrase, the first line of a file.
    pub fn passphrase_file(path: &Path) -> Result<Opening, SealError> {
        passphrase(path).map(Opening::Passphrase)
    }

    /// Reads a backup from `source`, encrypted or not.
    pub fn open(
        &self,
        source: impl Read + Send + 'static,
    ) -> Result<Box<dyn Read + Send>, SealError> {
        let mut source = BufReader::new(source);
        let mut begin = Vec::new();
        let limited = &mut source.by_ref().take(MAGIC.len() as u64);
        limited.read_to_end(&mut begin).map_err(SealError::Read)?;
        let is_sealed = begin == MAGIC;
        let source = io::Cursor::new(begin).chain(source);
        if !is_sealed {
            return Ok(Box::new(source));
        }
        let decryptor = Decryptor::new_buffered(BufReader::new(source)).map_err(failed)?;
        match (self, decryptor.is_scrypt()) {
            (Opening::Plain, _) => Err(SealError::Locked),
            (Opening::Identities(_), true) => Err(SealError::WantsPassphrase),
            (Opening::Passphrase(_), false) => Err(SealError::WantsIdentity),
            (Opening::Identities(identities), false) => {
                let all = identities.iter().map(|identity| identity as &dyn Identity);
                Ok(Box::new(decryptor.decrypt(all).map_err(failed)?))
            }
            (Opening::Passphrase(passphrase), true) => {
                let mut identity = scrypt::Identity::new(passphrase.clone());
                identity.set_max_work_factor(WORK_FACTOR_MAX);
                let all = std::iter::once(&identity as &dyn Identity);
                let opened = decryptor.decrypt(all).map_err(|error| match failed(error) {
                    SealError::WrongKey => SealError::WrongPassphrase,
                    error => error,
                })?;
                Ok(Box::new(opened))
            }
        }
    }
}

fn failed(error: age::DecryptError) -> SealError {
    use age::DecryptError as Error;
    match error {
        Error::NoMatchingKeys | Error::DecryptionFailed | Error::KeyDecryptionFailed => {
            SealError::WrongKey
        }
        other => SealError::Damaged(other),
    }
}

fn passphrase(path: &Path) -> Result<SecretString, SealError> {
    let text = read_key_file(path)?;
    match text.expose_secret().lines().next() {
        Some(line) if !line.is_empty() => Ok(SecretString::from(line.to_owned())),
        _ => Err(SealError::EmptyPassphrase { path: path.to_owned() }),
    }
}

fn read_key_file(path: &Path) -> Result<SecretString, SealError> {
    let failed = |source| SealError::KeyFile { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mut text = String::new();
    file.take(KEY_FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    Ok(SecretString::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(sealing: &Sealing, content: &[u8]) -> (Vec<u8>, Opening) {
        let (seal, own) = sealing.begin();
        let mut file = seal.write(tempfile::tempfile().unwrap()).unwrap();
        file.write_all(content).unwrap();
        let mut file = file.finish().unwrap();
        let mut bytes = Vec::new();
        io::Seek::rewind(&mut file).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        (bytes, own)
    }

    fn opened(opening: &Opening, bytes: &[u8]) -> Result<io::Result<Vec<u8>>, SealError> {
        let mut reader = opening.open(io::Cursor::new(bytes.to_vec()))?;
        let mut content = Vec::new();
        Ok(reader.read_to_end(&mut content).map(|_| content))
    }

    #[test]
    fn only_the_right_key_opens() {
        let key = x25519::Identity::generate();
        let sealing = Sealing::recipients(&[key.to_public().to_string()]).unwrap();
        let (bytes, own) = sealed(&sealing, b"content");
        assert!(!bytes.windows(7).any(|part| part == b"content"));
        let right = Opening::Identities(vec![x25519::Identity::generate(), key]);
        assert_eq!(opened(&right, &bytes).unwrap().unwrap(), b"content");
        assert_eq!(opened(&own, &bytes).unwrap().unwrap(), b"content");
        let wrong = Opening::Identities(vec![x25519::Identity::generate()]);
        assert!(matches!(opened(&wrong, &bytes), Err(SealError::WrongKey)));
        assert!(matches!(opened(&Opening::Plain, &bytes), Err(SealError::Locked)));
        let passphrase = Opening::Passphrase(SecretString::from("word".to_owned()));
        assert!(matches!(opened(&passphrase, &bytes), Err(SealError::WantsIdentity)));
        assert!(Sealing::recipients(&["age1nobody".to_owned()]).is_err());
    }

    #[test]
    fn only_the_right_passphrase_opens() {
        let word = |text: &str| SecretString::from(text.to_owned());
        let (bytes, own) = sealed(&Sealing::Passphrase(word("right")), b"content");
        assert_eq!(opened(&own, &bytes).unwrap().unwrap(), b"content");
        let wrong = Opening::Passphrase(word("wrong"));
        assert!(matches!(opened(&wrong, &bytes), Err(SealError::WrongPassphrase)));
        let key = Opening::Identities(vec![x25519::Identity::generate()]);
        assert!(matches!(opened(&key, &bytes), Err(SealError::WantsPassphrase)));
    }

    #[test]
    fn a_sealed_file_that_was_harmed_or_cut_is_noticed() {
        let key = x25519::Identity::generate();
        let sealing = Sealing::Recipients(vec![key.to_public()]);
        let content = vec![7; 1000];
        let (bytes, own) = sealed(&sealing, &content);
        for position in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[position] ^= 1;
            let found = opened(&own, &bad);
            assert!(!matches!(found, Ok(Ok(found)) if found == content), "byte {position}");
            let found = opened(&own, &bytes[..position]);
            assert!(!matches!(found, Ok(Ok(found)) if found == content), "cut at {position}");
        }
    }

    #[test]
    fn keys_are_read_from_files() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("key");
        assert!(matches!(Opening::identity_file(&path), Err(SealError::KeyFile { .. })));
        std::fs::write(&path, "").unwrap();
        assert!(matches!(Opening::identity_file(&path), Err(SealError::NoIdentity { .. })));
        assert!(matches!(Sealing::passphrase_file(&path), Err(SealError::EmptyPassphrase { .. })));
        let key = x25519::Identity::generate();
        let text = format!("# created today\n{}\n", key.to_string().expose_secret());
        std::fs::write(&path, text).unwrap();
        assert!(
            matches!(Opening::identity_file(&path), Ok(Opening::Identities(all)) if all.len() == 1)
        );
    }
}
