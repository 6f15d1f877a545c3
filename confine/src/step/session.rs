//! A session of its own: no terminal, and no signal meant for the supervisor's group.

use crate::{ConfineError, Syscall};

pub(crate) fn begin(syscall: &impl Syscall) -> Result<(), ConfineError> {
    syscall.new_session().map_err(ConfineError::Session)
}
