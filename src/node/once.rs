//! Work that a probe waits for and that may take longer than a probe's answer.

use std::future::Future;
use std::pin::Pin;

use tokio::sync::Mutex;
use tokio::task::JoinHandle;

type Work = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// Done at most once at a time and until it has succeeded once. Whoever asks does not wait for it,
/// and an asker who gives up does not end it: a slow disk would never get through.
pub struct Once {
    begin: Box<dyn Fn() -> Work + Send + Sync>,
    state: Mutex<State>,
}

enum State {
    Idle,
    Running(JoinHandle<Result<(), String>>),
    Done,
}

impl Once {
    pub fn new<F, W>(begin: F) -> Self
    where
        F: Fn() -> W + Send + Sync + 'static,
        W: Future<Output = Result<(), String>> + Send + 'static,
    {
        Self { begin: Box::new(move || Box::pin(begin())), state: Mutex::new(State::Idle) }
    }

    /// `Ok` when it is done; begins it when it does not run. `meanwhile` is the answer while it runs;
    /// a failure is told once, and the next one who asks begins it again.
    pub async fn ask(&self, meanwhile: &str) -> Result<(), String> {
        let mut state = self.state.lock().await;
        let outcome = match &mut *state {
            State::Done => return Ok(()),
            State::Running(work) if !work.is_finished() => return Err(meanwhile.into()),
            State::Running(work) => work.await.unwrap_or_else(|error| Err(error.to_string())),
            State::Idle => {
                *state = State::Running(tokio::spawn((self.begin)()));
                return Err(meanwhile.into());
            }
        };
        *state = if outcome.is_ok() { State::Done } else { State::Idle };
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(10);

    /// Asks as the supervisor does: it does not wait long for an answer.
    async fn ask(work: &Once) -> Result<(), String> {
        let asked = tokio::time::timeout(PATIENCE, work.ask("under way")).await;
        asked.unwrap_or_else(|_| Err("no answer".into()))
    }

    #[tokio::test]
    async fn work_that_takes_longer_than_an_answer_is_done_once() {
        let begun = Arc::new(AtomicU32::new(0));
        let count = begun.clone();
        let work = Once::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
            async {
                tokio::time::sleep(20 * PATIENCE).await;
                Ok(())
            }
        });
        let mut asked = 0;
        while let Err(reason) = ask(&work).await {
            assert_eq!(reason, "under way");
            asked += 1;
            tokio::time::sleep(PATIENCE).await;
        }
        assert!(asked > 5, "{asked}");
        assert_eq!(ask(&work).await, Ok(()));
        assert_eq!(begun.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn work_that_fails_is_told_and_begun_again() {
        let begun = Arc::new(AtomicU32::new(0));
        let count = begun.clone();
        let work = Once::new(move || {
            let first = count.fetch_add(1, Ordering::Relaxed) == 0;
            async move { if first { Err("the disk is full".to_owned()) } else { Ok(()) } }
        });
        let mut told = Vec::new();
        while let Err(reason) = ask(&work).await {
            told.push(reason);
            tokio::time::sleep(PATIENCE).await;
        }
        assert_eq!(told, ["under way", "the disk is full", "under way"]);
    }
}
