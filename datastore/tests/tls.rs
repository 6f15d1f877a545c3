//! TLS towards clients, as etcd's options ask for it.
#![allow(clippy::unwrap_used)] // a test that panics says where

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use skiff_datastore::member::pki;
use skiff_datastore::member::tls::MEMBER_NAME;
use skiff_datastore::proto::RangeRequest;
use skiff_datastore::proto::kv_client::KvClient;
use tempfile::TempDir;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

const PATIENCE: Duration = Duration::from_secs(30);

struct Daemon {
    child: Child,
    port: u16,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(home: &Path, options: &[&str]) -> (Command, u16) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().unwrap().parent().unwrap().join("examples/standalone");
    let mut command = Command::new(program);
    command.arg("--dir").arg(home.join("data")).arg(format!("--listen=127.0.0.1:{port}"));
    command.args(options).current_dir(home.join("pki"));
    (command, port)
}

fn start(home: &Path, options: &[&str]) -> Daemon {
    let (mut command, port) = command(home, options);
    let child = command.stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "nobody listens");
        std::thread::sleep(Duration::from_millis(5));
    }
    Daemon { child, port }
}

/// Asks for a key; who is refused learns it at the first request.
async fn ask(daemon: &Daemon, scheme: &str, tls: Option<ClientTlsConfig>) -> Result<(), String> {
    let address = format!("{scheme}://127.0.0.1:{}", daemon.port);
    let mut endpoint = Channel::from_shared(address).unwrap();
    if let Some(tls) = tls {
        endpoint = endpoint.tls_config(tls).unwrap();
    }
    let channel = endpoint.connect().await.map_err(|error| error.to_string())?;
    let request = RangeRequest { key: "key".into(), ..Default::default() };
    KvClient::new(channel).range(request).await.map(drop).map_err(|error| error.to_string())
}

#[tokio::test]
async fn only_who_shows_a_certificate_of_the_authority_is_served() {
    let home = TempDir::new().unwrap();
    pki::make(&home.path().join("pki")).unwrap();
    pki::make(&home.path().join("strangers")).unwrap();
    let read = |name: &str| std::fs::read(home.path().join(name)).unwrap();
    let trusting = || {
        let authority = Certificate::from_pem(read("pki/ca.crt"));
        ClientTlsConfig::new().ca_certificate(authority).domain_name(MEMBER_NAME)
    };
    let known =
        || trusting().identity(Identity::from_pem(read("pki/member.crt"), read("pki/member.key")));
    let strange = Identity::from_pem(read("strangers/member.crt"), read("strangers/member.key"));

    let certificate = ["--cert-file=member.crt", "--key-file=member.key"];
    let authority = ["--trusted-ca-file=ca.crt", "--client-cert-auth"];
    {
        let daemon = start(home.path(), &certificate);
        ask(&daemon, "https", Some(trusting())).await.unwrap();
        ask(&daemon, "http", None).await.unwrap_err();
    }
    let daemon = start(home.path(), &[&certificate[..], &authority[..]].concat());
    ask(&daemon, "https", Some(known())).await.unwrap();
    ask(&daemon, "https", Some(trusting())).await.unwrap_err();
    ask(&daemon, "https", Some(trusting().identity(strange))).await.unwrap_err();
    ask(&daemon, "https", Some(known())).await.unwrap();
}

#[test]
fn files_that_are_no_identity_are_named() {
    let home = TempDir::new().unwrap();
    pki::make(&home.path().join("pki")).unwrap();
    for (options, words) in [
        (["--cert-file=nothing", "--key-file=member.key"], "can't read nothing"),
        (["--cert-file=ca.crt", "--key-file=member.key"], "do not belong together"),
        (["--cert-file=member.key", "--key-file=member.key"], "not usable"),
    ] {
        let output = command(home.path(), &options).0.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(words), "{said}");
    }
}
