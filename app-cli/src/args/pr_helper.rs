//! Arguments of `pr-helper`. Not here: the protocol (`pr_helper`).

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use super::ctl::CtlTarget;

const EXAMPLES: &str = "\
Examples:
  diskwire -c beta.toml pr-helper --socket /run/diskwire-pr.sock --disk disk0
      for virtual machines that have a node of disk0's paths as their disk
  diskwire pr-helper --socket /run/pr.sock --disk /dev/sda=/dev/sda,/dev/sdb
      no configuration: the disk /dev/sda is reached over both nodes

QEMU takes it with
  -object pr-manager-helper,id=pr0,path=/run/diskwire-pr.sock
  -drive file=/dev/sda,file.pr-manager=pr0,...";

/// Serves the persistent reservations of virtual machines over all paths of their
/// disks.
///
/// It speaks the helper protocol of QEMU. A registration of the virtual machine
/// is made over every path, a release goes to the path that holds.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct PrHelperArgs {
    /// The socket to listen on.
    #[arg(long, value_name = "SOCKET")]
    pub socket: PathBuf,
    /// Permissions of the socket, in octal.
    #[arg(long, value_name = "MODE", default_value = "600", value_parser = mode)]
    pub mode: u32,
    /// A disk: what virtual machines have open as theirs, and the device of the
    /// configuration, or the path addresses with commas between, that lead to it.
    #[arg(long = "disk", value_name = "[NODE=]DEVICE", required = true)]
    pub disks: Vec<HelperDisk>,
}

/// A disk of virtual machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelperDisk {
    /// The node or file that virtual machines have open; `None`: any of its paths.
    pub node: Option<PathBuf>,
    /// How it is reached.
    pub target: CtlTarget,
}

impl FromStr for HelperDisk {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // An address may have `=` among its options, which come after a `?`.
        let (node, target) = match text.split_once('=') {
            Some((node, target)) if node.starts_with('/') && !node.contains('?') => {
                (Some(node.into()), target)
            }
            _ => (None, text),
        };
        let target: CtlTarget = target.parse().map_err(|error: super::ctl::NotATarget| error.to_string())?;
        match &target {
            CtlTarget::Device(name) if name.path.is_some() => Err(format!(
                "`{}` names a path; a virtual machine's disk is a device",
                crate::escape::name(text)
            )),
            _ => Ok(Self { node, target }),
        }
    }
}

fn mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| "permissions in octal, as 660".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_a_node_and_the_way_to_it() {
        let disk = |text: &str| text.parse::<HelperDisk>();
        assert_eq!(disk("disk0").unwrap().node, None);
        let both = disk("/dev/sda=/dev/sda,/dev/sdb").unwrap();
        assert_eq!(both.node, Some("/dev/sda".into()));
        assert_eq!(both.target.to_string(), "block:/dev/sda,block:/dev/sdb");
        assert_eq!(disk("sim:a/p0/v0?size=1MiB").unwrap().node, None);
        assert!(disk("disk0/1").is_err() && disk("/dev/sda=").is_err());
        assert_eq!((mode("660"), mode("600")), (Ok(0o660), Ok(0o600)));
        assert!(mode("888").is_err() && mode("7777").is_err());
    }
}
