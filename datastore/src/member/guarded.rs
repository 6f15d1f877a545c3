//! A stream between members that ends when the other's node may not be a peer any more, whichever
//! side has dialled.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

use super::nodes::{Nodes, Visitor};

/// See the module's words.
pub struct Guarded<S> {
    stream: S,
    visitor: Visitor,
    refused: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl<S> Guarded<S> {
    /// Of a stream whose other end has shown the visitor's certificate.
    pub fn new(stream: S, visitor: Visitor, nodes: &Nodes) -> Guarded<S> {
        let refused = Box::pin(nodes.until_refused(&visitor));
        Guarded { stream, visitor, refused }
    }
}

impl<S> Connected for Guarded<S> {
    type ConnectInfo = Visitor;

    fn connect_info(&self) -> Visitor {
        self.visitor.clone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.refused.as_mut().poll(context).is_ready() {
            self.refused = Box::pin(std::future::ready(()));
            return Poll::Ready(Err(io::ErrorKind::PermissionDenied.into()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
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
}
