//! Long work: steps on standard error while they happen.

use serde::Serialize;
use skiff_api::{Client, Progress};

use crate::cli::CommandError;

/// Posts and prints each step; answers the last line's message.
pub async fn follow<B: Serialize>(
    client: &Client,
    path: &str,
    body: &B,
) -> Result<String, CommandError> {
    let mut end = None;
    client
        .post_lines(path, body, |line: Progress| match line {
            Progress::Step { message } => {
                eprintln!("{message}");
                true
            }
            last => {
                end = Some(last);
                false
            }
        })
        .await?;
    match end {
        Some(Progress::Done { message, .. }) => Ok(message),
        Some(Progress::Failed { error }) => Err(CommandError::from_body(error)),
        _ => Err(CommandError::new("skiffd ended before the work was done").hint("skiff status")),
    }
}
