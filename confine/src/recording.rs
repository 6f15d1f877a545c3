//! A double of the kernel that writes down what it was asked.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use crate::{Command, Resource, Syscall};

/// One call that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    CloseFrom(u32),
    NewSession,
    JoinCgroup(PathBuf),
    SetLimit(Resource, u64, u64),
    SetOomScoreAdj(i32),
    SetTimerSlack(u64),
    DisableHugePages,
    SetUmask(u32),
    ChangeDirectory(PathBuf),
    DropBounding(u8),
    SetKeepCapabilities(bool),
    SetGroups(Vec<u32>),
    SetGroup(u32),
    SetUser(u32),
    SetCapabilities(u64),
    ClearAmbient,
    RaiseAmbient(u8),
    SetNoNewPrivileges,
    Execute(PathBuf, Vec<OsString>, Vec<(String, String)>),
}

/// Answers every call with success until told otherwise, and remembers it.
#[derive(Debug, Default)]
pub struct Recording {
    calls: RefCell<Vec<Call>>,
    /// Calls that fail, with the error number.
    failing: Vec<(Call, i32)>,
    /// Capabilities that this process lacks from the beginning.
    lacking: u64,
    /// What `execute` fails with; 0 means that the test does not care.
    execute_error: i32,
}

impl Recording {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn failing(mut self, call: Call, error: i32) -> Self {
        self.failing.push((call, error));
        self
    }

    pub fn lacking(mut self, mask: u64) -> Self {
        self.lacking = mask;
        self
    }

    pub fn execute_fails(mut self, error: i32) -> Self {
        self.execute_error = error;
        self
    }

    pub fn calls(&self) -> Vec<Call> {
        self.calls.borrow().clone()
    }

    fn record(&self, call: Call) -> io::Result<()> {
        let failure = self.failing.iter().find(|(failing, _)| *failing == call);
        self.calls.borrow_mut().push(call);
        failure.map_or(Ok(()), |(_, error)| Err(io::Error::from_raw_os_error(*error)))
    }
}

impl Syscall for Recording {
    fn close_from(&self, descriptor: u32) -> io::Result<()> {
        self.record(Call::CloseFrom(descriptor))
    }

    fn new_session(&self) -> io::Result<()> {
        self.record(Call::NewSession)
    }

    fn join_cgroup(&self, procs: &Path) -> io::Result<()> {
        self.record(Call::JoinCgroup(procs.into()))
    }

    fn limit(&self, _: Resource) -> io::Result<(u64, u64)> {
        Ok((1024, 4096))
    }

    fn set_limit(&self, resource: Resource, soft: u64, hard: u64) -> io::Result<()> {
        self.record(Call::SetLimit(resource, soft, hard))
    }

    fn set_oom_score_adj(&self, value: i32) -> io::Result<()> {
        self.record(Call::SetOomScoreAdj(value))
    }

    fn set_timer_slack(&self, ns: u64) -> io::Result<()> {
        self.record(Call::SetTimerSlack(ns))
    }

    fn disable_huge_pages(&self) -> io::Result<()> {
        self.record(Call::DisableHugePages)
    }

    fn set_umask(&self, mask: u32) {
        self.record(Call::SetUmask(mask)).expect("umask(2) never fails");
    }

    fn change_directory(&self, path: &Path) -> io::Result<()> {
        self.record(Call::ChangeDirectory(path.into()))
    }

    fn last_capability(&self) -> u8 {
        3
    }

    fn drop_bounding(&self, capability: u8) -> io::Result<()> {
        self.record(Call::DropBounding(capability))
    }

    fn set_keep_capabilities(&self, keep: bool) -> io::Result<()> {
        self.record(Call::SetKeepCapabilities(keep))
    }

    fn set_groups(&self, groups: &[u32]) -> io::Result<()> {
        self.record(Call::SetGroups(groups.into()))
    }

    fn set_group(&self, gid: u32) -> io::Result<()> {
        self.record(Call::SetGroup(gid))
    }

    fn set_user(&self, uid: u32) -> io::Result<()> {
        self.record(Call::SetUser(uid))
    }

    fn permitted_capabilities(&self) -> io::Result<u64> {
        Ok(!self.lacking)
    }

    fn set_capabilities(&self, mask: u64) -> io::Result<()> {
        self.record(Call::SetCapabilities(mask))
    }

    fn clear_ambient(&self) -> io::Result<()> {
        self.record(Call::ClearAmbient)
    }

    fn raise_ambient(&self, capability: u8) -> io::Result<()> {
        self.record(Call::RaiseAmbient(capability))
    }

    fn set_no_new_privileges(&self) -> io::Result<()> {
        self.record(Call::SetNoNewPrivileges)
    }

    fn execute(&self, command: &Command, environment: &[(String, String)]) -> io::Error {
        let Command { program, arguments } = command.clone();
        let _ = self.record(Call::Execute(program, arguments, environment.into()));
        io::Error::from_raw_os_error(self.execute_error)
    }
}
