//! Wrong usage: exit code 2, what was wrong, and what is right.

use insta::assert_snapshot;

use crate::place::Place;
use crate::verbs;

#[test]
fn wrong_usage_is_named_and_exits_with_2() {
    let place = Place::new();
    let lines = [
        "statu",
        "frobnicate",
        "status --frobnicate",
        "status --output xml",
        "services --output",
        "start --timeout soon",
        "start --no-wait --timeout 5",
        "status --timeout 5",
        "logs --since yesterday",
        "logs --lines many",
        "enable",
        "enable dns --set forwarders",
        "disable",
        "addons show",
        "addons --output json list",
        "services restart",
        "kubeconfig",
        "kubeconfig --user ann --ttl soon",
        "kubeconfig --user ann --server 10.0.0.1",
        "kubeconfig --user ann --file a",
        "completion tcsh",
        "get a b",
    ];
    for line in lines {
        let screen = place.run(&line.split(' ').collect::<Vec<_>>());
        screen.assert_fits();
        assert_eq!(screen.code, 2, "{}", screen.whole());
        assert!(screen.stdout.is_empty(), "{}", screen.whole());
        assert_snapshot!(format!("usage-{}", line.replace([' ', '='], "-")), screen.whole());
    }
}

#[test]
fn a_name_that_cannot_be_one_is_said_to_be_none() {
    let place = Place::new();
    crate::stand_in::StandIn::new().listen(&place);
    let screen = place.run(&["enable", "d n s"]);
    assert_eq!(screen.code, 1, "{}", screen.whole());
    assert_snapshot!("no-name", screen.whole());
}

#[test]
fn every_verb_refuses_an_option_that_it_does_not_know() {
    let place = Place::new();
    for verb in verbs::visible().iter().filter(|verb| !verb.is_pass_through()) {
        let mut line = verb.shortest();
        line.push("--no-such-option".into());
        let screen = place.run(&line.iter().map(String::as_str).collect::<Vec<_>>());
        screen.assert_fits();
        assert_eq!(screen.code, 2, "{}", screen.whole());
        assert!(screen.stderr.contains("'--no-such-option'"), "{}", screen.whole());
    }
}

#[test]
fn every_verb_that_prints_data_refuses_a_form_that_it_does_not_know() {
    let place = Place::new();
    let verbs: Vec<_> = verbs::visible().into_iter().filter(verbs::Verb::has_output).collect();
    assert!(verbs.len() >= 5, "{verbs:?}");
    for verb in verbs {
        let line = [verb.shortest(), vec!["--output".into(), "xml".into()]].concat();
        let screen = place.run(&line.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(screen.code, 2, "{}", screen.whole());
        assert!(screen.stderr.contains("text, json, yaml"), "{}", screen.whole());
    }
}
