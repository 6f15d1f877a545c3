//! Messages over a stream: framing only.

use std::io;
use std::net::TcpStream as StdTcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::wire::{HEADER_BYTES, Header, PROTOCOL_VERSION, RESPONSE_BODY_BYTES_MAX};

/// Bytes read at once: libdqlite sends rows in messages of about a page.
const READ_BYTES: usize = 16 * 1024;
/// A body up to this size is given its memory at once, a larger one as it arrives.
const BODY_AT_ONCE_BYTES: usize = 8 * 1024 * 1024;
/// A buffer for sending that has grown beyond this is given back.
const KEEP_BYTES: usize = 64 * 1024;

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// A connected stream and what has been read ahead of it.
pub(super) struct Socket {
    stream: Box<dyn Stream>,
    input: BytesMut,
    /// Messages to send are built here.
    pub(super) output: BytesMut,
}

impl Socket {
    /// Takes over a connected unix or TCP socket. Must be called within a tokio runtime.
    pub(super) fn from_fd(fd: OwnedFd) -> io::Result<Socket> {
        let unix = StdUnixStream::from(fd);
        let stream: Box<dyn Stream> = if unix.local_addr().is_ok() {
            unix.set_nonblocking(true)?;
            Box::new(UnixStream::from_std(unix)?)
        } else {
            let tcp = StdTcpStream::from(OwnedFd::from(unix));
            tcp.set_nonblocking(true)?;
            Box::new(TcpStream::from_std(tcp)?)
        };
        Ok(Socket::over(stream))
    }

    /// Over a stream that is connected already.
    pub(super) fn over(stream: Box<dyn Stream>) -> Socket {
        Socket { stream, input: BytesMut::new(), output: BytesMut::new() }
    }

    /// Names the protocol's version, as each connection begins.
    pub(super) async fn handshake(&mut self) -> io::Result<()> {
        self.stream.write_all(&PROTOCOL_VERSION.to_le_bytes()).await
    }

    /// Sends what was built in `output`. An error means that the last message was not sent whole, so
    /// the other side can't have acted on it.
    pub(super) async fn send(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.output).await?;
        self.output.clear();
        if self.output.capacity() > KEEP_BYTES {
            self.output = BytesMut::new();
        }
        Ok(())
    }

    /// Receives one message. The body is memory of its own: values that are kept from it hold on to
    /// this message and nothing else.
    pub(super) async fn receive(&mut self) -> io::Result<(Header, Bytes)> {
        while self.input.len() < HEADER_BYTES {
            self.input.reserve(READ_BYTES);
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(closed());
            }
        }
        let mut header = [0; HEADER_BYTES];
        self.input.copy_to_slice(&mut header);
        let header = Header::decode(header);
        let length = header.body_bytes();
        if length > RESPONSE_BODY_BYTES_MAX as u64 {
            let text = format!("answer of {length} bytes, at most {RESPONSE_BODY_BYTES_MAX} read");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        self.body(length as usize).await.map(|body| (header, body))
    }

    async fn body(&mut self, length: usize) -> io::Result<Bytes> {
        if self.input.len() >= length {
            let body = Bytes::copy_from_slice(&self.input[..length]);
            self.input.advance(length);
            return Ok(body);
        }
        let mut body = BytesMut::with_capacity(length.min(BODY_AT_ONCE_BYTES));
        body.put(&mut self.input);
        while body.len() < length {
            let left = length - body.len();
            if body.capacity() == body.len() {
                body.reserve(left.min(BODY_AT_ONCE_BYTES));
            }
            if self.stream.read_buf(&mut (&mut body).limit(left)).await? == 0 {
                return Err(closed());
            }
        }
        Ok(body.freeze())
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "connection closed by the node")
}
