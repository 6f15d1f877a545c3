//! One file per verb; the doc comment of each is its help.

mod add_node;
mod addons;
mod agent;
mod backup;
mod certs;
mod check;
mod completion;
mod config;
mod confine;
mod cordon;
mod credential;
mod ctr;
mod daemon;
mod datastore;
mod disable;
mod drain;
mod enable;
mod get;
mod inspect;
mod join;
mod kubeconfig;
mod kubectl;
mod leave;
mod logs;
mod nodes;
mod recover;
mod remove_node;
mod reset;
mod restart;
mod services;
mod set;
mod start;
mod status;
mod stop;
mod tokens;
mod uncordon;
mod version;

use std::process::ExitCode;

use clap::Subcommand;

use super::{CommandError, Session};

/// What a verb comes to.
type Outcome = Result<ExitCode, CommandError>;

/// Everything that `skiff` can be told to do.
#[derive(Subcommand, Debug)]
pub enum Verb {
    Start(start::Arguments),
    Stop(stop::Arguments),
    Restart(restart::Arguments),
    Status(status::Arguments),
    Services(services::Arguments),
    Logs(logs::Arguments),
    Kubectl(kubectl::Arguments),
    Ctr(ctr::Arguments),
    Enable(enable::Arguments),
    Disable(disable::Arguments),
    Addons(addons::Arguments),
    AddNode(add_node::Arguments),
    Join(join::Arguments),
    Nodes(nodes::Arguments),
    Cordon(cordon::Arguments),
    Uncordon(uncordon::Arguments),
    Drain(drain::Arguments),
    Leave(leave::Arguments),
    RemoveNode(remove_node::Arguments),
    Tokens(tokens::Arguments),
    Backup(backup::Arguments),
    Recover(recover::Arguments),
    Certs(certs::Arguments),
    Config(config::Arguments),
    Kubeconfig(kubeconfig::Arguments),
    Get(get::Arguments),
    Set(set::Arguments),
    Check(check::Arguments),
    Inspect(inspect::Arguments),
    Version(version::Arguments),
    Reset(reset::Arguments),
    Datastore(Box<datastore::Arguments>),
    Completion(completion::Arguments),
    #[command(hide = true)]
    Agent(Box<agent::Arguments>),
    #[command(hide = true)]
    Credential(credential::Arguments),
    #[command(hide = true)]
    Daemon(daemon::Arguments),
    #[command(hide = true)]
    Confine(confine::Arguments),
}

impl Verb {
    /// The first addon that is named.
    pub(super) fn addon(&self) -> Option<String> {
        match self {
            Self::Enable(arguments) => arguments.first(),
            Self::Disable(arguments) => arguments.first(),
            _ => None,
        }
    }

    pub(super) fn show_addon(name: String) -> Self {
        Self::Addons(addons::Arguments::show(name))
    }

    /// What must be done while this process has a single thread and no file open.
    pub(super) fn before_runtime(&self) -> Result<(), CommandError> {
        match self {
            Self::Daemon(arguments) => arguments.before_runtime(),
            _ => Ok(()),
        }
    }
}

pub(super) async fn run(verb: Verb, session: &Session) -> Outcome {
    match verb {
        Verb::Start(arguments) => start::run(arguments, session).await,
        Verb::Stop(arguments) => stop::run(arguments, session).await,
        Verb::Restart(arguments) => restart::run(arguments, session).await,
        Verb::Status(arguments) => status::run(arguments, session).await,
        Verb::Services(arguments) => services::run(arguments, session).await,
        Verb::Logs(arguments) => logs::run(arguments, session).await,
        Verb::Kubectl(arguments) => kubectl::run(arguments, session).await,
        Verb::Ctr(arguments) => ctr::run(arguments, session),
        Verb::Enable(arguments) => enable::run(arguments, session).await,
        Verb::Disable(arguments) => disable::run(arguments, session).await,
        Verb::Addons(arguments) => addons::run(arguments, session).await,
        Verb::AddNode(arguments) => add_node::run(arguments, session).await,
        Verb::Join(arguments) => join::run(arguments, session).await,
        Verb::Nodes(arguments) => nodes::run(arguments, session).await,
        Verb::Cordon(arguments) => cordon::run(arguments, session).await,
        Verb::Uncordon(arguments) => uncordon::run(arguments, session).await,
        Verb::Drain(arguments) => drain::run(arguments, session).await,
        Verb::Leave(arguments) => leave::run(arguments, session).await,
        Verb::RemoveNode(arguments) => remove_node::run(arguments, session).await,
        Verb::Tokens(arguments) => tokens::run(arguments, session).await,
        Verb::Backup(arguments) => backup::run(arguments, session).await,
        Verb::Recover(arguments) => recover::run(arguments, session).await,
        Verb::Agent(arguments) => agent::run(*arguments).await,
        Verb::Certs(arguments) => certs::run(arguments, session).await,
        Verb::Config(arguments) => config::run(arguments, session).await,
        Verb::Kubeconfig(arguments) => kubeconfig::run(arguments, session).await,
        Verb::Get(arguments) => get::run(arguments, session).await,
        Verb::Set(arguments) => set::run(arguments, session).await,
        Verb::Check(arguments) => check::run(arguments, session),
        Verb::Inspect(arguments) => inspect::run(arguments, session).await,
        Verb::Version(arguments) => version::run(arguments, session).await,
        Verb::Reset(arguments) => reset::run(arguments, session).await,
        Verb::Completion(arguments) => completion::run(arguments),
        Verb::Credential(arguments) => credential::run(arguments, session).await,
        Verb::Daemon(arguments) => daemon::run(arguments, session).await,
        Verb::Datastore(arguments) => datastore::run(*arguments).await,
        Verb::Confine(arguments) => confine::run(arguments),
    }
}

/// The error of one name, saying which names after it were not looked at.
fn not_begun(error: CommandError, rest: &[String]) -> CommandError {
    match rest.is_empty() {
        true => error,
        false => error.cause(format!("not begun: {}", rest.join(", "))),
    }
}

/// Daemons of ours write one JSON object a line; `RUST_LOG` chooses more or less.
fn write_log() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,kube_client::client::builder=off"));
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init();
}
