//! Configuration files that upstream components read as YAML: written as JSON, which YAML contains.

use serde_json::Value;

/// Pretty JSON with a final newline.
pub fn text(value: &Value) -> String {
    // `Value` serialises without failing: its keys are strings and its numbers finite.
    let mut text = serde_json::to_string_pretty(value).expect("a JSON value serialises");
    text.push('\n');
    text
}
