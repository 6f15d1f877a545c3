//! The network: what is asked at 7443 arrives late, never, or twice; and so do answers.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::rc::Rc;

use microcluster::message::{Answer, Message, Refusal, Request};
use microcluster::protocol::Caller;
use tokio::sync::oneshot;

use super::chance::Chance;
use super::executor::{Process, TaskId, Tasks};
use super::machine::SimDesk;
use super::promises::Visit;
use super::world::{RELEASE, Recorded, World};

/// How long the other side is waited for: the agent waits for skiffd, whoever asks for the agent.
const SKIFFD_WAIT_US: u64 = 60_000_000;
const ANSWER_WAIT_US: u64 = 75_000_000;
/// What is recorded of one history.
const RECORDED_MAX: usize = 64;

/// Why there is no answer.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// Nobody was asked.
    Unreached,
    /// Whether anything was done is not known.
    Unsure,
    Refused(Refusal),
}

/// As whom somebody asks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    /// A joiner believes its token, and is believed by it.
    Nothing,
    Identity,
}

/// Which links are cut, and how good the others are.
pub struct Links {
    cut: BTreeSet<(usize, usize)>,
    /// In a thousand.
    pub loss: u64,
    pub delay_us: (u64, u64),
    chance: Chance,
    pub messages: u64,
    pub bytes: u64,
}

impl Links {
    pub fn new(chance: Chance) -> Self {
        let (cut, delay_us) = (BTreeSet::new(), (100, 2_000));
        Self { cut, loss: 0, delay_us, chance, messages: 0, bytes: 0 }
    }

    pub fn cut(&mut self, from: usize, to: usize) {
        self.cut.insert((from, to));
    }

    pub fn heal(&mut self) {
        self.cut.clear();
        (self.loss, self.delay_us) = (0, (100, 2_000));
    }

    fn delay(&mut self) -> u64 {
        self.chance.within(self.delay_us.0, self.delay_us.1)
    }

    fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut.contains(&(from, to))
    }

    fn loses(&mut self) -> bool {
        let loss = self.loss;
        self.chance.happens(loss)
    }
}

/// Ends the work for somebody who went away, sometimes: a connection that broke is not always seen.
struct Waiting {
    tasks: Tasks,
    task: TaskId,
    ends: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.ends {
            self.tasks.end(self.task);
        }
    }
}

/// Asks whoever of the control plane answers, as `microcluster::client` does.
pub async fn ask(
    world: &Rc<World>,
    number: usize,
    addresses: &[IpAddr],
    request: Request,
    shows: Shows,
) -> Result<Answer, Trouble> {
    let message = Message { release: RELEASE, sent: world.clock(number), request };
    let (shown, desk) = {
        let machine = &world.machines.borrow()[number];
        (machine.shown().filter(|_| shows == Shows::Identity), machine.desk.clone())
    };
    if let Some(desk) = desk.filter(|_| !matches!(message.request, Request::Leave(_))) {
        // It decides itself; who lets it go must be somebody who stays.
        return granted(answer(world, &desk, &message.to_bytes(), shown.as_deref()).await);
    }
    let question = Recorded { bytes: message.to_bytes(), shown };
    world.record(&question);
    let mut addresses = addresses.to_vec();
    if world.form.spreads && !addresses.is_empty() {
        let first = world.within(0, addresses.len() as u64) as usize;
        addresses.rotate_left(first);
    }
    let moves_on = message.request.is_repeatable();
    let mut unable = None;
    for address in addresses {
        match exchange(world, number, address, &question).await {
            Ok(bytes) => {
                let answer = Answer::parse(&bytes).unwrap_or_else(Answer::Refused);
                if !moves_on || !answer.is_unable() {
                    return granted(answer);
                }
                unable.get_or_insert(answer);
            }
            Err(Trouble::Unreached) => {}
            Err(trouble) => return Err(trouble),
        }
    }
    unable.map_or(Err(Trouble::Unreached), granted)
}

fn granted(answer: Answer) -> Result<Answer, Trouble> {
    match answer {
        Answer::Refused(refusal) => Err(Trouble::Refused(refusal)),
        answer => Ok(answer),
    }
}

/// One connection: what is asked there, and the bytes that come back.
pub async fn exchange(
    world: &Rc<World>,
    from: usize,
    to: IpAddr,
    question: &Recorded,
) -> Result<Vec<u8>, Trouble> {
    let Some((server, process, desk)) = reach(world, from, to).await else {
        return Err(Trouble::Unreached);
    };
    let delay_us = world.links.borrow_mut().delay();
    world.time.sleep(delay_us).await;
    if is_lost(world, from, server) {
        return lost(world).await;
    }
    let (told, answered) = oneshot::channel();
    let work = {
        let (world, question) = (world.clone(), question.clone());
        async move {
            let said = answer(&world, &desk, &question.bytes, question.shown.as_deref()).await;
            let _ = told.send(said.to_bytes());
        }
    };
    let task = world.tasks.spawn(process, work);
    let waiting = Waiting { tasks: world.tasks.clone(), task, ends: world.happens(500) };
    let bytes = match world.time.timeout(SKIFFD_WAIT_US, answered).await {
        Some(Ok(bytes)) => bytes,
        _ => return lost(world).await,
    };
    drop(waiting);
    let delay_us = world.links.borrow_mut().delay();
    world.time.sleep(delay_us).await;
    if is_lost(world, server, from) {
        return lost(world).await;
    }
    let mut links = world.links.borrow_mut();
    links.messages += 2;
    links.bytes += (question.bytes.len() + bytes.len()) as u64;
    Ok(bytes)
}

async fn reach(
    world: &Rc<World>,
    from: usize,
    to: IpAddr,
) -> Option<(usize, Process, Rc<SimDesk>)> {
    let found = world.at(to).and_then(|server| {
        let machine = &world.machines.borrow()[server];
        Some((server, machine.daemon?, machine.desk.clone()?))
    });
    let silent = match &found {
        None => world.happens(500),
        Some((server, ..)) => {
            let cut = {
                let links = world.links.borrow();
                links.is_cut(from, *server) || links.is_cut(*server, from)
            };
            cut || world.links.borrow_mut().loses()
        }
    };
    if silent {
        world.time.sleep(2_000_000).await;
        return None;
    }
    let delay_us = world.links.borrow_mut().delay();
    world.time.sleep(2 * delay_us).await;
    found
}

fn is_lost(world: &World, from: usize, to: usize) -> bool {
    let mut links = world.links.borrow_mut();
    links.is_cut(from, to) || links.loses()
}

/// The connection breaks, or says nothing more.
async fn lost(world: &World) -> Result<Vec<u8>, Trouble> {
    let us = if world.happens(500) { ANSWER_WAIT_US } else { world.within(1_000, 3_000_000) };
    world.time.sleep(us).await;
    Err(Trouble::Unsure)
}

/// What skiffd says, and whether it may.
pub async fn answer(
    world: &Rc<World>,
    desk: &SimDesk,
    bytes: &[u8],
    shown: Option<&[u8]>,
) -> Answer {
    let began_us = world.now_us();
    let caller = match Caller::of(shown) {
        Ok(caller) => caller,
        Err(refusal) => return Answer::Refused(refusal),
    };
    let answer = desk.answer(bytes, &caller).await;
    if let Answer::Refused(refusal) = &answer {
        world.note(format_args!("refused {:?}: {refusal}", refusal.code));
        world.count("refusals");
    }
    if let Ok(message) = Message::parse(bytes) {
        let visit = Visit { began_us, message: &message, caller: &caller, answer: &answer };
        world.ledger().answered(&visit, world.now_us());
    }
    answer
}

impl World {
    /// Somebody listens, and may say it again.
    fn record(&self, question: &Recorded) {
        let mut recorded = self.recorded.borrow_mut();
        if recorded.len() == RECORDED_MAX {
            let place = self.within(0, RECORDED_MAX as u64) as usize;
            recorded.remove(place);
        }
        recorded.push(question.clone());
    }
}
