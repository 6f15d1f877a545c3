//! Every verb, read from the definition of the command: a new one is covered by itself.

use clap::{Arg, Command};

/// A verb, or a verb below a verb (`services restart`).
#[derive(Debug)]
pub struct Verb {
    pub words: Vec<String>,
    pub command: Command,
}

/// Verbs after which everything belongs to another program, help options included.
pub const PASS_THROUGH: [&str; 2] = ["kubectl", "ctr"];

/// The verbs that help lists, in its order.
pub fn visible() -> Vec<Verb> {
    let mut command = skiff::cli::command();
    command.build();
    let mut found = Vec::new();
    descend(&command, &[], &mut found);
    found
}

fn descend(command: &Command, words: &[String], found: &mut Vec<Verb>) {
    let below = command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help");
    for verb in below {
        let mut words = words.to_vec();
        words.push(verb.get_name().to_owned());
        found.push(Verb { words: words.clone(), command: verb.clone() });
        descend(verb, &words, found);
    }
}

impl Verb {
    pub fn name(&self) -> String {
        self.words.join(" ")
    }

    pub fn is_pass_through(&self) -> bool {
        PASS_THROUGH.contains(&&*self.words[0])
    }

    /// Whether it prints data in a form that the user chooses.
    pub fn has_output(&self) -> bool {
        self.command.get_arguments().any(|argument| argument.get_id() == "format")
    }

    /// The shortest command line that is right.
    pub fn shortest(&self) -> Vec<String> {
        let mut line = self.words.clone();
        for argument in self.command.get_arguments().filter(|a| a.is_required_set()) {
            if let Some(long) = argument.get_long() {
                line.push(format!("--{long}"));
            }
            if argument.get_action().takes_values() {
                line.push(sample(argument));
            }
        }
        line
    }
}

fn sample(argument: &Arg) -> String {
    let words = argument.get_possible_values();
    words.first().map_or_else(|| "sample".to_owned(), |word| word.get_name().to_owned())
}
