//! The command: what a person types, and what the screen says.
//!
//! Standard output is data, standard error is everything else. Exit codes: 0 done, 1 you can fix
//! it, 2 wrong usage, 70 our bug.

mod commands;
mod error;
mod output;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

pub use error::{CommandError, EXIT_BUG, EXIT_FAILURE};

use crate::paths::{Paths, ROOT_DEFAULT};

/// Kubernetes in one small boat
///
/// Runs a real upstream Kubernetes node from what is on this machine: nothing is pulled from
/// outside unless you ask. Begin with `skiff start`, then `skiff enable dns`, then
/// `skiff kubectl get pods --all-namespaces`.
#[derive(Parser, Debug)]
#[command(name = "skiff", version, max_term_width = 80, propagate_version = false)]
struct Arguments {
    /// Directory with all of the node's state
    #[arg(long, global = true, env = "SKIFF_ROOT", default_value = ROOT_DEFAULT, value_name = "DIR")]
    root: PathBuf,

    /// Configuration file [default: /etc/skiff/skiff.toml, or skiff.toml in another root]
    #[arg(long, global = true, env = "SKIFF_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// How to print data
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,

    #[command(subcommand)]
    verb: commands::Verb,
}

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    #[default]
    Text,
    Json,
    Yaml,
}

/// What every verb gets.
#[derive(Debug)]
struct Session {
    paths: Paths,
    config: Option<PathBuf>,
    format: Format,
}

impl Session {
    fn client(&self) -> skiff_api::Client {
        skiff_api::Client::new(self.paths.skiffd_socket())
    }
}

/// Reads the process's arguments, does what they say, and answers the exit code.
pub fn main() -> ExitCode {
    let mut args = std::env::args_os();
    if args.nth(1).is_some_and(|verb| verb == "confine") {
        // Before anything else has started: it must be a single-threaded process.
        return skiff_confine::main(args);
    }
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("error: skiff itself failed: {panic}");
        eprintln!("hint: this is our bug; please report it with the output of `skiff inspect`");
    }));
    let arguments = Arguments::parse();
    let root = std::path::absolute(&arguments.root).unwrap_or(arguments.root);
    let session = Session {
        paths: Paths::new(root),
        config: arguments.config,
        format: arguments.output,
    };
    let verb = arguments.verb;
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(commands::run(verb, &session))
    }));
    match outcome {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => error.report(),
        Err(_) => ExitCode::from(EXIT_BUG),
    }
}

/// The whole command, for completion scripts and the reference page.
pub fn command() -> clap::Command {
    <Arguments as clap::CommandFactory>::command()
}
