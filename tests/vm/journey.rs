//! What happens to a node in its machine, a step at a time, with the time that each took.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::machine::Machine;

/// From `skiff start`, or from power, to Ready. Emulated Go programs are 10 to 20 times slower
/// than the 10 s aimed at, and the computer is shared.
const READY_BOUND: Duration = Duration::from_secs(1200);
/// One look or one write by kubectl.
const COMMAND_BOUND: Duration = Duration::from_secs(300);
const INSTALL_BOUND: Duration = Duration::from_secs(600);
/// Until every daemon has noticed that the time is another.
const CLOCK_BOUND: Duration = Duration::from_secs(900);
const PAUSE: Duration = Duration::from_secs(5);

/// How many objects are on their way when the plug is pulled, and after how many acknowledgements.
const BURST: usize = 200;
const ACKNOWLEDGED_MIN: usize = 20;
/// Lines of each log that a failed step prints.
const TOLD_LINES: usize = 40;
const BURST_BOUND: Duration = Duration::from_secs(600);

const INSTALL: &str = "\
set -e
mkdir -p /run/build
mount -o ro /dev/vdb /run/build
cp -a /run/build /usr/lib/skiff
rm -rf /usr/lib/skiff/lost+found
ln -s /usr/lib/skiff/bin/skiff /usr/local/bin/skiff
umount /run/build
sync
skiff version";

/// A node's life in one machine. Everything acknowledged to it is remembered out here.
pub struct Journey {
    machine: Machine,
    logs: PathBuf,
    acknowledged: Vec<String>,
    start: Instant,
}

impl Journey {
    pub fn new(machine: Machine, logs: PathBuf) -> Self {
        Self { machine, logs, acknowledged: Vec::new(), start: Instant::now() }
    }

    /// Does one step; a failed one leaves what the machine has to say in the folder for logs.
    #[track_caller]
    pub fn step(&mut self, what: &str, act: impl FnOnce(&mut Self) -> Result<()>) {
        let begun = Instant::now();
        let result = act(self);
        let (took, at) = (begun.elapsed().as_secs_f64(), self.start.elapsed().as_secs());
        match result {
            Ok(()) => println!("vm: {what:<52} {took:7.1} s (at {at} s)"),
            Err(error) => {
                println!("vm: {what:<52} {took:7.1} s FAILED: {error:#}");
                self.keep_logs();
                panic!("{what}: {error:#} (logs: {})", self.logs.display());
            }
        }
    }

    pub fn boot(&mut self) -> Result<()> {
        self.machine.start()
    }

    /// What the whole stage is for: the kernel and the init that users have.
    pub fn check_system(&mut self) -> Result<()> {
        let found = self.must("stat -fc %T /sys/fs/cgroup; cat /proc/1/comm", COMMAND_BOUND)?;
        ensure!(found == "cgroup2fs\nsystemd\n", "not control groups v2 and systemd: {found}");
        Ok(())
    }

    /// From here on the kernel writes nothing by its own clock: a power cut takes whatever nobody
    /// synced, where a minute of idling would save it.
    pub fn write_back_nothing(&mut self) -> Result<()> {
        let set = "echo 0 > /proc/sys/vm/dirty_writeback_centisecs";
        self.must(set, COMMAND_BOUND).map(drop)
    }

    pub fn install(&mut self) -> Result<()> {
        self.must(INSTALL, INSTALL_BOUND).map(drop)
    }

    /// As in the snap, with a setting that comes from there: systemd has to hand it on.
    pub fn start_node(&mut self) -> Result<()> {
        let seconds = READY_BOUND.as_secs();
        let settings = r#"echo '{"network": {"mtu": 1400}}' > /etc/skiff-snap.json"#;
        self.must(settings, COMMAND_BOUND)?;
        let start =
            format!("SKIFF_SNAP_SETTINGS=/etc/skiff-snap.json skiff start --timeout {seconds}");
        self.must(&start, READY_BOUND + COMMAND_BOUND)?;
        self.must("systemctl is-enabled skiffd && systemctl is-active skiffd", COMMAND_BOUND)?;
        let mtu = self.must("skiff get network.mtu", COMMAND_BOUND)?;
        ensure!(mtu.trim() == "1400", "the snap's setting did not arrive: {mtu}");
        Ok(())
    }

    /// Asks again where the node has not begun to start yet.
    pub fn wait_ready(&mut self) -> Result<()> {
        let begun = Instant::now();
        loop {
            let rest = READY_BOUND.saturating_sub(begun.elapsed());
            let ask = format!("skiff status --wait-ready --timeout {}", rest.as_secs().max(1));
            let answer = self.machine.run(&ask, rest + COMMAND_BOUND)?;
            if answer.code == 0 {
                return Ok(());
            }
            ensure!(
                begun.elapsed() < READY_BOUND,
                "not ready ({}): {}",
                answer.code,
                answer.output
            );
            std::thread::sleep(PAUSE);
        }
    }

    /// Creates an object and remembers it.
    pub fn create(&mut self, name: &str) -> Result<()> {
        self.must(
            &format!("skiff kubectl create configmap {name} --from-literal=name={name}"),
            COMMAND_BOUND,
        )?;
        self.acknowledged.push(name.to_owned());
        Ok(())
    }

    /// Everything acknowledged is there, with its contents.
    pub fn check_objects(&mut self) -> Result<()> {
        let template = r#"{range .items[*]}{.metadata.name}={.data.name}{"\n"}{end}"#;
        let ask = format!("skiff kubectl get configmaps --output jsonpath='{template}'");
        let output = self.must(&ask, COMMAND_BOUND)?;
        let found: std::collections::HashSet<&str> = output.lines().collect();
        let lost: Vec<&String> = self
            .acknowledged
            .iter()
            .filter(|name| !found.contains(format!("{name}={name}").as_str()))
            .collect();
        ensure!(lost.is_empty(), "acknowledged and lost: {lost:?}; found: {output}");
        println!("vm:   {} acknowledged objects are there", self.acknowledged.len());
        Ok(())
    }

    pub fn reboot(&mut self) -> Result<()> {
        self.machine.reboot()
    }

    /// Sets the clock, then waits until the kubelet renews its lease at the new time: Ready alone
    /// may be an answer from before.
    pub fn set_clock(&mut self, by: &str) -> Result<()> {
        self.must(&format!("date --set=\"$(date --date='{by}')\""), COMMAND_BOUND)?;
        let ask = "\
            now=$(date +%s)
            skiff kubectl get leases --namespace kube-node-lease \
                --output jsonpath='{.items[0].spec.renewTime}' > /run/renewed || exit
            renewed=$(date --date=\"$(cat /run/renewed)\" +%s)
            echo \"renewed at $renewed, now $now\"
            [ $((renewed - now)) -lt 120 ] && [ $((now - renewed)) -lt 120 ]";
        let begun = Instant::now();
        loop {
            let answer = self.machine.run(ask, COMMAND_BOUND)?;
            if answer.code == 0 {
                return Ok(());
            }
            if begun.elapsed() > CLOCK_BOUND {
                let seconds = CLOCK_BOUND.as_secs();
                bail!("the kubelet renews no lease within {seconds} s: {}", answer.output);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Pulls the plug in the middle of a run of writes. What counts as acknowledged is what had
    /// left the machine by then.
    pub fn cut_power_while_writing(&mut self) -> Result<()> {
        let write = format!(
            "for n in $(seq {BURST}); do printf -- '---\\napiVersion: v1\\nkind: ConfigMap\\n\
             metadata: {{name: burst-%s}}\\ndata: {{name: burst-%s}}\\n' $n $n; done > /run/burst
             setsid skiff kubectl create --filename /run/burst \
                > /dev/virtio-ports/skiff.report 2>/run/burst.errors < /dev/null &"
        );
        self.must(&write, COMMAND_BOUND)?;
        let begun = Instant::now();
        while burst(&self.machine.report()?).len() < ACKNOWLEDGED_MIN {
            ensure!(
                begun.elapsed() < BURST_BOUND,
                "{} writes acknowledged within {} s: {}",
                burst(&self.machine.report()?).len(),
                BURST_BOUND.as_secs(),
                self.must("cat /run/burst.errors", COMMAND_BOUND)?
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        self.machine.cut_power()?;
        let names = burst(&self.machine.report()?);
        println!("vm:   {} of {BURST} writes acknowledged at the cut", names.len());
        self.acknowledged.extend(names);
        Ok(())
    }

    #[track_caller]
    fn must(&mut self, script: &str, bound: Duration) -> Result<String> {
        let answer = self.machine.run(script, bound)?;
        ensure!(answer.code == 0, "`{script}` ends with {}: {}", answer.code, answer.output);
        Ok(answer.output)
    }

    fn keep_logs(&mut self) {
        let pieces = [
            ("status.log", "skiff status; skiff services; ps -eo pid,user,stat,etime,args"),
            ("journal.log", "journalctl --boot --no-pager | tail -n 1000"),
            (
                "ends.log",
                "for log in /var/lib/skiff/log/*.log; do echo \"== $log\"; tail -n 8 $log | cut -c 1-300; done",
            ),
            (
                "daemons.log",
                "for log in /var/lib/skiff/log/*.log; do echo \"== $log\"; tail -n 200 $log; done",
            ),
        ];
        for (name, script) in pieces {
            let text = match self.machine.run(script, COMMAND_BOUND) {
                Ok(answer) => answer.output,
                Err(error) => format!("{error:#}\n"),
            };
            if name != "daemons.log" {
                println!("== {name}, its end\n{}", last_lines(&text, TOLD_LINES));
            }
            let kept = fs::write(self.logs.join(name), text).context(name);
            if let Err(error) = kept {
                eprintln!("cannot keep a log: {error:#}");
            }
        }
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Names in the whole lines of what kubectl said; a line cut short acknowledges nothing.
fn burst(report: &str) -> Vec<String> {
    report
        .split_inclusive('\n')
        .filter_map(|line| line.strip_prefix("configmap/")?.strip_suffix(" created\n"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_line_cut_short_acknowledges_nothing() {
    let report = "configmap/burst-1 created\nconfigmap/burst-2 created\nconfigmap/burst-3 crea";
    assert_eq!(burst(report), ["burst-1", "burst-2"]);
}
