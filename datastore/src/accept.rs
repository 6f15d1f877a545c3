//! Takes in connections, and never more than there are files for.
//!
//! Each connection is a file, and so is whatever dqlite opens: a datastore
//! that let clients have all of them could not write its log. So some are
//! kept back, and a connection too many waits in the kernel until another one
//! ends. An error of one connection never ends the server.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::Connected;
use tracing::warn;

use crate::listen::Bound;

/// Files kept back for dqlite, its log, and ourselves.
const FILES_KEPT_BACK: u64 = 256;
/// More connections than this are refused a place whatever the limit of files
/// says: each costs memory.
const CONNECTIONS_MAX: u64 = 16_384;
/// Pause after a failed accept: what failed may last, as a lack of files does.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Raises the limit of open files as far as it goes; gives the number of
/// connections that may be open at once.
pub fn connections_max() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return FILES_KEPT_BACK as usize;
    };
    let files = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    };
    let left = files.saturating_sub(FILES_KEPT_BACK).clamp(1, CONNECTIONS_MAX);
    usize::try_from(left).unwrap_or(1)
}

/// A connection that has a place.
pub struct Accepted {
    stream: Box<dyn Duplex>,
    _place: OwnedSemaphorePermit,
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// Connections as they come.
pub fn incoming(bound: Bound, places: Arc<Semaphore>) -> impl Stream<Item = io::Result<Accepted>> {
    futures::stream::unfold((bound, places), async |(bound, places)| {
        let place = places.clone().acquire_owned().await.ok()?;
        loop {
            match accept(&bound).await {
                Ok(stream) => {
                    return Some((Ok(Accepted { stream, _place: place }), (bound, places)));
                }
                Err(error) => {
                    warn!(%error, "a connection can't be taken in");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}

async fn accept(bound: &Bound) -> io::Result<Box<dyn Duplex>> {
    match bound {
        Bound::Unix(listener) => Ok(Box::new(listener.accept().await?.0)),
        Bound::Tcp(listener) => {
            let (stream, _) = listener.accept().await?;
            // Answers are small and are waited for.
            stream.set_nodelay(true)?;
            Ok(Box::new(stream))
        }
    }
}

impl Connected for Accepted {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }
}
