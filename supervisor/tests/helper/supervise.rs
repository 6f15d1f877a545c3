//! What the tests of the supervisor start and kill.
//!
//! - `supervise confine …`: what `skiff confine` does.
//! - `supervise run <directory> <daemon>…`: supervises until it is killed, as skiffd does. Each
//!   daemon is `name=program argument…`; says `ready` and the process ids when all are ready,
//!   then `detach` when told so on standard input.
//! - `supervise stubborn`: ignores SIGTERM and sleeps.

use std::io::{BufRead, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use skiff_supervisor::{Config, DaemonSpec, Handle, Supervisor};

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next().and_then(|word| word.into_string().ok()).as_deref() {
        Some("confine") => skiff_confine::main(args),
        Some("run") => {
            let words: Vec<String> = args.filter_map(|word| word.into_string().ok()).collect();
            run(&words)
        }
        Some("stubborn") => stubborn(),
        _ => ExitCode::from(2),
    }
}

fn run(words: &[String]) -> ExitCode {
    let (directory, daemons) = words.split_first().expect("a directory is given");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be made");
    runtime.block_on(async {
        let directory = Path::new(directory);
        let specs = daemons.iter().map(|daemon| spec(directory, daemon)).collect();
        let handle = Supervisor::start(config(directory), specs).await.expect("supervision starts");
        handle.wait_ready(&[]).await.expect("the supervisor lives");
        report(&handle);
        // Blocks a thread of its own: nothing else waits for it.
        let line = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line).map(|_| line)
        });
        if let Ok(Ok(line)) = line.await
            && line.trim() == "detach"
        {
            handle.detach().await.expect("the supervisor lives");
        }
    });
    ExitCode::SUCCESS
}

fn config(directory: &Path) -> Config {
    let own = std::env::current_exe().expect("known").to_string_lossy().into_owned();
    let cgroup = directory.file_name().expect("it has a name").to_string_lossy().into_owned();
    Config {
        launcher: vec![own, "confine".into()],
        records: directory.join("run"),
        cgroup: format!("/{cgroup}"),
        start: true,
    }
}

/// `name=program argument…`
fn spec(directory: &Path, text: &str) -> DaemonSpec {
    let (name, command) = text.split_once('=').expect("name=command");
    let mut words = command.split(' ');
    let program = words.next().expect("a program");
    DaemonSpec::builder(name, program, directory.join(format!("{name}.log")))
        .args(words)
        .stop_timeout(Duration::from_secs(2))
        .build()
}

fn report(handle: &Handle) {
    let snapshot = handle.snapshot();
    let pids: Vec<String> = snapshot
        .daemons
        .iter()
        .map(|d| format!("{}={}:{}", d.name, d.pid.unwrap_or(0), d.adopted))
        .collect();
    println!("ready {}", pids.join(" "));
    std::io::stdout().flush().expect("somebody reads");
}

fn stubborn() -> ExitCode {
    use nix::sys::signal::{SigSet, Signal};
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.thread_block().expect("a signal can be blocked");
    std::thread::sleep(Duration::from_secs(600));
    ExitCode::SUCCESS
}
