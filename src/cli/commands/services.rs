use std::process::ExitCode;

use skiff_api::{Service, ServiceState};

use crate::cli::{CommandError, Session, output};

/// Show the daemons of the node
///
/// CPU is what a daemon's processes used since they started, MEMORY what they occupy, shared
/// pages counted in part (PSS).
#[derive(clap::Args, Debug)]
pub struct Arguments {}

pub(super) async fn run(_: Arguments, session: &Session) -> Result<ExitCode, CommandError> {
    let services: Vec<Service> = session.client().get("/v1/services").await?;
    output::print(session.format, &services, |services| text(services))?;
    Ok(ExitCode::SUCCESS)
}

fn text(services: &[Service]) -> String {
    let heads = ["NAME", "STATE", "PID", "RESTARTS", "CPU", "MEMORY", "WHY"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for service in services {
        rows.push(vec![
            service.name.clone(),
            state(service.state).into(),
            service.pid.map_or("-".into(), |pid| pid.to_string()),
            service.restarts.to_string(),
            service.cpu_s.map_or("-".into(), |s| format!("{s:.1}s")),
            service.memory_bytes.map_or("-".into(), output::bytes),
            service.message.clone(),
        ]);
    }
    let mut text = output::table(&rows);
    for service in services.iter().filter(|s| !s.last_log.is_empty()) {
        text.push_str(&format!("\nlast lines of {}:\n", service.name));
        for line in &service.last_log {
            text.push_str(&format!("  {}\n", output::cut(line, output::COLUMNS - 2)));
        }
    }
    text
}

fn state(state: ServiceState) -> &'static str {
    match state {
        ServiceState::Stopped => "stopped",
        ServiceState::Waiting => "waiting",
        ServiceState::Starting => "starting",
        ServiceState::Ready => "ready",
        ServiceState::Unready => "unready",
        ServiceState::Stopping => "stopping",
        ServiceState::Backoff => "back-off",
        ServiceState::CrashLoop => "crash-loop",
    }
}
