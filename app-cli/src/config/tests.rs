//! Every mistake is one line with file, line, thing and remedy.

use std::path::Path;
use std::time::Duration;

use multipath::{Failback, FailoverConfig, NoPathPolicy, PathConfig, SelectorKind};

use super::{AnyConfig, ConfigError, ExportMode, HostConfig, VolumeConfig};

const HOST: &str = r#"host = "alpha"
key = "alpha.key"
state = "state/alpha"

[volume]
id = "00112233445566778899aabbccddeeff"
admin_key = "1111111111111111111111111111111111111111111111111111111111111111"

[[volume.device]]
id = "disk0"
paths = ["file:disks/master.img?latency=2ms", "file:disks/master.img"]

[[volume.device]]
id = "disk1"
paths = ["file:disks/secondary1.img"]

[exports.inbox]
path = "exports/alpha/inbox"
mode = "rw"

[exports.files]
path = "/srv/files"

[peers.beta]
key = "2222222222222222222222222222222222222222222222222222222222222222"
exports = ["inbox"]

[limits]
connections = 4
memory = "64MiB"
"#;

const VOLUME: &str = r#"admin_key = "admin.key"
segment_size = "256KiB"
connections = 4
lanes = 3

[[device]]
id = "disk0"
paths = ["file:disks/master.img"]

[[host]]
name = "alpha"
key = "1111111111111111111111111111111111111111111111111111111111111111"

[[host]]
name = "beta"
key = "2222222222222222222222222222222222222222222222222222222222222222"
lanes = 1
"#;

fn host(text: &str) -> Result<HostConfig, ConfigError> {
    HostConfig::parse(Path::new("world/alpha.toml"), text)
}

fn volume(text: &str) -> Result<VolumeConfig, ConfigError> {
    VolumeConfig::parse(Path::new("V.toml"), text)
}

/// Replaces `from` by `to` in `text`, and checks that the mistake starts with `expected`, is one line
/// and holds a remedy after a semicolon.
fn check(text: &str, parse: impl Fn(&str) -> Result<(), ConfigError>, cases: &[(&str, &str, &str)]) {
    for (from, to, expected) in cases {
        assert!(text.contains(from), "{from}");
        let wrong = text.replacen(from, to, 1);
        let shown = parse(&wrong).expect_err(to).to_string();
        assert!(shown.contains(expected), "{from} -> {to}\n  is:     {shown}\n  wanted: {expected}");
        assert!(shown.contains("; "), "no remedy: {shown}");
        assert!(!shown.chars().any(char::is_control), "not one line: {shown:?}");
    }
}

#[test]
fn a_host_is_read() {
    let config = host(HOST).unwrap();
    assert_eq!(config.host.as_str(), "alpha");
    assert_eq!(config.key, Path::new("world/alpha.key"));
    assert_eq!(config.state, Path::new("world/state/alpha"));
    assert_eq!(config.volume.id.to_string(), "00112233445566778899aabbccddeeff");
    assert_eq!(config.volume.admin_key.0, [0x11; 32]);
    let device = &config.volume.devices[0];
    assert_eq!((device.id.as_str(), device.paths.len(), device.paths[0].line), ("disk0", 2, 11));
    assert_eq!(config.volume.devices[1].paths[0].line, 15);
    let inbox = &config.exports["inbox"];
    assert_eq!((inbox.mode, inbox.line), (ExportMode::ReadWrite, 17));
    assert_eq!(inbox.path, Path::new("world/exports/alpha/inbox"));
    assert_eq!(config.exports["files"].mode, ExportMode::ReadOnly);
    assert_eq!(config.exports["files"].path, Path::new("/srv/files"));
    assert_eq!(config.peers["beta"].key.0, [0x22; 32]);
    assert_eq!(config.peers["beta"].exports.as_ref().unwrap().len(), 1);
    assert_eq!((config.limits.connections, config.limits.memory.0), (4, 64 << 20));
}

#[test]
fn paths_and_how_they_are_used_are_read() {
    let plain = host(HOST).unwrap();
    assert_eq!(plain.volume.devices[0].failover, FailoverConfig::default());
    assert_eq!(plain.volume.devices[0].policy, SelectorKind::default());
    assert_eq!(plain.volume.devices[0].paths[1].config, PathConfig::default());
    let second = "\"file:disks/master.img\"]";
    let keys = "{ address = \"file:disks/master.img\", priority = 50, fault_domain = 3 }]\n\
                policy = \"weighted:3,1\"\nfailback = \"10s\"\nno_path = \"queue\"\n\
                attempt_timeout = \"250ms\"\nquiesce_time = \"1s\"\nhedge = true\n\
                leave_slow_paths = LEAVES";
    let leaves = !FailoverConfig::default().slow_path.enabled;
    let keys = keys.replace("LEAVES", &leaves.to_string());
    let config = host(&HOST.replacen(second, &keys, 1)).unwrap();
    let device = &config.volume.devices[0];
    assert_eq!(device.policy.to_string(), "weighted:3,1");
    let path = &device.paths[1];
    assert_eq!((path.text.as_str(), path.line), ("file:disks/master.img", 11));
    assert_eq!((path.config.priority, path.config.fault_domain), (50, Some(3)));
    let failover = &device.failover;
    assert_eq!(failover.failback, Failback::After(Duration::from_secs(10)));
    assert_eq!((failover.no_path, failover.hedge.enabled), (NoPathPolicy::Queue, true));
    assert_eq!(failover.attempt_timeout, Duration::from_millis(250));
    assert_eq!(failover.quiesce_time, Duration::from_secs(1));
    assert_eq!(failover.slow_path.enabled, leaves);
}

#[test]
fn mistakes_about_paths_have_their_line_and_a_remedy() {
    let path = "\"file:disks/secondary1.img\"";
    let table = |rest: &str| format!("{{ address = \"file:x\", {rest} }}");
    let cases = [
        (table("priority = -1"), ":15: priority = -1 is out of range; give 0 to 65535"),
        (table("fault_domain = 70000"), ":15: fault_domain = 70000 is out of range"),
        (table("prio = 1"), ":15: unknown key `prio`; did you mean `priority`?"),
        ("{ priority = 1 }".to_owned(), ":15: key `address` is missing; add it, as in { address ="),
        ("7".to_owned(), ":15: integer `7` where a path address like \"block:/dev/sdb\""),
    ];
    let cases: Vec<_> = cases.iter().map(|(to, said)| (path, to.as_str(), *said)).collect();
    check(HOST, |text| host(text).map(drop), &cases);
    let list = "paths = [\"file:disks/secondary1.img\"]";
    let cases = [
        ("policy = \"fastest\"", ":16: policy: there is no selector \"fastest\"; use round-robin"),
        ("policy = \"weighted:1,2\"", ":16: policy: 2 weights for 1 paths; give one for each"),
        ("failback = \"soon\"", ":16: failback = \"soon\"; give \"immediate\", \"manual\" or a time"),
        ("no_path = \"0s\"", ":16: no_path = \"0s\"; give \"fail\", \"queue\" or a time, from 1ms"),
        ("attempt_timeout = \"2 days\"", ":16: attempt_timeout = \"2 days\"; give a time"),
        ("quiesce_time = 30", ":16: integer `30` where a text belongs"),
        ("hedge = \"yes\"", ":16: string \"yes\" where"),
        ("polcy = \"latency\"", ":16: unknown key `polcy`; did you mean `policy`?"),
    ];
    let lines: Vec<_> = cases.iter().map(|(line, _)| format!("{list}\n{line}")).collect();
    let cases: Vec<_> = cases.iter().zip(&lines).map(|((_, said), to)| (list, to.as_str(), *said)).collect();
    check(HOST, |text| host(text).map(drop), &cases);
}

#[test]
fn what_may_be_left_out_may_be_left_out() {
    let end = HOST.find("\n[exports.inbox]").unwrap();
    let config = host(&HOST[..end]).unwrap();
    assert!(config.exports.is_empty() && config.peers.is_empty());
    assert_eq!(config.limits, super::Limits::default());
    let text = VOLUME.replace("segment_size", "#").replace("connections", "#").replacen("lanes", "#", 1);
    let config = volume(&text).unwrap();
    assert_eq!((config.segment_size_bytes, config.connections, config.lanes()), (1 << 20, 8, 8 + 2));
}

#[test]
fn what_a_user_knows_of_commands_is_read() {
    let with = |line: &str| host(&format!("commands = [{line:?}]\n{HOST}"));
    let known = with("scsi c1 1:1f=05 portable yes vendor counters").unwrap().commands;
    assert_eq!((known.rows().len(), known.rows()[0].name.as_ref()), (1, "vendor counters"));
    for (line, expected) in
        [("scsi c1 portable", "alpha.toml:1"), ("scsi 5f portable yes all reservations", "override")]
    {
        let shown = with(line).expect_err(line).to_string();
        assert!(shown.contains(expected) && !shown.contains('\n'), "{shown}");
    }
}

#[test]
fn a_volume_is_read() {
    let config = volume(VOLUME).unwrap();
    assert_eq!(config.admin_key, Path::new("./admin.key"));
    assert_eq!((config.segment_size_bytes, config.connections), (256 << 10, 4));
    let hosts: Vec<_> = config.hosts.iter().map(|host| (host.name.as_str(), host.lanes)).collect();
    assert_eq!(hosts, [("alpha", 4), ("beta", 2)]);
    assert_eq!(config.lanes(), 6);
}

#[test]
fn no_toml_unknown_and_missing_keys_in_host_files() {
    check(
        HOST,
        |text| host(text).map(drop),
        &[
            ("host = \"alpha\"", "host = alpha", "world/alpha.toml:1: not TOML"),
            ("mode = \"rw\"", "mode = \"rw", "world/alpha.toml:19: not TOML"),
            ("[volume]", "[volume", "world/alpha.toml:5: not TOML"),
            ("key = \"alpha.key\"", "host = \"twice\"", "world/alpha.toml:2: not TOML (duplicate key"),
            ("state =", "state", "world/alpha.toml:3: not TOML"),
            ("state = ", "stat = ", "world/alpha.toml:3: unknown key `stat`; did you mean `state`?"),
            ("mode = ", "Mode = ", ":19: unknown key `Mode`; did you mean `mode`?"),
            (
                "paths = [\"file:disks/s",
                "path = [\"file:disks/s",
                ":15: unknown key `path`; did you mean `paths`?",
            ),
            ("[peers.beta]", "[peer.beta]", ":24: unknown key `peer`; did you mean `peers`?"),
            (
                "memory = \"64MiB\"",
                "bandwidth = 1",
                ":30: unknown key `bandwidth`; the keys of this section are connections, memory",
            ),
            ("memory", "\"me\\u001bm`ry\"", ":30: unknown key `me\\x1bm`ry`; did you mean `memory`?"),
            ("host = \"alpha\"\n", "\n", ":1: key `host` is missing; add it, as in host = \"alpha\""),
            ("id = \"disk1\"\n", "\n", ":13: key `id` is missing; add it"),
            ("path = \"/srv/files\"\n", "\n", ":21: key `path` is missing; add it"),
            ("id = \"00112233445566778899aabbccddeeff\"\n", "\n", ":5: key `id` is missing; add it"),
            (
                "key = \"2222222222222222222222222222222222222222222222222222222222222222\"\n",
                "\n",
                ":24: key `key` is missing",
            ),
        ],
    );
}

#[test]
fn wrong_types_in_host_files() {
    check(
        HOST,
        |text| host(text).map(drop),
        &[
            ("host = \"alpha\"", "host = 3", ":1: integer `3` where a text belongs; put it in quotes"),
            (
                "paths = [\"file:disks/secondary1.img\"]",
                "paths = \"file:x\"",
                ":15: string \"file:x\" where a list belongs",
            ),
            (
                "connections = 4",
                "connections = \"4\"",
                ":29: string \"4\" where a whole number belongs; write digits",
            ),
            ("exports = [\"inbox\"]", "exports = \"inbox\"", ":26: string \"inbox\" where a list belongs"),
            (
                "[exports.inbox]\npath = \"exports/alpha/inbox\"\nmode = \"rw\"",
                "[exports]\ninbox = \"x\"\n",
                ":18: string \"x\" where a section belongs; start it",
            ),
            (
                "memory = \"64MiB\"",
                "memory = true",
                ":30: boolean `true` where a size like \"64MiB\" belongs",
            ),
        ],
    );
}

#[test]
fn bad_values_in_host_files() {
    check(
        HOST,
        |text| host(text).map(drop),
        &[
            ("host = \"alpha\"", "host = \"al pha\"", ":1: `al pha` is not a name; use"),
            ("key = \"alpha.key\"", "key = \"\"", ":2: an empty path; name a file"),
            (
                "ccddeeff",
                "ccddeef",
                ":6: `00112233445566778899aabbccddeef` is no 32 hex digits; give a volume's id",
            ),
            ("\"1111", "\"xyz1", ":7: `xyz1111"),
            ("\"1111", "\"", "is no 64 hex digits; give a public key, as `diskwire keygen` prints it"),
            (
                "00112233445566778899aabbccddeeff",
                "00000000000000000000000000000000",
                ":6: a key or id of zeros",
            ),
            ("mode = \"rw\"", "mode = \"wr\"", ":19: unknown mode `wr`; write \"ro\""),
            ("memory = \"64MiB\"", "memory = \"64 apples\"", ":30: `64 apples` is not a size; write"),
            ("memory = \"64MiB\"", "memory = 4096", ":30: memory = 4 KiB is too little; give at least"),
            ("memory = \"64MiB\"", "memory = -1", ":30: `-1` is not a size; write"),
            ("connections = 4", "connections = 0", ":29: connections = 0 is out of range; give 1 to 256"),
            (
                "connections = 4",
                "connections = 70000",
                ":29: connections = 70000 is out of range; give 1 to 256",
            ),
            ("[peers.beta]", "[peers.\"be:ta\"]", ":24: `be:ta` is not a name; use"),
        ],
    );
}

#[test]
fn what_does_not_go_together_in_host_files() {
    check(
        HOST,
        |text| host(text).map(drop),
        &[
            ("id = \"disk1\"", "id = \"disk0\"", ":14: a second device `disk0`; give each"),
            (
                "id = \"disk1\"",
                "id = \"a-name-far-too-long\"",
                ":14: device id `a-name-far-too-long` is too long; use",
            ),
            (
                "paths = [\"file:disks/secondary1.img\"]",
                "paths = []",
                ":15: device `disk1` has 0 paths; give 1 to",
            ),
            ("file:disks/secondary1.img", " ", ":15: an empty path address; write one"),
            (
                "file:disks/secondary1.img",
                "file:disks/master.img",
                ":15: `file:disks/master.img` belongs to another device already; one",
            ),
            ("[peers.beta]", "[peers.alpha]", ":24: `alpha` is this host itself; name its peers"),
            (
                "exports = [\"inbox\"]",
                "exports = [\"outbox\"]",
                ":26: no export `outbox` in this file; add [exports.outbox]",
            ),
            (
                "[limits]",
                "[peers.gamma]\nkey = \"2222222222222222222222222222222222222222222222222222222222222222\"\n[limits]",
                ":29: `gamma` has the key of `beta`; give",
            ),
        ],
    );
}

#[test]
fn mistakes_in_volume_files() {
    let second_host = "[[host]]\nname = \"beta\"\nkey = \"2222222222222222222222222222222222222222222222222222222222222222\"\nlanes = 1\n";
    check(
        VOLUME,
        |text| volume(text).map(drop),
        &[
            ("admin_key", "admin-key", "V.toml:1: unknown key `admin-key`; did you mean `admin_key`?"),
            (
                "admin_key = \"admin.key\"\n",
                "\n",
                "V.toml:1: key `admin_key` is missing; add it, as in admin_key",
            ),
            ("\"256KiB\"", "\"1MB\"", "V.toml:2: segment_size is no power of two from 4KiB to 64MiB; 1MiB"),
            ("\"256KiB\"", "2048", "V.toml:2: segment_size is no power of two"),
            ("\"256KiB\"", "\"8GiB\"", "V.toml:2: segment_size is no power of two"),
            (
                "connections = 4",
                "connections = 257",
                "V.toml:3: connections = 257 is out of range; give 1 to 256",
            ),
            ("lanes = 3", "lanes = 0", "V.toml:4: lanes = 0 is out of range; give 1 to 1023"),
            ("lanes = 3", "lanes = 1023", "V.toml:15: more than 1024 lanes in all; set"),
            ("lanes = 1", "lanes = -1", "V.toml:17: lanes = -1 is out of range"),
            ("id = \"disk0\"", "id = \"\"", "V.toml:7: `` is not a name; use"),
            ("name = \"beta\"", "name = \"alpha\"", "V.toml:15: a second host `alpha`; give"),
            (
                "key = \"2222222222222222222222222222222222222222222222222222222222222222\"",
                "key = \"1111111111111111111111111111111111111111111111111111111111111111\"",
                "V.toml:16: `beta` has the key of `alpha`; make",
            ),
            ("name = \"beta\"", "Name = \"beta\"", "V.toml:15: unknown key `Name`; did you mean `name`?"),
            (second_host, "", "V.toml:10: a volume joins hosts; give at least two"),
            ("[[device]]", "[device]", "V.toml:6: map where a list belongs; put"),
            (
                "[[device]]\nid = \"disk0\"\npaths = [\"file:disks/master.img\"]\n",
                "",
                "V.toml:1: key `device` is missing; add it, as in a section [[device]]",
            ),
        ],
    );
}

#[test]
fn the_two_kinds_are_not_taken_for_each_other() {
    assert!(host(VOLUME).unwrap_err().to_string().contains(":1: the configuration of a volume; give"));
    assert!(volume(HOST).unwrap_err().to_string().contains(":1: the configuration of a host; give"));
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [("h.toml", HOST), ("v.toml", VOLUME)] {
        let file = dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        let config = AnyConfig::load(&file).unwrap();
        assert_eq!(matches!(config, AnyConfig::Host(_)), name == "h.toml");
        assert_eq!(config.devices()[0].id.as_str(), "disk0");
    }
}

#[test]
fn files_that_are_no_text() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.toml");
    let load = || HostConfig::load(&file).unwrap_err().to_string();
    assert!(load().starts_with("cannot read the configuration /"), "{}", load());
    std::fs::write(&file, b"host = \"alpha\"\nkey = \"\xff\"").unwrap();
    assert!(load().contains(":2: a byte that is no UTF-8; save"), "{}", load());
    std::fs::write(&file, vec![b'\n'; (1 << 20) + 1]).unwrap();
    assert!(load().contains(":1: larger than 1 MiB; this"), "{}", load());
    std::fs::write(&file, "").unwrap();
    assert!(load().contains(":1: key `host` is missing"), "{}", load());
}

/// Whatever one character becomes, there is an answer and no panic, and a mistake is one line.
#[test]
fn any_damage_is_survived() {
    for at in 0..HOST.len() {
        for sign in ["", "\"", "[", "]", "=", "\n", "#", "\0", "\u{202e}", "9"] {
            let wrong = format!("{}{sign}{}", &HOST[..at], &HOST[at + 1..]);
            if let Err(error) = host(&wrong) {
                let shown = error.to_string();
                assert!(shown.starts_with("world/alpha.toml:"), "{shown}");
                assert!(!shown.contains(['\n', '\0', '\u{202e}']), "{shown:?}");
            }
        }
    }
}
