//! A computer of its own, emulated: its kernel, its disk, its clock, and its plug to pull.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::build;
use crate::channel::{Answer, Channel};
use crate::image::Image;

const PROCESSORS: &str = "2";
const MEMORY: &str = "3G";
/// From power to the agent's first answer; half a minute when the computer does nothing else.
const BOOT_BOUND: Duration = Duration::from_secs(600);
/// How long qemu may take to make its socket.
const SOCKET_BOUND: Duration = Duration::from_secs(30);
/// systemd gives a service 90 s by default, skiffd's unit more.
const SHUTDOWN_BOUND: Duration = Duration::from_secs(600);
const PAUSE: Duration = Duration::from_millis(100);

/// Code at the same addresses in every process is translated once; with addresses by chance it is
/// translated for every process, which makes the machine several times slower.
const FIXED: &str = "norandmaps nokaslr";

/// What differs between the processors that a machine can be made for.
struct Board {
    emulator: &'static str,
    machine: &'static str,
    console: &'static str,
}

/// The programs that a machine is made and run with: none is there by chance.
pub const PROGRAMS: &[&str] =
    &["debootstrap", "unshare", "mke2fs", "qemu-img", "setpriv", board().emulator];

const fn board() -> Board {
    if cfg!(target_arch = "aarch64") {
        Board { emulator: "qemu-system-aarch64", machine: "virt", console: "ttyAMA0" }
    } else {
        Board { emulator: "qemu-system-x86_64", machine: "q35", console: "ttyS0" }
    }
}

/// One machine: a fresh disk over the image, the build on a second one, no way out.
///
/// Dropping it pulls the plug and removes its disk.
#[derive(Debug)]
pub struct Machine {
    image: Image,
    build: PathBuf,
    folder: TempDir,
    logs: PathBuf,
    running: Option<(Child, Channel)>,
}

impl Machine {
    /// A machine that is off, with the build under test on its second disk. `logs` receives what
    /// its kernel says.
    pub fn new(image: Image, logs: PathBuf) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("sk-vm-").tempdir_in("/var/tmp")?;
        let made = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
            .arg(&image.disk)
            .arg(folder.path().join("disk.qcow2"))
            .status()
            .context("cannot run qemu-img")?;
        ensure!(made.success(), "qemu-img failed ({made})");
        let build = build::disk(folder.path())?;
        Ok(Self { image, build, folder, logs, running: None })
    }

    /// Power on, until the machine answers.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.running.is_none(), "the machine is on");
        let socket = self.folder.path().join("agent");
        let _ = fs::remove_file(&socket);
        let mut child = self.command().spawn().context("cannot start the emulator")?;
        let start = Instant::now();
        let channel = loop {
            if let Some(status) = child.try_wait()? {
                bail!("the emulator ended at once ({status})");
            }
            match Channel::open(&socket) {
                Ok(channel) => break channel,
                Err(error) if start.elapsed() > SOCKET_BOUND => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(error);
                }
                Err(_) => std::thread::sleep(PAUSE),
            }
        };
        let (_, channel) = self.running.insert((child, channel));
        channel.hello("true", BOOT_BOUND)?;
        Ok(())
    }

    /// Runs a piece of shell; its exit is for the caller to judge.
    pub fn run(&mut self, script: &str, bound: Duration) -> Result<Answer> {
        let (_, channel) = self.running.as_mut().context("the machine is off")?;
        channel.run(script, bound)
    }

    /// Starts the system anew, as a user would, until the machine answers again.
    ///
    /// The emulator ends with the system and another takes its place: one that goes on keeps its
    /// translations of the old system's code, and the new one crawls over them for an hour.
    pub fn reboot(&mut self) -> Result<()> {
        let (mut child, mut channel) = self.running.take().context("the machine is off")?;
        channel.send("systemctl --no-block reboot")?;
        let start = Instant::now();
        while child.try_wait()?.is_none() {
            if start.elapsed() > SHUTDOWN_BOUND {
                self.running = Some((child, channel));
                bail!("the machine did not go down within {} s", SHUTDOWN_BOUND.as_secs());
            }
            std::thread::sleep(PAUSE);
        }
        self.start()
    }

    /// The plug: no signal that anything inside could see, nothing written that was not.
    pub fn cut_power(&mut self) -> Result<()> {
        let (mut child, _) = self.running.take().context("the machine is off")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// What was written to `/dev/virtio-ports/skiff.report`: it has left the machine, so a power
    /// cut cannot take it back.
    pub fn report(&self) -> Result<String> {
        Ok(fs::read_to_string(self.report_file())?)
    }

    fn report_file(&self) -> PathBuf {
        self.folder.path().join("report")
    }

    fn command(&self) -> Command {
        let board = board();
        let folder = self.folder.path();
        let file = |what: &str, path: &Path| format!("{what}{}", path.display());
        // Ends with the thread that started it: no machine outlives its test.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", board.emulator]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none"]);
        command.args(["-machine", board.machine, "-accel", "tcg,thread=multi", "-cpu", "max"]);
        command.args(["-smp", PROCESSORS, "-m", MEMORY]);
        command.arg("-kernel").arg(&self.image.kernel).arg("-initrd").arg(&self.image.initrd);
        let console = board.console;
        command.arg("-append").arg(format!(
            "root=/dev/vda rw console={console} loglevel=5 panic=-1 mitigations=off {FIXED} \
             systemd.show_status=no"
        ));
        // A reboot, or a panic, ends the emulator.
        command.arg("-no-reboot");
        // A write is acknowledged to the guest's flush only when it is on this computer's disk.
        let disk = "if=virtio,format=qcow2,cache=writeback,discard=unmap,file=";
        command.arg("-drive").arg(file(disk, &folder.join("disk.qcow2")));
        let build = "if=virtio,format=raw,readonly=on,file=";
        command.arg("-drive").arg(file(build, &self.build));
        command.args(["-device", "virtio-rng-pci"]);
        // A switch that nobody else is plugged into.
        command.args(["-netdev", "hubport,id=uplink,hubid=0"]);
        command.args(["-device", "virtio-net-pci,netdev=uplink,romfile="]);
        command.args(["-device", "virtio-serial-pci"]);
        let agent = "socket,id=agent,server=on,wait=off,path=";
        command.arg("-chardev").arg(file(agent, &folder.join("agent")));
        command.args(["-device", "virtserialport,chardev=agent,name=skiff.agent"]);
        command.arg("-chardev").arg(file("file,id=report,append=on,path=", &self.report_file()));
        command.args(["-device", "virtserialport,chardev=report,name=skiff.report"]);
        let log = self.logs.join("console.log");
        command.arg("-chardev").arg(file("file,id=console,append=on,path=", &log));
        command.args(["-serial", "chardev:console"]);
        command.stdin(Stdio::null());
        command
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.running.is_some() {
            let _ = self.cut_power();
        }
    }
}
