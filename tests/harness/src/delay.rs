//! A link that is slow: what passes it waits in this process.
//!
//! ```text
//! node ── eth0 ══ port ── slow bridge ── tap  ⇄  this process  ⇄  tap ── switch ── the others
//! ```
//!
//! A queueing discipline of the kernel (netem) would do it, but not every kernel has one.

use std::fs::File;
use std::io;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use crate::network::{Port, ip};
use crate::node::TestNode;
use crate::run::run;

/// More than any frame: segments may be joined on their way through virtual devices.
const FRAME_BYTES_MAX: usize = 64 * 1024 + 64;

/// A slow link of one node; as before when it is dropped.
#[derive(Debug)]
pub struct SlowLink {
    port: Port,
}

impl TestNode {
    /// Every frame takes that much longer, in each direction.
    #[track_caller]
    pub fn slow_link(&self, delay: Duration) -> SlowLink {
        SlowLink::of_host(self.namespace(), delay)
    }
}

impl SlowLink {
    #[track_caller]
    fn of_host(namespace: &str, delay: Duration) -> Self {
        let port = Port::of(namespace);
        let (near, far, bridge) = names(&port);
        let (node_side, switch_side) = taps(&port, &near, &far).expect("the link's two ends");
        let inside = |args: &[&str]| ip(&[&["-n", port.network.as_str()], args].concat());
        inside(&["link", "add", &bridge, "type", "bridge"]);
        inside(&["link", "set", &near, "master", &bridge, "up"]);
        inside(&["link", "set", &far, "master", "switch", "up"]);
        inside(&["link", "set", &bridge, "up"]);
        inside(&["link", "set", &port.name, "master", &bridge]);
        carry(&node_side, &switch_side, delay);
        carry(&switch_side, &node_side, delay);
        Self { port }
    }
}

impl Drop for SlowLink {
    fn drop(&mut self) {
        let (near, far, bridge) = names(&self.port);
        // A failure is not told: this may be the end of a test that has failed already.
        let inside =
            |args: &[&str]| run(Command::new("ip").args(["-n", &self.port.network]).args(args));
        inside(&["link", "set", &self.port.name, "master", "switch"]);
        // Whoever reads from a link that is gone ends, and with it whoever it hands frames to.
        for link in [&near, &far, &bridge] {
            inside(&["link", "delete", link]);
        }
    }
}

fn names(port: &Port) -> (String, String, String) {
    let number = port.number;
    (format!("near{number}"), format!("far{number}"), format!("slow{number}"))
}

/// Makes both ends in the namespace of the switch.
fn taps(port: &Port, near: &str, far: &str) -> io::Result<(Arc<SyncDevice>, Arc<SyncDevice>)> {
    let make = |name: &str| DeviceBuilder::new().name(name).layer(Layer::L2).build_sync();
    // A thread of its own: it does not come back from there.
    thread::scope(|scope| {
        let made = scope.spawn(|| {
            let namespace = File::open(format!("/run/netns/{}", port.network))?;
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            Ok((Arc::new(make(near)?), Arc::new(make(far)?)))
        });
        made.join().expect("it does not panic")
    })
}

/// Hands what comes from one end to the other when its time is over, until one of them is gone.
fn carry(from: &Arc<SyncDevice>, to: &Arc<SyncDevice>, delay: Duration) {
    let (sender, receiver) = channel();
    let (from, to) = (from.clone(), to.clone());
    thread::spawn(move || take(&from, &sender, delay));
    thread::spawn(move || hand_on(&receiver, &to));
}

fn take(from: &SyncDevice, queue: &Sender<(Instant, Vec<u8>)>, delay: Duration) {
    let mut frame = vec![0; FRAME_BYTES_MAX];
    loop {
        match from.recv(&mut frame) {
            Ok(length) => {
                if queue.send((Instant::now() + delay, frame[..length].to_vec())).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

fn hand_on(queue: &Receiver<(Instant, Vec<u8>)>, to: &SyncDevice) {
    for (due, frame) in queue {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // A link that is down or gone loses frames, as a real one does.
        let _ = to.send(&frame);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::network::{Host, Network};

    /// Somewhere else, and back again with the answer.
    fn inside<T: Send>(host: &Host, act: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let namespace = File::open(format!("/run/netns/{}", host.namespace())).unwrap();
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                act()
            });
            thread.join().unwrap()
        })
    }

    #[test]
    fn a_slow_link_takes_its_time_until_it_is_dropped() {
        if !nix::unistd::Uid::effective().is_root() {
            println!("skipped: needs root to make network namespaces");
            return;
        }
        if !std::path::Path::new("/dev/net/tun").exists() {
            println!("skipped: needs a kernel with taps; only `make soak --only rounds` uses them");
            return;
        }
        let network = Network::new();
        let (one, other) = (Host::new(&network), Host::new(&network));
        let place = format!("{}:1234", other.address());
        let _listener = inside(&other, || TcpListener::bind(&place).unwrap());
        let connect = || {
            let begun = Instant::now();
            let connected = TcpStream::connect(&place);
            (connected.map(|_| ()), begun.elapsed())
        };

        let link = SlowLink::of_host(one.namespace(), Duration::from_millis(100));
        // The neighbour is asked for first: there and back twice.
        let (connected, slow) = inside(&one, connect);
        connected.unwrap();
        assert!(slow >= Duration::from_millis(400), "{slow:?}");
        drop(link);
        let (connected, fast) = inside(&one, connect);
        connected.unwrap();
        assert!(fast < Duration::from_millis(200), "{fast:?}");
    }
}
