//! Runs the tasks of one history in one thread, by a clock of its own: when nobody is ready it jumps
//! to the next timer. Who is next among those that are ready, the seed decides.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};

use futures::future::{Either, select};

use super::chance::Chance;

/// What dies together: the tasks of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process(pub u64);

/// A task, to end it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskId(u64);

/// The clock of a history, in microseconds. A store must be `Send`, so this is.
#[derive(Clone, Default)]
pub struct Time(Arc<Mutex<Clockwork>>);

#[derive(Default)]
struct Clockwork {
    now_us: u64,
    order: u64,
    timers: BTreeMap<(u64, u64), Waker>,
    killed: Vec<Process>,
}

impl Time {
    pub fn now_us(&self) -> u64 {
        self.work().now_us
    }

    pub fn sleep(&self, us: u64) -> Sleep {
        self.sleep_until(self.now_us().saturating_add(us))
    }

    pub fn sleep_until(&self, at_us: u64) -> Sleep {
        Sleep { time: self.clone(), at_us, place: None }
    }

    /// What comes of `work` within this time.
    pub async fn timeout<F: Future>(&self, us: u64, work: F) -> Option<F::Output> {
        match select(pin!(work), pin!(self.sleep(us))).await {
            Either::Left((outcome, _)) => Some(outcome),
            Either::Right(_) => None,
        }
    }

    /// Ends a process where it stands, as `kill -9` does.
    pub fn kill(&self, process: Process) {
        self.work().killed.push(process);
    }

    fn work(&self) -> MutexGuard<'_, Clockwork> {
        self.0.lock().unwrap()
    }

    /// Goes to the next timer.
    fn advance(&self) -> Option<Waker> {
        let mut work = self.work();
        let ((at_us, _), waker) = work.timers.pop_first()?;
        work.now_us = work.now_us.max(at_us);
        Some(waker)
    }
}

/// See [`Time::sleep`].
pub struct Sleep {
    time: Time,
    at_us: u64,
    place: Option<(u64, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let (time, at_us) = (self.time.clone(), self.at_us);
        let mut work = time.work();
        if work.now_us >= at_us {
            return Poll::Ready(());
        }
        let place = self.place.unwrap_or_else(|| {
            work.order += 1;
            (at_us, work.order)
        });
        self.place = Some(place);
        work.timers.insert(place, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.time.work().timers.remove(&place);
        }
    }
}

type Work = Pin<Box<dyn Future<Output = ()>>>;

/// Where tasks are begun and ended.
#[derive(Clone, Default)]
pub struct Tasks(Rc<RefCell<Orders>>);

#[derive(Default)]
struct Orders {
    next: u64,
    next_process: u64,
    fresh: Vec<(TaskId, Process, Work)>,
    ended: Vec<TaskId>,
}

impl Tasks {
    /// A process that has no task yet.
    pub fn process(&self) -> Process {
        let mut orders = self.0.borrow_mut();
        orders.next_process += 1;
        Process(orders.next_process)
    }

    pub fn spawn(&self, process: Process, work: impl Future<Output = ()> + 'static) -> TaskId {
        let mut orders = self.0.borrow_mut();
        orders.next += 1;
        let id = TaskId(orders.next);
        orders.fresh.push((id, process, Box::pin(work)));
        id
    }

    pub fn end(&self, task: TaskId) {
        self.0.borrow_mut().ended.push(task);
    }
}

#[derive(Clone, Default)]
struct Ready(Arc<Mutex<Vec<TaskId>>>);

struct Awake {
    task: TaskId,
    ready: Ready,
}

impl Wake for Awake {
    fn wake(self: Arc<Self>) {
        let mut ready = self.ready.0.lock().unwrap();
        if !ready.contains(&self.task) {
            ready.push(self.task);
        }
    }
}

struct Task {
    process: Process,
    work: Option<Work>,
    waker: Waker,
}

/// See the module's words.
pub struct Executor {
    pub time: Time,
    pub tasks: Tasks,
    ready: Ready,
    running: BTreeMap<TaskId, Task>,
    dead: BTreeSet<Process>,
    chance: Chance,
}

impl Executor {
    pub fn new(chance: Chance) -> Self {
        let (time, tasks) = (Time::default(), Tasks::default());
        let (ready, running, dead) = (Ready::default(), BTreeMap::new(), BTreeSet::new());
        Self { time, tasks, ready, running, dead, chance }
    }

    /// Runs until this is done, with all that it begins.
    pub fn run(&mut self, main: impl Future<Output = ()> + 'static) {
        let process = self.tasks.process();
        let main = self.tasks.spawn(process, main);
        loop {
            self.begin_and_end();
            if !self.running.contains_key(&main) {
                return;
            }
            match self.choose() {
                Some(task) => self.poll(task),
                None => self.time.advance().expect("somebody waits for something").wake(),
            }
        }
    }

    fn begin_and_end(&mut self) {
        let (fresh, ended) = {
            let mut orders = self.tasks.0.borrow_mut();
            (std::mem::take(&mut orders.fresh), std::mem::take(&mut orders.ended))
        };
        let killed = std::mem::take(&mut self.time.work().killed);
        if !killed.is_empty() {
            let of_dead = |_: &TaskId, task: &mut Task| killed.contains(&task.process);
            // Dropping them may wake others and give orders: after the list is whole again.
            let of_dead: Vec<_> = self.running.extract_if(.., of_dead).collect();
            drop(of_dead);
            self.dead.extend(killed);
        }
        for (id, process, work) in fresh {
            if self.dead.contains(&process) {
                continue;
            }
            let waker = Waker::from(Arc::new(Awake { task: id, ready: self.ready.clone() }));
            waker.wake_by_ref();
            self.running.insert(id, Task { process, work: Some(work), waker });
        }
        for id in ended {
            self.running.remove(&id);
        }
    }

    fn choose(&mut self) -> Option<TaskId> {
        let mut ready = self.ready.0.lock().unwrap();
        match ready.len() as u64 {
            0 => None,
            count => {
                let place = self.chance.within(0, count) as usize;
                Some(ready.swap_remove(place))
            }
        }
    }

    fn poll(&mut self, id: TaskId) {
        let Some(task) = self.running.get_mut(&id) else { return };
        let waker = task.waker.clone();
        let Some(mut work) = task.work.take() else { return };
        if work.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            self.running.remove(&id);
        } else if let Some(task) = self.running.get_mut(&id) {
            task.work = Some(work);
        }
    }
}
