//! The users and the group that a node needs on its machine: made when missing, left alone when
//! there.

use std::process::Command;

use nix::unistd::{Gid, Group, Uid, User};

/// May talk to skiffd without sudo.
pub const GROUP: &str = "skiff";
/// Owns the datastore's files.
pub const DATASTORE: &str = "skiff-datastore";
/// Runs the control plane.
pub const CONTROL: &str = "skiff-control";
/// Faces other nodes, in a cluster.
pub const AGENT: &str = "skiff-agent";

/// A user and its primary group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    pub uid: u32,
    pub gid: u32,
}

/// Everybody whom every node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accounts {
    pub datastore: Account,
    pub control: Account,
    /// Of the group that may open skiffd's socket.
    pub skiff_gid: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    #[error("cannot look up {name} among the machine's users and groups")]
    Lookup { name: &'static str, source: nix::Error },
    #[error("cannot create {name}: {command} said: {output}")]
    Create { name: &'static str, command: &'static str, output: String },
    #[error("cannot run {command} to create {name} (Debian package: passwd)")]
    Run { name: &'static str, command: &'static str, source: std::io::Error },
}

/// Finds the accounts, creating those that are missing.
pub fn ensure() -> Result<Accounts, AccountError> {
    Ok(Accounts {
        datastore: ensure_user(DATASTORE)?,
        control: ensure_user(CONTROL)?,
        skiff_gid: ensure_group(GROUP)?.as_raw(),
    })
}

/// Finds the account of the agent, which only nodes of a cluster have.
pub fn ensure_agent() -> Result<Account, AccountError> {
    ensure_user(AGENT)
}

fn ensure_group(name: &'static str) -> Result<Gid, AccountError> {
    let find = || Group::from_name(name).map_err(|source| AccountError::Lookup { name, source });
    if let Some(group) = find()? {
        return Ok(group.gid);
    }
    run(name, "groupadd", &["--system", name])?;
    let group = find()?.ok_or(AccountError::Lookup { name, source: nix::Error::ENOENT })?;
    Ok(group.gid)
}

fn ensure_user(name: &'static str) -> Result<Account, AccountError> {
    let account = |user: User| Account { uid: user.uid.as_raw(), gid: user.gid.as_raw() };
    let find = || User::from_name(name).map_err(|source| AccountError::Lookup { name, source });
    if let Some(user) = find()? {
        return Ok(account(user));
    }
    let gid = ensure_group(name)?.to_string();
    let shell = "/usr/sbin/nologin";
    let home = "/nonexistent";
    run(
        name,
        "useradd",
        &[
            "--system",
            "--no-create-home",
            "--home-dir",
            home,
            "--shell",
            shell,
            "--gid",
            &gid,
            name,
        ],
    )?;
    find()?.map(account).ok_or(AccountError::Lookup { name, source: nix::Error::ENOENT })
}

fn run(name: &'static str, command: &'static str, args: &[&str]) -> Result<(), AccountError> {
    let output = Command::new(command).args(args).output().map_err(|source| AccountError::Run {
        name,
        command,
        source,
    })?;
    if output.status.success() {
        return Ok(());
    }
    let output = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(AccountError::Create { name, command, output })
}

/// Whether this process may do everything that a node needs.
pub fn is_root() -> bool {
    Uid::effective().is_root()
}
