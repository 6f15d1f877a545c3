//! Looks at what a connection begins with, and takes nothing of it.
//!
//! A TLS connection begins with a ClientHello, which names the protocols that the client speaks
//! (ALPN). It is only peeked at: whoever gets the socket afterwards finds it untouched.

use std::io;
use std::time::Duration;

use rustix::net::{RecvFlags, recv};
use rustls::server::Acceptor;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// The longest ClientHello: ours has less than 2 KiB, post-quantum key shares included.
pub const HELLO_BYTES_MAX: usize = 8 << 10;

/// Why there is no ClientHello.
#[derive(Debug, thiserror::Error)]
pub enum HelloError {
    #[error("it went away")]
    Closed,
    #[error("it did not say within {0:?} what it wants")]
    TooSlow(Duration),
    #[error("its greeting is longer than {HELLO_BYTES_MAX} bytes")]
    TooLong,
    #[error("it does not speak TLS")]
    NotTls(#[source] rustls::Error),
    #[error("reading failed")]
    Read(#[source] io::Error),
}

/// What a client said of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// In the order in which it prefers them.
    pub protocols: Vec<Vec<u8>>,
}

/// Reads a ClientHello piece by piece.
#[derive(Default)]
pub struct HelloReader {
    acceptor: Acceptor,
    bytes: usize,
}

impl HelloReader {
    /// Takes in the next bytes; gives the ClientHello once it is there.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<Option<Hello>, HelloError> {
        self.bytes += bytes.len();
        while !bytes.is_empty() {
            // It fails when more is kept than a greeting may have.
            let taken = self.acceptor.read_tls(&mut bytes).map_err(|_| HelloError::TooLong)?;
            if taken == 0 {
                break;
            }
            match self.acceptor.accept() {
                Ok(Some(accepted)) => {
                    let hello = accepted.client_hello();
                    let protocols = hello.alpn().into_iter().flatten().map(<[u8]>::to_vec);
                    return Ok(Some(Hello { protocols: protocols.collect() }));
                }
                Ok(None) => {}
                Err((error, _)) => return Err(HelloError::NotTls(error)),
            }
        }
        if self.bytes >= HELLO_BYTES_MAX { Err(HelloError::TooLong) } else { Ok(None) }
    }
}

/// Waits for the ClientHello of a connection and leaves it there.
pub async fn peek(stream: &TcpStream, within: Duration) -> Result<Hello, HelloError> {
    let peeked = tokio::time::timeout(within, peek_unbounded(stream)).await;
    peeked.unwrap_or(Err(HelloError::TooSlow(within)))
}

async fn peek_unbounded(stream: &TcpStream) -> Result<Hello, HelloError> {
    let mut reader = HelloReader::default();
    let mut buffer = vec![0; HELLO_BYTES_MAX];
    let mut seen = 0;
    loop {
        let ready = stream.ready(Interest::READABLE).await.map_err(HelloError::Read)?;
        let peeked = stream.try_io(Interest::READABLE, || {
            let (_, there) = recv(stream, &mut buffer[..], RecvFlags::PEEK)?;
            // What was seen is still there and would be found for ever: only more is news.
            if there > seen { Ok(there) } else { Err(io::ErrorKind::WouldBlock.into()) }
        });
        match peeked {
            Ok(there) => {
                if let Some(hello) = reader.feed(&buffer[seen..there])? {
                    return Ok(hello);
                }
                seen = there;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // Everything that was sent before the end has been seen.
                if ready.is_read_closed() {
                    return Err(HelloError::Closed);
                }
            }
            Err(error) => return Err(HelloError::Read(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    fn hello(protocols: &[&[u8]]) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
        let name = "a.example".try_into().unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Option<Hello>, HelloError> {
        HelloReader::default().feed(bytes)
    }

    #[test]
    fn the_protocols_are_told_in_the_clients_order() {
        let found = read(&hello(&[b"b/1", b"a/1"])).unwrap().unwrap();
        assert_eq!(found.protocols, [b"b/1".to_vec(), b"a/1".to_vec()]);
        assert_eq!(read(&hello(&[])).unwrap(), Some(Hello::default()));
    }

    #[test]
    fn byte_by_byte_it_is_the_same() {
        let bytes = hello(&[b"a/1"]);
        let mut reader = HelloReader::default();
        for byte in &bytes[..bytes.len() - 1] {
            assert_eq!(reader.feed(&[*byte]).unwrap(), None);
        }
        let last = reader.feed(&bytes[bytes.len() - 1..]).unwrap();
        assert_eq!(last.unwrap().protocols, [b"a/1".to_vec()]);
    }

    #[test]
    fn what_follows_the_greeting_does_not_matter() {
        let mut bytes = hello(&[b"a/1"]);
        bytes.extend([0xff; 100]);
        assert_eq!(read(&bytes).unwrap().unwrap().protocols, [b"a/1".to_vec()]);
    }

    #[test]
    fn another_protocol_is_told_at_once() {
        for other in ["GET / HTTP/1.1\r\n\r\n", "SSH-2.0-OpenSSH_9.2\r\n", "\0\0\0\0\0\0\0\0"] {
            let result = read(other.as_bytes());
            assert!(matches!(result, Err(HelloError::NotTls(_))), "{other:?}: {result:?}");
        }
    }

    #[test]
    fn a_greeting_without_end_is_left_at_its_bound() {
        // Records of one byte each, of a handshake message that says to be long.
        let mut reader = HelloReader::default();
        let mut fed = 0;
        let result = loop {
            let byte = *[1, 0, 0xff, 0].get(fed).unwrap_or(&0);
            fed += 1;
            match reader.feed(&[22, 3, 1, 0, 1, byte]) {
                Ok(None) => assert!(fed * 6 < HELLO_BYTES_MAX, "it goes on"),
                other => break other,
            }
        };
        assert!(matches!(result, Err(HelloError::TooLong | HelloError::NotTls(_))), "{result:?}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, cut in 1_usize..64) {
            let mut reader = HelloReader::default();
            for part in bytes.chunks(cut) {
                if !matches!(reader.feed(part), Ok(None)) {
                    break;
                }
            }
        }

        #[test]
        fn no_damaged_greeting_makes_it_panic(at in 0_usize..400, with: Vec<u8>, cut in 1_usize..300) {
            let mut bytes = hello(&[b"skiff-cluster/1", b"b"]);
            let at = at.min(bytes.len());
            let end = (at + with.len()).min(bytes.len());
            bytes.splice(at..end, with);
            let mut reader = HelloReader::default();
            for part in bytes.chunks(cut) {
                if !matches!(reader.feed(part), Ok(None)) {
                    break;
                }
            }
        }
    }
}
