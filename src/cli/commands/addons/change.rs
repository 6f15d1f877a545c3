//! What would be changed, and changing it.

use std::process::ExitCode;

use skiff_api::{Addon, AddonDiff, AddonState, EnableRequest};

use super::super::{Outcome, not_begun};
use super::{path_of, screen};
use crate::cli::output::{self, Choice};
use crate::cli::{CommandError, Session, interrupt, progress, ui};

pub async fn diff(names: Vec<String>, choice: Choice, session: &Session) -> Outcome {
    let names = match names.is_empty() {
        true => enabled(session, |_| true).await?,
        false => names,
    };
    let mut diffs = Vec::new();
    for name in &names {
        diffs.push(ask(name, session).await?);
    }
    output::print(choice, &diffs, |diffs, _| match diffs.is_empty() {
        true => "no addon is enabled\n".into(),
        false => screen::diffs(diffs),
    })?;
    Ok(ExitCode::SUCCESS)
}

pub async fn upgrade(names: Vec<String>, timeout_s: u64, session: &Session) -> Outcome {
    let names = match names.is_empty() {
        true => enabled(session, |addon| addon.applied.is_some()).await?,
        false => names,
    };
    if names.is_empty() {
        ui::say("every addon that is enabled is as this build has it");
    }
    for (index, name) in names.iter().enumerate() {
        let outcome = upgrade_one(name, timeout_s, session).await;
        ui::say(&outcome.map_err(|error| not_begun(error, &names[index + 1..]))?);
    }
    Ok(ExitCode::SUCCESS)
}

async fn upgrade_one(
    name: &str,
    timeout_s: u64,
    session: &Session,
) -> Result<String, CommandError> {
    ui::print(&screen::diff(&ask(name, session).await?));
    let request = EnableRequest { wait: true, timeout_s, ..EnableRequest::default() };
    let path = format!("{}/upgrade", path_of(name));
    let client = session.client();
    let work = progress::follow(&client, &path, &request);
    let goes_on = format!("skiffd goes on upgrading {name}");
    interrupt::or_leave(work, &goes_on, &format!("skiff addons show {name}")).await
}

async fn ask(name: &str, session: &Session) -> Result<AddonDiff, CommandError> {
    Ok(session.client().get(&format!("{}/diff", path_of(name))).await?)
}

/// Names of the addons that are enabled and that are chosen.
async fn enabled(
    session: &Session,
    is_chosen: impl Fn(&Addon) -> bool,
) -> Result<Vec<String>, CommandError> {
    let addons: Vec<Addon> = session.client().get("/v1/addons").await?;
    if addons.iter().any(|addon| addon.state == AddonState::Unknown) {
        let error = CommandError::new("nobody knows which addons are enabled");
        return Err(error.cause("the API server does not answer").hint("skiff status"));
    }
    let chosen = addons.into_iter().filter(|a| a.state != AddonState::Disabled && is_chosen(a));
    Ok(chosen.map(|addon| addon.name).collect())
}
