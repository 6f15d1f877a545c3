//! Completion scripts are scripts of their shell.

use std::process::{Command, Stdio};

use serde_json::json;

use crate::place::{Place, program};
use crate::stand_in::StandIn;

#[test]
fn completion_scripts_pass_the_syntax_check_of_their_shell() {
    let place = Place::new();
    // fish reads from a file, as bash and zsh do.
    for (shell, check) in [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")] {
        let screen = place.run(&["completion", shell]);
        assert_eq!(screen.code, 0, "{}", screen.whole());
        for word in ["kubeconfig", "services", "wait-ready"] {
            assert!(screen.stdout.contains(word), "{shell} does not complete {word}");
        }
        let file = place.path(&format!("home/script.{shell}"));
        std::fs::write(&file, &screen.stdout).expect("the script is written");
        let Some(program) = program(shell) else {
            println!("skipped: {shell} is not installed, its script is not checked");
            continue;
        };
        let output = Command::new(program)
            .arg(check)
            .arg(&file)
            .stdin(Stdio::null())
            .output()
            .expect("the shell runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && said.is_empty(), "{shell}: {said}");
    }
}

/// What a person sees after `skiff s<Tab>`: bash itself runs the script.
#[test]
fn bash_completes_verbs_and_services() {
    let Some(bash) = program("bash") else {
        println!("skipped: bash is not installed");
        return;
    };
    let place = Place::new();
    let script = place.path("home/script.bash");
    std::fs::write(&script, place.run(&["completion", "bash"]).stdout).expect("it is written");
    let complete = |words: &[&str]| {
        let last = words.len();
        let words = words.join(" ");
        // The words go in as bash hands them over: the index of the last one, and all of them.
        let line = format!(
            "source {}; COMP_WORDS=(skiff {words}); COMP_CWORD={last}; \
             _skiff skiff \"${{COMP_WORDS[{last}]}}\" \"\"; echo ${{COMPREPLY[*]}}",
            script.display()
        );
        let output = Command::new(&bash).args(["-c", &line]).output().expect("bash runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
    };
    assert_eq!(complete(&["sta"]), "start status");
    assert_eq!(complete(&["restart", "kube"]), "kube-control kube-node");
    assert_eq!(complete(&["logs", "ski"]), "skiffd");
    assert!(!complete(&[""]).contains("credential"), "hidden verbs are offered");
}

#[test]
fn help_shows_how_to_install_each_script() {
    let screen = Place::new().run(&["completion", "--help"]);
    for shell in ["bash", "zsh", "fish"] {
        let line = format!("skiff completion {shell} ");
        assert!(screen.stdout.contains(&line), "{}", screen.whole());
    }
}

/// Nodes come and go: they are asked for when somebody completes, not when the script is made.
#[test]
fn bash_completes_the_nodes_that_there_are() {
    let Some(bash) = program("bash") else {
        println!("skipped: bash is not installed");
        return;
    };
    let place = Place::new();
    let script = place.path("home/script.bash");
    std::fs::write(&script, place.run(&["completion", "bash"]).stdout).expect("it is written");
    let complete = |verb: &str, word: &str| {
        let line = format!(
            "source {}; COMP_WORDS=(skiff {verb} {word}); COMP_CWORD=2; \
             _skiff skiff \"${{COMP_WORDS[2]}}\" \"\"; echo ${{COMPREPLY[*]}}",
            script.display()
        );
        let mut command = Command::new(&bash);
        command.args(["-c", &line]);
        let mut command = place.harmless(command);
        command.env("PATH", format!("{}:/usr/bin:/bin", place.path("bin").display()));
        let output = command.output().expect("bash runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
    };
    // A node that is stopped knows of nobody, and nothing is said into the line that is typed.
    assert_eq!(complete("drain", "be"), "");
    let node = |name: &str| {
        json!({
            "name": name, "role": "worker", "state": "ready", "addresses": [],
            "version": "0.1.0", "kubernetes": "1.36.3",
        })
    };
    let nodes = [node("alpha"), node("beta-1"), node("beta-2")];
    StandIn::new().json("GET /v1/cluster/nodes", &nodes).listen(&place);
    for verb in ["cordon", "uncordon", "drain", "remove-node"] {
        assert_eq!(complete(verb, "be"), "beta-1 beta-2", "{verb}");
    }
    assert_eq!(place.run(&["nodes", "--names"]).stdout, "alpha\nbeta-1\nbeta-2\n");
}
