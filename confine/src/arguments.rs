//! The command line of `skiff confine`.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::{Command, ConfineError, Profile};

/// `--profile JSON -- PROGRAM [ARGUMENT]…`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments {
    pub profile: Profile,
    pub command: Command,
}

impl Arguments {
    pub fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Self, ConfineError> {
        let usage = || ConfineError::Usage("confine --profile JSON -- PROGRAM [ARGUMENT]...");
        if args.next().is_none_or(|word| word != "--profile") {
            return Err(usage());
        }
        let json = args.next().and_then(|text| text.into_string().ok()).ok_or_else(usage)?;
        let profile = serde_json::from_str(&json).map_err(ConfineError::Profile)?;
        if args.next().is_none_or(|word| word != "--") {
            return Err(usage());
        }
        let program = PathBuf::from(args.next().ok_or_else(usage)?);
        if !program.is_absolute() {
            return Err(ConfineError::RelativeProgram(program));
        }
        Ok(Self { profile, command: Command { program, arguments: args.collect() } })
    }
}
