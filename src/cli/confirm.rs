//! Asks a person to type a word before something is lost.

use std::io::{self, BufRead, IsTerminal};

use super::{CommandError, ui};

/// What may be lost, and how it is confirmed.
#[derive(Clone, Copy, Debug)]
pub struct Loss<'a> {
    /// What a person types to mean it.
    pub word: &'a str,
    /// What this is, for who runs it without a person: "reset loses everything".
    pub reason: &'a str,
    /// What to type instead where nobody can be asked.
    pub otherwise: &'a str,
}

/// Returns when the word was typed. Says `warnings` before it asks.
///
/// # Errors
/// When another word comes, and when standard input is no terminal.
pub fn confirm(loss: Loss<'_>, warnings: &[&str]) -> Result<(), CommandError> {
    if !io::stdin().is_terminal() {
        let reason = format!("{}, and nobody is here to confirm it", loss.reason);
        return Err(CommandError::new(reason).hint(loss.otherwise));
    }
    warnings.iter().for_each(|warning| ui::say(warning));
    ui::print(&format!("type {:?} to go on: ", loss.word));
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    match line.trim() == loss.word {
        true => Ok(()),
        false => Err(CommandError::new("nothing was done")),
    }
}
