//! docs/reference/configuration.md and the example beside it are written from the table of
//! settings, when SKIFF_REGENERATE is set, and compared with it otherwise.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::setting::{KNOWN, Scope};
use super::{Config, SNAP_VARIABLE, Sources};

const REGENERATE: &str = "SKIFF_REGENERATE";
const DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference");

#[test]
fn the_reference_page_says_what_the_table_says() {
    same_as_written("configuration.md", &page());
}

#[test]
fn the_example_names_every_setting_and_changes_none() {
    let text = example();
    same_as_written("skiff.toml", &text);
    // What it shows is what holds: with every setting in force there is no mistake, and each has
    // its default. Those without one show a value of somebody's.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("skiff.toml");
    let in_force: String = text
        .lines()
        .map(|line| line.strip_prefix("#").filter(|rest| !rest.starts_with(' ')).unwrap_or(line))
        .fold(String::new(), |all, line| all + line + "\n");
    for (text, set) in [(text.as_str(), 0), (&in_force, KNOWN.len())] {
        fs::write(&file, text).unwrap();
        let config = Config::load(&Sources { file: file.clone(), snap: None }).unwrap();
        let settings = config.settings();
        assert_eq!(settings.iter().filter(|setting| setting.origin != "default").count(), set);
        for (setting, default) in settings.iter().zip(Config::default().settings()) {
            assert!(default.value.is_empty() || setting.value == default.value, "{setting:?}");
        }
    }
}

fn same_as_written(name: &str, text: &str) {
    let path = Path::new(DIR).join(name);
    if std::env::var_os(REGENERATE).is_some() {
        fs::write(&path, text).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == text,
        "docs/reference/{name} is out of date; write it with\n  \
         {REGENERATE}=1 cargo test --package skiff --lib config::reference"
    );
}

fn page() -> String {
    let mut page = format!(
        "# Configuration\n\n\
         A node's settings come in layers. What is read later wins, and `skiff get` shows every value \
         and\nwhere it comes from:\n\n\
         1. the defaults below;\n\
         2. `/etc/skiff/skiff.toml`, in another root `skiff.toml` inside it, or what `--config` \
         names;\n\
         3. drop-ins: the files `*.toml` of the directory `skiff.toml.d` beside it, by name;\n\
         4. in the snap, its settings: the file that `{SNAP_VARIABLE}` names holds them as JSON, the \
         way\n   `snapctl get -d` prints them;\n\
         5. what all nodes share: what the cluster was begun with, and what `skiff set` has set \
         (`docs/how-to/change-settings.md`).\n   A lone node has such a layer of its own.\n\n\
         Absent files say nothing. The node's own files are read when skiffd starts; a change \
         there takes effect with\n`skiff stop` and `skiff start`. What `skiff set` changes takes effect \
         while the nodes run. Mistakes keep the node from starting and are told all at \
         once,\neach with its file and line. The files, and the directory of the drop-ins, must not be \
         writable\nby the group or by others: root obeys them.\n\n\
         [skiff.toml](skiff.toml) is an example with every setting.\n\n\
         Settings marked * are decided by the first start. Another value is refused later, for the \
         reason\nbelow; `skiff reset` begins anew.\n\n\
         *Whose* says who has it. A *node*'s is in its own files alone. A *cluster*'s can be set for all \
         nodes by\n`skiff set`: its value decides then, and `skiff get`, `skiff status` and `skiff \
         check` name a line of a\nnode's own files that does not count. Of *both*, the cluster's flags come \
         first and the node's own after them.\n\n\
         | Setting | Default | Whose | What it holds | What it does |\n|---|---|---|---|---|\n"
    );
    let defaults = Config::default().settings();
    for (known, default) in KNOWN.iter().zip(defaults) {
        let mark = if known.fixed.is_some() { " *" } else { "" };
        let value = match default.value.as_str() {
            "" => "none".to_owned(),
            value => format!("`{value}`"),
        };
        let (key, whose) = (known.key, known.scope.word());
        let (kind, what) = (known.kind, known.description);
        writeln!(page, "| `{key}`{mark} | {value} | {whose} | {kind} | {what} |").unwrap();
    }
    page.push_str("\n| Setting * | Why it cannot change |\n|---|---|\n");
    for known in KNOWN {
        if let Some(reason) = known.fixed {
            writeln!(page, "| `{}` | {reason} |", known.key).unwrap();
        }
    }
    page.push_str("\n| A cluster's setting that `skiff set` refuses | Why |\n|---|---|\n");
    for known in KNOWN {
        if let Scope::Decided(reason) = known.scope {
            writeln!(page, "| `{}` | {reason} |", known.key).unwrap();
        }
    }
    page
}

fn example() -> String {
    let mut text = String::from(
        "# Every setting of a node with its default. Take the # away from the lines that you change,\n\
         # and from the [group] above them.\n",
    );
    let mut last = "";
    for (known, default) in KNOWN.iter().zip(Config::default().settings()) {
        let (group, name) = known.key.split_once('.').unwrap();
        if group != last {
            writeln!(text, "\n#[{group}]").unwrap();
            last = group;
        }
        let value = match (default.value.as_str(), known.key) {
            ("", "node.name") => "\"alpha\"",
            ("", "node.address") => "\"192.0.2.1\"",
            ("", "datastore.endpoint") => "\"postgres://skiff@db.example.org/skiff\"",
            ("", "datastore.ca-file") => "\"/etc/skiff/datastore-ca.pem\"",
            ("", "datastore.cert-file") => "\"/etc/skiff/datastore.pem\"",
            ("", "datastore.key-file") => "\"/etc/skiff/datastore-key.pem\"",
            ("", "datastore.password-file") => "\"/etc/skiff/datastore-password\"",
            ("", "backup.place") => "\"/var/backups/skiff\"",
            ("", "backup.environment-file") => "\"/etc/skiff/backup.environment\"",
            (value, _) => value,
        };
        writeln!(text, "# {}: {}", known.kind, known.description).unwrap();
        writeln!(text, "#{name} = {value}").unwrap();
    }
    text
}
