//! `docs/reference/addon.schema.json` is what the parser of `addon.toml` takes.

use std::path::Path;
use std::{env, fs};

use super::definition::Definition;

/// Set to write the page instead of comparing it.
const REGENERATE: &str = "SKIFF_REGENERATE";
const PAGE: &str = "docs/reference/addon.schema.json";

#[test]
fn the_published_schema_is_that_of_the_definition() {
    let schema = schemars::schema_for!(Definition);
    let wanted = serde_json::to_string_pretty(&schema).unwrap() + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    if env::var_os(REGENERATE).is_some() {
        fs::write(&path, &wanted).unwrap();
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == wanted,
        "{PAGE} is out of date; write it with\n  {REGENERATE}=1 cargo test -p skiff --lib schema"
    );
}
