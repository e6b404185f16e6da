//! Who copies, and what each needs to do so.
//!
//! Not here: how a copy is timed (`arena`).

use std::fmt;
use std::process::{Command, Stdio};

use super::ssh::Ssh;

/// Who copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contestant {
    /// This program.
    Diskwire,
    /// nbdcopy into an nbdkit that has the target.
    Nbdcopy,
    /// rsync as people use it.
    RsyncArchive,
    /// The same, with an fsync of every file.
    RsyncFsync,
    /// rsync that compares nothing and keeps nothing.
    RsyncWhole,
    /// scp.
    Scp,
    /// tar through ssh into tar.
    Tar,
}

impl fmt::Display for Contestant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Diskwire => "diskwire",
            Self::Nbdcopy => "nbdcopy",
            Self::RsyncArchive => "rsync -a",
            Self::RsyncFsync => "rsync -a --fsync",
            Self::RsyncWhole => "rsync -W",
            Self::Scp => "scp",
            Self::Tar => "tar | ssh",
        })
    }
}

impl Contestant {
    /// What is missing for it here.
    pub(super) fn missing(self) -> Option<String> {
        let programs: &[&str] = match self {
            Self::Diskwire => &[],
            Self::Nbdcopy => &["nbdcopy", "nbdkit"],
            Self::RsyncArchive | Self::RsyncFsync | Self::RsyncWhole => &["rsync"],
            Self::Scp => &["scp"],
            Self::Tar => &["tar", "sh"],
        };
        let missing = programs.iter().find(|program| !is_installed(program));
        if let Some(program) = missing {
            return Some(format!("{program} is not installed"));
        }
        if self.needs_ssh() && !Ssh::is_there() {
            return Some("ssh and sshd are not installed".to_owned());
        }
        (self == Self::RsyncFsync && !rsync_knows("--fsync")).then(|| "rsync is too old".to_owned())
    }

    /// Whether what it has copied is on the disk when it ends.
    pub(super) fn syncs(self) -> bool {
        matches!(self, Self::Diskwire | Self::RsyncFsync)
    }

    /// Whether it goes through ssh.
    pub(super) fn needs_ssh(self) -> bool {
        !matches!(self, Self::Diskwire | Self::Nbdcopy)
    }
}

/// Whether a program of this name is in PATH.
pub(super) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn rsync_knows(option: &str) -> bool {
    let help = Command::new("rsync").arg("--help").stdin(Stdio::null()).stderr(Stdio::null()).output();
    help.is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains(option))
}
