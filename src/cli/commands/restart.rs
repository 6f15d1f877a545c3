use std::process::ExitCode;

use skiff_api::Service;

use super::progress;
use crate::cli::{CommandError, Session};

/// Restart the node's daemons; pods keep running
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Services to restart (can be repeated) [default: all, one after the other]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

pub(super) async fn run(
    arguments: Arguments,
    session: &Session,
) -> Result<ExitCode, CommandError> {
    let client = session.client();
    if arguments.services.is_empty() {
        eprintln!("{}", progress::follow(&client, "/v1/restart", &()).await?);
    }
    for name in &arguments.services {
        let path = format!("/v1/services/{name}/restart");
        client.post::<_, Option<Service>>(&path, &()).await?;
        eprintln!("{name} restarted");
    }
    Ok(ExitCode::SUCCESS)
}
