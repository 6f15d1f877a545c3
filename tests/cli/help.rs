//! Help: every verb explains itself, long and short, within 80 columns.

use insta::assert_snapshot;

use crate::place::Place;
use crate::verbs;

#[test]
fn the_command_without_a_verb_shows_its_help_and_fails() {
    let place = Place::new();
    let screen = place.run(&[]);
    screen.assert_fits();
    assert_eq!(screen.code, 2);
    assert_snapshot!("skiff", screen.whole());
    let help = place.run(&["help"]);
    help.assert_fits();
    assert_snapshot!("skiff-help", help.whole());
    assert_eq!(place.run(&["--help"]).stdout, help.stdout);
}

#[test]
fn every_verb_explains_itself_within_80_columns() {
    let place = Place::new();
    for verb in verbs::visible() {
        let words: Vec<&str> = verb.words.iter().map(String::as_str).collect();
        // What follows a pass-through verb is not ours: its help is asked for with the verb help.
        let long = match verb.is_pass_through() {
            true => place.run(&[&["help"], &words[..]].concat()),
            false => place.run(&[&words[..], &["--help"]].concat()),
        };
        long.assert_fits();
        assert_eq!(long.code, 0, "{}", long.whole());
        assert_snapshot!(format!("help-{}", words.join("-")), long.whole());
        if verb.is_pass_through() {
            continue;
        }
        let short = place.run(&[&words[..], &["-h"]].concat());
        short.assert_fits();
        assert_eq!(short.code, 0, "{}", short.whole());
        assert_snapshot!(format!("help-{}-short", words.join("-")), short.whole());
    }
}

/// The first line of a verb's help begins with a verb and fits the list of verbs.
#[test]
fn first_lines_are_short_sentences_without_a_full_stop() {
    for verb in verbs::visible() {
        let about = verb.command.get_about().map(ToString::to_string).unwrap_or_default();
        assert!(about.starts_with(char::is_uppercase), "{}: {about:?}", verb.name());
        assert!(!about.ends_with('.'), "{}: {about:?}", verb.name());
        for argument in verb.command.get_arguments() {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(!help.is_empty(), "{} {}: no help", verb.name(), argument.get_id());
            assert!(!help.ends_with('.'), "{} {}: {help:?}", verb.name(), argument.get_id());
        }
    }
}
