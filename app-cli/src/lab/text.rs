//! The configurations of a lab, and what to do with it. Pure.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use super::plan::{CONNECTIONS, LabPlan, Place};
use crate::config::{PublicKey, VolumeId};
use crate::name::Name;

/// Public keys of the hosts.
pub type HostKeys = BTreeMap<Name, PublicKey>;

/// VOLUME.toml.
#[must_use]
pub fn volume_toml(plan: &LabPlan, keys: &HostKeys) -> String {
    let mut text =
        String::from("# The transfer volume of this lab, as `diskwire volume create` lays it out.\n");
    let lanes = plan.lanes;
    let _ = write!(
        text,
        "admin_key = \"admin.key\"\nsegment_size = \"1MiB\"\n\
         connections = {CONNECTIONS}      # of one lane, each way\n\
         lanes = {lanes}            # commands that may run on a host at once, beside `serve`\n"
    );
    push_devices(&mut text, plan, "device");
    for host in &plan.hosts {
        let _ = write!(text, "\n[[host]]\nname = \"{host}\"\nkey = \"{}\"\n", keys[host]);
    }
    text
}

/// HOST.toml of `host`.
#[must_use]
pub fn host_toml(plan: &LabPlan, host: &Name, keys: &HostKeys, volume: VolumeId, admin: PublicKey) -> String {
    let mut text = format!(
        "# Host {host} of this lab. Paths are relative to this file.\n\
         host = \"{host}\"\nkey = \"{host}.key\"\nstate = \"state/{host}\"\n\n\
         [volume]\nid = \"{volume}\"\nadmin_key = \"{admin}\"\n"
    );
    text.push_str(
        "\n# The first device is the master. To see what a slow or failing path does, add faults to an\n",
    );
    text.push_str("# address: \"file:disks/master.img?latency=2ms&error=0.01\"\n");
    push_devices(&mut text, plan, "volume.device");
    for export in ["inbox", "files"] {
        let _ = write!(
            text,
            "\n[exports.{export}]\npath = \"exports/{host}/{export}\"\nmode = \"rw\"             # \"ro\": others only read\n"
        );
    }
    for peer in plan.hosts.iter().filter(|peer| *peer != host) {
        // Quoted: a name may contain dots.
        let _ = write!(text, "\n[peers.\"{peer}\"]\nkey = \"{}\"\n", keys[peer]);
    }
    text
}

/// What to do with a new lab.
#[must_use]
pub fn next_steps(plan: &LabPlan) -> String {
    let (from, to) = (&plan.hosts[0], &plan.hosts[1]);
    let config = |host: &Name| shell_word(&plan.host_file(host));
    let devices = match plan.devices.len() {
        1 => "one device".to_owned(),
        count => format!("a master and {} for data", count - 1),
    };
    format!(
        "A world of {hosts} hosts and {devices} is ready in {dir}.\n\n\
         In one shell:   diskwire -c {to_config} serve\n\
         In another:     diskwire -c {from_config} cp FILE {to}:inbox/\n\n\
         FILE then is in {inbox}.\n",
        hosts = plan.hosts.len(),
        dir = shell_word(&plan.dir),
        to_config = config(to),
        from_config = config(from),
        inbox = shell_word(&plan.dir.join("exports").join(to.as_str()).join("inbox")),
    )
}

fn push_devices(text: &mut String, plan: &LabPlan, key: &str) {
    for device in &plan.devices {
        let address = toml::Value::from(device.address()).to_string();
        let addresses = vec![address; plan.paths.into()].join(", ");
        let size = match device.place {
            Place::Given(_) => String::new(),
            Place::Made { size, .. } => format!("   # {size}"),
        };
        let _ = write!(text, "\n[[{key}]]\nid = \"{}\"{size}\npaths = [{addresses}]\n", device.id);
    }
}

/// A path as a shell takes it.
fn shell_word(path: &Path) -> String {
    let text = crate::escape::name(path);
    let is_plain = |sign: char| sign.is_alphanumeric() || "/._-+@%".contains(sign);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::plan;
    use super::*;
    use crate::config::{ExportMode, Hex, HostConfig, VolumeConfig};

    fn keys(plan: &LabPlan) -> HostKeys {
        plan.hosts.iter().cloned().zip((1..).map(|byte| Hex([byte; 32]))).collect()
    }

    #[test]
    fn what_is_written_is_understood() {
        for line in [
            "w",
            "w --host a.b --host c --host d --paths 3 --secondaries 0 --lanes 1",
            "w --master /dev/sdb --secondary /dev/disk/by-id/x",
            "w --master /tmp/with\"quote\\s",
        ] {
            let plan = plan(line).unwrap();
            let keys = keys(&plan);
            let volume = VolumeConfig::parse(&plan.volume_file(), &volume_toml(&plan, &keys)).unwrap();
            assert_eq!(volume.hosts.len(), plan.hosts.len());
            assert_eq!(volume.lanes(), (plan.lanes + 1) * u16::try_from(plan.hosts.len()).unwrap());
            for host in &plan.hosts {
                let text = host_toml(&plan, host, &keys, Hex([7; 16]), Hex([8; 32]));
                let config = HostConfig::parse(&plan.host_file(host), &text).unwrap();
                assert_eq!(config.host, *host);
                let ids = |devices: &[crate::config::DeviceConfig]| -> Vec<_> {
                    devices
                        .iter()
                        .map(|device| {
                            let texts: Vec<_> = device.paths.iter().map(|path| path.text.clone()).collect();
                            (device.id.clone(), texts)
                        })
                        .collect()
                };
                assert_eq!(ids(&config.volume.devices), ids(&volume.devices));
                assert_eq!(config.volume.devices[0].paths.len(), usize::from(plan.paths));
                assert_eq!(config.volume.devices[0].paths[0].text, plan.devices[0].address());
                assert_eq!(config.peers.len(), plan.hosts.len() - 1);
                assert!(config.peers.iter().all(|(name, peer)| peer.key == keys[name]));
                assert!(config.exports.values().all(|export| export.mode == ExportMode::ReadWrite));
                assert_eq!(config.exports.len(), 2);
            }
        }
    }

    #[test]
    fn the_next_steps_can_be_pasted() {
        let mut plan = plan("w").unwrap();
        assert!(next_steps(&plan).contains("diskwire -c w/beta.toml serve\n"));
        plan.dir = "my world's".into();
        assert!(next_steps(&plan).contains("diskwire -c 'my world'\\''s/alpha.toml' cp FILE beta:inbox/"));
    }
}
