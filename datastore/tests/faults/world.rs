//! Members with a network, a disk and a clock of their own, all of which can fail.

use lossy_disk::{Disk, Faults, Loss};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::clock::{self, Clock};
use super::network::Network;

/// How many members there are.
pub const MEMBERS: usize = 3;
/// Room on a disk that is well.
const DISK_BYTES: u64 = 1 << 30;

/// See above. Members go before their disks do.
pub struct World {
    pub network: Network,
    pub hosts: Vec<Host>,
    _home: TempDir,
}

/// What a member stands on, and how that is.
pub struct Host {
    pub disk: Disk,
    pub clock: Clock,
    pub is_stopped: bool,
}

impl World {
    /// Members that run, and follow one leader.
    pub async fn start() -> World {
        let home = TempDir::new().unwrap();
        let library = clock::build(home.path());
        let mut network = Network::new(MEMBERS);
        let mut hosts = Vec::new();
        for host in 0..MEMBERS {
            let data = network.data(host);
            std::fs::create_dir(&data).unwrap();
            let disk = Disk::mount(&data, DISK_BYTES).unwrap();
            let clock = Clock::new(&library, home.path().join(format!("clock-{host}")));
            network.set_environment(host, clock.environment());
            hosts.push(Host { disk, clock, is_stopped: false });
            network.start_member(host);
        }
        network.settle(MEMBERS).await;
        World { network, hosts, _home: home }
    }

    /// kill -9.
    pub fn kill(&mut self, host: usize) {
        self.network.kill(host);
        self.hosts[host].is_stopped = false;
    }

    /// Starts it, if it does not run.
    pub fn start_member(&mut self, host: usize) {
        if !self.network.has_process(host) {
            self.network.start_member(host);
        }
    }

    /// SIGSTOP, if it runs; nobody else sees a difference to a machine that hangs.
    pub fn stop(&mut self, host: usize) {
        if self.network.has_process(host) {
            self.network.signal(host, Signal::SIGSTOP);
            self.hosts[host].is_stopped = true;
        }
    }

    /// SIGCONT, if it was stopped.
    pub fn go_on(&mut self, host: usize) {
        // It may have ended by itself just before it was stopped.
        let is_stopped = std::mem::take(&mut self.hosts[host].is_stopped);
        if is_stopped && self.network.has_process(host) {
            self.network.signal(host, Signal::SIGCONT);
        }
    }

    /// The power of a host fails; its process is gone, and what was not synced.
    pub fn power_cut(&mut self, host: usize, loss: Loss) {
        self.kill(host);
        self.hosts[host].disk.power_cut(loss).unwrap();
    }

    /// Leaves no more room on a disk than this.
    pub fn fill(&self, host: usize, left: u64) {
        let disk = &self.hosts[host].disk;
        disk.set_capacity(disk.used() + left);
    }

    /// Has a disk be ill.
    pub fn set_disk(&self, host: usize, faults: Faults) {
        self.hosts[host].disk.set_faults(faults);
    }

    /// Makes everything of a host well, but does not start it.
    pub fn repair(&mut self, host: usize) {
        self.go_on(host);
        self.network.wire.set_link(host, true);
        self.set_disk(host, Faults::default());
        self.hosts[host].disk.set_capacity(DISK_BYTES);
        self.hosts[host].clock.set(0);
    }
}
