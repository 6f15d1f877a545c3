//! Drops privilege, then executes a daemon: everything behind `skiff confine`.
//!
//! What comes in: a [`Profile`] (as JSON) and a command. What goes out: that command, in this
//! process, with no more than the profile grants. Nothing here runs beside it: no task, no
//! thread, and the process that was confined *is* the daemon, with the same process id.
//!
//! The steps and their order are [`run`]; each is one file in `step/`. A process that is still
//! root does what only root may, then gives root away, then makes that final.
//!
//! Failures are one line on standard error, which is the daemon's log, and an exit code:
//! 70 when a step failed, 126 when the program may not be executed, 127 when it is missing.

mod arguments;
mod capability;
mod error;
mod profile;
mod recording;
mod step;
mod syscall;

use std::ffi::OsString;
use std::process::ExitCode;

pub use arguments::Arguments;
pub use capability::{Capability, Keep, UnknownCapability};
pub use error::ConfineError;
pub use profile::{Limits, Profile, ProfileError, User};
pub use recording::{Call, Recording};
pub use syscall::{Command, Kernel, Resource, Syscall};

/// Gives up everything that `profile` does not grant, then executes `command` in this process.
///
/// Returns only when that failed. What could not be had but is not needed for safety (a limit
/// above the hard one, a lower OOM score without CAP_SYS_RESOURCE) is said through `note`.
pub fn run(
    syscall: &impl Syscall,
    profile: &Profile,
    command: &Command,
    note: &mut dyn FnMut(String),
) -> ConfineError {
    match give_up(syscall, profile, note) {
        Ok(()) => step::execute::execute(syscall, profile, command),
        Err(error) => error,
    }
}

fn give_up(
    syscall: &impl Syscall,
    profile: &Profile,
    note: &mut dyn FnMut(String),
) -> Result<(), ConfineError> {
    // As root, on what surrounds the process.
    step::descriptors::close(syscall)?;
    step::session::begin(syscall)?;
    step::cgroups::join(syscall, profile)?;
    step::limits::set(syscall, profile, note)?;
    step::oom_score::set(syscall, profile, note);
    step::timer_slack::set(syscall, profile, note);
    step::huge_pages::set(syscall, profile, note);
    step::files::prepare(syscall, profile)?;
    // Giving root away: what may ever be had again, who we are, what is left.
    step::bounding::drop(syscall, profile)?;
    step::user::become_user(syscall, profile)?;
    step::capabilities::keep(syscall, profile, note)?;
    // Nothing that is executed from here on gains anything.
    step::privileges::forbid_new(syscall, profile)
}

/// The whole `skiff confine` verb: `args` are those after the word `confine`.
///
/// Returns only on failure. Must be called while the process has one thread: user and
/// capabilities are properties of a thread on Linux.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let error = match Arguments::parse(args) {
        Ok(Arguments { profile, command }) => {
            run(&Kernel, &profile, &command, &mut |text| eprintln!("skiff confine: note: {text}"))
        }
        Err(error) => error,
    };
    let mut line = format!("skiff confine: {error}");
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        line.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    eprintln!("{line}");
    ExitCode::from(error.exit_code())
}

#[cfg(test)]
mod run_test;
