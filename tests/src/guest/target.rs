//! An iSCSI target of this machine: `tgtd` with two portals and one disk.
//!
//! Keeps true: its files, its socket and its ports are its own; it is killed when dropped. Not here: who speaks to it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use tempfile::TempDir;

use crate::real_paths::find_program;

/// What all names of the tests begin with.
pub const AUTHORITY: &str = "iqn.2026-01.net.diskwire";
/// Portals of a target.
const PORTALS: usize = 2;
/// How long it may take to listen.
const START_TIME_MAX: Duration = Duration::from_secs(30);

/// A running target; logical unit 1 is its disk.
#[derive(Debug)]
pub struct Target {
    child: Child,
    ports: [u16; PORTALS],
    scratch: TempDir,
    administration: PathBuf,
}

impl Target {
    /// Why this machine has none, if it has none.
    #[must_use]
    pub fn missing_program() -> Option<String> {
        ["tgtd", "tgtadm"].into_iter().find_map(|program| find_program(program).err())
    }

    /// Starts one with an empty disk.
    ///
    /// # Errors
    /// Where a program is missing or says no.
    pub fn start(size_bytes: u64) -> io::Result<Self> {
        let scratch = tempfile::tempdir()?;
        let image = scratch.path().join("disk");
        fs::File::create(&image)?.set_len(size_bytes)?;
        let [daemon, administration] =
            ["tgtd", "tgtadm"].map(|name| find_program(name).map_err(io::Error::other));
        let ports = free_ports()?;
        let portals = ports.map(|port| format!("portal=127.0.0.1:{port}")).join(",");
        let log = fs::File::create(scratch.path().join("log"))?;
        let mut command = Command::new(daemon?);
        command.args(["--foreground", "--control-port", "1", "--iscsi", &portals]);
        let child =
            command.env("TGT_IPC_SOCKET", socket(&scratch)).stdin(Stdio::null()).stdout(log.try_clone()?);
        let child = child.stderr(log).spawn()?;
        let mut target = Self { child, ports, scratch, administration: administration? };
        target.wait_until_it_listens()?;
        let name = target.name();
        target.administer("target", "new", &["--targetname", &name])?;
        let image = image.display().to_string();
        target.administer("logicalunit", "new", &["--lun", "1", "--backing-store", &image])?;
        target.administer("target", "bind", &["--initiator-address", "ALL"])?;
        Ok(target)
    }

    /// Where the disk is, over a portal.
    ///
    /// # Panics
    /// If there is no such portal.
    #[must_use]
    pub fn url(&self, portal: usize) -> String {
        format!("iscsi://127.0.0.1:{}/{}/1", self.ports[portal], self.name())
    }

    fn name(&self) -> String {
        format!("{AUTHORITY}:target{}", self.ports[0])
    }

    fn administer(&self, mode: &str, operation: &str, more: &[&str]) -> io::Result<()> {
        let mut command = Command::new(&self.administration);
        command.args([
            "--control-port",
            "1",
            "--lld",
            "iscsi",
            "--mode",
            mode,
            "--op",
            operation,
            "--tid",
            "1",
        ]);
        let output = command.args(more).env("TGT_IPC_SOCKET", socket(&self.scratch)).output()?;
        let said = || format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        if output.status.success() { Ok(()) } else { Err(io::Error::other(said())) }
    }

    fn wait_until_it_listens(&mut self) -> io::Result<()> {
        let began = Instant::now();
        loop {
            // It answers as soon as it can be told things; the target that is asked for is not there yet.
            let failure = match self.administer("sys", "show", &[]) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if let Some(status) = self.child.try_wait()? {
                let log = fs::read_to_string(self.scratch.path().join("log")).unwrap_or_default();
                return Err(io::Error::other(format!("tgtd ended with {status}: {log}")));
            }
            if began.elapsed() > START_TIME_MAX {
                return Err(failure);
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn socket(scratch: &TempDir) -> PathBuf {
    Path::join(scratch.path(), "control")
}

/// Ports that nobody has at the moment.
fn free_ports() -> io::Result<[u16; PORTALS]> {
    let listeners = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    let mut ports = [0; PORTALS];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}
