//! `skiff inspect`: one file with all that helps to find out what is wrong, and no secret.
//!
//! What comes in: the node's paths and the findings of the preflight. What goes out: a tar.gz,
//! one file a step. Each step has a bound and may fail: its failure is then what the bundle has
//! of it, since a bundle is asked for when things are broken. Every text passes through
//! [`redact`]; Secrets, ConfigMaps, keys and the values of pods' variables are not even read.

mod archive;
mod cluster;
mod machine;
mod redact;
mod state;

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::{Duration, Instant};

use archive::Archive;
use futures::{StreamExt, stream};
pub use redact::redact;
use time::OffsetDateTime;

use crate::kube::ClientSource;
use crate::paths::Paths;

/// Longest time for one step.
const STEP_TIMEOUT: Duration = Duration::from_secs(15);
/// Steps that run at the same time: when everything hangs, the bundle is there within a minute.
const STEPS_AT_ONCE: usize = 8;
/// Largest text of one step, in bytes; of longer ones the end is kept.
const STEP_BYTES_MAX: usize = 4 << 20;

/// What to inspect.
#[derive(Clone, Debug)]
pub struct Request {
    pub paths: Paths,
    /// What the preflight found, as text.
    pub findings: String,
    /// The bundle; must not be there yet.
    pub out: PathBuf,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", path.display())]
pub struct InspectError {
    path: PathBuf,
    source: io::Error,
}

type Work<'a> = Pin<Box<dyn Future<Output = Result<String, String>> + Send + 'a>>;
/// The name of a step's file, and the work.
type Step<'a> = (String, Work<'a>);

/// Gathers everything; `report` is told the name of each step before it begins. Answers how many
/// steps failed.
pub async fn bundle(
    request: &Request,
    report: &(dyn Fn(&str) + Send + Sync),
) -> Result<usize, InspectError> {
    let failed = |source| InspectError { path: request.out.clone(), source };
    let now = OffsetDateTime::now_utc();
    let seconds = u64::try_from(now.unix_timestamp()).unwrap_or_default();
    let mut archive = Archive::create(&request.out, "skiff-inspect", seconds).map_err(failed)?;
    let mut summary = format!("skiff {} inspected at {now}\n\n", env!("CARGO_PKG_VERSION"));
    let mut failures = 0;
    let begun = steps(request).into_iter().map(|(name, work)| run(name, work, report));
    let mut done = std::pin::pin!(stream::iter(begun).buffered(STEPS_AT_ONCE));
    while let Some((name, outcome, took)) = done.next().await {
        let (word, text) = match outcome {
            Ok(text) => ("ok".to_owned(), text),
            Err(error) => {
                failures += 1;
                (format!("failed: {error}"), format!("failed: {error}\n"))
            }
        };
        summary += &format!("{name}: {word} ({} ms)\n", took.as_millis());
        archive.add(&name, redact(end_of(&text)).as_bytes()).map_err(failed)?;
    }
    archive.add("summary.txt", redact(&summary).as_bytes()).map_err(failed)?;
    archive.finish().map_err(failed)?;
    Ok(failures)
}

async fn run(
    name: String,
    work: Work<'_>,
    report: &(dyn Fn(&str) + Send + Sync),
) -> (String, Result<String, String>, Duration) {
    report(&name);
    let begun = Instant::now();
    let outcome = match tokio::time::timeout(STEP_TIMEOUT, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("no answer within {} s", STEP_TIMEOUT.as_secs())),
    };
    (name, outcome, begun.elapsed())
}

fn steps(request: &Request) -> Vec<Step<'_>> {
    let paths = &request.paths;
    let mut steps: Vec<Step<'_>> = Vec::new();
    let findings = request.findings.clone();
    steps.push(("check.txt".into(), Box::pin(async move { Ok(findings) })));
    for (name, path) in state::REQUESTS {
        steps.push((format!("skiff/{name}.json"), Box::pin(state::ask(paths, path))));
    }
    steps.push(("skiff/files.txt".into(), blocking(paths, state::files)));
    steps.push(("skiff/leaves.txt".into(), blocking(paths, state::leaves)));
    for (name, path) in state::texts(paths) {
        steps.push((name, reading(path)));
    }
    let clients = ClientSource::new(paths.node().join("admin.kubeconfig"));
    for kind in cluster::KINDS {
        let clients = clients.clone();
        steps.push((
            format!("cluster/{}.yaml", kind.plural),
            Box::pin(async move { cluster::list(&clients, &kind).await }),
        ));
    }
    for (name, path) in machine::FILES {
        steps.push((format!("machine/{name}.txt"), reading(path.into())));
    }
    for (name, program, arguments) in machine::COMMANDS {
        steps.push((format!("machine/{name}.txt"), Box::pin(machine::run(program, arguments))));
    }
    steps.push(("machine/processes.txt".into(), blocking(paths, machine::processes)));
    steps.push(("machine/disks.txt".into(), blocking(paths, machine::disks)));
    steps
}

fn reading<'a>(path: PathBuf) -> Work<'a> {
    Box::pin(async move {
        let done = tokio::task::spawn_blocking(move || state::read(&path)).await;
        done.unwrap_or_else(|error| Err(error.to_string()))
    })
}

/// Work on files, off the runtime's thread: a file system that hangs must not stop the rest.
fn blocking<'a>(paths: &Paths, work: fn(&Paths) -> Result<String, String>) -> Work<'a> {
    let paths = paths.clone();
    Box::pin(async move {
        let done = tokio::task::spawn_blocking(move || work(&paths)).await;
        done.unwrap_or_else(|error| Err(error.to_string()))
    })
}

fn end_of(text: &str) -> &str {
    let mut from = text.len().saturating_sub(STEP_BYTES_MAX);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_node_that_does_not_answer_is_still_inspected() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path().join("root"));
        std::fs::create_dir_all(paths.log()).unwrap();
        let log = "one\npassword=hunter2 tries=3\n";
        std::fs::write(paths.daemon_log("datastore"), log).unwrap();
        let out = dir.path().join("bundle.tar.gz");
        let request =
            Request { paths, findings: "no findings, token=abc\n".into(), out: out.clone() };
        let failures = bundle(&request, &|_| {}).await.unwrap();
        // skiffd and the API server at least.
        assert!(failures >= 10, "{failures}");
        let text = std::process::Command::new("tar").arg("xzOf").arg(&out).output().unwrap();
        let text = String::from_utf8_lossy(&text.stdout).into_owned();
        assert!(text.contains("the node is not running"), "{text}");
        assert!(text.contains("password=[redacted] tries=3"), "{text}");
        assert!(!text.contains("hunter2") && !text.contains("abc\n"), "{text}");
    }
}
