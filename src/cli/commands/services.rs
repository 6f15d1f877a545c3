use std::process::ExitCode;

use skiff_api::Service;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Outcome;
use crate::cli::output::{self, Cell, Choice};
use crate::cli::ui::Paint;
use crate::cli::{Session, ui, word};

/// Show the daemons of the node, or act on one
///
/// SINCE is how long a daemon has been in its state, CPU what its processes
/// used since they started, MEMORY what they occupy, shared pages counted in
/// part (PSS). Below the table stands what a daemon waits for or why it fails.
///
///   skiff services
///   skiff services restart containerd
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,

    #[command(flatten)]
    output: Choice,
}

#[derive(clap::Subcommand, Debug)]
enum Verb {
    /// Start services that were stopped
    Start(Names),
    /// Stop services until they or the node are started again
    Stop(Names),
    /// Restart services; pods keep running
    Restart(Names),
}

#[derive(clap::Args, Debug)]
struct Names {
    /// Service, as `skiff services` lists them (can be repeated)
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Outcome {
    let client = session.client();
    let (action, done, names) = match arguments.verb {
        None => {
            let services: Vec<Service> = client.get("/v1/services").await?;
            let now = OffsetDateTime::now_utc();
            output::print(arguments.output, &services, |all, paint| text(all, now, paint))?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(Verb::Start(names)) => ("start", "started", names),
        Some(Verb::Stop(names)) => ("stop", "stopped", names),
        Some(Verb::Restart(names)) => ("restart", "restarted", names),
    };
    for name in &names.services {
        let path = format!("/v1/services/{name}/{action}");
        client.post::<_, Option<Service>>(&path, &()).await?;
        ui::say(&format!("{name} is {done}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn text(services: &[Service], now: OffsetDateTime, paint: Paint) -> String {
    let heads = ["NAME", "STATE", "SINCE", "PID", "RESTARTS", "CPU", "MEMORY"];
    let mut rows = vec![heads.map(Cell::from).to_vec()];
    let or_dash = |text: Option<String>| Cell::from(text.unwrap_or_else(|| "-".into()));
    for service in services {
        rows.push(vec![
            (&service.name).into(),
            word::service(service.state),
            or_dash(since(&service.since, now)),
            or_dash(service.pid.map(|pid| pid.to_string())),
            service.restarts.to_string().into(),
            or_dash(service.cpu_s.map(|seconds| format!("{seconds:.1}s"))),
            or_dash(service.memory_bytes.map(output::bytes)),
        ]);
    }
    let mut out = output::table(&rows, 0, paint);
    for service in services.iter().filter(|s| !s.message.is_empty() || !s.last_log.is_empty()) {
        out.push_str(&format!("\n{}:\n", service.name));
        out.push_str(&output::paragraph(&service.message, 2));
        for line in &service.last_log {
            let line = crate::cli::log_line::render(line);
            out.push_str(&format!("  | {}\n", output::cut(&line, output::COLUMNS - 4)));
        }
    }
    out
}

fn since(text: &str, now: OffsetDateTime) -> Option<String> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let seconds = (now - at).whole_seconds().max(0);
    Some(output::age(seconds.unsigned_abs()))
}
