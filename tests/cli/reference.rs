//! `docs/reference/cli.md` is what the command says of itself.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use clap::Command;

use crate::verbs::{self, Verb};

/// Set to write the page instead of comparing it.
const REGENERATE: &str = "SKIFF_REGENERATE";
const PAGE: &str = "docs/reference/cli.md";

#[test]
fn the_reference_page_says_what_the_command_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let wanted = page();
    if env::var_os(REGENERATE).is_some() {
        fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is made");
        fs::write(&path, &wanted).expect("the page is written");
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == wanted,
        "{PAGE} is out of date; write it with\n  {REGENERATE}=1 cargo test --test cli reference"
    );
}

fn page() -> String {
    let mut page = String::from(
        "# The command\n\n\
         This page is written by a test from the command itself (`tests/cli/reference.rs`).\n\n",
    );
    let mut command = skiff::cli::command().term_width(80);
    command.build();
    section(&mut page, "skiff", &mut command);
    page.push_str(EXIT_CODES);
    page.push_str("## Verbs\n\n");
    let verbs = verbs::visible();
    for verb in &verbs {
        let about = verb.command.get_about().map(ToString::to_string).unwrap_or_default();
        let name = format!("skiff {}", verb.name());
        let _ = writeln!(page, "- [`{name}`](#{}): {about}", name.replace(' ', "-"));
    }
    for Verb { words, command } in verbs {
        let name = format!("skiff {}", words.join(" "));
        let _ = write!(page, "\n## {name}\n\n");
        section(&mut page, &name, &mut command.term_width(80));
        page.truncate(page.trim_end().len());
        page.push('\n');
    }
    page
}

fn section(page: &mut String, name: &str, command: &mut Command) {
    let help = command.clone().bin_name(name).render_long_help().to_string();
    let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
    let _ = write!(page, "```text\n{}\n```\n\n", lines.join("\n").trim_end());
}

const EXIT_CODES: &str = "## Exit codes\n\n\
    | code | meaning |\n\
    |---|---|\n\
    | 0 | done |\n\
    | 1 | it failed, and you can fix it: the screen says what happened, why, and what to type |\n\
    | 2 | the command line is wrong |\n\
    | 70 | our bug; please report it |\n\n\
    `skiff kubectl` and `skiff ctr` exit with the code of the program that they run. Data goes to \
    standard output,\neverything else to standard error. Colours are for terminals only, and \
    `NO_COLOR` switches them off.\n\n";
