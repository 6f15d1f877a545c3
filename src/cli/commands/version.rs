use std::process::ExitCode;

use skiff_api::{ClientError, Version};

use super::Outcome;
use crate::cli::output::{self, Choice};
use crate::cli::ui::Paint;
use crate::cli::{CommandError, Session};
use crate::distribution::{Distribution, current};

/// Print the version of every component
///
/// Of the build that the node runs, or of the one at hand when it is stopped.
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    #[command(flatten)]
    output: Choice,
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Outcome {
    let version = match session.client().get("/v1/version").await {
        Ok(version) => version,
        Err(ClientError::NotRunning(_) | ClientError::Denied(_)) => at_hand(session)?,
        Err(error) => return Err(error.into()),
    };
    output::print(arguments.output, &version, text)?;
    Ok(ExitCode::SUCCESS)
}

fn at_hand(session: &Session) -> Result<Version, CommandError> {
    let staged = current(&session.paths.builds());
    let (build, distribution) = match Distribution::find() {
        Ok(distribution) => (String::new(), distribution),
        Err(error) => match staged {
            Some((id, dir)) => (id.to_string(), Distribution::open(&dir)?),
            None => return Err(error.into()),
        },
    };
    Ok(Version {
        skiff: env!("CARGO_PKG_VERSION").into(),
        build,
        arch: distribution.arch,
        components: distribution.components,
    })
}

fn text(version: &Version, paint: Paint) -> String {
    let mut rows = vec![vec!["skiff".into(), (&version.skiff).into()]];
    let components = version.components.iter().filter(|component| component.name != "skiff");
    rows.extend(components.map(|c| vec![(&c.name).into(), (&c.version).into()]));
    rows.push(vec!["architecture".into(), (&version.arch).into()]);
    if !version.build.is_empty() {
        rows.push(vec!["build".into(), (&version.build).into()]);
    }
    output::table(&rows, 0, paint)
}
