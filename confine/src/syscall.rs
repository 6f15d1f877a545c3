//! What confinement asks of the kernel: a trait, so that the steps are tested without root.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use nix::libc;
use nix::sys::resource::{getrlimit, setrlimit};
use nix::unistd::{Gid, Uid};

/// A program and its arguments, without its own name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
}

/// A resource that is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    OpenFiles,
    Processes,
    CoreBytes,
    LockedBytes,
}

/// The calls, one method each.
pub trait Syscall {
    fn close_from(&self, descriptor: u32) -> io::Result<()>;
    fn new_session(&self) -> io::Result<()>;
    /// Puts this process into the group whose `cgroup.procs` is `procs`.
    fn join_cgroup(&self, procs: &Path) -> io::Result<()>;
    /// (soft, hard)
    fn limit(&self, resource: Resource) -> io::Result<(u64, u64)>;
    fn set_limit(&self, resource: Resource, soft: u64, hard: u64) -> io::Result<()>;
    fn set_oom_score_adj(&self, value: i32) -> io::Result<()>;
    /// In nanoseconds.
    fn set_timer_slack(&self, ns: u64) -> io::Result<()>;
    fn disable_huge_pages(&self) -> io::Result<()>;
    fn set_umask(&self, mask: u32);
    fn change_directory(&self, path: &Path) -> io::Result<()>;
    /// Largest capability number that this kernel knows.
    fn last_capability(&self) -> u8;
    fn drop_bounding(&self, capability: u8) -> io::Result<()>;
    /// Whether capabilities survive the change of user that follows.
    fn set_keep_capabilities(&self, keep: bool) -> io::Result<()>;
    fn set_groups(&self, groups: &[u32]) -> io::Result<()>;
    fn set_group(&self, gid: u32) -> io::Result<()>;
    fn set_user(&self, uid: u32) -> io::Result<()>;
    /// What this process may have at all: root in a container lacks some.
    fn permitted_capabilities(&self) -> io::Result<u64>;
    /// Effective, permitted and inheritable all become `mask`.
    fn set_capabilities(&self, mask: u64) -> io::Result<()>;
    fn clear_ambient(&self) -> io::Result<()>;
    fn raise_ambient(&self, capability: u8) -> io::Result<()>;
    fn set_no_new_privileges(&self) -> io::Result<()>;
    /// Returns only when it failed.
    fn execute(&self, command: &Command, environment: &[(String, String)]) -> io::Error;
}

/// The real one.
#[derive(Clone, Copy, Debug)]
pub struct Kernel;

/// Version 3 of the capability structures: two words of 32 bits each (capset(2)).
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Default)]
struct CapabilityWord {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

impl Syscall for Kernel {
    fn close_from(&self, descriptor: u32) -> io::Result<()> {
        // SAFETY: nothing in this process owns a descriptor above standard error here: `main`
        // opens none before this step. No memory is passed.
        check(unsafe { libc::syscall(libc::SYS_close_range, descriptor, u32::MAX, 0) })
    }

    fn new_session(&self) -> io::Result<()> {
        match nix::unistd::setsid() {
            // Already a leader: what was asked for holds.
            Ok(_) | Err(nix::Error::EPERM) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn join_cgroup(&self, procs: &Path) -> io::Result<()> {
        std::fs::write(procs, "0")
    }

    fn limit(&self, resource: Resource) -> io::Result<(u64, u64)> {
        Ok(getrlimit(resource.into())?)
    }

    fn set_limit(&self, resource: Resource, soft: u64, hard: u64) -> io::Result<()> {
        Ok(setrlimit(resource.into(), soft, hard)?)
    }

    fn set_oom_score_adj(&self, value: i32) -> io::Result<()> {
        std::fs::write("/proc/self/oom_score_adj", value.to_string())
    }

    fn set_timer_slack(&self, ns: u64) -> io::Result<()> {
        Ok(nix::sys::prctl::set_timerslack(ns)?)
    }

    fn disable_huge_pages(&self) -> io::Result<()> {
        Ok(nix::sys::prctl::set_thp_disable(true)?)
    }

    fn set_umask(&self, mask: u32) {
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(mask));
    }

    fn change_directory(&self, path: &Path) -> io::Result<()> {
        std::env::set_current_dir(path)
    }

    fn last_capability(&self) -> u8 {
        (0..64).take_while(|number| prctl(libc::PR_CAPBSET_READ, *number, 0).is_ok()).count() as u8
            - 1
    }

    fn drop_bounding(&self, capability: u8) -> io::Result<()> {
        prctl(libc::PR_CAPBSET_DROP, capability.into(), 0)
    }

    fn set_keep_capabilities(&self, keep: bool) -> io::Result<()> {
        prctl(libc::PR_SET_KEEPCAPS, keep.into(), 0)
    }

    fn set_groups(&self, groups: &[u32]) -> io::Result<()> {
        let groups: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        Ok(nix::unistd::setgroups(&groups)?)
    }

    fn set_group(&self, gid: u32) -> io::Result<()> {
        let gid = Gid::from_raw(gid);
        Ok(nix::unistd::setresgid(gid, gid, gid)?)
    }

    fn set_user(&self, uid: u32) -> io::Result<()> {
        let uid = Uid::from_raw(uid);
        Ok(nix::unistd::setresuid(uid, uid, uid)?)
    }

    fn permitted_capabilities(&self) -> io::Result<u64> {
        let mut header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
        let mut words = [CapabilityWord::default(), CapabilityWord::default()];
        // SAFETY: both pointers are to live values of our own with the layout that version 3 asks
        // for (one header, two words), and the kernel writes no more than these. nix has no
        // wrapper.
        check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, words.as_mut_ptr()) })?;
        Ok(u64::from(words[0].permitted) | u64::from(words[1].permitted) << 32)
    }

    fn set_capabilities(&self, mask: u64) -> io::Result<()> {
        let header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
        let word =
            |bits: u32| CapabilityWord { effective: bits, permitted: bits, inheritable: bits };
        let words = [word(mask as u32), word((mask >> 32) as u32)];
        // SAFETY: both pointers are to live values with the layout that version 3 asks for (one
        // header, two words); the kernel only reads them. nix has no wrapper.
        check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, words.as_ptr()) })
    }

    fn clear_ambient(&self) -> io::Result<()> {
        prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0)
    }

    fn raise_ambient(&self, capability: u8) -> io::Result<()> {
        let raise = libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong;
        prctl(libc::PR_CAP_AMBIENT, raise, capability.into())
    }

    fn set_no_new_privileges(&self) -> io::Result<()> {
        Ok(nix::sys::prctl::set_no_new_privs()?)
    }

    fn execute(&self, command: &Command, environment: &[(String, String)]) -> io::Error {
        // The standard library also gives SIGPIPE and the signal mask back their defaults.
        std::process::Command::new(&command.program)
            .args(&command.arguments)
            .env_clear()
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .exec()
    }
}

impl From<Resource> for nix::sys::resource::Resource {
    fn from(resource: Resource) -> Self {
        match resource {
            Resource::OpenFiles => Self::RLIMIT_NOFILE,
            Resource::Processes => Self::RLIMIT_NPROC,
            Resource::CoreBytes => Self::RLIMIT_CORE,
            Resource::LockedBytes => Self::RLIMIT_MEMLOCK,
        }
    }
}

fn prctl(option: libc::c_int, second: libc::c_ulong, third: libc::c_ulong) -> io::Result<()> {
    let unused: libc::c_ulong = 0;
    // SAFETY: every option used in this file takes numbers only, no pointer; the arguments that
    // an option does not use are zero, as it demands. nix has no wrapper for these.
    check(unsafe { libc::prctl(option, second, third, unused, unused) }.into())
}

fn check(answer: libc::c_long) -> io::Result<()> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
