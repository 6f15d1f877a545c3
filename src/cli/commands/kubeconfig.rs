use std::path::PathBuf;
use std::process::ExitCode;

use skiff_api::KubeconfigRequest;

use super::Outcome;
use crate::cli::{CommandError, Session, merge, output, span, ui};

/// Life of a kubeconfig when nobody says otherwise, in seconds.
pub const TTL_DEFAULT_S: u64 = 30 * 24 * 3600;

/// Make a kubeconfig for a user with the rights of its groups
///
/// The certificate within is the user's own and is good for as long as --ttl
/// says; nothing else has to run where the file is used. Who has a certificate
/// may do nothing until a binding names the user or one of its groups:
///
///   skiff kubeconfig --user ann --group viewers > ann.yaml
///   skiff kubectl create clusterrolebinding viewers \
///     --clusterrole view --group viewers
///
/// With --merge the entries go into a kubeconfig that you have, and the rest of
/// it stays as it is.
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// Name that RBAC sees
    #[arg(long, value_name = "NAME")]
    user: String,

    /// Group that RBAC sees (can be repeated)
    #[arg(long = "group", value_name = "NAME")]
    groups: Vec<String>,

    /// Life of the certificate: 90m, 12h, 30d
    #[arg(long, default_value = "30d", value_parser = span::seconds, value_name = "TIME")]
    ttl: u64,

    /// Address of the API server to write [default: the node's own]
    #[arg(long, value_name = "URL", value_parser = https)]
    server: Option<String>,

    /// Put the entries into a kubeconfig instead of printing them
    #[arg(long)]
    merge: bool,

    /// File for --merge [default: the first of $KUBECONFIG, or ~/.kube/config]
    #[arg(long, value_name = "FILE", requires = "merge")]
    file: Option<PathBuf>,

    /// Name of cluster and context in the file of --merge
    #[arg(long, value_name = "NAME", default_value = "skiff", requires = "merge")]
    context: String,
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Outcome {
    let Arguments { user, groups, ttl, server, merge, file, context } = arguments;
    let text = request(session, &user, groups, ttl, server).await?;
    if !merge {
        output::write(&text)?;
        return Ok(ExitCode::SUCCESS);
    }
    let file = match file {
        Some(file) => file,
        None => merge::default_file()?,
    };
    merge::merge_into(&file, &text, &context)?;
    ui::say(&format!("context {context} is in {}", file.display()));
    Ok(ExitCode::SUCCESS)
}

/// Asks skiffd for the file's text.
pub(super) async fn request(
    session: &Session,
    user: &str,
    groups: Vec<String>,
    ttl_s: u64,
    server: Option<String>,
) -> Result<String, CommandError> {
    let request = KubeconfigRequest { user: user.into(), groups, ttl_s, server };
    Ok(session.client().post("/v1/kubeconfig", &request).await?)
}

fn https(text: &str) -> Result<String, String> {
    match text.strip_prefix("https://") {
        Some(host) if !host.is_empty() => Ok(text.to_owned()),
        _ => Err("an address is written as https://HOST:PORT".into()),
    }
}
