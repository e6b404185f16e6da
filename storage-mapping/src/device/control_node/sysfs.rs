//! What sysfs says of a device node: whether it takes commands, and whose nexus it is.
//!
//! Keeps true: a place that is not there is an answer too (`Other`, or a name with less in it); nothing is written. The
//! number that counts is that of the node, not its name. Not here: opening.
//!
//! | | initiator | target port |
//! |---|---|---|
//! | SCSI over Fibre Channel | port name of the adapter | port name of the target |
//! | SCSI over anything else | driver, number and place of the adapter | `H:C:T` of the address |
//! | NVMe over fabrics | Host ID | name of the subsystem and controller |
//! | NVMe over PCIe | address of the controller: Linux sets no Host ID there | the same |
//! | NVMe, node over several controllers | the subsystem: the kernel chooses | "any controller" |

use std::fs;
use std::path::{Path, PathBuf};

use crate::control_port::NexusId;

/// Of which kind a device number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NodeClass {
    Block,
    Character,
}

/// How a node takes commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NodeKind {
    /// By SG_IO.
    ScsiBlock,
    /// By write and read.
    ScsiGeneric,
    /// By the ioctls of NVMe.
    Nvme,
}

/// A node that takes commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) kind: NodeKind,
    pub(super) nexus: NexusId,
}

/// What a device number stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    Node(Identity),
    /// A part of the disk of this name.
    Partition {
        disk: String,
    },
    /// Something that takes no commands.
    Other,
}

/// What the sysfs at `root` knows of a device number.
pub(super) fn look_up(root: &Path, class: NodeClass, (major, minor): (u64, u64)) -> Lookup {
    let folder = match class {
        NodeClass::Block => "dev/block",
        NodeClass::Character => "dev/char",
    };
    let Ok(node) = fs::canonicalize(root.join(folder).join(format!("{major}:{minor}"))) else {
        return Lookup::Other;
    };
    if node.join("partition").exists() {
        return Lookup::Partition { disk: node.parent().map(name_of).unwrap_or_default() };
    }
    let identity = scsi(root, class, &node).or_else(|| nvme(&node));
    identity.map_or(Lookup::Other, Lookup::Node)
}

fn scsi(root: &Path, class: NodeClass, node: &Path) -> Option<Identity> {
    let kind = match class {
        NodeClass::Block => NodeKind::ScsiBlock,
        // A tape or a changer has a character node too.
        NodeClass::Character if node.parent().map(name_of)? == "scsi_generic" => NodeKind::ScsiGeneric,
        NodeClass::Character => return None,
    };
    let address = name_of(&fs::read_dir(node.join("device/scsi_device")).ok()?.next()?.ok()?.path());
    // H:C:T:L
    let (target, _) = address.rsplit_once(':')?;
    let host = format!("host{}", address.split(':').next()?);
    let initiator = text(&root.join("class/fc_host").join(&host).join("port_name"));
    let initiator = initiator.map_or_else(|| adapter(root, &host), |name| format!("fc {name}"));
    let remote = text(&root.join("class/fc_transport").join(format!("target{target}")).join("port_name"));
    let target_port = remote.map_or_else(|| target.to_owned(), |name| format!("fc {name}"));
    Some(Identity { kind, nexus: NexusId { initiator, target_port, generation: 1 } })
}

/// Driver, number and place of a host adapter, such as `virtio_scsi host0 at pci0000:00/0000:00:02.0/virtio0`.
fn adapter(root: &Path, host: &str) -> String {
    let folder = root.join("class/scsi_host").join(host);
    let driver = text(&folder.join("proc_name")).unwrap_or_else(|| "scsi".to_owned());
    let place = fs::canonicalize(folder.join("device/..")).ok();
    match place.and_then(|place| below_devices(root, &place)) {
        Some(place) => format!("{driver} {host} at {place}"),
        None => format!("{driver} {host}"),
    }
}

fn below_devices(root: &Path, place: &Path) -> Option<String> {
    let devices = fs::canonicalize(root.join("devices")).ok()?;
    Some(place.strip_prefix(devices).ok()?.display().to_string())
}

fn nvme(node: &Path) -> Option<Identity> {
    // The controller itself, or what its namespace belongs to.
    let places: [PathBuf; 2] = [node.to_owned(), node.join("device")];
    let (place, subsystem) = places.into_iter().find_map(|place| {
        let subsystem = text(&place.join("subsysnqn"))?;
        Some((place, subsystem))
    })?;
    let nexus = match text(&place.join("cntlid")) {
        Some(controller) => NexusId {
            initiator: initiator_of_controller(&place),
            target_port: format!("{subsystem} controller {controller}"),
            generation: 1,
        },
        None => NexusId {
            initiator: format!("{subsystem}: the kernel chooses the controller"),
            target_port: format!("{subsystem} any controller"),
            generation: 1,
        },
    };
    Some(Identity { kind: NodeKind::Nvme, nexus })
}

fn initiator_of_controller(place: &Path) -> String {
    if let Some(id) = text(&place.join("hostid")) {
        return format!("hostid {id}");
    }
    let transport = text(&place.join("transport")).unwrap_or_else(|| "nvme".to_owned());
    let address = text(&place.join("address")).unwrap_or_else(|| name_of(place));
    format!("{transport} {address}")
}

/// What a file of one line says; `None` where there is none or nothing in it.
fn text(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Files and links, as they were seen in a guest.
    fn tree(files: &[(&str, &str)], links: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        for (path, to) in links {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(root.path().join(to), path).unwrap();
        }
        root
    }

    fn nexus(found: Lookup) -> (NodeKind, String, String) {
        let Lookup::Node(Identity { kind, nexus }) = found else { panic!("{found:?}") };
        assert_eq!(nexus.generation, 1);
        (kind, nexus.initiator, nexus.target_port)
    }

    const DISK: &str = "devices/pci0000:00/0000:00:02.0/virtio0/host0/target0:0:1/0:0:1:5";

    fn scsi_tree(more: &[(&str, &str)]) -> tempfile::TempDir {
        let file = |name: &str| format!("{DISK}/{name}");
        let mut files = vec![
            (file("scsi_device/0:0:1:5/uevent"), ""),
            (file("block/sdb/sdb1/partition"), "1"),
            (file("scsi_generic/sg1/uevent"), ""),
            (file("bsg/0:0:1:5/uevent"), ""),
            (
                "devices/pci0000:00/0000:00:02.0/virtio0/host0/scsi_host/host0/proc_name".to_owned(),
                "virtio_scsi\n",
            ),
        ];
        files.extend(more.iter().map(|(path, content)| ((*path).to_owned(), *content)));
        let files: Vec<_> = files.iter().map(|(path, content)| (path.as_str(), *content)).collect();
        let link = |name: &str, to: &str| (name.to_owned(), format!("{DISK}{to}"));
        let links = [
            link("dev/block/8:16", "/block/sdb"),
            link("dev/block/8:17", "/block/sdb/sdb1"),
            link("dev/char/21:1", "/scsi_generic/sg1"),
            link("dev/char/248:1", "/bsg/0:0:1:5"),
            link(&format!("{DISK}/block/sdb/device"), ""),
            link(&format!("{DISK}/scsi_generic/sg1/device"), ""),
            link(&format!("{DISK}/bsg/0:0:1:5/device"), ""),
            (
                "class/scsi_host/host0".to_owned(),
                "devices/pci0000:00/0000:00:02.0/virtio0/host0/scsi_host/host0".to_owned(),
            ),
            (
                "devices/pci0000:00/0000:00:02.0/virtio0/host0/scsi_host/host0/device".to_owned(),
                "devices/pci0000:00/0000:00:02.0/virtio0/host0".to_owned(),
            ),
        ];
        let links: Vec<_> = links.iter().map(|(path, to)| (path.as_str(), to.as_str())).collect();
        tree(&files, &links)
    }

    #[test]
    fn both_nodes_of_a_scsi_disk_are_one_nexus_and_its_other_nodes_are_none() {
        let root = scsi_tree(&[]);
        let look = |class, number| look_up(root.path(), class, number);
        let initiator = "virtio_scsi host0 at pci0000:00/0000:00:02.0/virtio0".to_owned();
        let block = nexus(look(NodeClass::Block, (8, 16)));
        assert_eq!(block, (NodeKind::ScsiBlock, initiator.clone(), "0:0:1".to_owned()));
        let generic = nexus(look(NodeClass::Character, (21, 1)));
        assert_eq!(generic, (NodeKind::ScsiGeneric, initiator, "0:0:1".to_owned()));
        assert_eq!(look(NodeClass::Block, (8, 17)), Lookup::Partition { disk: "sdb".to_owned() });
        assert_eq!(look(NodeClass::Character, (248, 1)), Lookup::Other);
        assert_eq!(look(NodeClass::Character, (8, 16)), Lookup::Other);
        assert_eq!(look(NodeClass::Block, (7, 0)), Lookup::Other);
    }

    #[test]
    fn fibre_channel_ports_have_names() {
        let root = scsi_tree(&[
            ("class/fc_host/host0/port_name", "0x2100001b32123456\n"),
            ("class/fc_transport/target0:0:1/port_name", "0x5006016041e0abcd\n"),
        ]);
        let (_, initiator, target) = nexus(look_up(root.path(), NodeClass::Block, (8, 16)));
        assert_eq!((initiator.as_str(), target.as_str()), ("fc 0x2100001b32123456", "fc 0x5006016041e0abcd"));
    }

    #[test]
    fn an_nvme_node_is_of_one_controller_or_of_any() {
        let root = tree(
            &[
                ("devices/pci0000:00/0000:00:04.0/nvme/nvme0/subsysnqn", "nqn.test:s\n"),
                ("devices/pci0000:00/0000:00:04.0/nvme/nvme0/cntlid", "7\n"),
                ("devices/pci0000:00/0000:00:04.0/nvme/nvme0/transport", "pcie\n"),
                ("devices/pci0000:00/0000:00:04.0/nvme/nvme0/address", "0000:00:04.0\n"),
                ("devices/pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1/nsid", "1\n"),
                ("devices/virtual/nvme-fabrics/ctl/nvme1/subsysnqn", "nqn.test:s\n"),
                ("devices/virtual/nvme-fabrics/ctl/nvme1/cntlid", "8\n"),
                ("devices/virtual/nvme-fabrics/ctl/nvme1/hostid", "0a1b\n"),
                ("devices/virtual/nvme-subsystem/nvme-subsys0/subsysnqn", "nqn.test:s\n"),
                ("devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n2/nsid", "2\n"),
            ],
            &[
                ("dev/char/246:0", "devices/pci0000:00/0000:00:04.0/nvme/nvme0"),
                ("dev/block/259:1", "devices/pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1"),
                (
                    "devices/pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1/device",
                    "devices/pci0000:00/0000:00:04.0/nvme/nvme0",
                ),
                ("dev/char/246:1", "devices/virtual/nvme-fabrics/ctl/nvme1"),
                ("dev/block/259:2", "devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n2"),
                (
                    "devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n2/device",
                    "devices/virtual/nvme-subsystem/nvme-subsys0",
                ),
            ],
        );
        let look = |class, number| nexus(look_up(root.path(), class, number));
        let local = (NodeKind::Nvme, "pcie 0000:00:04.0".to_owned(), "nqn.test:s controller 7".to_owned());
        assert_eq!(look(NodeClass::Character, (246, 0)), local);
        assert_eq!(look(NodeClass::Block, (259, 1)), local);
        let fabric = (NodeKind::Nvme, "hostid 0a1b".to_owned(), "nqn.test:s controller 8".to_owned());
        assert_eq!(look(NodeClass::Character, (246, 1)), fabric);
        let (_, initiator, target) = look(NodeClass::Block, (259, 2));
        assert!(initiator.contains("the kernel chooses"), "{initiator}");
        assert_eq!(target, "nqn.test:s any controller");
    }
}
