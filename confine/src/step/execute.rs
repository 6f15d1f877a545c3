//! The daemon itself, in this process and with an environment of its own.

use std::io;

use crate::{Command, ConfineError, Profile, Syscall};

pub(crate) fn execute(
    syscall: &impl Syscall,
    profile: &Profile,
    command: &Command,
) -> ConfineError {
    let source = syscall.execute(command, &profile.environment);
    let path = command.program.clone();
    match source.kind() {
        io::ErrorKind::NotFound => ConfineError::ProgramMissing(path),
        _ => ConfineError::Execute { path, source },
    }
}
