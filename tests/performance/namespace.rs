//! Work inside a node's network namespace, ended by Ctrl-C.

use std::fs::File;
use std::future::Future;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

static INTERRUPTED: OnceLock<watch::Receiver<bool>> = OnceLock::new();

/// From here on SIGINT, SIGTERM and SIGHUP end the work and not the process, so that whatever was
/// started is ended in order.
pub fn catch_signals() -> Result<()> {
    let (sender, receiver) = watch::channel(false);
    INTERRUPTED.set(receiver).ok().context("signals are caught once")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
            let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = kinds.map(signal) else {
                eprintln!("signals cannot be caught: Ctrl-C leaves things behind");
                return;
            };
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
                eprintln!("\ninterrupted: ending what was started");
                sender.send_replace(true);
            }
        });
    });
    Ok(())
}

/// Whether a signal came.
pub fn is_interrupted() -> bool {
    INTERRUPTED.get().is_some_and(|receiver| *receiver.borrow())
}

/// Runs `work` on a thread whose sockets and child processes are in the namespace.
pub fn inside<T: Send, F>(namespace: &str, work: impl FnOnce() -> F + Send) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let place = format!("/run/netns/{namespace}");
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let file = File::open(&place).with_context(|| format!("cannot open {place}"))?;
            setns(file, CloneFlags::CLONE_NEWNET).context("cannot enter the namespace")?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                tokio::select! {
                    outcome = work() => outcome,
                    () = interruption() => bail!("interrupted"),
                }
            })
        });
        match thread.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

async fn interruption() {
    let Some(mut receiver) = INTERRUPTED.get().cloned() else {
        return std::future::pending().await;
    };
    // The sender lives as long as the process.
    let _ = receiver.wait_for(|interrupted| *interrupted).await;
}
