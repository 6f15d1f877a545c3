//! Sockets go from one process to another, over a unix socket (SCM_RIGHTS).
//!
//! The receiver listens. The sender sends one socket with one byte, and goes on when one byte has
//! come back: the receiver's process has it. Until then the sender keeps its copy, so that a
//! receiver which ends and comes back finds the connection waiting:
//!
//! ```text
//! sender                     receiver
//! VERSION + socket  ------>  takes it into its queue
//!                   <------  TAKEN
//! closes its copy
//! VERSION + socket  ------>  (ends before it took it)
//! connects again    ------>  (the next one)
//! VERSION + socket  ------>
//! ```
//!
//! What was read from a socket is gone for the next one: a connection whose receiver ended after
//! it had begun to read ends in a failed handshake, as it would with any restart.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketType, recvmsg, sendmsg, sockopt,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

/// What comes with a socket.
const VERSION: u8 = 1;
/// The answer.
const TAKEN: u8 = 1;
/// How long a connection waits for a receiver that is away: whoever dials for raft has given up
/// by then and dials anew.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// Connections that wait at the same time; one more is closed.
const WAITING_MAX: usize = 64;
/// Between two attempts to reach the receiver.
const CONNECT_PAUSE: Duration = Duration::from_millis(50);
/// Sockets that the receiver has taken and not yet used.
const TAKEN_MAX: usize = 16;
/// Senders at the same time: one, and the one before it which is just ending.
const SENDERS_MAX: usize = 4;
/// Pause after a failed accept, which is for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where sockets are handed in.
#[derive(Clone)]
pub struct Handoff {
    queue: mpsc::Sender<Waiting>,
}

struct Waiting {
    socket: std::net::TcpStream,
    until: Instant,
}

/// Carries them over. One at a time: it takes microseconds.
pub struct Courier {
    path: PathBuf,
    queue: mpsc::Receiver<Waiting>,
    link: Option<UnixStream>,
    /// Whether it was told that the receiver is away.
    away: bool,
}

impl Handoff {
    /// To whoever listens at `path`, now or later.
    pub fn new(path: PathBuf) -> (Handoff, Courier) {
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        (Handoff { queue }, Courier { path, queue: waiting, link: None, away: false })
    }

    /// Hands a connection in; whether there was room for it.
    pub fn give(&self, stream: TcpStream) -> io::Result<bool> {
        let waiting = Waiting { socket: stream.into_std()?, until: Instant::now() + WAIT_MAX };
        Ok(self.queue.try_send(waiting).is_ok())
    }
}

impl Courier {
    /// Carries until nobody can hand in any more.
    pub async fn run(mut self) {
        while let Some(Waiting { socket, until }) = self.queue.recv().await {
            match timeout_at(until, self.carry(&socket)).await {
                Ok(()) if self.away => {
                    self.away = false;
                    info!(path = %self.path.display(), "connections are taken again");
                }
                Ok(()) => {}
                Err(_) => {
                    // It may still be taken: the answer to that must not count for the next.
                    self.link = None;
                    if !self.away {
                        self.away = true;
                        warn!(path = %self.path.display(), "nobody takes connections; closing them");
                    }
                }
            }
        }
    }

    async fn carry(&mut self, socket: &std::net::TcpStream) {
        loop {
            match self.attempt(socket).await {
                Ok(()) => return,
                Err(error) => {
                    debug!(%error, "a connection was not taken");
                    self.link = None;
                    sleep(CONNECT_PAUSE).await;
                }
            }
        }
    }

    async fn attempt(&mut self, socket: &std::net::TcpStream) -> io::Result<()> {
        let link = match &mut self.link {
            Some(link) => link,
            none => none.insert(UnixStream::connect(&self.path).await?),
        };
        let sent = link.async_io(Interest::WRITABLE, || send(link, socket)).await?;
        if sent != 1 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        match link.read_u8().await? {
            TAKEN => Ok(()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

fn send(link: &UnixStream, socket: &std::net::TcpStream) -> io::Result<usize> {
    let fds = [socket.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::other("there is no room for a descriptor"));
    }
    Ok(sendmsg(link, &[IoSlice::new(&[VERSION])], &mut control, SendFlags::NOSIGNAL)?)
}

/// Connections that another process took in, as they come: in place of a `TcpListener`.
pub struct Handed {
    sockets: mpsc::Receiver<TcpStream>,
    _accepting: AbortOnDropHandle<()>,
}

impl Handed {
    /// Listens at `path`, with these permissions. A socket that nobody listens on any more is
    /// replaced.
    pub fn bind(path: &Path, mode: u32) -> io::Result<Handed> {
        remove_stale(path)?;
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        let (queue, sockets) = mpsc::channel(TAKEN_MAX);
        let accepting = AbortOnDropHandle::new(tokio::spawn(accept(listener, queue)));
        Ok(Handed { sockets, _accepting: accepting })
    }

    /// The next connection. None only comes when the runtime ends.
    pub async fn accept(&mut self) -> Option<TcpStream> {
        self.sockets.recv().await
    }
}

impl Stream for Handed {
    type Item = TcpStream;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<TcpStream>> {
        self.sockets.poll_recv(context)
    }
}

async fn accept(listener: UnixListener, queue: mpsc::Sender<TcpStream>) {
    let mut senders = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((link, _)) => {
                if senders.len() == SENDERS_MAX {
                    senders.join_next().await;
                }
                let queue = queue.clone();
                senders.spawn(async move {
                    if let Err(error) = take_all(link, queue).await {
                        warn!(%error, "a sender of connections was left");
                    }
                });
            }
            Err(error) => {
                warn!(%error, "can't accept a sender of connections");
                sleep(ACCEPT_PAUSE).await;
            }
        }
        while senders.try_join_next().is_some() {}
    }
}

/// Takes what one sender sends, until it ends.
async fn take_all(mut link: UnixStream, queue: mpsc::Sender<TcpStream>) -> io::Result<()> {
    while let Some(socket) = link.async_io(Interest::READABLE, || receive(&link)).await? {
        let socket = std::net::TcpStream::from(socket);
        socket.set_nonblocking(true)?;
        if queue.send(TcpStream::from_std(socket)?).await.is_err() {
            break;
        }
        link.write_u8(TAKEN).await?;
    }
    Ok(())
}

/// One message; none is the end.
fn receive(link: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut byte)];
    let received = recvmsg(link, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut sockets = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
        _ => None,
    });
    let socket = sockets.next().and_then(|mut sockets| sockets.next());
    match socket {
        Some(socket) if byte == [VERSION] && is_tcp(&socket)? => Ok(Some(socket)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "that is no connection")),
    }
}

fn is_tcp(socket: &OwnedFd) -> io::Result<bool> {
    let domain = sockopt::socket_domain(socket)?;
    let inet = domain == AddressFamily::INET || domain == AddressFamily::INET6;
    Ok(inet && sockopt::socket_type(socket)? == SocketType::STREAM)
}

fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(data) if !data.file_type().is_socket() => Err(io::ErrorKind::AlreadyExists.into()),
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            Err(io::ErrorKind::AddrInUse.into())
        }
        Ok(_) => std::fs::remove_file(path),
    }
}
