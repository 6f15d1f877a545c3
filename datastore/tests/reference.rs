//! The reference page says what the source says.
#![allow(clippy::unwrap_used)] // a test that panics says where

use std::path::Path;

use skiff_datastore::error::RequestError;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn page() -> String {
    std::fs::read_to_string(repository().join("docs/reference/datastore.md")).unwrap()
}

/// Everything that is written in Rust below a folder.
fn read_sources(folder: &Path, into: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_refusal_is_on_the_page_with_its_code() {
    let page = page();
    for error in RequestError::ALL {
        let row = format!("| {:?} | `{error}` |", error.code());
        assert!(page.contains(&row), "the page has no row {row}");
    }
    let rows = page.matches("| `etcdserver: ").count();
    assert_eq!(rows, RequestError::ALL.len(), "the page has refusals that there are not");
}

#[test]
fn every_method_is_on_the_page_as_served() {
    let page = page();
    let proto = std::fs::read_to_string(repository().join("datastore/proto/rpc.proto")).unwrap();
    let mut served = "";
    for line in proto.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("service"), Some(name)) => {
                let row = format!("| {name} | ");
                let line = page.lines().find(|line| line.starts_with(&row));
                let line = line.unwrap_or_else(|| panic!("the page has no service {name}"));
                served = line.split(" | ").nth(1).unwrap();
            }
            (Some("rpc"), Some(method)) => {
                let method = method.split('(').next().unwrap();
                let is_there = served.split(", ").any(|name| name == method);
                assert!(is_there, "{method} is not named as served: {served}");
            }
            _ => {}
        }
    }
}

#[test]
fn every_test_and_every_figure_that_the_page_names_exists() {
    let mut sources = String::new();
    for folder in ["datastore/src", "datastore/tests"] {
        read_sources(&repository().join(folder), &mut sources);
    }
    let page = page();
    let names = page.split('`').skip(1).step_by(2).filter(|word| word.matches('_').count() > 2);
    let mut count = 0;
    for name in names {
        let figure = name
            .split(|letter| "[( ".contains(letter))
            .find(|word| word.starts_with("etcd_") || word.starts_with("skiff_datastore_"));
        match figure {
            Some(figure) => {
                let figure = figure.strip_suffix("_total").unwrap_or(figure);
                assert!(sources.contains(&format!("\"{figure}")), "there is no figure {figure}");
            }
            None => {
                assert!(sources.contains(&format!("fn {name}(")), "there is no test {name}");
                count += 1;
            }
        }
    }
    assert!(count > 15, "the page names only {count} tests");
}
