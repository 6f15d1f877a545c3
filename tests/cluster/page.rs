//! The commands that a page prints, for a test to type them.

use std::path::Path;

/// The blocks of commands below a heading of a page, each command as it is printed.
#[track_caller]
pub fn blocks_of(page: &str, heading: &str) -> Vec<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let text = std::fs::read_to_string(path).expect("the page is there");
    let mut sections = text.split("\n## ");
    let section = sections.find(|section| section.lines().next() == Some(heading));
    let section = section.unwrap_or_else(|| panic!("{page} has no heading {heading}"));
    let fenced = section.split("```").skip(1).step_by(2);
    fenced.map(|block| block.lines().filter_map(command_of).collect()).collect()
}

/// What is typed after the prompt, without a comment.
fn command_of(line: &str) -> Option<String> {
    let typed = line.strip_prefix("$ ")?;
    Some(typed.split(" #").next().unwrap_or(typed).trim().to_owned())
}
