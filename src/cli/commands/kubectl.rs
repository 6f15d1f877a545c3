use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use microcluster::record::{NodeName, NodeNameError};
use skiff_api::{ClientCertificate, CredentialRequest, Status};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::Outcome;
use crate::cli::kubeconfig_file::{self, is_given};
use crate::cli::{CommandError, Session, ui};
use crate::distribution::{Distribution, current};
use crate::node::admin_group;
use crate::node::plan::NO_QUORUM;

/// Run kubectl against this node, as its administrator
///
/// Everything after `kubectl` is kubectl's own. Root and members of the group
/// skiff may use it: no key is stored for it, a certificate that lives an hour
/// is fetched when it is needed. With --kubeconfig among kubectl's arguments it
/// talks to whatever that file names.
///
///   skiff kubectl get pods --all-namespaces
///   skiff kubectl apply --filename app.yaml
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment, disable_help_flag = true)]
pub struct Arguments {
    /// Arguments of kubectl
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    arguments: Vec<OsString>,
}

pub(super) async fn run(_: Arguments, session: &Session) -> Outcome {
    let kubeconfig = match is_given(&session.rest) {
        true => None,
        false => Some(kubeconfig_file::ensure(session)?),
    };
    if kubeconfig.is_some() {
        tell_of_lost_quorum(session).await;
    }
    let mut command = Command::new(program(session, "kube")?);
    command.arg("kubectl").args(&session.rest);
    if let Some(path) = kubeconfig {
        command.env("KUBECONFIG", path);
    }
    execute(command)
}

/// kubectl would only say that nobody answers. It is asked all the same: it may be over by now.
async fn tell_of_lost_quorum(session: &Session) {
    let client = session.client();
    let asked = client.get::<Status>("/v1/status");
    let Ok(Ok(status)) = tokio::time::timeout(STATUS_TIMEOUT, asked).await else { return };
    for notice in status.notices.iter().filter(|notice| notice.name == NO_QUORUM) {
        ui::say(&notice.message);
        if let Some(remedy) = &notice.remedy {
            ui::say(&format!("remedy: {}", session.command_line(remedy)));
        }
    }
}

/// A program of the build that runs, or of the distribution at hand when none is staged.
pub fn program(session: &Session, name: &str) -> Result<PathBuf, CommandError> {
    match current(&session.paths.builds()) {
        Some((_, build)) => Ok(build.join("bin").join(name)),
        None => Ok(Distribution::find()?.bin(name)),
    }
}

/// Becomes another program; only comes back when that cannot be executed.
pub fn execute(mut command: Command) -> Outcome {
    let error = command.exec();
    let program = command.get_program().to_string_lossy().into_owned();
    Err(CommandError::because(format!("cannot run {program}"), &error).hint("sudo skiff start"))
}

/// skiffd answers from memory; one that hangs keeps nobody from kubectl.
const STATUS_TIMEOUT: Duration = Duration::from_millis(500);
/// Longest wait for one answer of the API server; without it kubectl waits for ever.
const REQUEST_TIMEOUT: &str = "--request-timeout=30s";

/// Has kubectl take a node out of service or back. What it says is shown as it comes; what it
/// fails with becomes the error.
pub(super) async fn on_node(
    session: &Session,
    verb: &str,
    node: &str,
    options: &[String],
) -> Result<(), CommandError> {
    let node: NodeName = node.parse().map_err(|error: NodeNameError| {
        CommandError::because("no node has such a name", &error).hint("skiff nodes")
    })?;
    // What kubectl would ask for itself: whoever may not have it, a worker say, is told why.
    let user = CredentialRequest { user: "admin".into(), groups: vec![admin_group().into()] };
    session.client().post::<_, ClientCertificate>("/v1/credential", &user).await?;
    let kube = program(session, "kube")?;
    let mut command = tokio::process::Command::new(&kube);
    command.args(["kubectl", verb, node.as_str(), REQUEST_TIMEOUT]).args(options);
    command.env("KUBECONFIG", kubeconfig_file::ensure(session)?);
    command.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| {
        CommandError::because(format!("cannot run {}", kube.display()), &error)
            .hint("sudo skiff start")
    })?;
    let mut failures = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        let mut lines = BufReader::new(stderr).lines();
        while let Some(line) = lines.next_line().await? {
            match failure(&line) {
                Some(failure) => failures.push(failure.to_owned()),
                None => ui::say(&line),
            }
        }
    }
    match child.wait().await?.success() {
        true => Ok(()),
        false => Err(failed(verb, node.as_str(), &failures)),
    }
}

/// What of kubectl's lines is its last word; what it tries again it says otherwise.
fn failure(line: &str) -> Option<&str> {
    let server = line.starts_with("Error from server");
    line.strip_prefix("error: ").or_else(|| server.then_some(line))
}

fn failed(verb: &str, node: &str, failures: &[String]) -> CommandError {
    let has = |words: &str| failures.iter().any(|failure| failure.contains(words));
    if has("(NotFound): nodes ") {
        return CommandError::new(format!("there is no node {node}")).hint("skiff nodes");
    }
    let mut error = CommandError::new(format!("{node} was not {verb}ed"));
    for (index, failure) in failures.iter().enumerate() {
        // It says some twice, once with more words around them.
        let said = |(other, shorter): (usize, &String)| {
            (failure != shorter && failure.contains(shorter.as_str()))
                || (failure == shorter && other < index)
        };
        if !failures.iter().enumerate().any(said) {
            error = error.cause(failure.as_str());
        }
    }
    if verb == "drain" {
        error = error.cause(format!("it stays cordoned, until `skiff uncordon {node}`"));
    }
    error.hint(if has("declare no controller") {
        format!("skiff drain {node} --force, which loses the pods that nobody makes anew")
    } else if has("local storage") {
        format!("skiff drain {node}, which loses what they keep in emptyDir volumes")
    } else if has("global timeout reached") {
        let selector = format!("--field-selector spec.nodeName={node}");
        format!("skiff kubectl get pods --all-namespaces {selector}")
    } else {
        "skiff status".into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(verb: &str, lines: &[&str]) -> CommandError {
        let failures: Vec<String> =
            lines.iter().filter_map(|line| failure(line)).map(str::to_owned).collect();
        failed(verb, "beta", &failures)
    }

    #[test]
    fn an_unknown_node_is_said_to_be_none() {
        let error = error("cordon", &["Error from server (NotFound): nodes \"beta\" not found"]);
        assert_eq!(error.message, "there is no node beta");
        assert_eq!(error.hint.as_deref(), Some("skiff nodes"));
    }

    #[test]
    fn what_keeps_a_node_from_being_drained_is_said_once_with_what_to_type() {
        let why = "cannot delete Pods that declare no controller (use --force to \
                   override): default/lone";
        let around = format!(
            "error: unable to drain node \"beta\" due to error: {why}, continuing \
                              command..."
        );
        let error = error("drain", &[&around, &format!("error: {why}")]);
        assert_eq!(error.message, "beta was not drained");
        assert_eq!(error.causes.len(), 2, "{error:?}");
        assert_eq!(error.causes[0], why);
        assert!(error.causes[1].contains("stays cordoned"), "{error:?}");
        assert!(error.hint.unwrap().starts_with("skiff drain beta --force"));
    }

    #[test]
    fn what_is_tried_again_is_no_failure() {
        let retried = "error when evicting pods/\"a\" -n \"b\" (will retry after 5s): Cannot evict";
        assert_eq!(failure(retried), None);
        assert_eq!(failure("WARNING: ignoring DaemonSet-managed Pods: b/a"), None);
    }
}
