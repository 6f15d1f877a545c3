//! Loading a node's settings from real files: what wins, and what is said when something is wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{Config, ConfigError, Origin, Sources, setting};

/// A directory with a configuration.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// With that text as `skiff.toml`.
    fn with(text: &str) -> Self {
        let place = Self::new();
        place.file("skiff.toml", text);
        place
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        for (path, mode) in [(path.as_path(), 0o644), (path.parent().unwrap(), 0o755)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        path
    }

    fn load(&self) -> Result<Config, ConfigError> {
        let snap = Some(self.0.path().join("snap.json"));
        Config::load(&Sources { file: self.0.path().join("skiff.toml"), snap })
    }

    fn close(&self, name: &str, mode: u32) -> PathBuf {
        let path = self.0.path().join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    /// The causes of the refusal, without the directory.
    #[track_caller]
    fn complaint(&self) -> Vec<String> {
        let error = self.load().unwrap_err();
        assert_eq!(error.to_string(), "the configuration is not valid");
        let mut lines = Vec::new();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            lines.push(cause.to_string().replace(&format!("{}/", self.0.path().display()), ""));
            source = cause.source();
        }
        lines
    }
}

proptest::proptest! {
    /// Words that belong in such files, in an order that does not, and anything at all.
    #[test]
    fn no_text_makes_the_reading_panic(
        words in proptest::collection::vec("\\PC{0,6}|[\\[\\]{}=\"'#\n.,-]{1,3}|node|name|api|port|\
            kube|mtu|network|9{1,30}|1e99|0x|nan|10\\.1\\.0\\.0/[0-9]{1,3}|ä|\u{1f6a2}", 0..40),
        snap: String,
    ) {
        let place = Place::with(&words.concat());
        place.file("snap.json", snap);
        if let Err(error) = place.load() {
            assert!(!error.to_string().is_empty());
        }
    }
}

fn value(config: &Config, key: &str) -> (String, String) {
    let found = config.settings().into_iter().find(|setting| setting.key == key).unwrap();
    (found.value, found.origin)
}

#[test]
fn without_a_file_every_setting_has_its_default_and_says_so() {
    let config = Place::new().load().unwrap();
    let settings = config.settings();
    assert_eq!(settings.len(), setting::KNOWN.len());
    assert!(settings.iter().all(|setting| setting.origin == "default"));
    assert_eq!(value(&config, "api.port"), ("6443".into(), "default".into()));
}

#[test]
fn a_later_layer_wins_and_each_value_says_where_it_comes_from() {
    let place = Place::with(
        "[api]\nport = 7000\n[node]\nname = \"alpha\"\n[network]\ndns-domain = \"site.local\"\n",
    );
    place.file("skiff.toml.d/10-site.toml", "api.port = 7001\nnetwork.mtu = 1400\n");
    let last = place.file("skiff.toml.d/20-me.toml", "# mine\n[api]\nport = 7002\n");
    place.file("skiff.toml.d/30-not.txt", "nonsense");
    let config = place.load().unwrap();
    assert_eq!((config.api.port, config.network.mtu), (7002, 1400));
    assert_eq!(config.node.name.as_deref(), Some("alpha"));
    assert_eq!(config.origin("api.port"), Origin::File { path: last.clone(), line: 3 });
    assert_eq!(value(&config, "api.port"), ("7002".into(), format!("{}:3", last.display())));

    place.file(
        "snap.json",
        r#"{"api": {"port": 7003, "extra-sans": ["a.example"]}, "node": {"name": null}, "pki": null}"#,
    );
    let config = place.load().unwrap();
    assert_eq!(value(&config, "api.port"), ("7003".into(), "snap".into()));
    assert_eq!(value(&config, "api.extra-sans"), ("[\"a.example\"]".into(), "snap".into()));
    assert_eq!(value(&config, "node.name").0, "\"alpha\"", "a null says nothing");
    let file = place.0.path().join("skiff.toml");
    assert_eq!(value(&config, "network.dns-domain").1, format!("{}:6", file.display()));
}

#[test]
fn every_mistake_is_told_at_once_with_its_place() {
    let place = Place::with(
        "[node]\nnmae = \"alpha\"\n[api]\nport = \"x\"\n[netwrok]\nmtu = 1\n[zzz]\n[kuke]\n\
         [network]\nmtu = 1\npod-cidr = \"ten\"\n",
    );
    place.file("skiff.toml.d/a.toml", "network.dns-domain = [1]\nkube = 5\n[[node]]\n");
    place.file("skiff.toml.d/b.toml", "api.port = 70000\nnode.address = \"here\"\n");
    place.file("snap.json", r#"{"pki": {"leaf-ttl-minutes": "1"}, "api": {"prot": 1}, "a": 1}"#);
    assert_eq!(
        place.complaint(),
        [
            "skiff.toml:2: there is no setting node.nmae; did you mean node.name?",
            "skiff.toml:4: api.port must be a port from 1 to 65535, not \"x\"",
            "skiff.toml:6: there is no setting netwrok.mtu; did you mean network.mtu?",
            "skiff.toml:7: there is no group zzz",
            "skiff.toml:8: there is no group kuke; did you mean [kube]?",
            "skiff.toml:10: network.mtu 1 is neither 0 nor from 576 to 65535",
            "skiff.toml:11: network.pod-cidr \"ten\" is no range of addresses like 10.1.0.0/16",
            "skiff.toml.d/a.toml:1: network.dns-domain must be a domain like \"cluster.local\", \
             not [1]",
            "skiff.toml.d/a.toml:2: kube is a group of settings: [kube]",
            "skiff.toml.d/a.toml:3: node is a group of settings: [node]",
            "skiff.toml.d/b.toml:1: api.port must be a port from 1 to 65535, not 70000",
            "skiff.toml.d/b.toml:2: node.address must be an IP address like \"192.0.2.1\", not \
             \"here\"",
            "snap settings: there is no group a",
            "snap settings: there is no setting api.prot; did you mean api.port?",
            "snap settings: pki.leaf-ttl-minutes must be a number of minutes from 1 to 525600, \
             not \"1\"",
        ]
    );
}

/// A node began with the default ranges because another line of the file held such a number.
#[test]
fn a_number_that_nobody_can_hold_does_not_make_the_other_settings_vanish() {
    let place =
        Place::with("[network]\npod-cidr = \"10.9.0.0/16\"\n[api]\nport = 99999999999999999999\n");
    let lines = place.complaint();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("skiff.toml:4: api.port"), "{lines:?}");
}

#[test]
fn what_is_not_toml_is_told_with_its_line() {
    let place = Place::with("[node]\nname = alpha\n[api]\nport = = 1\n");
    let lines = place.complaint();
    assert!(lines[0].starts_with("skiff.toml:2: "), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("skiff.toml:4: ")), "{lines:?}");
    let lines = Place::with("[api]\nport = 7000\nport = 7001\n").complaint();
    assert_eq!(lines, ["skiff.toml:3: duplicate key"]);
    place.file("skiff.toml", b"[node]\n\n# \xff\xfe\n");
    assert_eq!(place.complaint(), ["skiff.toml:3: this is not UTF-8"]);
    place.file("skiff.toml", "");
    place.file("snap.json", "[1]");
    let lines = place.complaint();
    assert!(lines[0].starts_with("snap settings: no object of JSON: "), "{lines:?}");
}

#[test]
fn values_that_cannot_go_together_are_told_with_the_place_of_one() {
    assert_eq!(
        Place::with("[network]\npod-cidr = \"10.152.0.0/16\"\n").complaint(),
        ["skiff.toml:2: network.pod-cidr 10.152.0.0/16 overlaps network.service-cidr \
          10.152.183.0/24"]
    );
    assert_eq!(
        Place::with("[network]\nservice-cidr = \"10.9.0.0/24\"\n").complaint(),
        ["skiff.toml:2: network.service-cidr 10.9.0.0/24 does not hold the default \
          network.dns-address 10.152.183.10: set that one, too"]
    );
}

/// The name that was meant is unknown: a complaint about the default would lead astray.
#[test]
fn values_are_not_judged_against_one_that_was_meant_otherwise() {
    assert_eq!(
        Place::with("[network]\nservice-cird = \"10.9.0.0/24\"\ndns-address = \"10.9.0.10\"\n")
            .complaint(),
        ["skiff.toml:2: there is no setting network.service-cird; did you mean \
          network.service-cidr?"]
    );
}

#[test]
fn what_others_may_write_is_refused_with_the_remedy() {
    for (name, text) in
        [("skiff.toml", ""), ("skiff.toml.d/a.toml", "api.port = 7000\n"), ("snap.json", "{}")]
    {
        let place = Place::new();
        place.file(name, text);
        refused(&place, name, 0o646);
    }
    let place = Place::new();
    place.file("skiff.toml.d/a.toml", "");
    refused(&place, "skiff.toml.d", 0o777);
}

#[track_caller]
fn refused(place: &Place, name: &str, mode: u32) {
    place.load().unwrap();
    let path = place.close(name, mode);
    let error = place.load().unwrap_err();
    let said = format!("{} may be written by others than root, and root obeys it", path.display());
    assert_eq!(error.to_string(), said);
    assert_eq!(error.hint(), Some(format!("sudo chmod go-w {}", path.display())));
}

#[test]
fn a_directory_in_the_place_of_the_file_is_named() {
    let place = Place::new();
    fs::create_dir(place.0.path().join("skiff.toml")).unwrap();
    place.close("skiff.toml", 0o755);
    let error = place.load().unwrap_err().to_string();
    assert_eq!(
        error,
        format!("cannot read {}", place.0.path().join(Path::new("skiff.toml")).display())
    );
}
