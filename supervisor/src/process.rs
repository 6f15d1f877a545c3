//! Processes as the kernel shows them: who is alive, who is who, and how one ends.

use std::path::Path;
use std::{fs, io};

use rustix::process::{Pid, Signal};

/// A process beyond doubt: process ids are used again, together with the start time they are
/// not, and after a reboot everything begins anew.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    pub pid: u32,
    /// Clock ticks from boot to its start.
    pub start_time: u64,
    pub boot_id: String,
}

/// What `/proc/<pid>/stat` says, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) state: char,
    pub(crate) parent: u32,
    /// In user and kernel mode, ended children included.
    pub(crate) cpu_ticks: u64,
    pub(crate) start_time: u64,
}

impl Identity {
    /// Of a process that is alive now.
    pub fn of(pid: u32) -> io::Result<Self> {
        let stat = stat(pid).ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { pid, start_time: stat.start_time, boot_id: boot_id()? })
    }

    /// Still the same process, and not a zombie.
    pub fn is_alive(&self) -> bool {
        let same = |stat: Stat| stat.start_time == self.start_time && stat.is_alive();
        stat(self.pid).is_some_and(same) && boot_id().is_ok_and(|id| id == self.boot_id)
    }
}

impl Stat {
    fn is_alive(&self) -> bool {
        !matches!(self.state, 'Z' | 'X' | 'x')
    }

    /// The second field is the program's name in parentheses and may hold anything.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        // Numbered from 3 in proc(5).
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            state: fields.first()?.chars().next()?,
            parent: u32::try_from(field(4)?).ok()?,
            cpu_ticks: field(14)? + field(15)? + field(16)? + field(17)?,
            start_time: field(22)?,
        })
    }
}

fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

pub(crate) fn stat(pid: u32) -> Option<Stat> {
    Stat::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Not gone and not a zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| stat.is_alive())
}

pub(crate) fn kill(pid: u32) {
    send(pid, Signal::KILL);
}

/// A process that is gone is no error: that is what was wanted.
pub(crate) fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw)
        && pid != rustix::process::getpid()
    {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Every process id there is.
fn all() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Processes whose environment holds `name=<prefix>…`, each with what follows the prefix.
pub(crate) fn marked(name: &str, prefix: &str) -> Vec<(u32, String)> {
    let wanted = format!("{name}={prefix}");
    let of = |pid: u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
        let mut variables = environment.split(|byte| *byte == 0);
        let rest = variables.find_map(|variable| variable.strip_prefix(wanted.as_bytes()))?;
        Some((pid, String::from_utf8_lossy(rest).into_owned()))
    };
    all().into_iter().filter_map(of).filter(|(pid, _)| is_alive(*pid)).collect()
}

/// Ancestors that are looked at: a shim is the second or third above a container's process.
const GENERATIONS_MAX: usize = 16;

/// Whether the process or one that it descends from executes one of these programs.
pub(crate) fn descends_from(pid: u32, executables: &[String]) -> bool {
    if executables.is_empty() {
        return false;
    }
    let mut pid = pid;
    for _ in 0..GENERATIONS_MAX {
        if pid <= 1 {
            return false;
        }
        if executable(pid).is_some_and(|name| executables.contains(&name)) {
            return true;
        }
        let Some(stat) = stat(pid) else { return false };
        pid = stat.parent;
    }
    false
}

/// Last part of the path of what a process executes, also when the file is gone.
fn executable(pid: u32) -> Option<String> {
    let target = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let name = Path::new(&target).file_name()?.to_str()?;
    Some(name.strip_suffix(" (deleted)").unwrap_or(name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let text = "12 (a) b (c) S 7 12 12 0 -1 4194304 1 2 3 4 10 20 30 40 20 0 1 0 555 9 8";
        let expected = Stat { state: 'S', parent: 7, cpu_ticks: 100, start_time: 555 };
        assert_eq!(Stat::parse(text), Some(expected));
        assert_eq!(Stat::parse("12 (a"), None);
        assert_eq!(Stat::parse("12 (a) S 7"), None);
    }

    #[test]
    fn this_process_is_itself_and_nobody_else() {
        let identity = Identity::of(std::process::id()).expect("it is alive");
        assert!(identity.is_alive());
        assert!(!Identity { start_time: identity.start_time + 1, ..identity.clone() }.is_alive());
        assert!(!Identity { boot_id: "another".into(), ..identity }.is_alive());
    }

    #[test]
    fn descent_is_followed_to_the_program() {
        let own = std::env::current_exe().expect("known");
        let own = own.file_name().and_then(|name| name.to_str()).expect("plain").to_owned();
        assert!(descends_from(std::process::id(), &[own]));
        assert!(!descends_from(std::process::id(), &["no-such-program".into()]));
    }
}
