//! Reads the repository and says what has become untidy.

use std::path::{Path, PathBuf};
use std::{fs, process};

/// Every file that git knows, with its text; binary files are left out.
fn files() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let listed = process::Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .expect("git lists the repository's files");
    let names = String::from_utf8(listed.stdout).expect("file names are UTF-8");
    names
        .lines()
        .filter_map(|name| Some((PathBuf::from(name), fs::read_to_string(root.join(name)).ok()?)))
        .collect()
}

fn assert_none(found: &[String], what: &str) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

#[test]
fn every_promise_names_a_test_that_exists() {
    let files = files();
    let page = &files.iter().find(|(name, _)| name == Path::new("SPECIFICATION.md")).expect("it").1;
    let sources: String = files
        .iter()
        .filter(|(n, _)| n.extension().is_some_and(|e| e == "rs"))
        .map(|f| &*f.1)
        .collect();
    let mut missing = Vec::new();
    for row in page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| #")) {
        let proof = row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
        let words: Vec<&str> = proof.split('`').skip(1).step_by(2).collect();
        if words.is_empty() && !proof.contains("test pending") {
            missing.push(format!("no test: {row}"));
        }
        for word in words {
            let there = if word.contains('/') {
                Path::new(env!("CARGO_MANIFEST_DIR")).join(word).exists()
            } else {
                sources.contains(&format!("fn {word}("))
            };
            if !there {
                missing.push(format!("{word} is not there: {row}"));
            }
        }
    }
    assert_none(&missing, "promises without their test");
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    let mut broken = Vec::new();
    for (name, text) in files().iter().filter(|(n, _)| n.extension().is_some_and(|e| e == "md")) {
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") {
                continue;
            }
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
            if !folder.parent().expect("a file is in a folder").join(path).exists() {
                broken.push(format!("{}: {target}", name.display()));
            }
        }
    }
    assert_none(&broken, "broken links");
}

#[test]
fn no_source_file_is_a_cupboard() {
    /// Beyond this a file is divided. Long tests are long because whole screens stand in them.
    const LINES_MAX: usize = 700;
    let mut long = Vec::new();
    for (name, text) in files().iter().filter(|(n, _)| n.extension().is_some_and(|e| e == "rs")) {
        let lines = text.lines().count();
        let test = name.components().any(|c| c.as_os_str() == "tests")
            || name.to_string_lossy().ends_with("_test.rs");
        if lines > LINES_MAX && !test {
            long.push(format!("{}: {lines} lines", name.display()));
        }
    }
    assert_none(&long, "files that want to be divided");
}

#[test]
fn nothing_belongs_to_one_machine() {
    let mut found = Vec::new();
    for (name, text) in files() {
        if name.extension().is_some_and(|e| e == "lock" || e == "sum") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            // Put together here, so that this file does not find itself.
            if ["/wo", "/ro"]
                .iter()
                .zip(["rk/", "ot/"])
                .any(|(a, b)| line.contains(&format!("{a}{b}")))
            {
                found.push(format!("{}:{}: {}", name.display(), number + 1, line.trim()));
            }
        }
    }
    assert_none(&found, "paths of one machine");
}
