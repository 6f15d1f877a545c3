use std::process::ExitCode;

use skiff_api::{ClientError, Version};

use crate::cli::{CommandError, Session, output};
use crate::distribution::Distribution;

/// Print the version of every component
///
/// Of the build that runs, or of the one at hand when the node is stopped.
#[derive(clap::Args, Debug)]
pub struct Arguments {}

pub(super) async fn run(_: Arguments, session: &Session) -> Result<ExitCode, CommandError> {
    let version = match session.client().get("/v1/version").await {
        Ok(version) => version,
        Err(ClientError::NotRunning(_) | ClientError::Denied(_)) => at_hand()?,
        Err(error) => return Err(error.into()),
    };
    output::print(session.format, &version, text)?;
    Ok(ExitCode::SUCCESS)
}

fn at_hand() -> Result<Version, CommandError> {
    let distribution = Distribution::find()?;
    Ok(Version {
        skiff: env!("CARGO_PKG_VERSION").into(),
        build: String::new(),
        arch: distribution.arch,
        components: distribution.components,
    })
}

fn text(version: &Version) -> String {
    let mut rows = vec![vec!["skiff".to_owned(), version.skiff.clone()]];
    rows.extend(version.components.iter().map(|c| vec![c.name.clone(), c.version.clone()]));
    rows.push(vec!["architecture".into(), version.arch.clone()]);
    if !version.build.is_empty() {
        rows.push(vec!["build".into(), version.build.clone()]);
    }
    output::table(&rows)
}
