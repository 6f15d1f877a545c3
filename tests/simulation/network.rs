//! Streams between members, in memory, over the links.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use skiff_datastore::member::wire::{Dial, Dialled, Duplex, Target};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use tonic::transport::server::Connected;

use super::links::Links;

/// What the kernel buffers for a stream.
const BUFFER_BYTES: usize = 64 << 10;
/// After a silence this long the kernel gives a connection up.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// How often a link that is cut is tried.
const REPEAT: Duration = Duration::from_millis(100);

/// A connection that came in.
pub struct SimStream(DuplexStream);

type Door = (mpsc::Sender<io::Result<SimStream>>, watch::Receiver<bool>);

/// Who listens, and what carries bytes to it.
pub struct Network {
    pub links: Arc<Links>,
    doors: Mutex<BTreeMap<u64, Door>>,
}

impl Network {
    /// Nobody listens yet.
    pub fn new(links: Arc<Links>) -> Arc<Network> {
        Arc::new(Network { links, doors: Mutex::default() })
    }

    /// Listens as member `id` until it is killed.
    pub fn listen(
        &self,
        id: u64,
        killed: watch::Receiver<bool>,
    ) -> mpsc::Receiver<io::Result<SimStream>> {
        let (sender, incoming) = mpsc::channel(64);
        self.doors.lock().unwrap().insert(id, (sender, killed));
        incoming
    }

    async fn connect(
        self: Arc<Network>,
        from: u64,
        to: u64,
        killed: watch::Receiver<bool>,
    ) -> io::Result<Box<dyn Duplex>> {
        let deadline = Instant::now() + SILENCE_MAX;
        sleep(self.links.segment() + self.links.segment()).await;
        while self.links.is_cut(from, to) || self.links.is_cut(to, from) {
            if Instant::now() >= deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            sleep(REPEAT).await;
        }
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let door = self.doors.lock().unwrap().get(&to).cloned();
        let (door, other) = door.filter(|(_, killed)| !*killed.borrow()).ok_or_else(refused)?;
        let (near, near_wire) = tokio::io::duplex(BUFFER_BYTES);
        let (far, far_wire) = tokio::io::duplex(BUFFER_BYTES);
        door.try_send(Ok(SimStream(far))).map_err(|_| refused())?;
        tokio::spawn(carry(self.clone(), (from, near_wire, killed), (to, far_wire, other)));
        Ok(Box::new(near))
    }
}

type End = (u64, DuplexStream, watch::Receiver<bool>);

/// Carries bytes both ways until one end closes, dies, or is silent too long.
async fn carry(network: Arc<Network>, near: End, far: End) {
    let (from, near, mut near_killed) = near;
    let (to, far, mut far_killed) = far;
    let (near_read, near_write) = tokio::io::split(near);
    let (far_read, far_write) = tokio::io::split(far);
    tokio::select! {
        biased;
        _ = near_killed.wait_for(|killed| *killed) => {}
        _ = far_killed.wait_for(|killed| *killed) => {}
        _ = pump(&network.links, (from, to), near_read, far_write) => {}
        _ = pump(&network.links, (to, from), far_read, near_write) => {}
    }
}

async fn pump(
    links: &Links,
    (from, to): (u64, u64),
    mut read: impl AsyncRead + Unpin,
    mut write: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let length = read.read(&mut buffer).await?;
        if length == 0 {
            write.shutdown().await?;
            // What goes the other way may still be under way.
            sleep(Duration::from_millis(500)).await;
            return Ok(());
        }
        sleep(links.segment()).await;
        let deadline = Instant::now() + SILENCE_MAX;
        // Without acknowledgements the kernel hears nothing either.
        while links.is_cut(from, to) || links.is_cut(to, from) {
            if Instant::now() >= deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            sleep(REPEAT).await;
        }
        write.write_all(&buffer[..length]).await?;
    }
}

/// Dials on behalf of one member.
pub struct SimDial {
    pub network: Arc<Network>,
    pub own: u64,
    pub killed: watch::Receiver<bool>,
}

/// Where a member is reached.
pub fn address(id: u64) -> String {
    format!("sim-{id}")
}

impl Dial for SimDial {
    fn dial(&self, target: Target, _patience: Duration) -> Dialled {
        let (network, own, killed) = (self.network.clone(), self.own, self.killed.clone());
        Box::pin(async move {
            let to = target.address.strip_prefix("sim-").and_then(|id| id.parse().ok());
            let to = to.ok_or(io::ErrorKind::NotFound)?;
            network.connect(own, to, killed).await
        })
    }
}

impl Connected for SimStream {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for SimStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
