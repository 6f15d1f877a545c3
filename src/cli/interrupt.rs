//! Ctrl-C, and the other signals by which a person or a closing terminal ends a command.
//!
//! Work that skiffd has begun goes on without the command that asked for it; what matters is that
//! the command does not leave between two steps, and says what goes on.

use std::io;

use futures::FutureExt;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::CommandError;

/// While one of these lives, the signals do not end the process: whoever made it looks for them.
#[derive(Debug)]
pub struct Interrupt {
    signals: [Signal; 3],
    came: bool,
}

impl Interrupt {
    pub fn new() -> io::Result<Self> {
        let [a, b, c] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        Ok(Self { signals: [a?, b?, c?], came: false })
    }

    /// Returns when one has come; one that came before is not forgotten.
    pub async fn came(&mut self) {
        if !self.came {
            let [a, b, c] = &mut self.signals;
            tokio::select! {
                _ = a.recv() => {}
                _ = b.recv() => {}
                _ = c.recv() => {}
            }
            self.came = true;
        }
    }

    /// Whether one has come.
    pub fn has_come(&mut self) -> bool {
        self.came().now_or_never();
        self.came
    }
}

/// The outcome of something that skiffd does, or an error that says what goes on without us.
pub async fn or_leave<T>(
    work: impl Future<Output = Result<T, CommandError>>,
    goes_on: &str,
    hint: &str,
) -> Result<T, CommandError> {
    let mut interrupt = Interrupt::new()?;
    tokio::select! {
        outcome = work => outcome,
        () = interrupt.came() => Err(left(goes_on).hint(hint)),
    }
}

/// What is said at the end of an interrupted command.
pub fn left(goes_on: &str) -> CommandError {
    CommandError::new(format!("interrupted; {goes_on}"))
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::{Signal, raise};

    use super::*;

    #[test]
    fn a_signal_that_came_while_nobody_looked_is_not_forgotten() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut interrupt = Interrupt::new().unwrap();
            assert!(!interrupt.has_come());
            raise(Signal::SIGHUP).unwrap();
            interrupt.came().await;
            assert!(interrupt.has_come());
        });
    }
}
