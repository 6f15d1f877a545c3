//! Many clients that make one kind of request, one after the other.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clap::ValueEnum;
use skiff_datastore::proto::RangeRequest;
use skiff_datastore::proto::kv_client::KvClient;
use skiff_datastore::proto::response_op::Response;
use skiff_datastore::{Listen, probe};
use tonic::transport::Channel;

use crate::object::{self, PREFIX, PREFIX_END};

/// More connections than these make no difference.
const CHANNELS_MAX: usize = 16;
/// Keys of a page.
const PAGE: i64 = 500;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Act {
    Create,
    Update,
    Delete,
    Get,
    Count,
    /// The first 500.
    List,
    /// All of them, in pages of 500.
    Pages,
}

#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Where the datastore listens
    listen: Listen,
    #[arg(long, default_value_t = 1)]
    clients: usize,
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    #[arg(long, value_enum, default_value = "create")]
    act: Act,
}

/// Loads a datastore that runs, which may hold anything.
pub async fn alone(arguments: &Arguments) -> Result<()> {
    let mut channels = Vec::new();
    for _ in 0..arguments.clients.min(CHANNELS_MAX) {
        channels.push(probe::connect(&arguments.listen).await?);
    }
    let first = u64::from(std::process::id()) * 10_000_000;
    let mut clients = Clients::new(&channels, arguments.clients, first);
    let span = Duration::from_secs(arguments.seconds);
    if matches!(arguments.act, Act::Update | Act::Delete) {
        clients.run(Act::Create, span).await?;
    }
    let done = clients.run(arguments.act, span).await?;
    let (rate, p50, p99) = (done.per_second(), done.percentile_ms(50), done.percentile_ms(99));
    println!("{} clients: {rate:.0}/s, p50 {p50:.2} ms, p99 {p99:.2} ms", arguments.clients);
    Ok(())
}

/// What some clients have done together.
pub struct Done {
    elapsed: Duration,
    latencies: Vec<Duration>,
}

impl Done {
    pub fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    pub fn percentile_ms(&self, percent: usize) -> f64 {
        percentile_ms(&self.latencies, percent)
    }
}

/// Of latencies that are sorted.
pub fn percentile_ms(sorted: &[Duration], percent: usize) -> f64 {
    let position = sorted.len().saturating_sub(1) * percent / 100;
    sorted.get(position).map_or(0.0, |one| one.as_secs_f64() * 1e3)
}

/// Clients with keys of their own.
pub struct Clients(Vec<Client>);

struct Client {
    kv: KvClient<Channel>,
    /// What it has created and not deleted, and when each was changed last.
    own: VecDeque<(u64, i64)>,
    next: u64,
    step: u64,
}

impl Clients {
    /// `count` clients that number their objects from `first` on.
    pub fn new(channels: &[Channel], count: usize, first: u64) -> Clients {
        let client = |number: usize| Client {
            kv: KvClient::new(channels[number % channels.len()].clone())
                .max_decoding_message_size(usize::MAX),
            own: VecDeque::new(),
            next: first + number as u64,
            step: count as u64,
        };
        Clients((0..count).map(client).collect())
    }

    /// Lets every client do the same for `span`.
    pub async fn run(&mut self, act: Act, span: Duration) -> Result<Done> {
        let begun = Instant::now();
        self.all(act, move |_| begun.elapsed() < span).await
    }

    /// Lets every client do the same `count` times.
    pub async fn times(&mut self, act: Act, count: usize) -> Result<Done> {
        self.all(act, move |done| done < count).await
    }

    async fn all(
        &mut self,
        act: Act,
        goes_on: impl Fn(usize) -> bool + Copy + Send + 'static,
    ) -> Result<Done> {
        let begun = Instant::now();
        let tasks: Vec<_> = std::mem::take(&mut self.0)
            .into_iter()
            .map(|mut client| {
                tokio::spawn(async move {
                    let mut latencies = Vec::new();
                    while goes_on(latencies.len()) {
                        let begun = Instant::now();
                        if !client.act(act).await? {
                            break;
                        }
                        latencies.push(begun.elapsed());
                    }
                    anyhow::Ok((client, latencies))
                })
            })
            .collect();
        let mut latencies = Vec::new();
        for task in tasks {
            let (client, its) = task.await.context("a client panicked")??;
            self.0.push(client);
            latencies.extend(its);
        }
        latencies.sort_unstable();
        Ok(Done { elapsed: begun.elapsed(), latencies })
    }
}

impl Client {
    /// False when there is nothing left to do it with.
    async fn act(&mut self, act: Act) -> Result<bool> {
        match act {
            Act::Create => {
                let number = self.next;
                self.next += self.step;
                let request = object::create(object::key(number), object::value(number));
                let revision = self.write(request).await?;
                self.own.push_back((number, revision));
            }
            Act::Update => {
                let Some((number, revision)) = self.own.pop_front() else { return Ok(false) };
                let value = object::value(number ^ revision as u64);
                let request = object::update(object::key(number), value, revision);
                let revision = self.write(request).await?;
                self.own.push_back((number, revision));
            }
            Act::Delete => {
                let Some((number, revision)) = self.own.pop_front() else { return Ok(false) };
                self.write(object::delete(object::key(number), revision)).await?;
            }
            Act::Get => {
                let Some((number, revision)) = self.own.pop_front() else { return Ok(false) };
                let request = RangeRequest { key: object::key(number), ..Default::default() };
                let found = self.kv.range(request).await?.into_inner().kvs;
                ensure!(found.len() == 1, "a key is gone");
                self.own.push_back((number, revision));
            }
            Act::Count => {
                let request = RangeRequest { count_only: true, ..page(PREFIX.into(), 0, 0) };
                ensure!(self.kv.range(request).await?.into_inner().count > 0, "no keys");
            }
            Act::List => {
                let answer = self.kv.range(page(PREFIX.into(), PAGE, 0)).await?.into_inner();
                ensure!(!answer.kvs.is_empty(), "no keys");
            }
            Act::Pages => self.pages().await?,
        }
        Ok(true)
    }

    /// As the API server lists: every page at the revision of the first.
    async fn pages(&mut self) -> Result<()> {
        let (mut from, mut revision) = (Bytes::from_static(PREFIX.as_bytes()), 0);
        loop {
            let answer = self.kv.range(page(from, PAGE, revision)).await?.into_inner();
            revision = answer.header.context("an answer has no header")?.revision;
            let last = answer.kvs.last().context("a page is empty")?;
            if !answer.more {
                return Ok(());
            }
            from = [&last.key[..], b"\0"].concat().into();
        }
    }

    /// The revision of a write that must be done.
    async fn write(&mut self, request: skiff_datastore::proto::TxnRequest) -> Result<i64> {
        let answer = self.kv.txn(request).await?.into_inner();
        ensure!(
            answer.succeeded,
            "somebody else wrote the key: {:?}",
            answer
                .responses
                .first()
                .map(|one| matches!(one.response, Some(Response::ResponseRange(_))))
        );
        Ok(answer.header.context("an answer has no header")?.revision)
    }
}

fn page(from: Bytes, limit: i64, revision: i64) -> RangeRequest {
    RangeRequest { key: from, range_end: PREFIX_END.into(), limit, revision, ..Default::default() }
}
