//! Inherited descriptors: a daemon gets standard input, output and error, and nothing else.

use crate::{ConfineError, Syscall};

const FIRST_ABOVE_STANDARD: u32 = 3;

pub(crate) fn close(syscall: &impl Syscall) -> Result<(), ConfineError> {
    syscall.close_from(FIRST_ABOVE_STANDARD).map_err(ConfineError::Descriptors)
}
