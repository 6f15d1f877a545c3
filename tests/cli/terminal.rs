//! What is different on a terminal: colours, and a question before everything is lost.
//!
//! The terminal is made by `script` of util-linux.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::place::{Place, program};

fn script() -> Option<PathBuf> {
    let script = program("script");
    if script.is_none() {
        println!("skipped: script is not installed, so there is no terminal");
    }
    script
}

/// Exit code and screen of `skiff` on a terminal, on which somebody types.
fn on_terminal(
    script: &PathBuf,
    place: &Place,
    line: &str,
    env: &str,
    typed: &str,
) -> (i32, String) {
    let line = format!("{env} {} {line}", place.path("bin/skiff").display());
    let mut command = place.harmless(Command::new(script));
    let mut child = command
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .env("SHELL", "/bin/sh")
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("script runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(typed.as_bytes()).expect("it is typed");
    let output = child.wait_with_output().expect("it ends");
    drop(stdin);
    let screen = String::from_utf8(output.stdout).expect("screens are UTF-8");
    (output.status.code().unwrap_or(-1), screen.replace("\r\n", "\n"))
}

#[test]
fn a_terminal_gets_colours_unless_somebody_does_not_want_them() {
    let Some(script) = script() else { return };
    let place = Place::new();
    let (code, screen) = on_terminal(&script, &place, "status", "", "");
    assert_eq!(code, 1, "{screen}");
    assert!(screen.contains("\x1b[31merror:\x1b[0m the node is stopped"), "{screen:?}");
    for env in ["NO_COLOR=1", "TERM=dumb"] {
        let (_, screen) = on_terminal(&script, &place, "status", env, "");
        assert!(screen.contains("error: the node is stopped"), "{screen:?}");
        assert!(!screen.contains('\x1b'), "{env}: {screen:?}");
    }
}

/// Nothing of the machine's is in danger: the root is one of the test's own.
#[test]
fn a_reset_asks_on_a_terminal_and_a_wrong_word_stops_it() {
    let Some(script) = script() else { return };
    let place = Place::new();
    let precious = place.path("root/precious");
    std::fs::write(&precious, "").expect("a file");
    let (code, screen) = on_terminal(&script, &place, "reset", "", "yes\n");
    assert_eq!(code, 1, "{screen}");
    let root = place.path("root");
    let question = format!("everything below {} will be lost", root.display());
    for words in [&*question, "type \"reset\" to go on: ", "nothing was done"] {
        assert!(screen.contains(words), "{words}: {screen:?}");
    }
    assert!(precious.exists(), "a wrong word was taken for a yes");
}
