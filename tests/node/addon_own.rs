//! Addons of users' own: the page about writing one, and what happens when one does not work.

use std::path::Path;
use std::time::Duration;
use std::{env, fs};

use harness::{
    Network, NodeOptions, Outcome, TestNode, cannot_run_nodes, eventually, run, skiff_binary,
};

#[test]
fn an_addon_of_ones_own_is_written_by_its_page_and_goes_back_when_it_fails() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let node = TestNode::started(&network, "alpha", &NodeOptions::default());
    let place = tempfile::tempdir().expect("a folder for addons");
    every_line_of_the_page_works(&node, place.path());

    let folder = place.path().join("addons/hello");
    let hello = Hello { node: &node, folder: &folder };
    hello.skiff(&["addons", "repo", "add", "mine", "addons"]).must();
    what_others_made_is_not_taken(&hello);
    one_that_does_not_come_up_leaves_nothing(&hello);
    one_that_works_stays_when_its_next_version_does_not(&hello);
    a_damaged_record_is_mended(&hello);
    data_is_kept_until_it_is_to_be_deleted(&hello);
    hello.skiff(&["addons", "repo", "remove", "mine"]).must();
}

/// The page is typed as it is printed.
fn every_line_of_the_page_works(node: &TestNode, place: &Path) {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/how-to/write-an-addon.md");
    let page = fs::read_to_string(page).expect("the page");
    let lines: Vec<&str> = page
        .split("```sh\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .flat_map(str::lines)
        .collect();
    assert!(lines.len() >= 12, "{lines:?}");
    let mut said = String::new();
    for line in lines {
        let outcome = in_folder(node, place, &["sh", "-c", line]);
        assert!(outcome.ok(), "{line}: {outcome:?}");
        said += &said_by(&outcome);
    }
    for words in [
        "hello is well defined",
        "good-morning",
        "how many pods there are (int, 1 to 10; 1 when not given)",
        "spec.template.spec.containers[main].resources.requests.cpu",
        "mine.hello is upgraded from 0.1.0 to 0.2.0",
        "mine.hello is disabled",
    ] {
        assert!(said.contains(words), "{words} was not said:\n{said}");
    }
}

/// A program in the node's namespace that finds `skiff` and works in a folder.
fn in_folder(node: &TestNode, place: &Path, line: &[&str]) -> Outcome {
    let skiff = skiff_binary();
    let bin = skiff.parent().expect("a folder").display().to_string();
    let path = env::var("PATH").unwrap_or_default();
    let mut command = node.command(line[0]);
    run(command.args(&line[1..]).current_dir(place).env("PATH", format!("{bin}:{path}")))
}

/// Everything on the screen, however it was broken into lines.
fn said_by(outcome: &Outcome) -> String {
    let words: Vec<&str> =
        outcome.stdout.split_whitespace().chain(outcome.stderr.split_whitespace()).collect();
    words.join(" ") + " "
}

struct Hello<'a> {
    node: &'a TestNode,
    folder: &'a Path,
}

impl Hello<'_> {
    fn skiff(&self, args: &[&str]) -> Outcome {
        let place = self.folder.ancestors().nth(2).expect("the folder of all addons");
        in_folder(self.node, place, &[&["skiff"], args].concat())
    }

    /// Changes a file of the addon, and has the cluster take it.
    fn change(&self, file: &str, from: &str, to: &str) {
        let path = self.folder.join(file);
        let text = fs::read_to_string(&path).expect("a file of the addon");
        assert!(text.contains(from), "{file} has no {from}");
        fs::write(&path, text.replace(from, to)).expect("it is written");
        self.skiff(&["addons", "repo", "update", "mine"]).must();
    }

    fn kubectl(&self, args: &[&str]) -> String {
        self.node.kubectl(args).must()
    }

    /// Names of all that there is of the addon.
    fn objects(&self) -> String {
        let kinds = "configmaps,deployments,replicasets,pods,secrets";
        let owned = "--selector=skiff.io/addon=mine.hello";
        let mut all = self.kubectl(&["get", kinds, "--all-namespaces", "--output=name", owned]);
        for label in ["addon-record", "addon-applied"] {
            let selector = format!("--selector=skiff.io/{label}=mine.hello");
            let kinds = "configmaps,secrets";
            all += &self.kubectl(&["get", kinds, "--all-namespaces", "--output=name", &selector]);
        }
        all
    }

    fn must_be_gone(&self) {
        eventually("nothing of the addon is left", Duration::from_secs(60), || {
            let left = self.objects();
            if left.is_empty() { Ok(()) } else { Err(left) }
        });
    }
}

fn what_others_made_is_not_taken(hello: &Hello<'_>) {
    hello.kubectl(&["create", "configmap", "hello", "--from-literal=greeting=mine"]);
    let refused = hello.skiff(&["enable", "hello"]);
    assert!(!refused.ok(), "{refused:?}");
    for words in ["ConfigMap hello belongs to somebody else", "is not enabled, as it was before"] {
        assert!(said_by(&refused).contains(words), "{refused:?}");
    }
    hello.must_be_gone();
    let mine = ["get", "configmap", "hello", "--output=jsonpath={.data.greeting}"];
    assert_eq!(hello.kubectl(&mine), "mine");
    hello.kubectl(&["delete", "configmap", "hello"]);
}

fn one_that_does_not_come_up_leaves_nothing(hello: &Hello<'_>) {
    hello.change("manifests/workload.yaml", "image: ${image.pause}", "image: skiff.local/none:1");
    hello.change("manifests/workload.yaml", "IfNotPresent", "Never");
    let failed = hello.skiff(&["enable", "hello", "--wait", "--timeout=8"]);
    assert!(!failed.ok() && said_by(&failed).contains("ErrImageNeverPull"), "{failed:?}");
    hello.must_be_gone();
    hello.change("manifests/workload.yaml", "image: skiff.local/none:1", "image: ${image.pause}");
}

fn one_that_works_stays_when_its_next_version_does_not(hello: &Hello<'_>) {
    hello.skiff(&["enable", "hello:kept", "--wait"]).must();
    hello.change("manifests/workload.yaml", "image: ${image.pause}", "image: skiff.local/none:1");
    hello.change("manifests/config.yaml", "\ndata:", "\ndata:\n  more: than before");
    hello.change("addon.toml", "0.2.0", "0.3.0");
    let failed = hello.skiff(&["addons", "upgrade", "hello", "--timeout=8"]);
    assert!(!failed.ok(), "{failed:?}");
    for words in ["mine.hello is at 0.2.0 as it was before", "ErrImageNeverPull"] {
        assert!(said_by(&failed).contains(words), "{words}: {failed:?}");
    }
    let data = ["get", "configmap", "hello", "--output=jsonpath={.data}"];
    assert_eq!(hello.kubectl(&data), r#"{"greeting":"kept"}"#);
    let available = "--for=condition=Available";
    hello.kubectl(&["wait", "deployment/hello", available, "--timeout=60s"]);
    let shown = hello.skiff(&["addons", "show", "hello"]).must();
    assert!(shown.contains("0.2.0 (0.3.0 with skiff addons upgrade mine.hello)"), "{shown}");
    hello.change("manifests/workload.yaml", "image: skiff.local/none:1", "image: ${image.pause}");
    hello.skiff(&["addons", "upgrade"]).must();
    assert_eq!(hello.kubectl(&data), r#"{"greeting":"kept","more":"than before"}"#);
}

fn a_damaged_record_is_mended(hello: &Hello<'_>) {
    let system = "--namespace=kube-system";
    let harm = r#"--patch={"data":{"record.json":"{"}}"#;
    hello.kubectl(&["patch", "configmap", "skiff-addon-mine.hello", system, "--type=merge", harm]);
    eventually("the damage is told", Duration::from_secs(20), || {
        let screen = hello.skiff(&["addons", "show", "hello"]).must();
        if screen.contains("its record is damaged") { Ok(()) } else { Err(screen) }
    });
    let mended = hello.skiff(&["enable", "hello:mended", "--wait"]);
    assert!(mended.ok() && said_by(&mended).contains("its options are forgotten"), "{mended:?}");
}

fn data_is_kept_until_it_is_to_be_deleted(hello: &Hello<'_>) {
    let data = "\n[[user-data]]\nkind = 'ConfigMap'\nname = 'hello'\ndescription = 'greetings'\n";
    hello.change("addon.toml", "name = \"hello\"\n", &format!("name = \"hello\"\n{data}"));
    hello.skiff(&["enable", "hello", "--wait"]).must();
    let kept = hello.skiff(&["disable", "hello"]);
    let sentence = "its data is kept: skiff disable mine.hello --delete-data deletes it";
    assert!(kept.ok() && said_by(&kept).contains(sentence), "{kept:?}");
    let greeting = ["get", "configmap", "hello", "--output=jsonpath={.data.greeting}"];
    assert_eq!(hello.kubectl(&greeting), "mended");
    assert_eq!(hello.objects(), "configmap/hello\nconfigmap/skiff-addon-mine.hello\n");
    let needed = hello.skiff(&["addons", "repo", "remove", "mine"]);
    assert!(!needed.ok() && said_by(&needed).contains("with data that is kept"), "{needed:?}");
    // Enabled again, it goes on with its data and its options.
    hello.skiff(&["enable", "hello", "--wait"]).must();
    assert_eq!(hello.kubectl(&greeting), "mended");
    let deleted = hello.skiff(&["disable", "hello", "--delete-data"]);
    assert!(deleted.ok(), "{deleted:?}");
    hello.must_be_gone();
}
