//! Datastores that somebody else runs: a real etcd, and a real PostgreSQL.
#![allow(clippy::unwrap_used)] // a test that panics says where

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use harness::{Host, Network, NodeOptions, TestNode, cannot_run_nodes, eventually, run, target};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use skiff::pki::{Authority, Issuer, LeafSpec, Usage};

const BOUND: Duration = Duration::from_secs(120);
/// With every letter that means something in an address.
const PASSWORD: &str = "p@ss:w/rd %41?#";

#[test]
fn a_node_keeps_its_objects_in_an_etcd_of_somebody_elses() {
    if cannot_run_nodes() {
        return;
    }
    let program = target().join("dist-test/bin/etcd");
    if !program.is_file() {
        println!("skipped: needs etcd: run `make test`");
        return;
    }
    let network = Network::new();
    let host = Host::new(&network);
    let place = Place::new();
    place.certificates(host.address());
    let url = format!("https://{}:2379", host.address());
    let mut etcd = begin_etcd(&host, &place, &program, &url);

    let config = format!(
        "[datastore]\nendpoint = \"{url}\"\nca-file = \"{ca}\"\ncert-file = \"{leaf}\"\n\
         key-file = \"{key}\"\n",
        ca = place.file("ca.crt"),
        leaf = place.file("leaf.crt"),
        key = place.file("leaf.key"),
    );
    let node = TestNode::started(&network, "alpha", &NodeOptions { config, ..Default::default() });
    assert_eq!(services(&node), ["containerd", "kube-control", "kube-node"]);
    says(&node, &format!("objects are kept in etcd at {url}, which answers"));
    node.kubectl(&["create", "configmap", "kept"]).must();
    let mut etcdctl = host.command(&target().join("dist-test/bin/etcdctl").to_string_lossy());
    etcdctl.args(["--endpoints", &url, "--cacert", &place.file("ca.crt")]);
    etcdctl.args(["--cert", &place.file("leaf.crt"), "--key", &place.file("leaf.key")]);
    let key = "/registry/configmaps/default/kept";
    assert!(run(etcdctl.args(["get", "--keys-only", key])).must().contains(key));

    node.skiff(&["stop"]).must();
    node.start();
    node.kubectl(&["get", "configmap", "kept"]).must();

    etcd.end();
    says(&node, &format!("etcd at {url} does not answer: {url}: "));
    let mut etcd = begin_etcd(&host, &place, &program, &url);
    node.skiff(&["status", "--wait-ready", "--timeout", "120"]).must();
    node.kubectl(&["get", "configmap", "kept"]).must();

    // Objects do not move by themselves, so neither does the node.
    node.skiff(&["stop"]).must();
    let file = node.root().join("skiff.toml");
    let good = fs::read_to_string(&file).expect("the configuration");
    fs::write(&file, "[node]\nname = \"alpha\"\n").expect("the configuration is written");
    let outcome = node.skiff(&["start", "--timeout", "60"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    for part in ["datastore.endpoint is absent", "objects do not move by themselves"] {
        assert!(words(&outcome.stderr).contains(part), "{}", outcome.stderr);
    }
    fs::write(&file, good).expect("the configuration is written");
    node.start();
    node.kubectl(&["get", "configmap", "kept"]).must();

    founds_a_cluster(&node);
    node.skiff(&["reset", "--yes"]).must();
    // A new cluster has nothing to do with the objects that are there.
    let outcome = node.skiff(&["start", "--timeout", "60"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    for part in ["holds objects already", "would begin a new cluster", "datastore.adopt = true"] {
        assert!(words(&outcome.stderr).contains(part), "{}", outcome.stderr);
    }
    assert!(!node.root().join("node/choices.json").exists(), "nothing is decided");
    node.skiff(&["reset", "--yes"]).must();
    etcd.end();
}

#[test]
fn a_node_keeps_its_objects_in_a_postgresql_of_somebody_elses() {
    if cannot_run_nodes() {
        return;
    }
    let Some(programs) = postgres_programs() else {
        println!("skipped: needs PostgreSQL (Debian package postgresql)");
        return;
    };
    let network = Network::new();
    let host = Host::new(&network);
    let place = Place::new();
    place.certificates(host.address());
    make_postgres(&host, &place, &programs);
    let mut postgres = begin_postgres(&host, &place, &programs);
    let database = "the database kube of PostgreSQL";

    let password = place.0.path().join("password");
    fs::write(&password, "wrong").expect("the password is written");
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).expect("it is root's");
    let config = format!(
        "[datastore]\nendpoint = \"postgres://skiff@{}/kube\"\nca-file = \"{}\"\n\
         password-file = \"{}\"\n",
        host.address(),
        place.file("ca.crt"),
        password.display(),
    );
    let node = TestNode::new(&network, "alpha", &NodeOptions { config, ..Default::default() });
    node.skiff(&["start", "--no-wait"]).must();
    says(&node, "password authentication failed for user \"skiff\"");
    node.skiff(&["stop"]).must();
    fs::write(&password, format!("{PASSWORD}\n")).expect("the password is written");
    node.start();
    assert_eq!(services(&node), ["containerd", "kine", "kube-control", "kube-node"]);
    says(
        &node,
        &format!("objects are kept in {database} at {}:5432, which answers", host.address()),
    );
    node.kubectl(&["create", "configmap", "kept"]).must();
    let rows = "SELECT count(*) FROM kine WHERE name = '/registry/configmaps/default/kept'";
    let rows = run(psql(&host, &place, &programs).args(["kube", "-tAc", rows])).must();
    assert_eq!(rows.trim(), "1");
    kine_is_confined_and_discreet(&node);

    node.skiff(&["stop"]).must();
    node.start();
    node.kubectl(&["get", "configmap", "kept"]).must();

    postgres.end();
    says(&node, &format!("{database} at {}:5432 does not answer: ", host.address()));
    let mut postgres = begin_postgres(&host, &place, &programs);
    node.skiff(&["status", "--wait-ready", "--timeout", "120"]).must();
    node.kubectl(&["get", "configmap", "kept"]).must();
    kine_is_confined_and_discreet(&node);
    node.skiff(&["reset", "--yes"]).must();
    // A new cluster has nothing to do with the objects that are there.
    node.skiff(&["start", "--no-wait"]).must();
    says(&node, "it must not be written to: ");
    says(&node, "datastore.adopt = true");
    assert_eq!(services(&node), ["containerd", "kine"]);
    node.skiff(&["reset", "--yes"]).must();
    postgres.end();
}

/// Who belongs to a cluster is kept by Skiff's own datastore, and that alone.
#[track_caller]
fn founds_a_cluster(node: &TestNode) {
    node.skiff(&["add-node", "--worker"]).must();
    node.skiff(&["status", "--wait-ready", "--timeout", "120"]).must();
    let all = ["agent", "containerd", "datastore", "kube-control", "kube-node"];
    assert_eq!(services(node), all);
    node.kubectl(&["get", "configmap", "kept"]).must();
    assert!(node.skiff(&["nodes"]).must().contains("alpha"));
}

/// No privilege, and the password is nowhere that others look.
#[track_caller]
fn kine_is_confined_and_discreet(node: &TestNode) {
    let pid = node.pid("kine");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().split_whitespace().next().unwrap_or_default().to_owned()
    };
    assert_ne!(field("Uid:"), "0");
    assert_eq!((field("CapEff:"), field("NoNewPrivs:")), ("0000000000000000".into(), "1".into()));
    // As it is, and as it stands in a URL.
    let secrets = [PASSWORD, "p%40ss%3Aw%2Frd", "p@ss"];
    let is_secret = |text: &[u8]| {
        let text = String::from_utf8_lossy(text).into_owned();
        secrets.iter().any(|secret| text.contains(secret))
    };
    for entry in fs::read_dir("/proc").expect("processes").flatten() {
        for name in ["cmdline", "environ"] {
            let text = fs::read(entry.path().join(name)).unwrap_or_default();
            assert!(!is_secret(&text), "{}", entry.path().join(name).display());
        }
    }
    for entry in fs::read_dir(node.root().join("log")).expect("logs").flatten() {
        let text = fs::read(entry.path()).unwrap_or_default();
        assert!(!is_secret(&text), "{}", entry.path().display());
    }
    for verb in ["status", "get"] {
        assert!(!is_secret(node.skiff(&[verb, "--output", "json"]).stdout.as_bytes()), "{verb}");
    }
}

/// Waits until the status says so.
#[track_caller]
fn says(node: &TestNode, part: &str) {
    eventually(part, BOUND, || {
        let said = words(&node.skiff(&["status"]).stdout);
        if said.contains(part) { Ok(()) } else { Err(said) }
    });
}

/// Lines are folded: compared as one.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Their names, sorted.
#[track_caller]
fn services(node: &TestNode) -> Vec<String> {
    let text = node.skiff(&["services", "--output", "json"]).must();
    let all: Vec<skiff_api::Service> = serde_json::from_str(&text).expect("services are JSON");
    let mut names: Vec<String> = all.into_iter().map(|service| service.name).collect();
    names.sort();
    names
}

/// A program of somebody else's.
struct Running(Child);

impl Running {
    fn begin(mut command: Command, log: &Path) -> Self {
        let log = fs::File::options().create(true).append(true).open(log).expect("a log");
        let errors = log.try_clone().expect("a log");
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        Self(command.spawn().expect("it is started"))
    }

    /// Ends it in order: for PostgreSQL that is SIGINT.
    fn end(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let pid = Pid::from_raw(i32::try_from(self.0.id()).expect("a pid"));
            let _ = kill(pid, Signal::SIGINT);
            let _ = self.0.wait();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// A directory that everybody may enter, with certificates of an authority of its own.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("ds-").tempdir_in("/var/tmp").expect("a place");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("it opens");
        Self(dir)
    }

    fn file(&self, name: &str) -> String {
        self.0.path().join(name).to_string_lossy().into_owned()
    }

    /// One leaf for both sides.
    fn certificates(&self, address: &str) {
        let now = time::OffsetDateTime::now_utc();
        let authority = Authority::ensure(self.0.path(), "ca", "somebody else", now).unwrap();
        let spec = LeafSpec {
            path: self.0.path().join("leaf.crt"),
            issuer: Issuer::Cluster,
            common_name: "skiff".into(),
            organisations: vec![],
            id: None,
            dns_names: vec![],
            addresses: vec![address.parse().unwrap()],
            usage: Usage::Both,
            owner: (0, 0),
        };
        let (leaf, key) = authority.issue(&spec, now, time::Duration::days(1)).unwrap();
        fs::write(self.file("leaf.crt"), leaf).unwrap();
        fs::write(self.file("leaf.key"), key).unwrap();
        fs::set_permissions(self.file("leaf.key"), fs::Permissions::from_mode(0o600)).unwrap();
    }
}

fn begin_etcd(host: &Host, place: &Place, program: &Path, url: &str) -> Running {
    let mut command = host.command(&program.to_string_lossy());
    command
        .args(["--data-dir", &place.file("etcd"), "--logger", "zap"])
        .args(["--listen-client-urls", url, "--advertise-client-urls", url])
        .args(["--listen-peer-urls", "http://127.0.0.1:2380"])
        .args(["--initial-advertise-peer-urls", "http://127.0.0.1:2380"])
        .args(["--initial-cluster", "default=http://127.0.0.1:2380"])
        .args(["--cert-file", &place.file("leaf.crt"), "--key-file", &place.file("leaf.key")])
        .args(["--trusted-ca-file", &place.file("ca.crt"), "--client-cert-auth"]);
    Running::begin(command, &place.0.path().join("etcd.log"))
}

/// Where Debian keeps those of the newest version.
fn postgres_programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let mut found: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    found.retain(|dir| dir.join("initdb").is_file());
    found.sort();
    found.pop()
}

/// PostgreSQL refuses to run as root.
fn as_postgres(host: &Host, program: &Path) -> Command {
    let mut command = host.command("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
    command.current_dir("/");
    command
}

fn make_postgres(host: &Host, place: &Place, programs: &Path) {
    let user = User::from_name("postgres").unwrap().expect("the package makes it");
    let data = place.0.path().join("postgres");
    fs::create_dir(&data).unwrap();
    for name in ["leaf.crt", "leaf.key"] {
        fs::copy(place.file(name), data.with_extension(name)).unwrap();
        let key = data.with_extension(name);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        chown(&key, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    }
    chown(&data, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    let mut initdb = as_postgres(host, &programs.join("initdb"));
    initdb.arg("--pgdata").arg(&data).args(["--username=postgres", "--auth-local=trust"]);
    run(initdb.args(["--auth-host=scram-sha-256", "--encoding=UTF8", "--no-sync"])).must();
    // With TLS or not at all.
    let rules = "local all all trust\nhostssl all all 0.0.0.0/0 scram-sha-256\n";
    fs::write(data.join("pg_hba.conf"), rules).unwrap();
    let settings = format!(
        "listen_addresses = '{}'\nport = 5432\nunix_socket_directories = '{}'\nssl = on\n\
         ssl_cert_file = '{}'\nssl_key_file = '{}'\n",
        host.address(),
        data.display(),
        data.with_extension("leaf.crt").display(),
        data.with_extension("leaf.key").display(),
    );
    let file = data.join("postgresql.auto.conf");
    fs::write(file, settings).unwrap();

    let mut postgres = begin_postgres(host, place, programs);
    eventually("PostgreSQL answers", BOUND, || {
        let outcome = run(psql(host, place, programs).args(["postgres", "-c", "SELECT 1"]));
        if outcome.ok() { Ok(()) } else { Err(outcome.stderr) }
    });
    let role = format!("CREATE ROLE skiff LOGIN PASSWORD '{PASSWORD}'");
    for statement in [role.as_str(), "CREATE DATABASE kube OWNER skiff"] {
        run(psql(host, place, programs).args(["postgres", "-c", statement])).must();
    }
    postgres.end();
}

fn begin_postgres(host: &Host, place: &Place, programs: &Path) -> Running {
    let mut command = as_postgres(host, &programs.join("postgres"));
    command.args(["-D", &place.file("postgres")]);
    Running::begin(command, &place.0.path().join("postgres.log"))
}

fn psql(host: &Host, place: &Place, programs: &Path) -> Command {
    let mut command = as_postgres(host, &programs.join("psql"));
    command.args(["--host", &place.file("postgres"), "--username=postgres"]);
    command
}
