//! Completion scripts, with the words that are known when they are made. Names of nodes come and
//! go: the script asks for them when somebody completes.

use clap::Command;
use clap::builder::PossibleValuesParser;
use clap_complete::Shell;

/// Services that have a log and can be acted on.
const SERVICES: [&str; 6] =
    ["datastore", "kine", "containerd", "agent", "kube-control", "kube-node"];

/// Verbs whose argument is a node.
const OF_NODES: [&str; 4] = ["cordon", "uncordon", "drain", "remove-node"];
/// Stands in a script where names of nodes belong, and what takes its place: bash and zsh look at
/// these words when they are needed.
const NODES: &str = "SKIFF_NODES";
const ASK_FOR_NODES: &str = "$(skiff nodes --names 2>/dev/null)";

/// The script for one shell. `addons` are the names that can be enabled.
pub fn script(shell: Shell, addons: &[String]) -> String {
    let services = || PossibleValuesParser::new(SERVICES);
    let mut command = offered(&super::command())
        .mut_subcommand("logs", |verb| {
            let names = [&["skiffd"], &SERVICES[..]].concat();
            verb.mut_arg("services", |arg| arg.value_parser(PossibleValuesParser::new(names)))
        })
        .mut_subcommand("restart", |verb| {
            verb.mut_arg("services", |arg| arg.value_parser(services()))
        });
    for verb in OF_NODES {
        let node = PossibleValuesParser::new([NODES]);
        command =
            command.mut_subcommand(verb, |verb| verb.mut_arg("node", |arg| arg.value_parser(node)));
    }
    if !addons.is_empty() {
        let names = || PossibleValuesParser::new(addons.iter().map(|name| fixed(name)));
        let named = |verb: Command, argument: &'static str| {
            verb.mut_arg(argument, |arg| arg.value_parser(names()))
        };
        for verb in ["enable", "disable"] {
            command = command.mut_subcommand(verb, |verb| named(verb, "names"));
        }
        command = command.mut_subcommand("addons", |addons| {
            addons
                .mut_subcommand("show", |verb| named(verb, "name"))
                .mut_subcommand("diff", |verb| named(verb, "names"))
                .mut_subcommand("upgrade", |verb| named(verb, "names"))
        });
    }
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "skiff", &mut script);
    String::from_utf8_lossy(&script).replace(NODES, ASK_FOR_NODES)
}

/// The command without the verbs that only programs use: the generators do not leave them out.
fn offered(whole: &Command) -> Command {
    let verbs = whole.get_subcommands().filter(|verb| !verb.is_hide_set());
    Command::new("skiff")
        .version(env!("CARGO_PKG_VERSION"))
        .args(whole.get_arguments())
        .subcommands(verbs)
}

/// clap wants words that live as long as the process; the process ends with the script.
fn fixed(word: &str) -> &'static str {
    String::from(word).leak()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_know_verbs_services_and_addons() {
        // The generator for fish knows verbs and options, but no values of arguments.
        let all = ["kubeconfig", "kube-control", "dns"].as_slice();
        for (shell, words) in [(Shell::Bash, all), (Shell::Zsh, all), (Shell::Fish, &all[..1])] {
            let script = script(shell, &["dns".to_owned()]);
            for word in words {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }
}
