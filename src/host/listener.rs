//! Who listens on the ports that a node needs (proc(5), /proc/net/tcp).

use std::collections::HashMap;
use std::fs;

use serde::Serialize;

/// A port that somebody has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listener {
    pub port: u16,
    /// Process, when it can be seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
}

/// State of a listening socket in /proc/net/tcp.
const LISTEN: &str = "0A";

/// Listeners on `ports` that do not belong to the node with that root.
pub fn on_ports(ports: &[u16], root: &str) -> Vec<Listener> {
    let mut open: Vec<(u16, u64)> = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        open.extend(parse(&fs::read_to_string(table).unwrap_or_default()));
    }
    open.retain(|(port, _)| ports.contains(port));
    open.sort_unstable();
    open.dedup_by_key(|(port, _)| *port);
    if open.is_empty() {
        return Vec::new();
    }
    let owners = owners();
    open.into_iter()
        .map(|(port, inode)| (port, owners.get(&inode)))
        .filter(|(_, owner)| !owner.is_some_and(|(_, arguments)| arguments.contains(root)))
        .map(|(port, owner)| Listener { port, process: owner.map(|(name, _)| name.clone()) })
        .collect()
}

/// Whether anybody listens on a port.
pub fn is_listening(port: u16) -> bool {
    ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().any(|table| {
        let open = parse(&fs::read_to_string(table).unwrap_or_default());
        open.iter().any(|(other, _)| *other == port)
    })
}

/// Port and inode of every listening socket.
fn parse(table: &str) -> Vec<(u16, u64)> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let port = u16::from_str_radix(words.get(1)?.rsplit(':').next()?, 16).ok()?;
        let inode = words.get(9)?.parse().ok()?;
        (*words.get(3)? == LISTEN).then_some((port, inode))
    };
    table.lines().skip(1).filter_map(line).collect()
}

/// Which process (name, arguments) holds each socket, as far as this user may see.
fn owners() -> HashMap<u64, (String, String)> {
    let mut owners = HashMap::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        let mut who = None;
        for descriptor in descriptors.flatten() {
            let Ok(target) = fs::read_link(descriptor.path()) else { continue };
            let target = target.to_string_lossy();
            let inode = target.strip_prefix("socket:[").and_then(|t| t.strip_suffix(']'));
            let Some(inode) = inode.and_then(|digits| digits.parse().ok()) else { continue };
            let who = who.get_or_insert_with(|| {
                let pid = process.file_name().to_string_lossy().into_owned();
                let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                let arguments = fs::read(process.path().join("cmdline")).unwrap_or_default();
                let arguments = String::from_utf8_lossy(&arguments).into_owned();
                (format!("{} (pid {pid})", name.trim()), arguments)
            });
            owners.insert(inode, who.clone());
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listening_sockets_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n\
             0: 00000000:192B 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4242 1\n\
             1: 0100007F:192B 0100007F:C350 01 00000000:00000000 00:00000000 00000000 0 0 4243 1\n";
        assert_eq!(parse(table), [(6443, 4242)]);
    }

    #[test]
    fn nonsense_is_no_listener() {
        assert!(parse("x\n:: zz 0A\n0: :FFFFF x 0A a b c d e f\n").is_empty());
    }
}
