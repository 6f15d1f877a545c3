//! Several attempts at one thing: in order, but not one after the other's whole patience.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;

/// Begins the attempts in order: the next one when the last one failed, or has taken `stagger` so
/// far. The first success ends the others; without one there are all failures, in order.
pub async fn race<T, E, F>(
    attempts: impl IntoIterator<Item = F>,
    stagger: Duration,
) -> Result<T, Vec<E>>
where
    F: Future<Output = Result<T, E>>,
{
    let mut attempts = attempts.into_iter().enumerate();
    let mut running = FuturesUnordered::new();
    let mut failures = Vec::new();
    loop {
        if let Some((place, attempt)) = attempts.next() {
            running.push(async move { (place, attempt.await) });
            let step = tokio::time::timeout(stagger, running.next()).await;
            match step {
                Ok(Some((_, Ok(success)))) => return Ok(success),
                Ok(Some((place, Err(failure)))) => failures.push((place, failure)),
                Ok(None) | Err(_) => {}
            }
            continue;
        }
        match running.next().await {
            Some((_, Ok(success))) => return Ok(success),
            Some((place, Err(failure))) => failures.push((place, failure)),
            None => break,
        }
    }
    failures.sort_by_key(|(place, _)| *place);
    Err(failures.into_iter().map(|(_, failure)| failure).collect())
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::time::Instant;

    use futures::FutureExt;
    use futures::future::{BoxFuture, ready};
    use tokio::time::sleep;

    use super::*;

    type Attempt = BoxFuture<'static, Result<&'static str, &'static str>>;

    fn after(ms: u64, result: Result<&'static str, &'static str>) -> Attempt {
        sleep(Duration::from_millis(ms)).map(move |()| result).boxed()
    }

    #[tokio::test]
    async fn a_silent_attempt_delays_the_next_by_the_stagger_only() {
        let started = Instant::now();
        let attempts = [pending().boxed(), after(1, Ok("second"))];
        assert_eq!(race(attempts, Duration::from_millis(20)).await, Ok("second"));
        assert!(started.elapsed() < Duration::from_millis(500));
    }

    #[tokio::test]
    async fn a_failure_starts_the_next_at_once() {
        let attempts: [Attempt; 2] = [ready(Err("refused")).boxed(), ready(Ok("second")).boxed()];
        assert_eq!(race(attempts, Duration::from_secs(60)).await, Ok("second"));
    }

    #[tokio::test]
    async fn a_slow_first_attempt_may_still_win() {
        let attempts = [after(40, Ok("first")), pending().boxed()];
        assert_eq!(race(attempts, Duration::from_millis(10)).await, Ok("first"));
    }

    #[tokio::test]
    async fn failures_are_told_in_the_order_of_the_attempts() {
        let attempts = [after(40, Err("a")), after(1, Err("b")), after(1, Err("c"))];
        assert_eq!(race(attempts, Duration::from_millis(5)).await, Err(vec!["a", "b", "c"]));
    }

    #[tokio::test]
    async fn no_attempts_are_no_success() {
        let none: [Attempt; 0] = [];
        assert_eq!(race(none, Duration::from_secs(1)).await, Err(vec![]));
    }
}
