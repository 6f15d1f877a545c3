use std::process::ExitCode;

use super::kubeconfig::{TTL_DEFAULT_S, request};
use crate::cli::{CommandError, Session, output};
use crate::node::admin_group;

/// Print the administrator's kubeconfig
///
/// With everything within, for another machine: it is good for 30 days. On this machine
/// `skiff kubectl` needs no file. For less than all rights see `skiff kubeconfig`.
#[derive(clap::Args, Debug)]
pub struct Arguments {}

pub(super) async fn run(_: Arguments, session: &Session) -> Result<ExitCode, CommandError> {
    let groups = vec![admin_group().to_owned()];
    output::write(&request(session, "admin", groups, TTL_DEFAULT_S, None).await?)?;
    Ok(ExitCode::SUCCESS)
}
