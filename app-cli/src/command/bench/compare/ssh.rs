//! sshd on loopback, with keys of its own, for the programs that go through ssh.
//!
//! Keeps true: nothing of the user's ssh configuration is used or changed. Not here: what goes through it.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::contestant::is_installed;
use super::meter::{Daemon, Meter};
use crate::command::CommandError;

/// sshd wants to be started by its whole path.
const SSHD: &str = "/usr/sbin/sshd";

/// Keys and configuration in a folder.
pub(super) struct Ssh {
    folder: PathBuf,
    port: u16,
}

impl Ssh {
    /// Whether all that is needed is installed.
    pub(super) fn is_there() -> bool {
        Path::new(SSHD).exists() && is_installed("ssh") && is_installed("ssh-keygen")
    }

    /// Makes them.
    pub(super) fn new(folder: PathBuf) -> Result<Self, CommandError> {
        let made = prepare(&folder);
        let port = made.map_err(|source| CommandError::BenchProgram { program: "ssh".to_owned(), source })?;
        Ok(Self { folder, port })
    }

    /// Starts sshd; it listens when this returns.
    pub(super) fn serve(&self, meter: &Meter) -> Result<Daemon, CommandError> {
        let line = [SSHD.into(), "-D".into(), "-e".into(), "-f".into(), self.folder.join("config").into()];
        let daemon = meter.start(&line, false)?;
        daemon.wait_for(&self.folder.join("pid"))?;
        Ok(daemon)
    }

    /// `user@address`.
    pub(super) fn host() -> String {
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid());
        let name = user.ok().flatten().map_or_else(|| "root".to_owned(), |user| user.name);
        format!("{name}@{}", Ipv4Addr::LOCALHOST)
    }

    /// A client's options, that of the port too: scp's differs in its case.
    pub(super) fn options(&self, port_option: &str) -> Vec<OsString> {
        let key = self.folder.join("user");
        let mut options: Vec<OsString> = ["-F", "none", "-i"].map(Into::into).into();
        options.push(key.into());
        options.extend([port_option.into(), self.port.to_string().into()]);
        for option in
            ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "BatchMode=yes"]
        {
            options.extend(["-o".into(), option.into()]);
        }
        options
    }

    /// `ssh` with its options, in a line.
    pub(super) fn shell(&self) -> OsString {
        let mut shell = OsString::from("ssh");
        for option in self.options("-p") {
            shell.push(" ");
            shell.push(option);
        }
        shell
    }
}

/// Makes keys and configuration; the port.
fn prepare(folder: &Path) -> std::io::Result<u16> {
    fs::create_dir(folder)?;
    for key in ["host", "user"] {
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(folder.join(key))
            .stdin(Stdio::null())
            .status()?;
        if !made.success() {
            return Err(std::io::Error::other("ssh-keygen makes no key"));
        }
    }
    // sshd separates its privileges in a folder that only its start script makes; if it is missing, sshd says so.
    let _ = fs::create_dir_all("/run/sshd");
    // Free a moment ago, and most likely so a moment later.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let at = |name: &str| folder.join(name).display().to_string();
    let text = format!(
        "Port {port}\nListenAddress {}\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
         PidFile {}\nLogLevel ERROR\nSubsystem sftp internal-sftp\n",
        Ipv4Addr::LOCALHOST,
        at("host"),
        at("user.pub"),
        at("pid"),
    );
    fs::write(folder.join("config"), text)?;
    Ok(port)
}
