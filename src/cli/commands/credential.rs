use std::process::ExitCode;

use serde_json::json;
use skiff_api::{ClientCertificate, CredentialRequest};

use super::Outcome;
use crate::cli::{Session, output};

/// Answer kubectl's request for a credential
///
/// The exec plugin of `skiff kubectl` (client.authentication.k8s.io/v1).
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// Name that RBAC sees
    #[arg(long)]
    user: String,

    /// Group that RBAC sees (can be repeated)
    #[arg(long = "group")]
    groups: Vec<String>,
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Outcome {
    let request = CredentialRequest { user: arguments.user, groups: arguments.groups };
    let answer: ClientCertificate = session.client().post("/v1/credential", &request).await?;
    let credential = json!({
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {
            "expirationTimestamp": answer.expires,
            "clientCertificateData": answer.certificate_pem,
            "clientKeyData": answer.key_pem,
        },
    });
    output::write(&format!("{credential}\n"))?;
    Ok(ExitCode::SUCCESS)
}
