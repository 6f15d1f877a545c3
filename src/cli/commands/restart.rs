use std::process::ExitCode;

use skiff_api::Service;

use super::Outcome;
use crate::cli::{Session, interrupt, progress, ui};

/// Restart the node's daemons; pods keep running
///
/// Without a name every daemon, one after the other, each waited for. The API
/// does not answer for some seconds meanwhile; no container ends.
///
///   skiff restart
///   skiff restart kube-node
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// Service to restart (can be repeated) [default: all of them]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Outcome {
    let client = session.client();
    if arguments.services.is_empty() {
        let work = progress::follow(&client, "/v1/restart", &());
        let goes_on = "skiffd goes on restarting the daemons";
        ui::say(&interrupt::or_leave(work, goes_on, "skiff services").await?);
    }
    for name in &arguments.services {
        let path = format!("/v1/services/{name}/restart");
        client.post::<_, Option<Service>>(&path, &()).await?;
        ui::say(&format!("{name} is restarted"));
    }
    Ok(ExitCode::SUCCESS)
}
