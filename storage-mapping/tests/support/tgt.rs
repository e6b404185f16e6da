//! A real iSCSI target: an own `tgtd` with two portals and one unit over a file.
//!
//! Keeps true: ports, the control port and the processes belong to one [`Tgtd`] and end with it. Needs root, for the
//! socket by which `tgtadm` speaks to `tgtd`. Not here: what is asked of it.

#![allow(dead_code, reason = "each test file uses its part")]

use std::fs::File;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, geteuid};

use crate::programs::find;

/// The name of the target; its unit is number 1.
pub(crate) const TARGET: &str = "iqn.2026-11.diskwire:test";
/// How long it may take to begin, on a machine with other things to do.
const START_TIME_MAX: Duration = Duration::from_secs(30);

/// A running target; it is killed when dropped.
#[derive(Debug)]
pub(crate) struct Tgtd {
    child: Child,
    /// What `tgtadm` finds it by.
    control: u32,
    ports: [u16; 2],
}

impl Tgtd {
    /// Starts it over a file, on two free ports of this machine.
    pub(crate) fn start(image: &Path) -> Result<Self, String> {
        let free = || TcpListener::bind("127.0.0.1:0").expect("a free port");
        // Both at once, so that they differ.
        let listeners = [free(), free()];
        let ports = listeners.map(|listener| listener.local_addr().expect("bound").port());
        Self::start_on(ports, image)
    }

    /// Starts it on these ports.
    pub(crate) fn start_on(ports: [u16; 2], image: &Path) -> Result<Self, String> {
        if !geteuid().is_root() {
            return Err("tgtd needs root".to_owned());
        }
        let (tgtd, tgtadm) = (find("tgtd")?, find("tgtadm")?);
        let control = free_control_port();
        let log = tempfile::tempfile().expect("a scratch file");
        let mut command = Command::new(tgtd);
        command.args(["-f", "-C", &control.to_string(), "--iscsi"]);
        command.arg(format!("portal=127.0.0.1:{}", ports[0]));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor")).stderr(log);
        let child = command.spawn().map_err(|error| format!("tgtd: {error}"))?;
        let mut target = Self { child, control, ports };
        let set_up = |arguments: &str| adm(&tgtadm, control, arguments);
        let began = Instant::now();
        while let Err(error) = set_up("--op show --mode system") {
            let ended = target.child.try_wait().expect("the child is ours");
            assert!(ended.is_none(), "tgtd ended: {ended:?}");
            assert!(began.elapsed() < START_TIME_MAX, "tgtd does not begin: {error}");
            std::thread::sleep(Duration::from_millis(5));
        }
        for arguments in [
            format!("--op new --mode portal --param portal=127.0.0.1:{}", ports[1]),
            format!("--op new --mode target --tid 1 -T {TARGET}"),
            format!("--op new --mode logicalunit --tid 1 --lun 1 -b {}", image.display()),
            "--op bind --mode target --tid 1 -I ALL".to_owned(),
        ] {
            set_up(&arguments).unwrap_or_else(|error| panic!("tgtadm {arguments}: {error}"));
        }
        for port in ports {
            TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        }
        Ok(target)
    }

    /// A scratch file of so many bytes in a folder.
    pub(crate) fn image(folder: &Path, name: &str, bytes: u64) -> PathBuf {
        let path = folder.join(name);
        File::create(&path).and_then(|file| file.set_len(bytes)).expect("a scratch file");
        path
    }

    /// Tells it something by `tgtadm`.
    pub(crate) fn tell(&self, arguments: &str) {
        let tgtadm = find("tgtadm").expect("it was there at the start");
        adm(&tgtadm, self.control, arguments).unwrap_or_else(|error| panic!("tgtadm {arguments}: {error}"));
    }

    /// Where its portals listen.
    pub(crate) fn ports(&self) -> [u16; 2] {
        self.ports
    }

    /// The address of its unit over one of the portals.
    pub(crate) fn address(&self, portal: usize) -> String {
        address(self.ports[portal])
    }

    fn id(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("process numbers are small"))
    }

    /// SIGSTOP, and waits until every thread of it stands still.
    pub(crate) fn stop(&self) {
        kill(self.id(), Signal::SIGSTOP).expect("the child is ours");
        let stopped = waitpid(self.id(), Some(WaitPidFlag::WUNTRACED)).expect("the child is ours");
        assert!(matches!(stopped, WaitStatus::Stopped(..)), "{stopped:?}");
    }

    /// SIGCONT.
    pub(crate) fn go_on(&self) {
        kill(self.id(), Signal::SIGCONT).expect("the child is ours");
    }
}

impl Drop for Tgtd {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        control_files(self.control).iter().for_each(|file| drop(std::fs::remove_file(file)));
    }
}

/// By what `tgtadm` reaches a `tgtd`.
fn control_files(control: u32) -> [PathBuf; 2] {
    ["", ".lock"].map(|end| PathBuf::from(format!("/var/run/tgtd/socket.{control}{end}")))
}

/// A number that no `tgtd` on this machine is reached by, nor was: it would be told what is meant for ours.
fn free_control_port() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let next = || 1 + (std::process::id() * 8 + COUNT.fetch_add(1, Ordering::Relaxed)) % 32_000;
    let is_free = |control: &u32| control_files(*control).iter().all(|file| !file.exists());
    std::iter::repeat_with(next).take(32_000).find(is_free).expect("not all of them are taken")
}

/// The address of the unit over a port of this machine: the target's own, or a relay's.
pub(crate) fn address(port: u16) -> String {
    format!("iscsi://127.0.0.1:{port}/{TARGET}/1")
}

fn adm(tgtadm: &Path, control: u32, arguments: &str) -> Result<(), String> {
    let mut command = Command::new(tgtadm);
    command.args(["-C", &control.to_string(), "--lld", "iscsi"]).args(arguments.split(' '));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut said = String::new();
    drop(child.stderr.take().expect("piped").read_to_string(&mut said));
    let status = child.wait().map_err(|error| error.to_string())?;
    if status.success() { Ok(()) } else { Err(said) }
}
