mod backup;
mod recover;
mod restore;

use std::path::PathBuf;
use std::process::ExitCode;

use skiff_datastore::Listen;
use skiff_datastore::member::pki;
use skiff_datastore::member::report::{self, MemberReport, Report};

pub(super) use backup::KeepArguments;

use super::Outcome;
use crate::cli::output::{self, Cell, Choice, Format};
use crate::cli::ui::Paint;
use crate::cli::{CommandError, ui};

/// Run etcd's API on an embedded database, or look after its members
///
/// A node runs its own datastore; this is for tests, benchmarks and other
/// programs. Any user may, and every client of etcd's v3 API works. Options that
/// etcd also has keep etcd's names. One member, for this machine alone:
///
///   skiff datastore --dir data --listen 127.0.0.1:2379
///
/// Several members, in any order; the first goes without --join:
///
///   skiff datastore pki pki
///   skiff datastore --dir a --listen 127.0.0.1:2379 \
///     --peer-listen 127.0.0.1:2380 --pki pki
///   skiff datastore --dir b --listen 127.0.0.1:3379 \
///     --peer-listen 127.0.0.1:3380 --pki pki --join 127.0.0.1:2380
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,

    #[command(flatten)]
    options: Option<skiff_datastore::Options>,
}

#[derive(clap::Subcommand, Debug)]
enum Verb {
    /// Make identities for the members of a test
    ///
    /// Writes ca.crt, ca.key, member.crt and member.key, as --pki reads them,
    /// and replaces nothing. Whoever has member.key is a member.
    Pki {
        /// Directory, made when it is missing
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
    /// Show the members: roles, leader, revision, lag, size
    ///
    /// As the first endpoint that answers sees them.
    Status {
        #[command(flatten)]
        endpoints: Endpoints,

        #[command(flatten)]
        output: Choice,
    },
    /// Change who is a member
    #[command(subcommand)]
    Member(MemberVerb),
    Backup(Box<backup::Arguments>),
    Restore(restore::Arguments),
    Recover(recover::Arguments),
}

#[derive(clap::Subcommand, Debug)]
enum MemberVerb {
    /// Remove a member for good
    ///
    /// Its number is refused from then on, and its process ends if it still
    /// runs. Refused when no majority of living voters would be left.
    Remove {
        /// The member's number, as the status shows it
        #[arg(value_name = "MEMBER")]
        id: String,

        #[command(flatten)]
        endpoints: Endpoints,
    },
}

#[derive(clap::Args, Debug)]
struct Endpoints {
    /// Where members serve clients: HOST:PORT or unix:PATH
    #[arg(long, value_name = "ADDRESS,…", value_delimiter = ',')]
    #[arg(default_value = "127.0.0.1:2379")]
    endpoints: Vec<Listen>,
}

pub(super) async fn run(arguments: Arguments) -> Outcome {
    match arguments.verb {
        Some(Verb::Pki { dir }) => {
            pki::make(&dir)?;
            ui::say(&format!("identities are in {}", dir.display()));
        }
        Some(Verb::Status { endpoints, output }) => return status(&endpoints, output).await,
        Some(Verb::Backup(arguments)) => return backup::run(*arguments).await,
        Some(Verb::Restore(arguments)) => return restore::run(arguments).await,
        Some(Verb::Recover(arguments)) => return recover::run(arguments).await,
        Some(Verb::Member(MemberVerb::Remove { id, endpoints })) => {
            remove(&endpoints, &id).await?;
            ui::say(&format!("member {id} is removed"));
        }
        None => {
            let options = arguments
                .options
                .ok_or_else(|| CommandError::usage("--dir and --listen are missing"))?;
            super::write_log();
            skiff_datastore::run(options).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn status(endpoints: &Endpoints, output: Choice) -> Outcome {
    let report = report::report(&endpoints.endpoints).await;
    let silent = report.endpoints.iter().filter(|endpoint| endpoint.error.is_some()).count();
    if output.format != Format::Text || silent < report.endpoints.len() {
        output::print(output, &report, text)?;
    }
    let all_silent = silent == report.endpoints.len();
    if output.format != Format::Text {
        // Programs find the reasons in the data.
        return Ok(ExitCode::from(u8::from(all_silent)));
    }
    let mut error = CommandError::new("no endpoint answers").hint("name others with --endpoints");
    for reason in report.endpoints.iter().filter_map(|endpoint| endpoint.error.as_ref()) {
        match all_silent {
            true => error = error.cause(reason),
            false => ui::say(&format!("warning: {reason}")),
        }
    }
    if all_silent { Err(error) } else { Ok(ExitCode::SUCCESS) }
}

/// Asks one endpoint after the other until one of them answers.
async fn remove(endpoints: &Endpoints, id: &str) -> Result<(), CommandError> {
    let mut last = CommandError::usage("no endpoint is named");
    for endpoint in &endpoints.endpoints {
        match report::remove(endpoint, id).await {
            Ok(()) => return Ok(()),
            Err(error @ report::OperatorError::Connect { .. }) => last = error.into(),
            Err(error) => return Err(error.into()),
        }
    }
    Err(last)
}

fn text(report: &Report, paint: Paint) -> String {
    let mut rows = Vec::new();
    if report.members.is_empty() {
        rows.push(["ENDPOINT", "REVISION"].map(Cell::from).to_vec());
        for endpoint in &report.endpoints {
            if let Some(revision) = endpoint.revision {
                rows.push(vec![(&endpoint.endpoint).into(), revision.to_string().into()]);
            }
        }
        return output::table(&rows, 0, paint);
    }
    let heads = ["MEMBER", "ROLE", "STATE", "REVISION", "LAG", "SIZE", "ADDRESS"];
    rows.push(heads.map(Cell::from).to_vec());
    for member in &report.members {
        rows.push(vec![
            (&member.id).into(),
            member.role.into(),
            state(member).into(),
            member.revision.to_string().into(),
            member.lag.to_string().into(),
            output::bytes(member.size_bytes).into(),
            (&member.address).into(),
        ]);
    }
    output::table(&rows, 0, paint)
}

fn state(member: &MemberReport) -> &'static str {
    match (member.leads, member.reachable) {
        (true, _) => "leads",
        (false, true) => "follows",
        (false, false) => "silent",
    }
}
