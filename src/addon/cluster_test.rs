//! The engine against a real API server. Needs `SKIFF_TEST_KUBECONFIG`: a control plane with an
//! API server and a controller manager is enough, no pod has to run. Skips without it.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;
use skiff_api::{AddonState, EnableRequest, Progress};

use super::definition::Definition;
use super::engine::{Addons, Settings};
use super::error::AddonError;
use super::facts::Facts;
use super::manifest::{Manifest, parse};
use super::object::OWNER_LABEL;
use super::registry::{Addon, Registry};
use crate::distribution::Distribution;
use crate::kube::{ClientSource, Resources};

/// The kubeconfig of the cluster to test with, or none and a word about it.
fn cluster() -> Option<ClientSource> {
    match std::env::var_os("SKIFF_TEST_KUBECONFIG") {
        Some(path) => Some(ClientSource::new(path)),
        None => {
            eprintln!("skipped: SKIFF_TEST_KUBECONFIG names no cluster");
            None
        }
    }
}

const CONFIG: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: engine-test\ndata:\n  \
                      size: '${size}'\n";
const EXTRA: &str =
    "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: engine-test-extra\ndata: {}\n";
const ROLE: &str = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata:\n  \
                    name: engine-test\nrules: []\n";
const DEPLOYMENT: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: engine-test\nspec:\n  replicas: 1\n  \
     selector: {matchLabels: {app: engine-test}}\n  template:\n    metadata:\n      labels: {app: \
     engine-test}\n    spec:\n      containers: [{name: c, image: skiff.local/none:1}]\n";
const HEALTH: &str = "[[health]]\nkind = 'Deployment'\nname = 'engine-test'\n";

fn addons(clients: ClientSource, name: &str, health: &str, files: &[&str]) -> Addons {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("components.toml"), "arch = 'amd64'\n").unwrap();
    let settings = Settings {
        distribution: Distribution::open(dir.path()).unwrap(),
        clients,
        containerd_socket: Path::new("/nonexistent").into(),
    };
    let text = format!(
        "description = 'd'\nversion = '1'\nnamespace = 'default'\n[[option]]\nname = 'size'\n\
         type = 'quantity'\ndescription = 'how much'\ndefault = '1Gi'\n[[manifest]]\n\
         file = '1.yaml'\nwhen = ['size']\n{health}"
    );
    let manifest = |(i, text): (usize, &&str)| Manifest {
        file: format!("{i}.yaml"),
        documents: parse(text).unwrap(),
    };
    let definition = Definition::parse(name, &text, &[]).unwrap();
    let manifests = files.iter().enumerate().map(manifest).collect();
    let addon = Addon { name: name.into(), definition, manifests, repository: None };
    Addons::of(settings, vec![addon])
}

fn facts() -> Facts {
    Facts {
        dns_address: [10, 152, 183, 10].into(),
        domain: "cluster.local".into(),
        pod_cidr: "10.1.0.0/16".into(),
        service_cidr: "10.152.183.0/24".into(),
        resolvers: vec![],
    }
}

fn request(options: &[(&str, &str)]) -> EnableRequest {
    let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    EnableRequest { options: options.iter().map(pair).collect(), ..EnableRequest::default() }
}

async fn owned(clients: &ClientSource, name: &str) -> Vec<String> {
    let resources = Resources::discover(clients.client().await.unwrap()).await.unwrap();
    let found = resources.list_labelled(&format!("{OWNER_LABEL}={name}")).await.unwrap();
    let mut names: Vec<String> = found
        .iter()
        .map(|(types, object)| {
            format!("{} {}", types.kind, object.metadata.name.as_deref().unwrap_or_default())
        })
        .collect();
    names.sort();
    names
}

fn changed(progress: &Progress) -> bool {
    matches!(progress, Progress::Done { changed: true, .. })
}

#[tokio::test]
async fn an_addon_is_applied_changed_repaired_and_removed() {
    let Some(clients) = cluster() else { return };
    let addons = addons(clients.clone(), "engine-test", "", &[CONFIG, EXTRA, ROLE]);
    let steps = Mutex::new(Vec::new());
    let report = |line: Progress| steps.lock().unwrap().push(line);
    let enable = async |options: &[(&str, &str)]| {
        addons.enable("engine-test", &request(options), &facts(), &report).await
    };

    assert!(changed(&enable(&[]).await.unwrap()));
    let all = ["ClusterRole engine-test", "ConfigMap engine-test", "ConfigMap engine-test-extra"];
    assert_eq!(owned(&clients, "engine-test").await, all);
    assert!(!changed(&enable(&[]).await.unwrap()), "a repetition is no change");

    let maps: Api<ConfigMap> = Api::namespaced(clients.client().await.unwrap(), "default");
    let size = async || maps.get("engine-test").await.unwrap().data.unwrap()["size"].clone();
    assert!(changed(&enable(&[("size", "2Gi")]).await.unwrap()));
    assert_eq!(size().await, "2Gi");
    assert!(!changed(&enable(&[]).await.unwrap()), "options stay");

    let drift = Patch::Merge(json!({ "data": { "size": "9" } }));
    maps.patch("engine-test", &PatchParams::default(), &drift).await.unwrap();
    assert!(changed(&enable(&[]).await.unwrap()));
    assert_eq!(size().await, "2Gi", "drift is repaired");

    // Without a size the second manifest does not apply: its object is pruned.
    let none = addons_without_extra(&clients);
    none.enable("engine-test", &request(&[]), &facts(), &report).await.unwrap();
    assert_eq!(owned(&clients, "engine-test").await, all[..2]);

    let users = json!({ "metadata": { "labels": { OWNER_LABEL: null } } });
    maps.patch("engine-test", &PatchParams::default(), &Patch::Merge(users)).await.unwrap();
    let gone = addons.disable("engine-test", &request(&[]), &report).await.unwrap();
    assert!(changed(&gone));
    assert!(owned(&clients, "engine-test").await.is_empty());
    assert!(maps.get_opt("engine-test").await.unwrap().is_some(), "it was the user's");
    maps.delete("engine-test", &Default::default()).await.unwrap();
    let again = addons.disable("engine-test", &request(&[]), &report).await.unwrap();
    assert!(!changed(&again));
    let system: Api<ConfigMap> = Api::namespaced(clients.client().await.unwrap(), "kube-system");
    let left = system.list(&ListParams::default().labels("skiff.io/addon-record")).await.unwrap();
    assert!(
        !left
            .items
            .iter()
            .any(|map| map.metadata.name.as_deref() == Some("skiff-addon-engine-test"))
    );
}

fn addons_without_extra(clients: &ClientSource) -> Addons {
    addons(clients.clone(), "engine-test", "", &[CONFIG, "", ROLE])
}

#[tokio::test]
async fn two_addons_do_not_take_each_others_objects() {
    let Some(clients) = cluster() else { return };
    let quiet = |_: Progress| {};
    let one = addons(clients.clone(), "engine-one", "", &[EXTRA]);
    let two = addons(clients.clone(), "engine-two", "", &[EXTRA]);
    one.enable("engine-one", &request(&[]), &facts(), &quiet).await.unwrap();
    let error = two.enable("engine-two", &request(&[]), &facts(), &quiet).await.unwrap_err();
    let AddonError::Returned { source, .. } = &error else { panic!("{error}") };
    assert!(matches!(**source, AddonError::Foreign { .. }), "{source}");
    let gone = two.disable("engine-two", &request(&[]), &quiet).await.unwrap();
    assert!(!changed(&gone), "nothing of it was left");
    assert_eq!(owned(&clients, "engine-one").await, ["ConfigMap engine-test-extra"]);
    one.disable("engine-one", &request(&[]), &quiet).await.unwrap();
    assert!(owned(&clients, "engine-one").await.is_empty());
}

#[tokio::test]
async fn an_addon_whose_pods_do_not_run_says_why_and_the_view_follows() {
    let Some(clients) = cluster() else { return };
    let addons = addons(clients.clone(), "engine-sick", HEALTH, &[DEPLOYMENT]);
    let seen: Mutex<Vec<AddonState>> = Mutex::default();
    let quiet = |_: Progress| {};
    let work = async {
        let state = async |wanted: AddonState| {
            for _ in 0..200 {
                if seen.lock().unwrap().last() == Some(&wanted) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            panic!("{wanted:?} was not seen, but {:?}", seen.lock().unwrap());
        };
        state(AddonState::Disabled).await;
        let request = EnableRequest { wait: true, timeout_s: 8, ..EnableRequest::default() };
        let begun = std::time::Instant::now();
        let error = addons.enable("engine-sick", &request, &facts(), &quiet).await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(20));
        let AddonError::Returned { now, source } = &error else { panic!("{error}") };
        assert_eq!(now, "engine-sick is not enabled, as it was before");
        let AddonError::Unhealthy { cause, .. } = &**source else { panic!("{source}") };
        eprintln!("{source}");
        assert!(cause.as_deref().is_some_and(|cause| !cause.is_empty()), "{source}");
        let was = |wanted| seen.lock().unwrap().contains(&wanted);
        assert!(was(AddonState::Progressing) || was(AddonState::Unhealthy));
        state(AddonState::Disabled).await;
    };
    let follow = addons.follow(|list| seen.lock().unwrap().push(list[0].state));
    tokio::select! {
        () = work => {}
        () = follow => {}
    }
    assert!(owned(&clients, "engine-sick").await.is_empty());
}

#[tokio::test]
async fn the_objects_of_dns_are_accepted() {
    let Some(clients) = cluster() else { return };
    let dir = tempfile::tempdir().unwrap();
    let addons = Path::new(env!("CARGO_MANIFEST_DIR")).join("addons");
    std::os::unix::fs::symlink(addons, dir.path().join("addons")).unwrap();
    let image = "[[image]]\nname = 'dns'\nreference = 'skiff.local/coredns:1'\nfile = 'a.tar'\n";
    std::fs::write(dir.path().join("components.toml"), format!("arch = 'amd64'\n{image}")).unwrap();
    let (addons, _) = Registry::load(&Distribution::open(dir.path()).unwrap());
    let (registry, _) = Registry::of(addons);
    let dns = registry.get("dns").unwrap();
    let mut values = super::option::resolve(&dns.definition.options, None, &[]).unwrap();
    values.extend(facts().values());
    values.insert("image.dns".into(), json!("skiff.local/coredns:1"));
    let resources = Resources::discover(clients.client().await.unwrap()).await.unwrap();
    let objects = super::object::build(dns, &values).unwrap().list;
    for object in &objects {
        resources.apply(object, None).await.unwrap();
    }
    for object in objects.iter().rev() {
        let types = crate::kube::type_of(object);
        let (namespace, name) =
            (object.metadata.namespace.as_deref(), object.metadata.name.clone());
        let found = resources.metadata(&types, namespace, name.as_deref().unwrap()).await.unwrap();
        let found = found.unwrap().metadata;
        let uid = found.uid.unwrap();
        resources.delete(&types, namespace, &found.name.unwrap(), &uid).await.unwrap();
    }
}

/// A way to the API server that can be cut: answers a kubeconfig that leads through it.
async fn breakable(dir: &Path, open: tokio::sync::watch::Receiver<bool>) -> Option<ClientSource> {
    let original = std::env::var("SKIFF_TEST_KUBECONFIG").ok()?;
    let text = std::fs::read_to_string(original).unwrap();
    let (_, rest) = text.split_once("https://").unwrap();
    let end = rest.find(|c: char| c == '"' || c.is_whitespace()).unwrap();
    let server = rest[..end].to_owned();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap().to_string();
    let path = dir.join("kubeconfig");
    std::fs::write(&path, text.replace(&server, &own)).unwrap();
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let (server, mut open) = (server.clone(), open.clone());
            tokio::spawn(async move {
                if !*open.borrow() {
                    return;
                }
                let mut far = tokio::net::TcpStream::connect(server).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    _ = open.wait_for(|open| !open) => {}
                }
            });
        }
    });
    Some(ClientSource::new(path))
}

#[tokio::test]
async fn while_the_api_server_is_away_states_are_unknown_and_then_known_again() {
    let dir = tempfile::tempdir().unwrap();
    let (switch, open) = tokio::sync::watch::channel(true);
    let Some(clients) = breakable(dir.path(), open).await else { return };
    let addons = addons(clients, "engine-away", "", &[EXTRA]);
    let (sender, mut states) = tokio::sync::watch::channel(AddonState::Enabled);
    let follow = addons.follow(|list| {
        let _ = sender.send(list[0].state);
    });
    let work = async {
        let bound = Duration::from_secs(20);
        for (is_open, wanted) in [
            (true, AddonState::Disabled),
            (false, AddonState::Unknown),
            (true, AddonState::Disabled),
        ] {
            switch.send(is_open).unwrap();
            let seen = tokio::time::timeout(bound, states.wait_for(|state| *state == wanted)).await;
            assert!(seen.is_ok(), "{wanted:?} was not seen");
        }
    };
    tokio::select! {
        () = work => {}
        () = follow => {}
    }
}
