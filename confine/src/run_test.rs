//! What is asked of the kernel, as whole lists.

use std::path::PathBuf;

use nix::libc;

use crate::{
    Call, Capability, Command, ConfineError, Keep, Limits, Profile, Recording, Resource, User, run,
};

fn command() -> Command {
    Command { program: "/bin/daemon".into(), arguments: vec!["--quick".into()] }
}

fn unprivileged() -> Profile {
    Profile {
        user: Some(User { uid: 70, gid: 71, groups: vec![72] }),
        capabilities: Keep::none(),
        no_new_privileges: true,
        umask: 0o077,
        limits: Limits { open_files: Some(512), ..Limits::default() },
        oom_score_adj: Some(-900),
        timer_slack_ms: Some(20),
        no_huge_pages: true,
        environment: vec![("A".into(), "b".into())],
        cgroups: vec!["/cgroup/pids/skiff/cgroup.procs".into()],
        ..Profile::default()
    }
}

fn calls(recording: &Recording, profile: &Profile) -> (Vec<Call>, ConfineError, Vec<String>) {
    let mut notes = Vec::new();
    let error = run(recording, profile, &command(), &mut |note| notes.push(note));
    (recording.calls(), error, notes)
}

#[test]
fn an_unprivileged_daemon_loses_everything_before_it_runs() {
    let (calls, _, notes) = calls(&Recording::new(), &unprivileged());
    assert_eq!(
        calls,
        [
            Call::CloseFrom(3),
            Call::NewSession,
            Call::JoinCgroup("/cgroup/pids/skiff/cgroup.procs".into()),
            Call::SetLimit(Resource::OpenFiles, 512, 512),
            Call::SetOomScoreAdj(-900),
            Call::SetTimerSlack(20_000_000),
            Call::DisableHugePages,
            Call::SetUmask(0o077),
            Call::ChangeDirectory("/".into()),
            Call::DropBounding(0),
            Call::DropBounding(1),
            Call::DropBounding(2),
            Call::DropBounding(3),
            Call::SetGroups(vec![72]),
            Call::SetGroup(71),
            Call::SetUser(70),
            Call::ClearAmbient,
            Call::SetCapabilities(0),
            Call::SetNoNewPrivileges,
            Call::Execute(
                "/bin/daemon".into(),
                vec!["--quick".into()],
                vec![("A".into(), "b".into())]
            ),
        ]
    );
    assert_eq!(notes, Vec::<String>::new());
}

#[test]
fn a_kept_capability_survives_the_change_of_user() {
    let fowner = Capability::named("dac_read_search").expect("known");
    let profile = Profile {
        user: Some(User { uid: 70, gid: 71, groups: vec![] }),
        capabilities: Keep::Only([(fowner, "reads".to_owned())].into()),
        ..Profile::default()
    };
    let (calls, ..) = calls(&Recording::new(), &profile);
    assert_eq!(
        calls[4..calls.len() - 1],
        [
            Call::DropBounding(0),
            Call::DropBounding(1),
            Call::DropBounding(3),
            Call::SetKeepCapabilities(true),
            Call::SetGroups(vec![]),
            Call::SetGroup(71),
            Call::SetUser(70),
            Call::ClearAmbient,
            Call::SetCapabilities(0b100),
            Call::RaiseAmbient(2),
        ]
    );
}

#[test]
fn what_is_not_there_cannot_be_kept_and_is_noted() {
    let named = |name| Capability::named(name).expect("known");
    let kept = [(named("chown"), String::new()), (named("fowner"), String::new())].into();
    let profile = Profile { capabilities: Keep::Only(kept), ..Profile::default() };
    let (calls, _, notes) = calls(&Recording::new().lacking(0b1000), &profile);
    assert!(calls.contains(&Call::SetCapabilities(0b0001)), "{calls:?}");
    assert_eq!(notes, ["capability fowner is not there to be kept"]);
}

#[test]
fn the_default_profile_takes_nothing_away() {
    let (calls, ..) = calls(&Recording::new(), &Profile::default());
    assert_eq!(
        calls,
        [
            Call::CloseFrom(3),
            Call::NewSession,
            Call::SetUmask(0o027),
            Call::ChangeDirectory("/".into()),
            Call::Execute("/bin/daemon".into(), vec!["--quick".into()], vec![]),
        ]
    );
}

#[test]
fn a_step_that_fails_ends_the_run_before_the_program_is_executed() {
    for call in [Call::SetUser(70), Call::DropBounding(2), Call::SetNoNewPrivileges] {
        let recording = Recording::new().failing(call.clone(), libc::EPERM);
        let (calls, error, _) = calls(&recording, &unprivileged());
        assert_eq!(calls.last(), Some(&call));
        assert_eq!(error.exit_code(), 70, "{error}");
    }
}

#[test]
fn limits_and_oom_scores_go_as_far_as_they_may() {
    let mut profile = unprivileged();
    profile.limits.open_files = Some(1 << 20);
    let recording = Recording::new()
        .failing(Call::SetLimit(Resource::OpenFiles, 1 << 20, 1 << 20), libc::EPERM)
        .failing(Call::SetOomScoreAdj(-900), libc::EACCES)
        .failing(Call::SetTimerSlack(20_000_000), libc::EINVAL);
    let (calls, _, notes) = calls(&recording, &profile);
    assert!(calls.contains(&Call::SetLimit(Resource::OpenFiles, 4096, 4096)));
    assert!(matches!(calls.last(), Some(Call::Execute(..))));
    assert_eq!(
        notes,
        [
            "limit open_files is 4096, not 1048576: the hard limit may not be raised",
            "the OOM score stays as it is, not -900: Permission denied (os error 13)",
            "timers stay precise, not 20 ms late: Invalid argument (os error 22)",
        ]
    );
}

#[test]
fn a_missing_program_is_127_and_one_that_may_not_run_126() {
    for (error, code) in [(libc::ENOENT, 127), (libc::EACCES, 126), (libc::ENOEXEC, 126)] {
        let recording = Recording::new().execute_fails(error);
        let (_, error, _) = calls(&recording, &Profile::default());
        assert_eq!(error.exit_code(), code, "{error}");
    }
}

#[test]
fn arguments_name_a_profile_and_an_absolute_program() {
    use crate::Arguments;
    let parse = |words: &[&str]| Arguments::parse(words.iter().map(Into::into));
    let parsed = parse(&["--profile", "{}", "--", "/bin/x", "-a"]).expect("well formed");
    assert_eq!(parsed.profile, Profile::default());
    assert_eq!(parsed.command.program, PathBuf::from("/bin/x"));
    assert!(matches!(
        parse(&["--profile", "{}", "--", "x"]),
        Err(ConfineError::RelativeProgram(_))
    ));
    assert!(matches!(parse(&["--profile", "{", "--", "/x"]), Err(ConfineError::Profile(_))));
    assert!(matches!(parse(&["--profile", "{}", "/x"]), Err(ConfineError::Usage(_))));
    assert!(matches!(parse(&[]), Err(ConfineError::Usage(_))));
}
