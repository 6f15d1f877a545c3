//! Real processes, control groups and users: needs root, and says so when it is not there.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use skiff_confine::{Keep, Profile, User};
use skiff_supervisor::{
    Backoff, Cgroups, Config, DaemonName, DaemonSpec, DaemonSpecBuilder, Exit, Handle, Probe,
    Snapshot, State, Supervisor,
};

const HELPER: &str = env!("CARGO_BIN_EXE_supervise");
/// No test waits longer for anything: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

macro_rules! need_root {
    () => {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root to make control groups and change users");
            return;
        }
    };
}

/// A node of its own: directories and control group, both gone when it is dropped.
struct Place {
    directory: PathBuf,
    cgroup: String,
}

impl Place {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("skiff-test-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(&name);
        fs::create_dir(&directory).expect("a directory can be made");
        Self { directory, cgroup: format!("/{name}") }
    }

    fn config(&self) -> Config {
        Config {
            launcher: vec![HELPER.into(), "confine".into()],
            records: self.directory.join("run"),
            cgroup: self.cgroup.clone(),
            start: true,
        }
    }

    fn log(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.log"))
    }

    fn spec(&self, name: &str, program: &str, args: &[&str]) -> DaemonSpecBuilder {
        DaemonSpec::builder(name, program, self.log(name))
            .args(args.iter().copied())
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stop_timeout(Duration::from_secs(1))
            .backoff(Backoff {
                initial: Duration::from_millis(50),
                max: Duration::from_millis(200),
                reset_after: Duration::from_secs(60),
                crash_loop_after: 3,
            })
    }

    fn shell(&self, name: &str, script: &str) -> DaemonSpecBuilder {
        self.spec(name, "/bin/sh", &["-c", script])
    }

    async fn start(&self, specs: Vec<DaemonSpec>) -> Handle {
        Supervisor::start(self.config(), specs).await.expect("supervision starts")
    }

    fn daemon_cgroup(&self, name: &str) -> String {
        format!("{}/daemon/{name}", self.cgroup)
    }

    /// Starts the helper that supervises, and reads what it says when all are ready.
    fn supervise(&self, daemons: &[&str]) -> (Child, String) {
        let mut child = Command::new(HELPER)
            .arg("run")
            .arg(&self.directory)
            .args(daemons)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the helper starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped"))
            .read_line(&mut line)
            .expect("it says something");
        (child, line.trim().to_owned())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let cgroups = Cgroups::detect();
        for pid in cgroups.processes(&self.cgroup) {
            kill(pid);
        }
        let end = Instant::now() + Duration::from_secs(5);
        while !cgroups.processes(&self.cgroup).is_empty() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = cgroups.remove(&self.cgroup);
        let _ = fs::remove_dir_all(&self.directory);
    }
}

async fn until(handle: &Handle, what: &str, holds: impl Fn(&Snapshot) -> bool) -> Snapshot {
    let mut changes = handle.subscribe();
    let found = tokio::time::timeout(PATIENCE, changes.wait_for(|snapshot| holds(snapshot))).await;
    match found {
        Ok(Ok(snapshot)) => snapshot.as_ref().clone(),
        Ok(Err(error)) => panic!("waiting for {what}: {error}"),
        Err(_) => panic!("{what} did not come: {:#?}", handle.snapshot()),
    }
}

fn is(snapshot: &Snapshot, name: &str, state: State) -> bool {
    snapshot.get(name).is_some_and(|daemon| daemon.state == state)
}

fn pid(snapshot: &Snapshot, name: &str) -> u32 {
    snapshot.get(name).and_then(|daemon| daemon.pid).expect("it runs")
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| state != 'Z')
}

fn status_field(pid: u32, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a known field");
    line.trim_start_matches(':').split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Once the program runs and no longer what confines it.
async fn executes(pid: u32, program: &str) {
    let end = Instant::now() + PATIENCE;
    while !fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c.trim() == program) {
        assert!(Instant::now() < end, "process {pid} never became {program}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_killed_daemon_is_started_again() {
    need_root!();
    let place = Place::new();
    let handle = place.start(vec![place.spec("a", "/bin/sleep", &["600"]).build()]).await;
    let first = until(&handle, "ready", Snapshot::all_ready).await;
    kill(pid(&first, "a"));
    let second = until(&handle, "a new process", |snapshot| {
        is(snapshot, "a", State::Ready) && pid(snapshot, "a") != pid(&first, "a")
    })
    .await;
    let daemon = second.get("a").expect("there");
    assert_eq!((daemon.restarts, daemon.last_exit), (1, Some(Exit::Signal(9))));
    handle.shutdown().await.expect("it lived");
    assert!(!runs(pid(&second, "a")));
}

#[tokio::test]
async fn a_crash_loop_names_the_reason_and_the_last_lines() {
    need_root!();
    let place = Place::new();
    let daemon = place.shell("a", "echo the disk is on fire; exit 3").build();
    let handle = place.start(vec![daemon]).await;
    let snapshot = until(&handle, "crash loop", |s| is(s, "a", State::CrashLoop)).await;
    let daemon = snapshot.get("a").expect("there");
    let failure = daemon.failure.as_ref().expect("it failed");
    assert!(failure.reason.starts_with("exit code 3 after "), "{}", failure.reason);
    assert!(failure.last_log.iter().any(|line| line == "the disk is on fire"), "{failure:?}");
    assert!(daemon.message.starts_with("failed 3 times, last: exit code 3"), "{}", daemon.message);
    let later = until(&handle, "another retry", |s| s.get("a").is_some_and(|d| d.restarts > 4));
    assert_eq!(later.await.get("a").expect("there").state, State::CrashLoop);
    handle.shutdown().await.expect("it lived");
}

#[tokio::test]
async fn a_missing_program_is_said_in_the_crash_reason() {
    need_root!();
    let place = Place::new();
    let handle = place.start(vec![place.spec("a", "/no/such/program", &[]).build()]).await;
    let snapshot = until(&handle, "a failure", |s| s.get("a").is_some_and(|d| d.failure.is_some()));
    let snapshot = snapshot.await;
    let failure = snapshot.get("a").and_then(|d| d.failure.clone()).expect("it failed");
    assert!(failure.reason.starts_with("exit code 127"), "{}", failure.reason);
    assert_eq!(failure.last_log, ["skiff confine: /no/such/program is not there"]);
    handle.shutdown().await.expect("it lived");
}

#[tokio::test]
async fn daemons_start_when_what_they_need_is_ready() {
    need_root!();
    let place = Place::new();
    let flag = place.directory.join("flag");
    let probed = flag.clone();
    let probe = Probe::custom("the flag", move || {
        let there = probed.exists();
        async move { if there { Ok(()) } else { Err("not raised".into()) } }
    });
    let needed = place.spec("a", "/bin/sleep", &["600"]).readiness(probe).build();
    let needing = place.spec("b", "/bin/sleep", &["600"]).needs("a").build();
    let handle = place.start(vec![needing, needed]).await;
    let complains = |s: &Snapshot| s.waiting_for().is_some_and(|text| text.contains("not raised"));
    let waiting = until(&handle, "waiting", complains).await;
    assert_eq!(waiting.waiting_for().as_deref(), Some("a: waiting for the flag (not raised)"));
    let b = waiting.get("b").expect("there");
    assert_eq!((b.state, b.message.as_str()), (State::Waiting, "waiting for a (starting)"));
    fs::write(flag, "").expect("written");
    until(&handle, "both ready", Snapshot::all_ready).await;
    handle.shutdown().await.expect("it lived");
}

#[tokio::test]
async fn a_daemon_that_ignores_the_signal_is_killed_within_its_bound() {
    need_root!();
    let place = Place::new();
    let handle = place.start(vec![place.spec("a", HELPER, &["stubborn"]).build()]).await;
    let snapshot = until(&handle, "ready", Snapshot::all_ready).await;
    let began = Instant::now();
    let report = handle.stop(&"a".into()).await.expect("it lived");
    let took = began.elapsed();
    assert!(report.stuck.is_empty() && !runs(pid(&snapshot, "a")));
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(5), "{took:?}");
    assert!(is(&handle.snapshot(), "a", State::Stopped));
    handle.shutdown().await.expect("it lived");
}

#[tokio::test]
async fn children_end_with_their_daemon_even_when_they_leave_its_session() {
    need_root!();
    let place = Place::new();
    let script = "setsid sleep 611 & sleep 612 & (sleep 613 &) ; exec sleep 614";
    let handle = place.start(vec![place.shell("a", script).build()]).await;
    until(&handle, "ready", Snapshot::all_ready).await;
    let cgroups = Cgroups::detect();
    let path = place.daemon_cgroup("a");
    let end = Instant::now() + PATIENCE;
    while cgroups.processes(&path).len() < 4 {
        assert!(Instant::now() < end, "four processes: {:?}", cgroups.processes(&path));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let pids = cgroups.processes(&path);
    let measured = handle.measure().await.expect("it lived");
    let usage = measured[0].usage.expect("it runs");
    assert!(usage.processes == 4 && usage.pss_bytes > 0 && usage.cpu_seconds > 0.0, "{usage:?}");
    handle.stop(&"a".into()).await.expect("it lived");
    assert!(pids.iter().all(|pid| !runs(*pid)), "{pids:?}");
    handle.shutdown().await.expect("it lived");
    assert!(cgroups.children(&place.cgroup).is_empty(), "its groups are gone");
}

#[tokio::test]
async fn survivors_outlive_their_daemon() {
    need_root!();
    let place = Place::new();
    let shim = place.directory.join("shim");
    fs::copy("/bin/sleep", &shim).expect("copied");
    let script = format!("{} 600 & exec sleep 601", shim.display());
    let handle = place.start(vec![place.shell("a", &script).survivor("shim").build()]).await;
    let first = until(&handle, "ready", Snapshot::all_ready).await;
    let cgroups = Cgroups::detect();
    let path = place.daemon_cgroup("a");
    let own = pid(&first, "a");
    let others = || cgroups.processes(&path).into_iter().filter(|pid| *pid != own);
    let end = Instant::now() + PATIENCE;
    while others().next().is_none() {
        assert!(Instant::now() < end, "the shim never started");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let survivor = others().next().expect("just seen");
    executes(survivor, "shim").await;
    handle.stop(&"a".into()).await.expect("it lived");
    assert!(runs(survivor) && !runs(own));
    handle.shutdown().await.expect("it lived");
    kill(survivor);
}

#[tokio::test]
async fn an_unprivileged_daemon_has_nothing() {
    need_root!();
    let place = Place::new();
    let profile = Profile {
        capabilities: Keep::none(),
        no_new_privileges: true,
        no_huge_pages: true,
        umask: 0o077,
        ..Profile::default()
    };
    let user = User { uid: 61_234, gid: 61_235, groups: vec![61_236] };
    let spec = place.spec("a", "/bin/sleep", &["600"]).profile(profile).user(user).build();
    let handle = place.start(vec![spec]).await;
    let snapshot = until(&handle, "ready", Snapshot::all_ready).await;
    let pid = pid(&snapshot, "a");
    executes(pid, "sleep").await;
    for field in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status_field(pid, field), "0000000000000000", "{field}");
    }
    assert_eq!(status_field(pid, "NoNewPrivs"), "1");
    assert_eq!(status_field(pid, "THP_enabled"), "0");
    assert_eq!(status_field(pid, "Uid"), "61234 61234 61234 61234");
    assert_eq!(status_field(pid, "Gid"), "61235 61235 61235 61235");
    assert_eq!(status_field(pid, "Groups"), "61236");
    assert_eq!(status_field(pid, "Umask"), "0077");
    let ignored = u64::from_str_radix(&status_field(pid, "SigIgn"), 16).expect("a mask");
    assert_eq!(ignored & (1 << 12), 0, "SIGPIPE is not ignored");
    handle.shutdown().await.expect("it lived");
}

#[tokio::test]
async fn a_root_daemon_keeps_only_what_its_profile_names() {
    need_root!();
    let place = Place::new();
    let profile = Profile::named("kube-node").expect("shipped");
    let mask = profile.capabilities.mask().expect("a list");
    let handle =
        place.start(vec![place.spec("a", "/bin/sleep", &["600"]).profile(profile).build()]).await;
    let snapshot = until(&handle, "ready", Snapshot::all_ready).await;
    let pid = pid(&snapshot, "a");
    executes(pid, "sleep").await;
    for field in ["CapPrm", "CapEff"] {
        let has = u64::from_str_radix(&status_field(pid, field), 16).expect("a mask");
        assert_eq!(has & !mask, 0, "{field} {has:x} is within {mask:x}");
        assert_ne!(has & (1 << 21), 0, "sys_admin is kept");
    }
    handle.shutdown().await.expect("it lived");
}

#[tokio::test]
async fn a_daemon_inherits_three_descriptors_and_a_clean_environment() {
    need_root!();
    let place = Place::new();
    let spec = place.spec("a", "/bin/sleep", &["600"]).env("GREETING", "hello").build();
    let handle = place.start(vec![spec]).await;
    let snapshot = until(&handle, "ready", Snapshot::all_ready).await;
    let pid = pid(&snapshot, "a");
    executes(pid, "sleep").await;
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").flatten();
    let mut targets: Vec<PathBuf> =
        descriptors.map(|entry| fs::read_link(entry.path()).expect("open")).collect();
    targets.sort();
    let log = fs::canonicalize(place.log("a")).expect("there");
    assert_eq!(targets, [Path::new("/dev/null"), &log, &log]);
    let environment = fs::read(format!("/proc/{pid}/environ")).expect("it runs");
    let variables: Vec<&str> = std::str::from_utf8(&environment)
        .expect("plain")
        .split_terminator('\0')
        .map(|variable| variable.split_once('=').expect("a pair").0)
        .collect();
    assert_eq!(variables.len(), 3, "{variables:?}");
    for name in ["GREETING", "PATH", "SKIFF_DAEMON"] {
        assert!(variables.contains(&name), "{variables:?}");
    }
    handle.shutdown().await.expect("it lived");
}

#[tokio::test]
async fn starting_and_stopping_leaks_no_descriptor() {
    need_root!();
    let place = Place::new();
    let handle = place.start(vec![place.spec("a", "/bin/sleep", &["600"]).build()]).await;
    let name = DaemonName::from("a");
    let of_process = || {
        let open = fs::read_dir("/proc/self/fd").expect("there").flatten();
        let link = |entry: fs::DirEntry| fs::read_link(entry.path()).ok();
        let own = place.directory.to_string_lossy().into_owned();
        open.filter_map(link).filter(|target| target.to_string_lossy().contains(&own)).count()
    };
    until(&handle, "ready", Snapshot::all_ready).await;
    let before = of_process();
    for _ in 0..5 {
        handle.stop(&name).await.expect("it lived");
        handle.start(&name).await.expect("it lived");
        until(&handle, "ready", Snapshot::all_ready).await;
    }
    assert_eq!(of_process(), before);
    handle.shutdown().await.expect("it lived");
}

#[tokio::test]
async fn the_next_supervisor_adopts_what_a_killed_one_left() {
    need_root!();
    let place = Place::new();
    let daemons = ["a=/bin/sleep 600", "b=/bin/sleep 600"];
    let (mut first, said) = place.supervise(&daemons);
    first.kill().expect("killed");
    first.wait().expect("reaped");
    let (mut second, says) = place.supervise(&daemons);
    assert_eq!(says, said.replace(":false", ":true"), "same processes, adopted");
    let cgroups = Cgroups::detect();
    assert_eq!(cgroups.processes(&place.cgroup).len(), 2, "and no second ones");
    // An adopted process that ends is started again like any other.
    let a: u32 = says
        .split(['=', ':', ' '])
        .nth(2)
        .and_then(|pid| pid.parse().ok())
        .expect("ready a=<pid>:…");
    kill(a);
    let end = Instant::now() + PATIENCE;
    while cgroups.processes(&place.daemon_cgroup("a")).iter().all(|pid| *pid == a) {
        assert!(Instant::now() < end, "a was not started again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // A supervisor that is told to detach leaves them too.
    let mut input = second.stdin.take().expect("piped");
    writeln!(input, "detach").expect("it reads");
    assert!(second.wait().expect("reaped").success());
    assert_eq!(cgroups.processes(&place.cgroup).len(), 2);
}

#[tokio::test]
async fn a_changed_specification_replaces_what_was_left() {
    need_root!();
    let place = Place::new();
    let (mut first, said) = place.supervise(&["a=/bin/sleep 600", "b=/bin/sleep 600"]);
    first.kill().expect("killed");
    first.wait().expect("reaped");
    // `a` is another command, `b` is no longer configured.
    let (mut second, says) = place.supervise(&["a=/bin/sleep 601"]);
    assert!(says.starts_with("ready a=") && says.ends_with(":false"), "{says}");
    let first_pid = said.split(['=', ':']).nth(1).expect("a pid");
    assert!(!says.contains(&format!("={first_pid}:")), "{said} then {says}");
    assert_eq!(Cgroups::detect().processes(&place.cgroup).len(), 1, "nothing else is left");
    second.kill().expect("killed");
    second.wait().expect("reaped");
}

#[tokio::test]
async fn what_has_no_record_is_no_orphan() {
    need_root!();
    let place = Place::new();
    let (mut first, _) = place.supervise(&["a=/bin/sleep 600"]);
    first.kill().expect("killed");
    first.wait().expect("reaped");
    let cgroups = Cgroups::detect();
    let before = cgroups.processes(&place.cgroup);
    // As if it had been killed between the start and the record.
    fs::remove_file(place.directory.join("run/a.json")).expect("there");
    let handle = place.start(vec![place.spec("a", "/bin/sleep", &["600"]).build()]).await;
    let snapshot = until(&handle, "ready", Snapshot::all_ready).await;
    assert_eq!(cgroups.processes(&place.cgroup), [pid(&snapshot, "a")]);
    assert!(before.iter().all(|pid| !runs(*pid)), "{before:?}");
    handle.shutdown().await.expect("it lived");
}

#[tokio::test]
async fn a_reconfiguration_touches_only_what_changed() {
    need_root!();
    let place = Place::new();
    let a = place.spec("a", "/bin/sleep", &["600"]);
    let b = place.spec("b", "/bin/sleep", &["600"]).needs("a");
    let handle = place.start(vec![a.clone().build(), b.clone().build()]).await;
    let before = until(&handle, "ready", Snapshot::all_ready).await;
    let changed = vec![a.build(), b.input("config", "new").build()];
    handle.reconfigure(changed).await.expect("it lived");
    let after =
        until(&handle, "ready again", |s| s.all_ready() && pid(s, "b") != pid(&before, "b")).await;
    assert_eq!(pid(&before, "a"), pid(&after, "a"));
    assert_eq!(after.get("b").expect("there").restarts, 0, "a replacement is no failure");
    handle.shutdown().await.expect("it lived");
}
