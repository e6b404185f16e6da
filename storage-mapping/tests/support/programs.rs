//! Real NBD servers on a Unix socket in a folder of the test: nbdkit with its filters, qemu-nbd.

#![allow(dead_code, reason = "each test file uses its part")]

use std::io::{Read, Seek};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use storage_mapping::device::{NbdDevice, NbdServer, NbdSettings};

/// How long a server may take to begin, on a machine with other things to do.
const START_TIME_MAX: Duration = Duration::from_secs(30);

/// Fails instead of skipping where the environment says that nothing may be skipped.
pub(crate) fn skip(test: &str, reason: &str) {
    assert!(std::env::var_os("DISKWIRE_NO_SKIP").is_none_or(|value| value != "1"), "{test}: {reason}");
    println!("SKIPPED {test}: {reason}");
}

/// The program, if this machine has it.
pub(crate) fn find(program: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/bin".into()]);
    let mut places = folders.map(|folder| folder.join(program));
    places.find(|place| place.is_file()).ok_or_else(|| format!("there is no {program} on this machine"))
}

/// A running server; it is killed when dropped.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    server: NbdServer,
}

impl Program {
    /// Starts nbdkit on a socket: filters and their parameters, then the plugin and its own.
    pub(crate) fn nbdkit(socket: &Path, arguments: &[&str]) -> Result<Self, String> {
        let mut command = Command::new(find("nbdkit")?);
        command.args(["--foreground", "--exit-with-parent", "--unix"]).arg(socket).args(arguments);
        Self::start(command, NbdServer::Unix(socket.to_owned()), "")
    }

    /// Starts nbdkit on a free TCP port of this machine.
    pub(crate) fn nbdkit_over_tcp(arguments: &[&str]) -> Result<Self, String> {
        let program = find("nbdkit")?;
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = free.map_err(|error| error.to_string())?.port();
        let mut command = Command::new(program);
        command.args(["--foreground", "--exit-with-parent", "--ipaddr", "127.0.0.1", "--port"]);
        command.arg(port.to_string()).args(arguments);
        Self::start(command, NbdServer::Tcp { host: "127.0.0.1".to_owned(), port }, "")
    }

    /// Starts qemu-nbd over an image, under the name `disk`.
    pub(crate) fn qemu_nbd(socket: &Path, image: &Path) -> Result<Self, String> {
        let mut command = Command::new(find("qemu-nbd")?);
        command.args(["--format=raw", "--persistent", "--shared=8", "--export-name=disk", "--socket"]);
        command.arg(socket).arg(image);
        Self::start(command, NbdServer::Unix(socket.to_owned()), "disk")
    }

    /// Starts it and waits until it takes connections.
    fn start(mut command: Command, server: NbdServer, export: &str) -> Result<Self, String> {
        if let NbdServer::Unix(socket) = &server {
            drop(std::fs::remove_file(socket));
        }
        // What it says about clients that go is no news; where it does not start, it is.
        let mut said = tempfile::tempfile().expect("a scratch file");
        let stderr = said.try_clone().expect("a descriptor");
        let spawned = command.stdin(Stdio::null()).stderr(stderr).spawn();
        let child = spawned.map_err(|error| format!("{command:?}: {error}"))?;
        let mut program = Self { child, server };
        let began = Instant::now();
        loop {
            let failure = match NbdDevice::open(&program.server, export, NbdSettings::default()) {
                Ok(_) => return Ok(program),
                Err(error) => error.to_string(),
            };
            let ended = program.child.try_wait().expect("the child is ours");
            if let Some(status) = ended {
                let mut text = String::new();
                drop(said.rewind().and_then(|()| said.read_to_string(&mut text)));
                panic!("{command:?} ended with {status}: {text}");
            }
            assert!(began.elapsed() < START_TIME_MAX, "{command:?}: {failure}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn server(&self) -> &NbdServer {
        &self.server
    }

    fn id(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("process numbers are small"))
    }

    /// SIGSTOP, and waits until every thread of it stands still: the signal alone is not obeyed at once.
    pub(crate) fn stop(&self) {
        kill(self.id(), Signal::SIGSTOP).expect("the child is ours");
        let stopped = waitpid(self.id(), Some(WaitPidFlag::WUNTRACED)).expect("the child is ours");
        assert!(matches!(stopped, WaitStatus::Stopped(..)), "{stopped:?}");
    }

    /// SIGCONT.
    pub(crate) fn go_on(&self) {
        kill(self.id(), Signal::SIGCONT).expect("the child is ours");
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.end();
    }
}
