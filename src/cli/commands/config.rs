use std::process::ExitCode;

use super::Outcome;
use super::kubeconfig::{TTL_DEFAULT_S, request};
use crate::cli::{Session, output};
use crate::node::admin_group;

/// Print the administrator's kubeconfig
///
/// With certificate and key within, for another machine: it gives all rights
/// and is good for 30 days. On this machine `skiff kubectl` needs no file, and
/// `skiff kubeconfig` makes one with fewer rights or another life.
///
///   skiff config > skiff.yaml
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Arguments {}

pub(super) async fn run(_: Arguments, session: &Session) -> Outcome {
    let groups = vec![admin_group().to_owned()];
    output::write(&request(session, "admin", groups, TTL_DEFAULT_S, None).await?)?;
    Ok(ExitCode::SUCCESS)
}
