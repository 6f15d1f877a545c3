//! The command: what a person types, and what the screen says.
//!
//! Comes in: the process's arguments, `SKIFF_ROOT` and `SKIFF_CONFIG`, and skiffd's answers. Goes
//! out: data on standard output, everything else on standard error, and an exit code: 0 done, 1
//! you can fix it, 2 wrong usage, 70 our bug. One file per verb in `commands`; no state is kept.

mod commands;
mod complete;
mod confirm;
mod error;
mod interrupt;
mod kept_logs;
mod kubeconfig_file;
mod launch;
mod log_line;
mod merge;
mod output;
mod own_help;
mod progress;
mod ready;
mod replace;
mod repository;
mod session;
mod skiffd;
mod span;
mod ui;
mod values_file;
mod word;

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

pub use error::{CommandError, EXIT_BUG, EXIT_FAILURE, EXIT_USAGE};
use session::{Origin, Session};

use crate::paths::{Paths, ROOT_DEFAULT};

/// Where help lists the options that stand beside any verb.
const EVERY_VERB: &str = "Options of every verb";

/// Run Kubernetes on this machine
///
/// One node with everything that it needs, made of upstream Kubernetes. Nothing is
/// pulled from outside unless a workload of yours asks for it. Begin with:
///
///   sudo skiff start
///   skiff enable dns
///   skiff kubectl get pods --all-namespaces
///
/// Root and members of the group skiff may use it. Exit codes: 0 done, 1 you can
/// fix it, 2 wrong usage, 70 our bug.
#[derive(Parser, Debug)]
#[command(name = "skiff", version, max_term_width = 80, verbatim_doc_comment)]
#[command(arg_required_else_help = true)]
#[command(disable_help_subcommand = false, subcommand_value_name = "VERB")]
#[command(subcommand_help_heading = "Verbs")]
struct Arguments {
    /// Directory with all of the node's state
    #[arg(long, global = true, env = "SKIFF_ROOT", hide_env_values = true)]
    #[arg(default_value = ROOT_DEFAULT, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    #[arg(help_heading = EVERY_VERB)]
    root: PathBuf,

    /// Configuration file [default: /etc/skiff/skiff.toml; in another root: skiff.toml]
    #[arg(long, global = true, env = "SKIFF_CONFIG", hide_env_values = true)]
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    #[arg(help_heading = EVERY_VERB)]
    config: Option<PathBuf>,

    #[command(subcommand)]
    verb: commands::Verb,
}

/// Reads the process's arguments, does what they say, and answers the exit code.
pub fn main() -> ExitCode {
    let mut early = std::env::args_os();
    if early.nth(1).is_some_and(|verb| verb == "confine") {
        // Before anything else has started: it must be a single-threaded process.
        return skiff_confine::main(early);
    }
    std::panic::set_hook(Box::new(|panic| {
        ui::say(&format!("error: skiff itself failed: {panic}"));
        ui::say("hint: this is our bug; please report it with these lines and what you typed");
    }));
    let (own, rest) = split_pass_through(std::env::args_os().collect());
    let (arguments, origin) = match parse(&own) {
        Ok(parsed) => parsed,
        Err(error) if error.kind() == clap::error::ErrorKind::DisplayHelp => {
            own_help::instead(&own).unwrap_or_else(|| refuse(&error))
        }
        Err(error) => refuse(&error),
    };
    let root = std::path::absolute(&arguments.root).unwrap_or(arguments.root);
    let session = Session::new(Paths::new(root), origin, arguments.config, rest);
    let verb = arguments.verb;
    code_of(&session, || carry_out(verb, &session))
}

/// The arguments, and whether the root was named among them.
fn parse(args: &[OsString]) -> Result<(Arguments, Origin), clap::Error> {
    let matches = command().try_get_matches_from(args)?;
    let arguments = <Arguments as clap::FromArgMatches>::from_arg_matches(&matches)?;
    let origin = match matches.value_source("root") {
        Some(clap::parser::ValueSource::CommandLine) => Origin::Flag,
        _ => Origin::Elsewhere,
    };
    Ok((arguments, origin))
}

/// The exit code of a verb; its error is on the screen then.
fn code_of(session: &Session, work: impl FnOnce() -> Result<ExitCode, CommandError>) -> ExitCode {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => session.localise(error).report(),
        Err(_) => ExitCode::from(EXIT_BUG),
    }
}

/// Ends the process as clap would, but within the width of a screen.
fn refuse(error: &clap::Error) -> ! {
    let text = error.render().to_string();
    let fits = text.lines().all(|line| line.chars().count() <= output::COLUMNS);
    if fits || !error.use_stderr() {
        error.exit();
    }
    ui::print(&(error::fold(&text, output::COLUMNS).join("\n") + "\n"));
    std::process::exit(error.exit_code());
}

fn carry_out(verb: commands::Verb, session: &Session) -> Result<ExitCode, CommandError> {
    verb.before_runtime()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(commands::run(verb, session));
    // What is still being read from a terminal or a socket is of no interest any more.
    runtime.shutdown_background();
    outcome
}

/// The whole command, for completion scripts and the reference page.
pub fn command() -> clap::Command {
    <Arguments as clap::CommandFactory>::command()
}

/// Options of ours that take a value and may stand before the verb.
const WITH_VALUE: [&str; 2] = ["--root", "--config"];
/// Verbs after which every argument belongs to another program.
const PASS_THROUGH: [&str; 2] = ["kubectl", "ctr"];

/// Splits the arguments where they stop being ours. `skiff --root R kubectl get pods -o json`: up
/// to `kubectl` is read by us, the rest is kubectl's, options that look like ours included.
fn split_pass_through(mut args: Vec<OsString>) -> (Vec<OsString>, Vec<OsString>) {
    let mut index = 1;
    while index < args.len() {
        let word = args[index].to_string_lossy();
        if WITH_VALUE.contains(&&*word) {
            index += 2;
        } else if word.starts_with('-') {
            index += 1;
        } else if PASS_THROUGH.contains(&&*word) {
            let rest = args.split_off(index + 1);
            return (args, rest);
        } else {
            break;
        }
    }
    (args, Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> (Vec<String>, Vec<String>) {
        let (own, rest) = split_pass_through(line.split(' ').map(Into::into).collect());
        let text = |words: Vec<OsString>| {
            words.iter().map(|word| word.to_string_lossy().into_owned()).collect()
        };
        (text(own), text(rest))
    }

    #[test]
    fn everything_after_kubectl_is_its_own() {
        let (own, rest) = split("skiff --root /r kubectl -o json --root x --help");
        assert_eq!(own.join(" "), "skiff --root /r kubectl");
        assert_eq!(rest.join(" "), "-o json --root x --help");
    }

    #[test]
    fn other_verbs_keep_their_arguments() {
        let (own, rest) = split("skiff logs kubectl --follow");
        assert_eq!(own.join(" "), "skiff logs kubectl --follow");
        assert!(rest.is_empty());
    }

    #[test]
    fn a_failure_exits_with_1_wrong_usage_with_2_and_our_bug_with_70() {
        let session = Session::new(Paths::new("/r"), Origin::Elsewhere, None, vec![]);
        let code =
            |work: fn() -> Result<ExitCode, CommandError>| format!("{:?}", code_of(&session, work));
        let exit = |code: u8| format!("{:?}", ExitCode::from(code));
        assert_eq!(code(|| Ok(ExitCode::SUCCESS)), exit(0));
        assert_eq!(code(|| Err(CommandError::new("it failed"))), exit(1));
        assert_eq!(code(|| Err(CommandError::usage("they contradict"))), exit(2));
        assert_eq!(code(|| panic!("a bug")), exit(70));
    }

    #[test]
    fn the_definition_of_the_command_is_sound() {
        command().debug_assert();
    }
}
