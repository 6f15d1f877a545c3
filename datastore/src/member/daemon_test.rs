//! Members in one process, so that what one of them holds in memory can be spoilt.

use std::time::Duration;

use clap::Parser;
use tempfile::TempDir;

use super::*;
use crate::database::Database;
use crate::engine::Engine;
use crate::member::pki;
use crate::proto::PutRequest;
use crate::shared::Integrity;

/// Everything that should happen has happened after this, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const KEYS: usize = 20;

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
}

/// Some members on the loopback interface, and what each of them serves one
/// database from.
struct Crew {
    _home: TempDir,
    options: Vec<Options>,
    engines: Vec<Engine>,
    seats: Vec<Databases<Seat>>,
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

impl Crew {
    fn of(count: usize, database: Database) -> Crew {
        let home = TempDir::new().unwrap();
        let identity = home.path().join("pki");
        pki::make(&identity).unwrap();
        let ports: Vec<u16> = (0..count).map(|_| free_port()).collect();
        let options = ports.iter().enumerate().map(|(number, port)| {
            let dir = home.path().join(format!("member-{number}"));
            disk::ensure_dir(&dir).unwrap();
            let mut arguments = vec![
                "skiff".to_owned(),
                format!("--dir={}", dir.display()),
                format!("--pki={}", identity.display()),
                format!("--listen=127.0.0.1:{}", free_port()),
                format!("--peer-listen=127.0.0.1:{port}"),
            ];
            if database == Database::Cluster {
                let socket = home.path().join(format!("cluster-{number}"));
                arguments.push(format!("--cluster-listen=unix:{}", socket.display()));
            }
            if number > 0 {
                arguments.push(format!("--join=127.0.0.1:{}", ports[0]));
            }
            Arguments::parse_from(arguments).options
        });
        let options: Vec<Options> = options.collect();
        let seats: Vec<Databases<Seat>> = options.iter().map(Seat::all).collect();
        let engines =
            seats.iter().map(|seats| seats.get(database).unwrap().engine.clone()).collect();
        Crew { _home: home, options, engines, seats }
    }

    /// Runs all members while `story` is told.
    async fn run(mut self, story: impl AsyncFnOnce(&[Engine])) {
        let (_phase, phases) = watch::channel(Phase::Run);
        let handed = || watch::channel(false).0;
        let seats = std::mem::take(&mut self.seats);
        let nodes = self.options.iter().zip(seats);
        let nodes = nodes.map(|(options, seat)| run_nodes(options, seat, phases.clone(), handed()));
        tokio::select! {
            ended = futures::future::select_all(nodes.map(Box::pin)) => panic!("{:?}", ended.0),
            () = story(&self.engines) => {}
        }
    }
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}: it does not come to that");
}

fn key(number: usize) -> String {
    format!("key-{number}")
}

async fn put(engine: &Engine, key: String, value: String) {
    let put = PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() };
    let waited = tokio::time::timeout(PATIENCE, async {
        while let Err(error) = engine.put(put.clone()).await {
            assert_eq!(error.code(), tonic::Code::Unavailable, "{error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    waited.await.unwrap();
}

async fn write(engine: &Engine, round: usize) {
    for number in 0..KEYS {
        put(engine, key(number), format!("value of round {round}")).await;
    }
}

/// Spoils what a member holds, as the next row finds it.
async fn spoil(engines: &[Engine], spoilt: usize) {
    engines[spoilt].shared().write().index.spoil(key(7).as_bytes());
    put(&engines[(spoilt + 1) % engines.len()], "next".into(), "row".into()).await;
}

fn voters(engine: &Engine) -> usize {
    engine.shared().operator().map_or(0, |operator| operator.keeper.roster.living().len())
}

fn holds(engine: &Engine, round: usize) -> bool {
    let state = engine.shared().read();
    let expected = format!("value of round {round}");
    (0..KEYS).all(|number| {
        let found = state.index.get(key(number).as_bytes(), state.index.committed());
        found.is_some_and(|record| record.value == expected)
    })
}

fn renewals(engine: &Engine) -> u64 {
    engine.shared().metrics.renewals.get()
}

async fn until_all(engines: &[Engine], round: usize) {
    for engine in engines {
        until("all hold the same", || holds(engine, round)).await;
    }
}

/// The position of the leader, when the last of its tasks runs.
async fn leader(engines: &[Engine]) -> usize {
    until("somebody leads", || engines.iter().any(Engine::leads)).await;
    engines.iter().position(Engine::leads).unwrap()
}

async fn spoil_and_heal(engines: &[Engine], spoilt: usize, round: usize) {
    let damaged = &engines[spoilt];
    let former = damaged.identity().member_id;
    let before = renewals(damaged);
    spoil(engines, spoilt).await;
    assert!(!holds(damaged, round - 1));
    until("it is found", || damaged.shared().is_corrupt()).await;
    // Its clients are refused, the others' are not.
    let other = (spoilt + 1) % engines.len();
    write(&engines[other], round).await;
    until("it heals", || renewals(damaged) == before + 1).await;
    until_all(engines, round).await;
    assert_ne!(damaged.identity().member_id, former);
    for (position, engine) in engines.iter().enumerate() {
        until("no alarm is left", || engine.shared().integrity() == Integrity::Sound).await;
        let expected = if position == spoilt { before + 1 } else { renewals(engine) };
        assert_eq!(renewals(engine), expected);
    }
}

#[tokio::test]
async fn a_member_that_holds_something_else_than_the_others_begins_anew_the_leader_too() {
    Crew::of(3, Database::Kube)
        .run(async |engines| {
            for engine in engines {
                until("all joined", || voters(engine) == 3).await;
            }
            write(&engines[0], 1).await;
            until_all(engines, 1).await;
            let follower = (leader(engines).await + 1) % 3;
            spoil_and_heal(engines, follower, 2).await;
            for engine in engines {
                until("the former number is gone", || voters(engine) == 3).await;
            }
            let led = leader(engines).await;
            spoil_and_heal(engines, led, 3).await;
            assert_ne!(leader(engines).await, led, "the odd one does not lead");
            assert_eq!(engines.iter().map(renewals).sum::<u64>(), 2);
        })
        .await;
}

#[tokio::test]
async fn two_members_that_differ_both_say_so_and_neither_begins_anew() {
    Crew::of(2, Database::Kube)
        .run(async |engines| {
            for engine in engines {
                until("both joined", || voters(engine) == 2).await;
            }
            write(&engines[0], 1).await;
            until_all(engines, 1).await;
            spoil(engines, 1).await;
            for engine in engines {
                until("both doubt", || engine.shared().integrity() == Integrity::Doubtful).await;
            }
            // What was different is written anew: the doubt is over.
            write(&engines[1], 2).await;
            for engine in engines {
                until("no doubt", || engine.shared().integrity() == Integrity::Sound).await;
            }
            assert_eq!(engines.iter().map(renewals).sum::<u64>(), 0);
        })
        .await;
}

#[tokio::test]
async fn a_member_that_is_odd_in_the_clusters_database_alone_begins_anew() {
    Crew::of(3, Database::Cluster)
        .run(async |engines| {
            for engine in engines {
                until("all joined", || voters(engine) == 3).await;
            }
            write(&engines[0], 1).await;
            until_all(engines, 1).await;
            let follower = (leader(engines).await + 1) % 3;
            spoil_and_heal(engines, follower, 2).await;
            let led = leader(engines).await;
            spoil_and_heal(engines, led, 3).await;
            assert_eq!(engines.iter().map(renewals).sum::<u64>(), 2);
        })
        .await;
}
