//! A bridge that joins test nodes, in a namespace of its own.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::run::run;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Links nodes to one another and to nothing else: no default route, no internet.
#[derive(Debug)]
pub struct Network {
    /// Namespace of the bridge; also the prefix of the nodes' namespaces.
    name: String,
    hosts: AtomicU32,
}

impl Network {
    #[track_caller]
    pub fn new() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("skt{}n{number}", std::process::id());
        ip(&["netns", "add", &name]);
        ip(&["-n", &name, "link", "add", "switch", "type", "bridge"]);
        ip(&["-n", &name, "link", "set", "switch", "up"]);
        Self { name, hosts: AtomicU32::new(1) }
    }

    /// Makes a namespace with one link to the bridge; answers its name and address.
    #[track_caller]
    pub(crate) fn add_host(&self) -> (String, String) {
        let number = self.hosts.fetch_add(1, Ordering::Relaxed);
        let (host, port) = (format!("{}h{number}", self.name), format!("port{number}"));
        let address = format!("10.77.0.{number}");
        ip(&["netns", "add", &host]);
        ip(&["-n", &host, "link", "set", "lo", "up"]);
        ip(&[
            "-n", &self.name, "link", "add", &port, "type", "veth", "peer", "name", "eth0",
            "netns", &host,
        ]);
        ip(&["-n", &self.name, "link", "set", &port, "master", "switch", "up"]);
        ip(&["-n", &host, "address", "add", &format!("{address}/24"), "dev", "eth0"]);
        ip(&["-n", &host, "link", "set", "eth0", "up"]);
        (host, address)
    }
}

/// A machine of the network that is no node: somebody to talk to, or not.
#[derive(Debug)]
pub struct Host {
    namespace: String,
    address: String,
}

impl Host {
    #[track_caller]
    pub fn new(network: &Network) -> Self {
        let (namespace, address) = network.add_host();
        Self { namespace, address }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    #[cfg(test)]
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// A program on this machine.
    pub fn command(&self, program: &str) -> Command {
        enter(&self.namespace, program)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        run(Command::new("ip").args(["netns", "delete", &self.namespace]));
    }
}

/// Where a host is plugged into the bridge.
#[derive(Debug)]
pub(crate) struct Port {
    /// Namespace of the bridge.
    pub(crate) network: String,
    pub(crate) number: u32,
    pub(crate) name: String,
}

impl Port {
    /// Of the host whose namespace [`Network::add_host`] made.
    pub(crate) fn of(host: &str) -> Self {
        let (network, number) = host.rsplit_once('h').expect("a host's namespace");
        let number = number.parse().expect("a host's number");
        Self { network: network.into(), number, name: format!("port{number}") }
    }
}

/// Paths and control groups stay the machine's: `ip netns exec` would hide them.
pub(crate) fn enter(namespace: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{namespace}")).arg("--").arg(program);
    command
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        run(Command::new("ip").args(["netns", "delete", &self.name]));
    }
}

#[track_caller]
pub(crate) fn ip(args: &[&str]) {
    run(Command::new("ip").args(args)).must();
}
