//! Asks one API server for its health, all the time, over one connection that stays open.
//!
//! It is asked `/readyz`. Whether it says yes, or (to somebody it does not know) nothing but 401 or
//! 403, it answers; 5xx says that it is not ready. A handshake that fails says that
//! somebody is there, though not who. That the connection ends says most, and at once:
//! then it is asked anew, and when nobody listens its process has ended. Silence takes longer:
//!
//! ```text
//! asked ... asked ........ no answer within the patience, asked anew over a new connection ........ silent
//!    interval (1 s)             1.5 s                                    1.5 s
//! ```
//!
//! The patience follows the network: four times the slowest of the last answers, within bounds. A
//! link that loses every fifth packet does not look like a dead server.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::backends::Backend;
use super::table::{Finding, Table, Watched};
use crate::tls::{Identity, api_server_name};

/// Answers that are remembered for the patience.
const ANSWERS_MAX: usize = 8;
/// The patience is so many times the slowest of them.
const PATIENCE_FACTOR: u32 = 4;
/// Bad answers in a row that count: a single one may be an accident.
const FAILURES_MAX: u32 = 2;
/// The largest answer.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// How often and how long.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Between two questions while clients of this node are there, or nobody answers;
    pub interval: Duration,
    /// and while it is not needed: with many nodes, questions are load.
    pub idle_interval: Duration,
    /// The shortest patience,
    pub patience_min: Duration,
    /// that before anything was answered,
    pub patience_first: Duration,
    /// and the longest.
    pub patience_max: Duration,
    /// Between two questions at least, whoever wants one.
    pub pause: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            interval: Duration::from_secs(1),
            idle_interval: Duration::from_secs(5),
            patience_min: Duration::from_millis(1500),
            patience_first: Duration::from_secs(3),
            patience_max: Duration::from_secs(10),
            pause: Duration::from_millis(200),
        }
    }
}

/// Asks API servers.
#[derive(Clone)]
pub struct Checker {
    identity: Arc<Identity>,
    timing: Timing,
}

/// What one question came to.
enum Answer {
    Status(StatusCode),
    Nobody,
    /// Somebody who is not believed.
    Stranger(String),
    Other(String),
}

/// A connection over which it is asked.
struct Link {
    sender: http1::SendRequest<Empty<Bytes>>,
    /// Ends when the connection does.
    driver: AbortOnDropHandle<()>,
}

/// How one API server was lately.
struct History {
    timing: Timing,
    answers: VecDeque<Duration>,
    failures: u32,
}

impl Checker {
    /// Asks with this identity, and believes its authority only.
    pub fn new(identity: Arc<Identity>, timing: Timing) -> Checker {
        Checker { identity, timing }
    }

    /// Asks until the backend is removed.
    pub(super) async fn run(&self, backend: Backend, table: &Table) {
        let Some(watched) = table.watched(&backend) else { return };
        let removed = watched.removed.clone();
        tokio::select! {
            () = removed.cancelled() => {}
            () = self.ask_for_ever(&backend, table, &watched) => {}
        }
    }

    async fn ask_for_ever(&self, backend: &Backend, table: &Table, watched: &Watched) {
        let timing = self.timing;
        let mut history = History { timing, answers: VecDeque::new(), failures: 0 };
        let mut link = None;
        loop {
            let patience = history.patience();
            let asked = Instant::now();
            let answer = timeout(patience, self.ask(&mut link, backend)).await;
            let answer =
                answer.unwrap_or_else(|_| Answer::Other(format!("no answer within {patience:?}")));
            if !matches!(answer, Answer::Status(_)) {
                link = None;
            }
            let finding = history.judge(answer, asked.elapsed());
            let again_at_once = finding.is_none();
            let is_well = finding == Some(Finding::Answers);
            if let Some(finding) = finding {
                table.report(backend, finding);
            }
            if again_at_once {
                tokio::time::sleep(timing.pause.saturating_sub(asked.elapsed())).await;
                continue;
            }
            let is_idle = is_well && !table.is_used(backend);
            let interval = if is_idle { timing.idle_interval } else { timing.interval };
            tokio::select! {
                () = tokio::time::sleep(interval) => continue,
                () = watched.ask.notified() => {}
                () = ended(&mut link) => link = None,
            }
            tokio::time::sleep(timing.pause.saturating_sub(asked.elapsed())).await;
        }
    }

    async fn ask(&self, link: &mut Option<Link>, backend: &Backend) -> Answer {
        if link.as_ref().is_none_or(|link| link.sender.is_closed()) {
            match open(backend, self.identity.now().api_server).await {
                Ok(opened) => *link = Some(opened),
                Err(answer) => return answer,
            }
        }
        let Some(Link { sender, .. }) = link else { return Answer::Other(String::new()) };
        let request = Request::builder().uri("/readyz").header(HOST, "kubernetes.default.svc");
        let asked = match request.body(Empty::new()) {
            Ok(request) => sender.send_request(request).await,
            Err(error) => return Answer::Other(error.to_string()),
        };
        match asked {
            Ok(response) => {
                let (parts, body) = response.into_parts();
                match Limited::new(body, ANSWER_BYTES_MAX).collect().await {
                    Ok(_) => Answer::Status(parts.status),
                    Err(error) => Answer::Other(format!("its answer broke off ({error})")),
                }
            }
            Err(error) => Answer::Other(format!("it hung up ({error})")),
        }
    }
}

impl History {
    fn patience(&self) -> Duration {
        let Timing { patience_min, patience_first, patience_max, .. } = self.timing;
        let slowest = self.answers.iter().max();
        slowest.map_or(patience_first, |slowest| {
            (*slowest * PATIENCE_FACTOR).clamp(patience_min, patience_max)
        })
    }

    /// What an answer says; nothing while it may be an accident.
    fn judge(&mut self, answer: Answer, took: Duration) -> Option<Finding> {
        let finding = match answer {
            Answer::Status(status) => {
                if self.answers.len() == ANSWERS_MAX {
                    self.answers.pop_front();
                }
                self.answers.push_back(took);
                if !status.is_server_error() {
                    self.failures = 0;
                    return Some(Finding::Answers);
                }
                Finding::Unready(format!("its /readyz says {}", status.as_u16()))
            }
            // There is nothing to be unsure about.
            Answer::Nobody => return Some(Finding::Refuses("nobody listens".to_owned())),
            Answer::Stranger(reason) => Finding::Strange(reason),
            Answer::Other(reason) => Finding::Silent(reason),
        };
        self.failures += 1;
        (self.failures >= FAILURES_MAX).then_some(finding)
    }
}

async fn open(backend: &Backend, config: Arc<ClientConfig>) -> Result<Link, Answer> {
    let stream = TcpStream::connect(backend.address).await.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => Answer::Nobody,
        _ => Answer::Other(format!("it can't be reached ({error})")),
    })?;
    let other =
        |what: &str, error: &dyn std::error::Error| Answer::Other(format!("{what} ({error})"));
    stream.set_nodelay(true).map_err(|error| other("it hung up", &error))?;
    let stream = TlsConnector::from(config).connect(api_server_name(), stream).await;
    let stream = stream.map_err(|error| match error.kind() {
        // What rustls has against it.
        io::ErrorKind::InvalidData => Answer::Stranger(format!("it is not believed ({error})")),
        _ => other("its handshake failed", &error),
    })?;
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(|error| other("it hung up", &error))?;
    let driver: JoinHandle<()> = tokio::spawn(async move {
        // Why it ended does not matter: it is asked anew.
        let _ = connection.await;
    });
    Ok(Link { sender, driver: AbortOnDropHandle::new(driver) })
}

/// Waits for the end of a connection; for ever without one.
async fn ended(link: &mut Option<Link>) {
    match link {
        // It does nothing that could panic, and nobody else aborts it.
        Some(link) => drop((&mut link.driver).await),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history() -> History {
        History { timing: Timing::default(), answers: VecDeque::new(), failures: 0 }
    }

    const FAST: Duration = Duration::from_millis(2);

    #[test]
    fn whoever_refuses_a_stranger_is_alive() {
        for status in [200, 401, 403, 404, 429] {
            let status = StatusCode::from_u16(status).unwrap();
            let finding = history().judge(Answer::Status(status), FAST);
            assert_eq!(finding, Some(Finding::Answers), "{status}");
        }
    }

    #[test]
    fn one_bad_answer_is_an_accident_and_two_are_not() {
        let mut history = history();
        let bad = || Answer::Status(StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(history.judge(bad(), FAST), None);
        assert!(matches!(history.judge(bad(), FAST), Some(Finding::Unready(_))));
        assert_eq!(history.judge(Answer::Status(StatusCode::OK), FAST), Some(Finding::Answers));
        assert_eq!(history.judge(Answer::Other(String::new()), FAST), None);
        assert!(matches!(
            history.judge(Answer::Other(String::new()), FAST),
            Some(Finding::Silent(_))
        ));
    }

    #[test]
    fn nobody_listening_counts_at_once() {
        let finding = history().judge(Answer::Nobody, FAST);
        assert!(matches!(finding, Some(Finding::Refuses(_))));
    }

    #[test]
    fn the_patience_follows_the_network_within_bounds() {
        let mut history = history();
        assert_eq!(history.patience(), Duration::from_secs(3), "nothing is known yet");
        let mut answered = |ms: u64| {
            history.judge(Answer::Status(StatusCode::OK), Duration::from_millis(ms));
            history.patience()
        };
        assert_eq!(answered(2), Duration::from_millis(1500));
        assert_eq!(answered(1800), Duration::from_millis(7200));
        assert_eq!(answered(9000), Duration::from_secs(10));
        let last = (0..ANSWERS_MAX).map(|_| answered(2)).last();
        assert_eq!(last, Some(Duration::from_millis(1500)), "a bad time is forgotten");
    }
}
