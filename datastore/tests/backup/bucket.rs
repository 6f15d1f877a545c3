//! Backups in a bucket, of a server that speaks S3's protocol (versitygw).

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use skiff_datastore::backup::retention::Keep;
use skiff_datastore::backup::target::TargetError;
use skiff_datastore::backup::{Job, JobError, S3, S3Error, Target, restore};
use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::{restore_options, take_options};

const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A server with one bucket; ended with its value.
struct Server {
    child: Child,
    address: String,
    dir: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One of the programs that `cargo xtask components --test` builds.
fn program() -> Option<PathBuf> {
    let tests = std::env::current_exe().unwrap();
    let program = tests.ancestors().nth(3).unwrap().join("dist-test/bin/versitygw");
    program.is_file().then_some(program)
}

impl Server {
    fn start() -> Option<Server> {
        Server::start_with(&[])
    }

    fn start_with(arguments: &[&str]) -> Option<Server> {
        let Some(program) = program() else {
            eprintln!("skipped: versitygw is not built (cargo xtask components --test)");
            return None;
        };
        let dir = TempDir::new().unwrap();
        std::fs::create_dir(dir.path().join("backups")).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let child = Command::new(program)
            .args(["--access", "us", "--secret", "word", "--port", &address])
            .args(arguments)
            .arg("posix")
            .arg(dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Server { child, address, dir };
        let deadline = Instant::now() + START_TIMEOUT;
        while std::net::TcpStream::connect(&server.address).is_err() {
            assert!(Instant::now() < deadline, "the server does not serve");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(server)
    }

    fn place(&self, secret: &str, address: &str) -> S3 {
        let variable = |name| match name {
            "AWS_ACCESS_KEY_ID" => Some("us".to_owned()),
            "AWS_SECRET_ACCESS_KEY" => Some(secret.to_owned()),
            "AWS_ENDPOINT_URL_S3" => Some(format!("http://{}", self.address)),
            _ => None,
        };
        S3::new(address, variable).unwrap()
    }

    /// The bucket by TLS, believing what `authority` signed besides what the machine believes.
    fn place_by_tls(&self, authority: Option<&Path>) -> Result<S3, S3Error> {
        let port = self.address.rsplit(':').next().unwrap();
        let variable = |name| match name {
            "AWS_ACCESS_KEY_ID" => Some("us".to_owned()),
            "AWS_SECRET_ACCESS_KEY" => Some("word".to_owned()),
            "AWS_ENDPOINT_URL_S3" => Some(format!("https://localhost:{port}")),
            "AWS_CA_BUNDLE" => authority.map(|path| path.display().to_string()),
            _ => None,
        };
        S3::new("s3://backups", variable)
    }

    fn files(&self) -> PathBuf {
        self.dir.path().join("backups")
    }
}

fn job(daemon: &Daemon, scratch: &Path, place: S3, last: u32) -> Job {
    Job {
        take: take_options(daemon.listen(), scratch),
        target: Target::S3(Box::new(place)),
        keep: Keep { last, ..Keep::default() },
    }
}

#[tokio::test]
async fn a_bucket_holds_proven_backups_gives_them_back_and_old_ones_go() {
    let Some(server) = Server::start() else { return };
    let home = TempDir::new().unwrap();
    let scratch = TempDir::new().unwrap();
    let daemon = Daemon::start(&home.path().join("data")).await;
    daemon.fill(100).await;
    let place = server.place("word", "s3://backups/of/one/");
    let other = server.files().join("of/one");
    std::fs::create_dir_all(&other).unwrap();
    std::fs::write(other.join("notes"), "not a backup").unwrap();
    let job = job(&daemon, scratch.path(), place.clone(), 2);
    let mut last = None;
    for round in 0..4 {
        daemon.put("round", &round.to_string()).await;
        let done = job.run_once().await.unwrap();
        assert!(done.not_removed.is_none(), "{done:?}");
        assert_eq!(done.removed.len(), usize::from(round >= 2));
        last = Some(done.backup);
    }
    let listed = place.list().await.unwrap();
    assert_eq!(listed.len(), 2);
    assert!(other.join("notes").exists());
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "nothing stays here");

    let last = last.unwrap();
    let name = listed[1].to_string();
    assert_eq!(last.path, PathBuf::from(format!("s3://backups/of/one/{name}")));
    let file = home.path().join("fetched");
    place.get(&name, &file).await.unwrap();
    let restored = restore(&file, &restore_options(home.path().join("new"))).await.unwrap();
    assert_eq!(restored.summary, last.summary);
    place.remove(&name).await.unwrap();
    place.remove(&name).await.unwrap();
    assert!(matches!(
        place.get(&name, &home.path().join("gone")).await,
        Err(S3Error::Refused { status: http::StatusCode::NOT_FOUND, .. })
    ));
}

#[tokio::test]
async fn a_bucket_by_tls_is_believed_by_its_authority_alone() {
    let home = TempDir::new().unwrap();
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (home.path().join("certificate"), home.path().join("key"));
    std::fs::write(&certificate, signed.cert.pem()).unwrap();
    std::fs::write(&key, signed.signing_key.serialize_pem()).unwrap();
    let tls = ["--cert", certificate.to_str().unwrap(), "--key", key.to_str().unwrap()];
    let Some(server) = Server::start_with(&tls) else { return };
    let daemon = Daemon::start(&home.path().join("data")).await;
    daemon.fill(100).await;
    let place = server.place_by_tls(Some(&certificate)).unwrap();
    let done = job(&daemon, home.path(), place.clone(), 1).run_once().await.unwrap();
    let name = place.list().await.unwrap()[0].to_string();
    let file = home.path().join("fetched");
    place.get(&name, &file).await.unwrap();
    let restored = restore(&file, &restore_options(home.path().join("new"))).await.unwrap();
    assert_eq!(restored.summary, done.backup.summary);
    let doubted = server.place_by_tls(None).unwrap().list().await;
    assert!(matches!(doubted, Err(S3Error::Connect(_))), "{doubted:?}");
    for not_there in [home.path().join("missing"), key] {
        let refused = server.place_by_tls(Some(&not_there));
        assert!(matches!(refused, Err(S3Error::Setting { variable: "AWS_CA_BUNDLE", .. })));
    }
}

#[tokio::test]
async fn a_bucket_that_refuses_or_is_not_there_is_named() {
    let Some(server) = Server::start() else { return };
    let home = TempDir::new().unwrap();
    let daemon = Daemon::start(&home.path().join("data")).await;
    let refused = |place: S3| {
        let job = job(&daemon, home.path(), place, 0);
        async move {
            match job.run_once().await.unwrap_err() {
                JobError::Target(TargetError::S3(S3Error::Refused { status, message })) => {
                    (status.as_u16(), message)
                }
                error => panic!("{error:?}"),
            }
        }
    };
    let (status, message) = refused(server.place("guess", "s3://backups")).await;
    assert_eq!(status, 403);
    assert!(message.contains("SignatureDoesNotMatch"), "{message}");
    let (status, message) = refused(server.place("word", "s3://nowhere")).await;
    assert_eq!(status, 404);
    assert!(message.contains("NoSuchBucket"), "{message}");
    assert_eq!(std::fs::read_dir(server.files()).unwrap().count(), 0);
    let place = server.place("word", "s3://backups");
    drop(server);
    assert!(matches!(place.list().await, Err(S3Error::Connect(_))));
    for bad in ["backups", "s3://", "s3:///prefix"] {
        let found = S3::new(bad, |_| Some("x".to_owned()));
        assert!(matches!(found, Err(S3Error::Address { .. })), "{bad}");
    }
    let found = S3::new("s3://backups", |_| None);
    assert!(matches!(found, Err(S3Error::Missing { variable: "AWS_ACCESS_KEY_ID" })));
}
