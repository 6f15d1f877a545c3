//! What a node answers that is well, and one that is as ill as can be: with long words and long
//! sentences in every place.

use skiff_api::{
    Addon, AddonDetails, AddonDiff, AddonOption, AddonState, AuthorityRotation, BackupPart,
    Certificate, CertificateState, Certificates, ChangeAction, ClusterNode, ClusterPart, Component,
    Condition, FieldChange, NodeSettings, NodeState, Notice, ObjectChange, OwnSetting, Phase,
    Repository, RotationNode, Service, ServiceState, Setting, Status, Token, TokenState, Version,
};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::stand_in::StandIn;

/// One word that fits no screen.
pub fn long_word() -> String {
    "x".repeat(300)
}

pub fn long_sentence() -> String {
    "waiting for what never comes, and saying so at length ".repeat(6)
}

pub fn service(name: &str, state: ServiceState) -> Service {
    let since = OffsetDateTime::now_utc() - Duration::days(3) - Duration::hours(1);
    Service {
        name: name.into(),
        state,
        message: String::new(),
        last_log: vec![],
        pid: Some(4321),
        since: since.format(&Rfc3339).expect("a time"),
        restarts: 0,
        cpu_s: Some(12.34),
        memory_bytes: Some(130 << 20),
    }
}

pub fn services() -> Vec<Service> {
    ["datastore", "containerd", "kube-control", "kube-node"]
        .map(|name| service(name, ServiceState::Ready))
        .into()
}

pub fn ill_services() -> Vec<Service> {
    let crash = Service {
        message: "exited with 1, five times in 60 s; started again in 5 min".into(),
        last_log: vec![
            r#"{"timestamp":"2026-01-01T10:00:00Z","level":"ERROR","fields":{"message":"no space"}}"#
                .into(),
            format!("E0101 10:00:00.000000   12 a.go:1] {}", long_word()),
        ],
        pid: None,
        restarts: 1234,
        cpu_s: None,
        memory_bytes: None,
        ..service("datastore", ServiceState::CrashLoop)
    };
    let name = "a-daemon-with-a-very-long-name-indeed";
    let waiting = Service {
        message: long_sentence(),
        cpu_s: Some(123_456.7),
        memory_bytes: Some(123 << 30),
        ..service(name, ServiceState::Waiting)
    };
    let back_off = Service { message: long_word(), ..service("kube-node", ServiceState::BackOff) };
    vec![crash, waiting, back_off]
}

pub fn addon(name: &str, state: AddonState, message: &str) -> Addon {
    Addon {
        name: name.into(),
        description: "Names of Services and pods, and those of the world".into(),
        version: "1.15.0".into(),
        applied: None,
        chosen: if name == "dns" { [("replicas".into(), "2".into())].into() } else { [].into() },
        aliases: if name == "dns" { vec!["coredns".into()] } else { vec![] },
        state,
        message: message.into(),
    }
}

/// One with everything that can be said of an addon.
pub fn details(addon: &Addon) -> AddonDetails {
    let option = |name: &str, form: &str, default: Option<&str>| AddonOption {
        name: name.into(),
        form: form.into(),
        description: "Resolvers for names outside the cluster; those of the node when empty".into(),
        default: default.map(str::to_owned),
    };
    AddonDetails {
        addon: Addon { applied: Some("1.14.0".into()), ..addon.clone() },
        needs: vec!["storage".into()],
        conflicts: vec!["mine.dns".into()],
        architectures: vec!["amd64".into()],
        positional: Some("upstream".into()),
        options: vec![
            option("upstream", "list of ip-port, 15 items at most", None),
            option("replicas", "int, 1 to 100", Some("1")),
        ],
        data: vec!["zones that you wrote".into()],
    }
}

pub fn diff(ill: bool) -> AddonDiff {
    let field = |path: &str, before: Option<String>, after: Option<String>| FieldChange {
        path: path.into(),
        before,
        after,
    };
    let change =
        |object: &str, action, fields| ObjectChange { object: object.into(), action, fields };
    let mut changes = vec![
        change("ConfigMap kube-system/new", ChangeAction::Create, vec![]),
        change(
            "Deployment kube-system/coredns",
            ChangeAction::Change,
            vec![
                field("spec.replicas", Some("0".into()), Some("2".into())),
                field("spec.paused", Some("true".into()), None),
            ],
        ),
        change("Service kube-system/old", ChangeAction::Remove, vec![]),
    ];
    if ill {
        let fields = vec![field(&long_word(), Some(long_sentence()), Some("one\ntwo\n".into()))];
        changes = vec![change(&long_word(), ChangeAction::Change, fields)];
    }
    AddonDiff { name: "dns".into(), from: "1.14.0".into(), to: "1.15.0".into(), changes }
}

pub fn addons() -> Vec<Addon> {
    vec![
        addon("dns", AddonState::Enabled, ""),
        addon("ingress", AddonState::Disabled, ""),
        addon("metrics", AddonState::Unhealthy, &long_sentence()),
        addon("an-addon-with-a-very-long-name-indeed", AddonState::Unknown, &long_word()),
    ]
}

pub fn notices() -> Vec<Notice> {
    skiff::node::plan::standing_notices()
}

pub fn condition(name: &str, message: &str) -> Condition {
    Condition { name: name.into(), holds: message.is_empty(), message: message.into() }
}

pub fn status() -> Status {
    Status {
        phase: Phase::Ready,
        node: "alpha".into(),
        address: Some("192.0.2.7".into()),
        version: "0.1.0".into(),
        kubernetes: "1.36.3".into(),
        conditions: vec![condition("datastore", ""), condition("node-ready", "")],
        notices: notices(),
        services: services(),
        addons: vec![addon("dns", AddonState::Enabled, "")],
        cluster: None,
        datastore: None,
        backup: None,
        uptime_s: 7200,
    }
}

pub fn ill_status() -> Status {
    Status {
        phase: Phase::Degraded,
        node: "a-node-with-the-longest-name-that-dns-allows-which-is-63-letters".into(),
        address: None,
        conditions: vec![
            condition("datastore", "exited with 1, five times in 60 s"),
            condition("node-ready", &long_sentence()),
        ],
        services: ill_services(),
        addons: addons(),
        backup: Some(BackupPart {
            place: format!("s3://{}", long_word()),
            every_s: 21_600,
            newest: Some(in_hours(-30)),
            next: Some(in_hours(1)),
            failures: 12,
            failure: Some(long_sentence()),
            overdue: true,
            elsewhere: false,
        }),
        ..status()
    }
}

pub fn worker_status() -> Status {
    let part = ClusterPart {
        role: "worker".into(),
        datastore: None,
        control_plane: vec![("alpha".into(), "192.0.2.7".into())],
    };
    Status {
        node: "beta".into(),
        address: Some("192.0.2.8".into()),
        notices: vec![],
        addons: vec![],
        services: ["agent", "containerd", "kube-node"]
            .map(|name| service(name, ServiceState::Ready))
            .into(),
        cluster: Some(part),
        ..status()
    }
}

pub fn in_hours(hours: i64) -> String {
    // Half an hour more, so that the age does not change while the test runs.
    let at = OffsetDateTime::now_utc() + Duration::hours(hours) + Duration::minutes(30);
    at.format(&Rfc3339).expect("a time")
}

pub fn nodes() -> Vec<ClusterNode> {
    let node = |name: &str, role: &str, state, address: &str| ClusterNode {
        name: name.into(),
        role: role.into(),
        datastore: (role == "control-plane").then(|| "leader".into()),
        state,
        addresses: vec![address.into()],
        version: "0.1.0".into(),
        kubernetes: "1.36.3".into(),
        certificate_expires: Some(in_hours(20)),
        last_contact: Some(in_hours(-3)),
        settings: Some(NodeSettings { revision: 4, newest: 4, failed: false, reason: None }),
    };
    vec![
        node("alpha", "control-plane", NodeState::Ready, "192.0.2.7"),
        node("beta", "worker", NodeState::NotReady, "192.0.2.8"),
        ClusterNode {
            certificate_expires: None,
            last_contact: None,
            settings: Some(NodeSettings {
                revision: 3,
                newest: 4,
                failed: true,
                reason: Some(long_sentence()),
            }),
            ..node(&"x".repeat(63), "worker", NodeState::Joining, "2001:db8::123:4567")
        },
    ]
}

pub fn tokens() -> Vec<Token> {
    let token = |id: &str, state, name: Option<&str>| Token {
        id: id.into(),
        role: "worker".into(),
        state,
        name: name.map(str::to_owned),
        uses: 1,
        uses_left: u32::from(state == TokenState::Live),
        expires: in_hours(if state == TokenState::Expired { -50 } else { 5 }),
        command: None,
    };
    vec![
        token("gd64bzds", TokenState::Live, None),
        token("7aq2m4xw", TokenState::Used, Some(&"x".repeat(63))),
        token("p3k9aa2c", TokenState::Expired, None),
    ]
}

pub fn certificates(ill: bool) -> Certificates {
    use CertificateState::{Expired, NotYetValid, Unreadable, Valid};
    let certificate = |name: &str, issuer: &str, state, ends, renews: Option<i64>| Certificate {
        name: name.into(),
        purpose: "controllers to the API server".into(),
        state,
        issuer: issuer.into(),
        begins: Some(in_hours(-1)),
        ends: Some(in_hours(ends)),
        renews: renews.map(in_hours),
        file: format!("/var/lib/skiff/pki/{name}"),
    };
    let mut certificates = vec![
        certificate("ca", "skiff", Valid, 87_000, None),
        certificate("front-proxy-ca", "skiff front proxy", Valid, 87_000, None),
        certificate("controller-manager-serving", "skiff", Valid, 23, Some(11)),
        certificate("front-proxy-client", "skiff front proxy", Valid, 23, Some(11)),
    ];
    if ill {
        let unreadable = Certificate { begins: None, ends: None, ..certificates[2].clone() };
        certificates.extend([
            certificate("kubelet", "skiff", Expired, -700, Some(-712)),
            certificate(&"x".repeat(63), &"y".repeat(100), NotYetValid, 900, Some(450)),
            Certificate { issuer: String::new(), state: Unreadable, renews: None, ..unreadable },
        ]);
    }
    // The screen says when it was made: the same in each test.
    let now = "2026-11-27T12:00:00Z".into();
    let rotation = ill.then(rotation);
    Certificates { now, clock: ill.then(long_sentence), certificates, rotation }
}

pub fn rotation() -> AuthorityRotation {
    let node = |name: &str, done, waited_for, reason: Option<String>| RotationNode {
        name: name.into(),
        done,
        waited_for,
        reason,
        last_contact: in_hours(-1),
    };
    AuthorityRotation {
        step: 7,
        position: "both-new".into(),
        back: false,
        old: "skiff".into(),
        new: "skiff 7".into(),
        since: "2026-11-27T12:00:00Z".into(),
        held_until: Some("2026-11-28T12:00:00Z".into()),
        tokens_until: None,
        distrust: false,
        nodes: vec![
            node("alpha", true, true, None),
            node("beta", false, true, Some(long_sentence())),
            node("gamma", false, false, None),
            node(&"x".repeat(63), false, true, None),
        ],
        token_secrets: vec!["default/robot".into(), format!("{0}/{0}", "y".repeat(63))],
    }
}

pub fn version() -> Version {
    let component =
        |name: &str, version: &str| Component { name: name.into(), version: version.into() };
    Version {
        skiff: "0.1.0".into(),
        build: "0123456789ab".into(),
        arch: "amd64".into(),
        components: vec![component("kube", "1.36.3"), component("containerd", "2.4.2")],
    }
}

pub fn settings() -> Vec<Setting> {
    let setting = |key: &str, value: &str, origin: &str| Setting {
        key: key.into(),
        value: value.into(),
        origin: origin.into(),
        scope: "cluster".into(),
        own: None,
        description: "what it does".into(),
    };
    vec![
        setting("api.port", "6443", "default"),
        setting("network.pod-cidr", "10.1.0.0/16", "/etc/skiff/skiff.toml"),
        Setting {
            own: Some(OwnSetting {
                value: long_word(),
                origin: "/etc/skiff/skiff.toml:7".into(),
                added: false,
            }),
            ..setting("api.extra-sans", &long_word(), "set (revision 4)")
        },
    ]
}

/// A stand-in that knows everything.
pub fn node(status: &Status) -> StandIn {
    let mut node = StandIn::new()
        .json("GET /v1/status", status)
        .json("GET /v1/services", &status.services)
        .json("GET /v1/addons", &status.addons)
        .json("GET /v1/version", &version())
        .json("GET /v1/settings", &settings())
        .json("GET /v1/cluster/nodes", &nodes())
        .json("GET /v1/cluster/tokens", &tokens())
        .json("GET /v1/certificates", &certificates(false));
    for addon in &status.addons {
        node = match &*addon.name {
            "dns" => node.json("GET /v1/addons/dns", &details(addon)),
            name => node.json(&format!("GET /v1/addons/{name}"), addon),
        };
    }
    node.json("GET /v1/addons/dns/diff", &diff(false)).json("GET /v1/repositories", &repositories())
}

fn repositories() -> [Repository; 2] {
    let mine = Repository {
        name: "mine".into(),
        source: "https://example.org/addons.git".into(),
        revision: Some("stable 0123456789abcdef0123456789abcdef01234567".into()),
        digest: format!("sha256:{}", "0".repeat(64)),
        addons: vec!["dns".into(), "web".into()],
        problem: None,
    };
    let changed = Repository {
        name: "theirs".into(),
        source: String::new(),
        revision: None,
        digest: String::new(),
        addons: vec![],
        problem: Some("its content is not the one that was added: the digest differs".into()),
    };
    [mine, changed]
}
