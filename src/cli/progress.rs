//! Long work of skiffd: its steps are shown while they happen.

use serde::Serialize;
use skiff_api::{Client, Progress};

use super::CommandError;
use super::ui::Waiting;

/// Posts, shows each step on standard error, and answers what the last line says.
pub async fn follow<B: Serialize>(
    client: &Client,
    path: &str,
    body: &B,
) -> Result<String, CommandError> {
    let mut end = None;
    let mut waiting = Waiting::new();
    client
        .post_lines(path, body, |line: Progress| match line {
            Progress::Step { message } => {
                waiting.show(&message);
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
        Some(Progress::Failed { error }) => Err(CommandError::answered(error)),
        _ => Err(CommandError::new("skiffd ended before the work was done").hint("skiff status")),
    }
}
