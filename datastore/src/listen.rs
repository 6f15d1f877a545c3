//! Where the datastore listens, and how a client names that place.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::unistd::{Group, chown};
use tokio::net::{TcpListener, UnixListener, UnixStream};

/// A unix socket, or a TCP address of this machine alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Listen, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err("unix: is followed by the path of a socket".to_owned());
            }
            return Ok(Listen::Unix(path.into()));
        }
        let address = text.strip_prefix("http://").unwrap_or(text);
        let mut addresses = address
            .to_socket_addrs()
            .map_err(|error| format!("{text:?} is neither unix:PATH nor HOST:PORT: {error}"))?;
        match addresses.find(|address| is_loopback(address.ip())) {
            Some(address) => Ok(Listen::Tcp(address)),
            None => Err(format!("{text:?} is no loopback address, and plain TCP goes no further")),
        }
    }
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
            Listen::Tcp(address) => address.fmt(f),
        }
    }
}

/// Why listening failed.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("another process listens on {0}")]
    InUse(Listen),
    #[error("{path} is there and is no socket")]
    NotASocket { path: PathBuf },
    #[error("group {0:?} does not exist")]
    NoGroup(String),
    #[error("can't listen on {listen}")]
    Failed {
        listen: Listen,
        #[source]
        source: std::io::Error,
    },
}

/// A listener that is bound.
pub enum Bound {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listen {
    /// Binds. A socket that nobody listens on any more is replaced.
    pub async fn bind(&self, group: Option<&str>, mode: u32) -> Result<Bound, ListenError> {
        let failed = |source| ListenError::Failed { listen: self.clone(), source };
        match self {
            Listen::Tcp(address) => match TcpListener::bind(address).await {
                Ok(listener) => Ok(Bound::Tcp(listener)),
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                    Err(ListenError::InUse(self.clone()))
                }
                Err(error) => Err(failed(error)),
            },
            Listen::Unix(path) => {
                self.remove_stale(path).await?;
                bind_unix(path, group, mode).map(Bound::Unix).map_err(|error| match error {
                    BindError::NoGroup(name) => ListenError::NoGroup(name),
                    BindError::Io(source) => failed(source),
                })
            }
        }
    }

    async fn remove_stale(&self, path: &Path) -> Result<(), ListenError> {
        let Ok(found) = std::fs::symlink_metadata(path) else { return Ok(()) };
        if !found.file_type().is_socket() {
            return Err(ListenError::NotASocket { path: path.to_owned() });
        }
        if UnixStream::connect(path).await.is_ok() {
            return Err(ListenError::InUse(self.clone()));
        }
        std::fs::remove_file(path)
            .map_err(|source| ListenError::Failed { listen: self.clone(), source })
    }
}

enum BindError {
    NoGroup(String),
    Io(std::io::Error),
}

impl From<std::io::Error> for BindError {
    fn from(error: std::io::Error) -> Self {
        BindError::Io(error)
    }
}

/// Binds beside the final name and moves the socket there when its owner and
/// permissions are right, so that nobody else can ever connect.
fn bind_unix(path: &Path, group: Option<&str>, mode: u32) -> Result<UnixListener, BindError> {
    let group = match group {
        None => None,
        Some(name) => {
            let found = Group::from_name(name).map_err(std::io::Error::from)?;
            Some(found.ok_or_else(|| BindError::NoGroup(name.to_owned()))?.gid)
        }
    };
    let mut unready = path.as_os_str().to_owned();
    unready.push(".new");
    let unready = PathBuf::from(unready);
    let _ = std::fs::remove_file(&unready);
    let listener = UnixListener::bind(&unready)?;
    if let Some(group) = group {
        chown(&unready, None, Some(group)).map_err(std::io::Error::from)?;
    }
    std::fs::set_permissions(&unready, std::fs::Permissions::from_mode(mode))?;
    std::fs::rename(&unready, path)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_and_loopback_addresses_are_taken() {
        assert_eq!("unix:/run/a.sock".parse(), Ok(Listen::Unix("/run/a.sock".into())));
        assert_eq!("unix:///run/a.sock".parse(), Ok(Listen::Unix("/run/a.sock".into())));
        assert_eq!("127.0.0.1:2379".parse(), Ok(Listen::Tcp(([127, 0, 0, 1], 2379).into())));
        assert!("[::1]:2379".parse::<Listen>().is_ok());
        for bad in ["0.0.0.0:2379", "10.0.0.1:1", "unix:", "here", "[::]:1"] {
            assert!(bad.parse::<Listen>().is_err(), "{bad}");
        }
    }
}
