//! Archives of a cluster and the way back from one: a real datastore and real keys, with a
//! stand-in for skiffd. What a whole node makes of a restored root is tested in `tests/node`.
#![allow(clippy::unwrap_used)] // a test that panics says where

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use age::secrecy::ExposeSecret;
use microcluster::protocol::{Founder, TokenSpec, decide_add_token, decide_found};
use microcluster::record::{
    ClusterId, ClusterRecord, ClusterSettings, NodeId, NodeRole, Rest, RotationRecord,
    SharedSettings,
};
use microcluster::store::Store;
use microcluster::token::{Secret, TokenState};
use microcluster::version::Version;
use serde_json::{Value, json};
use skiff::node::authorities::Authorities;
use skiff::node::cluster::store::RecordStore;
use skiff::paths::Paths;
use skiff::pki::{encryption_config, service_account_key};
use skiff_datastore::Listen;
use skiff_datastore::probe::{connect, probe};
use skiff_datastore::proto::kv_client::KvClient;
use skiff_datastore::proto::{PutRequest, RangeRequest};
use time::OffsetDateTime;

use crate::place::{Place, Screen, is_root};
use crate::stand_in::StandIn;

const PATIENCE: Duration = Duration::from_secs(120);
/// What a restore raises revisions by.
const BUMP: i64 = 1_000_000_000;

/// Whether the tests of this file can run: what they are about is root's.
fn cannot_run() -> bool {
    if !is_root() {
        println!("skipped: needs root, as taking and restoring archives does");
    }
    !is_root()
}

/// A root with all that is backed up, and with the datastore's process when it runs.
struct Node {
    place: Place,
    child: Option<Child>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Node {
    /// A root in which nothing is.
    fn fresh() -> Self {
        Self { place: Place::new(), child: None }
    }

    /// One that was begun as `name`, with settings of its own.
    fn begun(name: &str) -> Self {
        let node = Self::fresh();
        let paths = node.paths();
        fs::create_dir_all(paths.pki()).unwrap();
        fs::create_dir_all(paths.node()).unwrap();
        Authorities::ensure(&paths.pki(), OffsetDateTime::now_utc()).unwrap();
        service_account_key(&paths.pki()).unwrap();
        encryption_config(&paths.pki()).unwrap();
        let choices = json!({
            "node-name": name, "pod-cidr": "10.1.0.0/16",
            "service-cidr": "10.152.183.0/24", "dns-domain": "cluster.local",
        });
        fs::write(paths.node().join("choices.json"), choices.to_string()).unwrap();
        let settings = format!("[node]\nname = \"{name}\"\n");
        fs::write(paths.root().join("skiff.toml"), settings).unwrap();
        fs::create_dir(paths.root().join("skiff.toml.d")).unwrap();
        fs::write(paths.root().join("skiff.toml.d/10.toml"), "network.mtu = 1400\n").unwrap();
        node
    }

    fn paths(&self) -> Paths {
        Paths::new(self.place.path("root"))
    }

    /// Runs the datastore, as skiffd would.
    fn run(&mut self, with_cluster: bool) {
        let paths = self.paths();
        fs::create_dir_all(paths.run().join("datastore")).unwrap();
        let mut command = self.place.command_as_ourselves(&["datastore", "--dir"]);
        command.arg(paths.datastore()).arg("--listen");
        command.arg(Listen::Unix(paths.datastore_socket()).to_string());
        if with_cluster {
            let socket = Listen::Unix(paths.cluster_database_socket());
            command.arg("--cluster-listen").arg(socket.to_string());
        }
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        self.child = Some(child);
        let begun = Instant::now();
        while block_on(probe(paths.datastore_socket())).is_err() {
            assert!(begun.elapsed() < PATIENCE, "the datastore does not serve");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the datastore and what it leaves, and skiffd's socket.
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(self.paths().run().join("datastore"));
        let _ = fs::remove_file(self.paths().skiffd_socket());
    }

    fn put(&self, key: &str, value: &str) {
        let request = PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..Default::default()
        };
        block_on(async { self.client().await.put(request).await }).unwrap();
    }

    /// Its value, and the newest revision.
    fn get(&self, key: &str) -> (Option<String>, i64) {
        let request = RangeRequest { key: key.to_owned().into(), ..Default::default() };
        let answer = block_on(async { self.client().await.range(request).await }).unwrap();
        let answer = answer.into_inner();
        let value = answer.kvs.first().map(|kv| String::from_utf8_lossy(&kv.value).into_owned());
        (value, answer.header.unwrap().revision)
    }

    async fn client(&self) -> KvClient<tonic::transport::Channel> {
        KvClient::new(connect(&Listen::Unix(self.paths().datastore_socket())).await.unwrap())
    }

    fn skiff(&self, args: &[&str]) -> Screen {
        let output = self.place.command_as_ourselves(args).output().unwrap();
        self.place.screen(&args.join(" "), &output)
    }

    /// Takes an archive and answers what it says.
    fn create(&self, args: &[&str]) -> Value {
        let line = [&["backup", "create"], args, &["--output", "json"]].concat();
        let screen = self.skiff(&line);
        assert_eq!(screen.code, 0, "{}", screen.whole());
        serde_json::from_str(&screen.stdout).unwrap()
    }

    /// Everything that a restore replaces but for dqlite's files, with its content.
    fn state(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let root = self.paths().root().to_path_buf();
        let mut files = Vec::new();
        for name in ["pki", "node", "skiff.toml", "skiff.toml.d"] {
            gather(&root.join(name), &root, &mut files);
        }
        // Locks and certificates are of the moment.
        files.retain(|(path, _)| !path.ends_with("backup.lock"));
        files.sort();
        files
    }
}

fn gather(path: &Path, root: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            gather(&entry.unwrap().path(), root, files);
        }
    } else if path.is_file() {
        files.push((path.strip_prefix(root).unwrap().into(), fs::read(path).unwrap()));
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(work)
}

/// A node `alpha` that runs and has an object, as far as a command can tell.
fn alpha(with_cluster: bool) -> Node {
    let mut node = Node::begun("alpha");
    node.run(with_cluster);
    node.put("/registry/configmaps/default/kept", "an object");
    let status = json!({
        "phase": "ready", "node": "alpha", "version": "0.1.0", "kubernetes": "1.36.3",
        "conditions": [], "notices": [], "services": [], "addons": [], "uptimeS": 1,
    });
    StandIn::new().json("GET /v1/status", &status).listen(&node.place);
    node
}

fn key_pair(dir: &Path) -> (String, String) {
    let key = age::x25519::Identity::generate();
    let file = dir.join(format!("key-{}", &key.to_public().to_string()[4..12]));
    fs::write(&file, format!("{}\n", key.to_string().expose_secret())).unwrap();
    (key.to_public().to_string(), file.to_string_lossy().into_owned())
}

#[test]
fn an_archive_is_proven_listed_verified_and_brought_back_on_another_machine() {
    if cannot_run() {
        return;
    }
    let mut alpha = alpha(false);
    let home = alpha.place.path("home");
    let archives = home.join("archives");
    fs::create_dir(&archives).unwrap();
    let archives = archives.to_string_lossy().into_owned();
    let (public, private) = key_pair(&home);
    let (_, other) = key_pair(&home);

    let unnamed = alpha.skiff(&["backup", "create", &archives]);
    unnamed.assert_fits();
    assert_eq!(unnamed.code, 1, "{}", unnamed.whole());
    assert!(unnamed.stderr.contains("nobody has said who may open"), "{}", unnamed.whole());
    let first = alpha.create(&["--encrypt-to", &public, &archives]);
    assert_eq!((&first["verified"], &first["compared_with_source"]), (&true.into(), &true.into()));
    assert_eq!((&first["encrypted"], &first["keys"]), (&true.into(), &1.into()));
    // Names have seconds.
    std::thread::sleep(Duration::from_millis(1100));
    let taken = alpha.create(&["--encrypt-to", &public, "--keep-last", "1", &archives]);
    assert_eq!(taken["removed"].as_array().map(Vec::len), Some(1), "{taken}");
    let left: Vec<_> = fs::read_dir(alpha.paths().node()).unwrap().flatten().collect();
    assert!(left.iter().all(|entry| entry.file_name() != "backup"), "{left:?}");
    let listed = alpha.skiff(&["backup", "list", &archives, "--output", "json"]);
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    let name = listed[0]["name"].as_str().unwrap();
    assert!(taken["file"].as_str().unwrap().ends_with(name), "{listed} {taken}");
    let file = &*format!("{archives}/{name}");
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
    alpha.kill();

    let verify = ["backup", "verify", file, "--identity-file", &private];
    let verified = alpha.skiff(&[&verify[..], &["--output", "json"]].concat());
    assert_eq!(verified.code, 0, "{}", verified.whole());
    let verified: Value = serde_json::from_str(&verified.stdout).unwrap();
    assert_eq!((&verified["node"], &verified["keys"]), (&"alpha".into(), &1.into()));
    assert_eq!(verified["cluster"], first["cluster"]);
    let text = alpha.skiff(&verify);
    text.assert_fits();
    assert!(text.stdout.contains("pki/service-account.key"), "{}", text.whole());

    let mut beta = Node::fresh();
    for (key, reason) in [
        (vec![], "no key was given"),
        (vec!["--identity-file", &*other], "for other keys than the one given"),
    ] {
        let refused = beta.skiff(&[&["backup", "restore", file], &key[..]].concat());
        assert_eq!(refused.code, 1, "{}", refused.whole());
        assert!(refused.stderr.contains(reason), "{}", refused.whole());
        assert!(refused.stderr.contains("\nhint: "), "{}", refused.whole());
        assert!(beta.state().is_empty() && !beta.paths().datastore().exists());
    }
    let restore = ["backup", "restore", file, "--identity-file", &private];
    let restored = beta.skiff(&restore);
    restored.assert_fits();
    assert_eq!(restored.code, 0, "{}", restored.whole());
    assert!(restored.stdout.contains("those of the archive"), "{}", restored.whole());
    assert_eq!(beta.state(), alpha.state());
    assert!(!beta.paths().root().join("restoring").exists());
    beta.run(false);
    let (value, revision) = beta.get("/registry/configmaps/default/kept");
    assert_eq!(value.as_deref(), Some("an object"));
    assert!(revision > BUMP, "{revision}");

    let running = beta.skiff(&[&restore[..], &["--replace"]].concat());
    assert!(running.stderr.contains("a datastore runs on"), "{}", running.whole());
    beta.kill();
    let again = beta.skiff(&restore);
    assert_eq!(again.code, 1, "{}", again.whole());
    assert!(again.stderr.contains("is a node already"), "{}", again.whole());
    assert!(again.stderr.contains("--replace"), "{}", again.whole());
}

/// A root that is another cluster's gives way, whole, and is kept.
#[test]
fn a_replaced_node_is_kept_beside_and_its_settings_must_go_with_the_archive() {
    if cannot_run() {
        return;
    }
    let alpha = alpha(false);
    let archive = alpha.place.path("home/a.archive");
    let archive = archive.to_string_lossy();
    alpha.create(&["--unencrypted", &archive]);
    let mut beta = Node::begun("beta");
    beta.run(false);
    beta.put("/registry/configmaps/default/old", "of another cluster");
    beta.kill();
    let before = beta.state();
    let restore = ["backup", "restore", &archive, "--replace", "--output", "json"];
    let refused = beta.skiff(&restore);
    assert_eq!(refused.code, 1, "{}", refused.whole());
    let words = refused.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("node.name is \"beta\""), "{}", refused.whole());
    assert_eq!(beta.state(), before);

    // Without a name of its own it gets that of the archive.
    fs::write(beta.paths().root().join("skiff.toml"), "").unwrap();
    let restored = beta.skiff(&restore);
    assert_eq!(restored.code, 0, "{}", restored.whole());
    let value: Value = serde_json::from_str(&restored.stdout).unwrap();
    assert_eq!((&value["settings"], &value["node"]), (&"machine".into(), &"alpha".into()));
    let name = beta.skiff(&["get", "node.name"]);
    assert_eq!(name.stdout, "\"alpha\"\n", "{}", name.whole());
    let former = value["former"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    let former = beta.paths().root().join(former);
    for name in ["pki/ca.key", "node/choices.json"] {
        let kept = fs::read(former.join(name)).unwrap();
        let (_, was) = before.iter().find(|(path, _)| path == Path::new(name)).unwrap();
        assert_eq!(kept, *was);
        let own = fs::read(beta.paths().root().join(name)).unwrap();
        assert_eq!(own, fs::read(alpha.paths().root().join(name)).unwrap());
    }
    beta.run(false);
    assert_eq!(beta.get("/registry/configmaps/default/old").0, None);
    assert_eq!(beta.get("/registry/configmaps/default/kept").0.as_deref(), Some("an object"));
}

#[test]
fn an_archive_that_was_cut_or_changed_in_any_part_is_refused_and_touches_nothing() {
    if cannot_run() {
        return;
    }
    let alpha = alpha(true);
    let home = alpha.place.path("home");
    let plain = home.join("plain.archive").to_string_lossy().into_owned();
    let sealed = home.join("sealed.archive.age").to_string_lossy().into_owned();
    let (public, private) = key_pair(&home);
    alpha.create(&["--unencrypted", &plain]);
    alpha.create(&["--encrypt-to", &public, &sealed]);
    let beta = Node::fresh();
    let bad = home.join("bad").to_string_lossy().into_owned();
    let refused = |bytes: &[u8], what: &str, reason: &str| {
        fs::write(&bad, bytes).unwrap();
        for verb in ["verify", "restore"] {
            let screen = beta.skiff(&["backup", verb, &bad, "--identity-file", &private]);
            screen.assert_fits();
            assert_eq!(screen.code, 1, "{what}: {}", screen.whole());
            let words = screen.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(words.contains(reason), "{what}: {}", screen.whole());
            assert!(screen.stderr.contains("\nhint: "), "{what}: {}", screen.whole());
        }
        assert!(beta.state().is_empty() && !beta.paths().datastore().exists(), "{what}");
        assert!(!beta.paths().root().join("restoring").exists(), "{what}");
    };
    let bytes = fs::read(&plain).unwrap();
    let parts = parts_of(&bytes);
    assert!(parts.len() >= 12, "{parts:?}");
    for (name, at, size) in &parts {
        for (at, what) in [(at - 512, "header"), (at + size / 2, "content")] {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            refused(&changed, &format!("{what} of {name}"), "is no ");
        }
    }
    for cut in [0, 1, 511, 600, bytes.len() / 2, bytes.len() - 1] {
        refused(&bytes[..cut], &format!("cut at {cut}"), "ends too early");
    }
    refused(b"something else entirely", "garbage", "ends too early");
    refused(&[7; 4096], "garbage", "no archive of a cluster");
    let at = bytes.windows(11).position(|words| words == b"\"format\": 1").unwrap() + 10;
    let mut newer = bytes.clone();
    newer[at] = b'9';
    refused(&newer, "a newer form", "is in form 9, and this version reads up to 1");

    let bytes = fs::read(&sealed).unwrap();
    for at in [bytes.len() / 3, bytes.len() / 2, bytes.len() - 20] {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        refused(&changed, &format!("sealed, byte {at}"), "archive is damaged");
        refused(&bytes[..at], &format!("sealed, cut at {at}"), "no good archive");
    }
}

/// Name, place and size of each file in a tar archive.
fn parts_of(bytes: &[u8]) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at + 512 <= bytes.len() && bytes[at] != 0 {
        let text = |from: usize, length: usize| {
            let field = &bytes[at + from..at + from + length];
            let end = field.iter().position(|byte| *byte == 0).unwrap_or(length);
            String::from_utf8(field[..end].to_vec()).unwrap()
        };
        let size = usize::from_str_radix(&text(124, 12), 8).unwrap();
        if size > 0 {
            found.push((text(0, 100), at + 512, size));
        }
        at += 512 + size.next_multiple_of(512);
    }
    found
}

#[test]
fn a_restore_that_is_killed_leaves_the_former_state_or_the_new_one() {
    if cannot_run() {
        return;
    }
    let alpha = alpha(false);
    let archive = alpha.place.path("home/a.archive").to_string_lossy().into_owned();
    alpha.create(&["--unencrypted", &archive]);
    let mut beta = Node::begun("beta");
    fs::write(beta.paths().root().join("skiff.toml"), "").unwrap();
    beta.run(false);
    beta.put("/registry/configmaps/default/old", "of another cluster");
    beta.kill();
    let restore = ["backup", "restore", &archive, "--replace"];
    let (mut former, mut new) = (0, 0);
    let began = Instant::now();
    // Unharmed, to know how long it takes.
    let whole = Node::fresh();
    assert_eq!(whole.skiff(&restore).code, 0);
    let usual = began.elapsed();
    for round in 0..16u32 {
        let mut child: Child = spawn(&beta, &restore);
        std::thread::sleep(usual * round / 14);
        child.kill().unwrap();
        child.wait().unwrap();
        skiff::backup::go_on(&beta.paths()).unwrap();
        let choices = fs::read_to_string(beta.paths().node().join("choices.json")).unwrap();
        let is_new = choices.contains("alpha");
        let of = |node: &Node, name| fs::read(node.paths().pki().join(name)).unwrap();
        assert_eq!(of(&beta, "ca.key") == of(&alpha, "ca.key"), is_new, "round {round}");
        beta.run(false);
        let old = beta.get("/registry/configmaps/default/old").0;
        let kept = beta.get("/registry/configmaps/default/kept").0;
        assert_eq!((old.is_none(), kept.is_some()), (is_new, is_new), "round {round}");
        beta.kill();
        assert!(!beta.paths().root().join("restoring").exists(), "round {round}");
        assert!(!beta.paths().root().join("restoring.json").exists(), "round {round}");
        match is_new {
            true => {
                new += 1;
                break;
            }
            false => former += 1,
        }
    }
    println!("the former state {former} times, then the new one");
    if new == 0 {
        assert_eq!(beta.skiff(&restore).code, 0);
    }
    assert!(former > 0, "no kill came in time");
}

fn spawn(node: &Node, args: &[&str]) -> Child {
    let mut command: Command = node.place.command_as_ourselves(args);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_disk_that_fills_is_named_and_leaves_everything_as_it_was() {
    if cannot_run() {
        return;
    }
    let alpha = alpha(false);
    // Nothing that could be compressed away.
    let mut state = 1u64;
    for number in 0..40 {
        let mut letter = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b'!' + u8::try_from((state >> 33) % 90).unwrap())
        };
        let value: String = (0..60_000).map(|_| letter()).collect();
        alpha.put(&format!("/registry/configmaps/default/{number}"), &value);
    }
    let good = alpha.place.path("home/a.archive").to_string_lossy().into_owned();
    alpha.create(&["--unencrypted", &good]);

    let full = alpha.place.path("home/full");
    fs::create_dir(&full).unwrap();
    let disk = harness::Disk::mounted(&full, 16);
    let filler = disk.fill();
    let there = fs::read(&good).unwrap();
    fs::write(full.join("a.archive"), b"").unwrap();
    let target = full.join("a.archive").to_string_lossy().into_owned();
    let refused = alpha.skiff(&["backup", "create", "--unencrypted", &target]);
    assert_eq!(refused.code, 1, "{}", refused.whole());
    assert!(refused.stderr.contains("No space left"), "{}", refused.whole());
    assert_eq!(fs::read(&target).unwrap(), b"", "a file of that name stays as it was");
    let left: Vec<_> = fs::read_dir(&full).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("partial")), "{left:?}");
    drop(filler);
    drop(disk);

    let beta = Node::fresh();
    let disk = harness::Disk::mounted(&beta.place.path("root"), 6);
    let refused = beta.skiff(&["backup", "restore", &good]);
    assert_eq!(refused.code, 1, "{}", refused.whole());
    assert!(refused.stderr.contains("\nhint: "), "{}", refused.whole());
    assert!(beta.state().is_empty() && !beta.paths().root().join("restoring").exists());
    drop(disk);
    assert_eq!(fs::read(&good).unwrap(), there);
    let verified = beta.skiff(&["backup", "restore", &good]);
    assert_eq!(verified.code, 0, "{}", verified.whole());
}

#[test]
fn after_a_restore_the_node_is_the_only_member_and_no_token_is_good() {
    if cannot_run() {
        return;
    }
    let mut alpha = alpha(true);
    let record = RecordStoreOf(&alpha).with_a_worker_and_a_token();
    assert_eq!((record.members.len(), record.tokens.len()), (2, 1));
    let archive = alpha.place.path("home/a.archive").to_string_lossy().into_owned();
    alpha.create(&["--unencrypted", &archive]);
    alpha.kill();
    let verified = alpha.skiff(&["backup", "verify", &archive]);
    assert!(verified.stdout.contains("beta (worker)"), "{}", verified.whole());

    let mut other = Node::fresh();
    let restored = other.skiff(&["backup", "restore", &archive, "--output", "json"]);
    assert_eq!(restored.code, 0, "{}", restored.whole());
    let value: Value = serde_json::from_str(&restored.stdout).unwrap();
    assert_eq!(value["removed"], json!(["beta"]));
    other.run(true);
    let after = RecordStoreOf(&other).read();
    let names: Vec<_> = after.members.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["alpha"]);
    for member in record.living() {
        assert!(after.removed.contains_key(&member.id), "{} is not refused", member.name);
        assert_ne!(after.living().next().unwrap().id, member.id);
    }
    let states: Vec<_> =
        after.tokens.values().map(|t| t.value.state_at(OffsetDateTime::now_utc())).collect();
    assert_eq!(states, [TokenState::Revoked]);
    assert!(after.revision.0 > BUMP.unsigned_abs());
    assert_eq!(after.settings.value.cluster, record.settings.value.cluster);
    let membership = fs::read_to_string(other.paths().node().join("membership.json")).unwrap();
    let membership: Value = serde_json::from_str(&membership).unwrap();
    assert_eq!(membership["id"], after.living().next().unwrap().id.to_string());
    let leaf = fs::read_to_string(other.paths().pki().join("agent/node.pem")).unwrap();
    assert!(leaf.contains("BEGIN CERTIFICATE") && leaf.contains("PRIVATE KEY"));
}

/// The record behind a node's socket.
struct RecordStoreOf<'a>(&'a Node);

impl RecordStoreOf<'_> {
    fn read(&self) -> ClusterRecord {
        let socket = self.0.paths().cluster_database_socket();
        block_on(async { RecordStore::at(&socket).unwrap().read().await }).unwrap()
    }

    fn with_a_worker_and_a_token(&self) -> ClusterRecord {
        // What signs is what the record names.
        let pki = self.0.paths().pki();
        let authorities = Authorities::ensure(&pki, OffsetDateTime::now_utc()).unwrap();
        let settings = ClusterSettings {
            cluster: ClusterId("test".into()),
            pod_cidrs: vec!["10.1.0.0/16".parse().unwrap()],
            service_cidrs: vec!["10.152.183.0/24".parse().unwrap()],
            dns_domain: "cluster.local".into(),
            dns_address: [10, 152, 183, 10].into(),
            api_names: vec![],
            api_port: 6443,
            authorities: vec![authorities.believed().fingerprint().unwrap()],
            datastore: None,
            shared: SharedSettings::default(),
            rotation: RotationRecord::default(),
            rest: Rest::default(),
        };
        let founder = |name: &str, last| Founder {
            name: name.parse().unwrap(),
            addresses: vec![[192, 0, 2, last].into()],
            public_key: name.as_bytes().to_vec(),
            release: Version::new(0, 1, 0),
            kubernetes: Version::new(1, 36, 3),
            failure_domain: String::new(),
        };
        let now = OffsetDateTime::now_utc();
        let socket = self.0.paths().cluster_database_socket();
        block_on(async {
            let store = RecordStore::at(&socket).unwrap();
            let founded = decide_found(&settings, &founder("alpha", 1), now).unwrap();
            store.apply(&founded.changes).await.unwrap();
            // Another one of the same form, as far as a restore is concerned.
            let mut worker = decide_found(&settings, &founder("beta", 2), now).unwrap().changes;
            for change in &mut worker {
                if let microcluster::store::Change::PutMember { member, .. } = change {
                    member.role = NodeRole::Worker;
                }
            }
            store.apply(&worker[2..]).await.unwrap();
            let record = store.read().await.unwrap();
            let spec = TokenSpec {
                role: NodeRole::Worker,
                name: None,
                labels: Default::default(),
                taints: vec![],
                ttl: time::Duration::hours(1),
                uses: 1,
                authority: record.settings.value.authorities[0],
            };
            let secret = Secret::from_bytes([7; 16]);
            let token = decide_add_token(&record, &spec, &secret, now).unwrap();
            store.apply(&token.changes).await.unwrap();
            assert!(record.member(NodeId::of_key(b"beta")).is_some());
            store.read().await.unwrap()
        })
    }
}

#[test]
fn an_archive_that_is_killed_while_it_is_taken_leaves_the_former_file_or_a_whole_one() {
    if cannot_run() {
        return;
    }
    let alpha = alpha(true);
    let archive = alpha.place.path("home/a.archive").to_string_lossy().into_owned();
    let create = ["backup", "create", "--unencrypted", &archive];
    let began = Instant::now();
    alpha.create(&create[2..]);
    let usual = began.elapsed();
    for round in 0..10u32 {
        let mut child = spawn(&alpha, &create);
        std::thread::sleep(usual * round / 9);
        child.kill().unwrap();
        child.wait().unwrap();
        let verified = alpha.skiff(&["backup", "verify", &archive]);
        assert_eq!(verified.code, 0, "round {round}: {}", verified.whole());
    }
    // What was left is no obstacle, and goes.
    alpha.create(&create[2..]);
    assert!(!alpha.paths().node().join("backup").exists());
    let home = fs::read_dir(alpha.place.path("home")).unwrap().flatten();
    let left: Vec<_> = home.map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["a.archive"]);
}

/// A server that speaks S3's protocol, with the bucket `backups`; ended with its value.
struct Bucket {
    child: Child,
    address: String,
    _dir: tempfile::TempDir,
}

impl Drop for Bucket {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Bucket {
    fn start() -> Option<Self> {
        let tests = std::env::current_exe().unwrap();
        let program = tests.ancestors().nth(3).unwrap().join("dist-test/bin/versitygw");
        if !program.is_file() {
            println!("skipped: versitygw is not built (cargo xtask components --test)");
            return None;
        }
        let dir = tempfile::TempDir::new().unwrap();
        fs::create_dir(dir.path().join("backups")).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let mut command = Command::new(program);
        command.args(["--access", "us", "--secret", "word", "--port", &address, "posix"]);
        command.arg(dir.path()).stdout(Stdio::null()).stderr(Stdio::null());
        let bucket = Self { child: command.spawn().unwrap(), address, _dir: dir };
        let begun = Instant::now();
        while std::net::TcpStream::connect(&bucket.address).is_err() {
            assert!(begun.elapsed() < PATIENCE, "the server does not serve");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(bucket)
    }

    /// Who we are, in a file of our own.
    fn environment(&self, dir: &Path) -> String {
        let path = dir.join("environment");
        let endpoint = format!("AWS_ENDPOINT_URL_S3=http://{}\n", self.address);
        let who = "AWS_ACCESS_KEY_ID=us\nAWS_SECRET_ACCESS_KEY=word\n";
        fs::write(&path, format!("# of a test\n{endpoint}{who}")).unwrap();
        let own = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(&path, own).unwrap();
        path.to_string_lossy().into_owned()
    }
}

#[test]
fn a_bucket_holds_archives_gives_them_back_and_old_ones_go() {
    if cannot_run() {
        return;
    }
    let Some(bucket) = Bucket::start() else { return };
    let alpha = alpha(false);
    let environment = bucket.environment(&alpha.place.path("home"));
    let who = ["--environment-file", &environment];
    let place = "s3://backups/alpha";
    alpha.create(&[&["--unencrypted", place], &who[..]].concat());
    std::thread::sleep(Duration::from_millis(1100));
    let second = alpha.create(&[&["--unencrypted", "--keep-last", "1", place], &who[..]].concat());
    assert_eq!(second["removed"].as_array().map(Vec::len), Some(1), "{second}");
    let listed = alpha.skiff(&[&["backup", "list", place, "--output", "json"], &who[..]].concat());
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    let file = second["file"].as_str().unwrap();
    assert_eq!(file, format!("{place}/{}", listed[0]["name"].as_str().unwrap()));
    for verb in ["verify", "restore"] {
        let other = Node::fresh();
        let screen = other.skiff(&[&["backup", verb, file], &who[..]].concat());
        assert_eq!(screen.code, 0, "{}", screen.whole());
    }
    let missing = alpha.skiff(&[&["backup", "verify", "s3://backups/no"], &who[..]].concat());
    assert_eq!(missing.code, 1, "{}", missing.whole());
}

#[test]
fn objects_that_are_kept_elsewhere_are_not_left_out_of_an_archive_without_a_word() {
    if cannot_run() {
        return;
    }
    let alpha = alpha(true);
    let choices = alpha.paths().node().join("choices.json");
    let mut value: Value = serde_json::from_slice(&fs::read(&choices).unwrap()).unwrap();
    value["datastore"] = "etcd https://192.0.2.9:2379".into();
    fs::write(&choices, value.to_string()).unwrap();
    let archive = alpha.place.path("a.archive");
    let screen = alpha.skiff(&["backup", "create", "--unencrypted", archive.to_str().unwrap()]);
    assert_eq!(screen.code, 1, "{}", screen.whole());
    let told = screen.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains("etcd https://192.0.2.9:2379, which is not Skiff's"), "{told}");
    assert!(told.contains("by its own tools"), "{told}");
    assert!(!archive.exists());
}
