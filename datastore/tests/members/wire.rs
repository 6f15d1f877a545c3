//! Links between network namespaces that delay and lose packets.
//!
//! Each host has a TUN device. What a host sends is read here, held back as
//! long as the link takes, and written to the device of whom it is for.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use nix::libc;

/// Where the kernel gives out TUN devices.
pub const DEVICE: &str = "/dev/net/tun";
/// The largest packet.
const PACKET_BYTES_MAX: usize = 2048;
/// Packets on their way; beyond this a link loses them, as real ones do.
const PACKETS_MAX: usize = 4096;

/// How the links are.
#[derive(Default)]
struct Weather {
    delay_us: AtomicU64,
    loss_percent: AtomicU32,
}

struct Host {
    device: Arc<File>,
    /// From which hosts nothing arrives.
    is_deaf_to: Vec<AtomicBool>,
}

/// The hosts and what is between them.
#[derive(Clone)]
pub struct Wire {
    hosts: Arc<Vec<Host>>,
    weather: Arc<Weather>,
}

impl Wire {
    /// Links between the devices of `names`, which are made here, to be moved
    /// to where they belong. The host at position N has the address that ends
    /// in N + 1.
    pub fn new(names: &[String]) -> Wire {
        let host = |name: &String| Host {
            device: Arc::new(open(name).unwrap()),
            is_deaf_to: names.iter().map(|_| AtomicBool::new(false)).collect(),
        };
        let hosts = Arc::new(names.iter().map(host).collect::<Vec<_>>());
        let wire = Wire { hosts, weather: Arc::default() };
        for host in 0..names.len() {
            wire.carry(host);
        }
        wire
    }

    /// Cuts a host off from the others without a word to it, or joins it again.
    pub fn set_link(&self, host: usize, up: bool) {
        for other in (0..self.hosts.len()).filter(|other| *other != host) {
            self.set_way(host, other, up);
            self.set_way(other, host, up);
        }
    }

    /// The same for one direction between two.
    pub fn set_way(&self, from: usize, to: usize, up: bool) {
        self.hosts[to].is_deaf_to[from].store(!up, Ordering::Relaxed);
    }

    /// What a packet takes from host to host, and how many of a hundred are lost.
    pub fn set_weather(&self, delay: Duration, loss_percent: u32) {
        self.weather.delay_us.store(delay.as_micros() as u64, Ordering::Relaxed);
        self.weather.loss_percent.store(loss_percent, Ordering::Relaxed);
    }

    /// Carries what one host sends. The threads end with the test.
    fn carry(&self, from: usize) {
        let (sender, packets) = mpsc::sync_channel::<(Instant, Vec<u8>)>(PACKETS_MAX);
        let wire = self.clone();
        std::thread::spawn(move || {
            let mut random = RandomState::new().hash_one(from) | 1;
            let mut buffer = vec![0; PACKET_BYTES_MAX];
            let mut device = &*wire.hosts[from].device;
            while let Ok(bytes) = device.read(&mut buffer) {
                random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let is_lost = (random >> 33) % 100
                    < u64::from(wire.weather.loss_percent.load(Ordering::Relaxed));
                if is_lost {
                    continue;
                }
                let delay = Duration::from_micros(wire.weather.delay_us.load(Ordering::Relaxed));
                // A full link loses packets.
                let _ = sender.try_send((Instant::now() + delay, buffer[..bytes].to_vec()));
            }
        });
        let wire = self.clone();
        std::thread::spawn(move || {
            for (due, packet) in packets {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                wire.deliver(from, &packet);
            }
        });
    }

    fn deliver(&self, from: usize, packet: &[u8]) {
        // IPv4 alone is spoken; the last byte of the destination is the host.
        let is_ipv4 = packet.len() >= 20 && packet[0] >> 4 == 4;
        let Some(host) = is_ipv4.then(|| usize::from(packet[19]).wrapping_sub(1)) else { return };
        let Some(host) = self.hosts.get(host) else { return };
        if !host.is_deaf_to[from].load(Ordering::Relaxed) {
            // A device that is down, or full, loses it.
            let _ = (&*host.device).write(packet);
        }
    }
}

/// A new device of this process, without a header before its packets.
#[allow(unsafe_code)] // no safe wrapper of this call is at hand, and only tests make devices
fn open(name: &str) -> io::Result<File> {
    let file =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_CLOEXEC).open(DEVICE)?;
    // SAFETY: all zeroes is a valid `ifreq`: numbers, bytes, and pointers that nobody follows.
    let mut wish: libc::ifreq = unsafe { std::mem::zeroed() };
    assert!(name.len() < wish.ifr_name.len(), "{name} is too long for a device");
    for (place, byte) in wish.ifr_name.iter_mut().zip(name.bytes()) {
        *place = byte as libc::c_char;
    }
    wish.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the descriptor is open, and the kernel reads and writes one `ifreq`, which lives here.
    let made = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw mut wish) };
    if made < 0 { Err(io::Error::last_os_error()) } else { Ok(file) }
}
