//! Where requests go that only the leader can serve.
//!
//! With one member that is always the own writer. With several it is the own
//! writer, the leader's member, or nobody for the moment: then requests wait.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::admission::Admission;
use crate::command::{Change, Command, Outcome};
use crate::error::RequestError;
use crate::lease::LeaseView;
use crate::record::{LeaseId, Revision};

/// How long a request waits for a leader; etcd's bound with default timeouts.
pub const LEADER_TIMEOUT: Duration = Duration::from_secs(7);
/// How soon a request is tried again when the leader said that it is none.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// How long a leader that was replaced may take to say what became of a
/// request: it learns that from the next one.
const LAST_WORD_TIMEOUT: Duration = Duration::from_millis(500);
/// Reads that wait for a barrier; beyond this clients are told to come back.
const READS_MAX: usize = 16 << 10;

/// What a follower asks its leader. [`RequestError::LeaderChanged`] means
/// that nothing was done; a lost answer is [`RequestError::TimedOut`].
#[tonic::async_trait]
pub trait Leader: Send + Sync + 'static {
    /// Makes a change.
    async fn change(&self, change: Change) -> Result<Outcome, RequestError>;
    /// A revision that holds whatever was answered before this was called.
    async fn barrier(&self) -> Result<Revision, RequestError>;
    /// Gives a lease its full time again; its time to live, when it exists.
    async fn renew(&self, lease: LeaseId) -> Result<Option<i64>, RequestError>;
    /// The times of a lease.
    async fn view(&self, lease: LeaseId) -> Result<Option<LeaseView>, RequestError>;
}

/// Who leads.
#[derive(Clone)]
pub enum Course {
    /// This member: the queue of its writer.
    Leads(mpsc::Sender<Command>),
    /// Another member.
    Follows(Arc<dyn Leader>),
    /// Nobody that is known.
    Seeks,
}

/// What an answer that does not come means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// It may have been done, and must not be done again.
    Unknown,
    /// Doing it twice does no harm.
    Repeatable,
}

impl Lost {
    fn error(self) -> RequestError {
        match self {
            Lost::Unknown => RequestError::TimedOut,
            Lost::Repeatable => RequestError::LeaderChanged,
        }
    }
}

/// Who leads, as a request finds it.
pub enum Heading {
    Here,
    There(Arc<dyn Leader>),
    Nowhere,
}

type Read = oneshot::Sender<Result<Revision, RequestError>>;

/// Finds the leader. See the module's words.
#[derive(Clone)]
pub struct Route {
    course: watch::Receiver<Course>,
    /// Missing with one member, which needs no barriers.
    reads: Option<mpsc::Sender<Read>>,
    /// How much longer than in a good network the leader is waited for.
    patience_us: Arc<AtomicU64>,
    /// What is in the queue of the own writer.
    admission: Admission,
}

impl Route {
    /// The route of a single member.
    pub fn alone(queue: mpsc::Sender<Command>) -> Route {
        let course = watch::channel(Course::Leads(queue)).1;
        Route { course, reads: None, patience_us: Arc::default(), admission: Admission::default() }
    }

    /// The route of a member among others, whose replica says who leads.
    pub fn among(course: watch::Receiver<Course>) -> Route {
        let (reads, waiting) = mpsc::channel(READS_MAX);
        let route = Route {
            course,
            reads: None,
            patience_us: Arc::default(),
            admission: Admission::default(),
        };
        tokio::spawn(share_barriers(route.clone(), waiting));
        Route { reads: Some(reads), ..route }
    }

    /// Waits so much longer for the leader than in a good network.
    pub fn set_patience(&self, patience: Duration) {
        self.patience_us.store(patience.as_micros() as u64, Ordering::Relaxed);
    }

    fn patience(&self) -> Duration {
        Duration::from_micros(self.patience_us.load(Ordering::Relaxed))
    }

    /// Returns when this member follows another one.
    pub async fn wait_until_following(&self) {
        // The sender lives as long as the member.
        let _ = self.course.clone().wait_for(|one| matches!(one, Course::Follows(_))).await;
    }

    /// Whether there are no other members.
    pub fn is_alone(&self) -> bool {
        self.reads.is_none()
    }

    /// Who leads now.
    pub fn heading(&self) -> Heading {
        match &*self.course.borrow() {
            Course::Leads(_) => Heading::Here,
            Course::Follows(leader) => Heading::There(leader.clone()),
            Course::Seeks => Heading::Nowhere,
        }
    }

    /// Queues a change for the own writer.
    pub fn queue(
        &self,
        change: Change,
    ) -> Result<oneshot::Receiver<Result<Outcome, RequestError>>, RequestError> {
        let course = self.course.borrow();
        let Course::Leads(queue) = &*course else { return Err(RequestError::LeaderChanged) };
        let place = self.admission.admit(change.bytes()).ok_or(RequestError::TooManyRequests)?;
        let (reply, answer) = oneshot::channel();
        queue.try_send(Command { change, reply, place }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => RequestError::TooManyRequests,
            mpsc::error::TrySendError::Closed(_) if self.is_alone() => RequestError::Stopped,
            mpsc::error::TrySendError::Closed(_) => RequestError::LeaderChanged,
        })?;
        Ok(answer)
    }

    /// Makes a change if this member leads.
    pub async fn change_here(&self, change: Change) -> Result<Outcome, RequestError> {
        // A writer refuses what it did not begin; without a word from it
        // nobody knows.
        let lost = if self.is_alone() { RequestError::Stopped } else { RequestError::TimedOut };
        self.queue(change)?.await.unwrap_or(Err(lost))
    }

    /// Asks the leader, and the next one when that was none. Only what was
    /// certainly not done is asked again.
    pub async fn ask<T, F>(&self, lost: Lost, ask: impl Fn(Heading) -> F) -> Result<T, RequestError>
    where
        F: Future<Output = Result<T, RequestError>>,
    {
        let deadline = Instant::now() + LEADER_TIMEOUT + self.patience();
        let mut course = self.course.clone();
        loop {
            course.borrow_and_update();
            let result = match self.heading() {
                Heading::Nowhere => Err(RequestError::LeaderChanged),
                Heading::Here => ask(Heading::Here).await,
                heading => tokio::select! {
                    result = ask(heading) => result,
                    () = self.is_replaced(course.clone(), lost) => Err(lost.error()),
                },
            };
            match result {
                Err(RequestError::LeaderChanged) if Instant::now() < deadline => {}
                result => return result,
            }
            // Either somebody else leads now, or the leader needs a moment.
            let seeks = matches!(self.heading(), Heading::Nowhere);
            let wait = if seeks { deadline } else { Instant::now() + RETRY_PAUSE };
            let changed = tokio::time::timeout_at(wait.min(deadline), course.changed()).await;
            if let Ok(Err(_)) = changed {
                // Nobody will ever say again who leads.
                return Err(RequestError::Stopped);
            }
        }
    }

    /// Returns when the leader that was asked is none any more, and has had
    /// the time to answer what it had done.
    async fn is_replaced(&self, mut course: watch::Receiver<Course>, lost: Lost) {
        if course.changed().await.is_err() {
            return std::future::pending().await;
        }
        if let Lost::Unknown = lost {
            tokio::time::sleep(LAST_WORD_TIMEOUT + self.patience()).await;
        }
    }

    /// A revision that holds whatever was answered before this was called.
    /// Everybody who waits shares the next barrier.
    pub async fn barrier(&self) -> Result<Revision, RequestError> {
        let Some(reads) = &self.reads else { return Ok(Revision(0)) };
        let (reply, answer) = oneshot::channel();
        reads.try_send(reply).map_err(|_| RequestError::TooManyRequests)?;
        answer.await.unwrap_or(Err(RequestError::Stopped))
    }
}

/// One barrier at a time: reads that arrive meanwhile share the next one,
/// because a barrier that has begun proves nothing about them.
async fn share_barriers(route: Route, mut waiting: mpsc::Receiver<Read>) {
    while let Some(first) = waiting.recv().await {
        let mut reads = vec![first];
        while let Ok(read) = waiting.try_recv() {
            reads.push(read);
        }
        let ask = |heading| {
            let route = &route;
            async move {
                match heading {
                    Heading::There(leader) => leader.barrier().await,
                    _ => match route.change_here(Change::Barrier).await? {
                        Outcome::Done(revision) => Ok(revision),
                        _ => unreachable!("a barrier is answered by a revision"),
                    },
                }
            }
        };
        let result = route.ask(Lost::Repeatable, ask).await;
        for read in reads {
            let _ = read.send(result);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_end_when_their_member_has_gone() {
        let (course, seen) = watch::channel(Course::Seeks);
        let (answer, answered) = std::sync::mpsc::channel();
        // On a thread of its own: without the answer it would spin there.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let asked = async move { Route::among(seen).barrier().await };
            let _ = answer.send(runtime.expect("a runtime").block_on(asked));
        });
        std::thread::sleep(Duration::from_millis(50));
        drop(course);
        let told = answered.recv_timeout(Duration::from_secs(10)).expect("an answer");
        assert_eq!(told, Err(RequestError::Stopped));
    }
}
