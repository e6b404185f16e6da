//! The command as a shell sees it: exit codes, what goes to which stream, help, one-line mistakes.
//!
//! Not here: what needs two hosts.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn diskwire(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_diskwire"));
    command.current_dir(dir).env_remove("DISKWIRE_CONFIG").env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

fn run(dir: &Path, line: &str) -> Output {
    diskwire(dir).args(line.split_whitespace()).output().expect("diskwire starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the output is UTF-8")
}

/// The command fails with `code`, says one line on standard error and nothing on standard output.
fn one_line(output: &Output, code: i32) -> &str {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert_eq!(text(&output.stdout), "");
    let said = text(&output.stderr).strip_suffix('\n').expect("a whole line");
    assert!(!said.chars().any(char::is_control), "{said:?}");
    said.strip_prefix("diskwire: ").expect("the name of the command")
}

const HOST: &str = r#"host = "alpha"
key = "alpha.key"
state = "state/alpha"
[volume]
id = "00112233445566778899aabbccddeeff"
admin_key = "1111111111111111111111111111111111111111111111111111111111111111"
[[volume.device]]
id = "disk0"
paths = ["file:disks/master.img"]
"#;

#[test]
fn wrong_usage_is_exit_2_on_standard_error() {
    let dir = tempfile::tempdir().unwrap();
    for line in ["", "frobnicate", "--no-such-option", "keygen a b", "keygen --admin"] {
        let output = run(dir.path(), line);
        assert_eq!(output.status.code(), Some(2), "{line}: {output:?}");
        assert_eq!(text(&output.stdout), "", "{line}");
        assert!(text(&output.stderr).contains("Usage:"), "{line}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn help_goes_to_standard_output_fits_80_columns_and_names_the_exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    let whole = run(dir.path(), "--help");
    assert_eq!(whole.status.code(), Some(0));
    for code in ["0   done", "1   failed", "2   wrong", "3   partly", "4   in doubt", "75  busy"] {
        assert!(text(&whole.stdout).contains(code), "{code}");
    }
    let mut left = vec![String::new()];
    let mut seen = 0;
    while let Some(command) = left.pop() {
        let long = run(dir.path(), &format!("{command} --help"));
        let short = run(dir.path(), &format!("{command} -h"));
        for output in [&long, &short] {
            assert_eq!(output.status.code(), Some(0), "{command}");
            assert_eq!(text(&output.stderr), "");
            let wide: Vec<_> =
                text(&output.stdout).lines().filter(|line| line.chars().count() > 80).collect();
            assert!(wide.is_empty(), "{command}: {wide:?}");
        }
        seen += 1;
        let listed = text(&long.stdout).lines().skip_while(|line| *line != "Commands:").skip(1);
        // Lines that are further in go on with the description above them.
        let names = listed.take_while(|line| !line.is_empty()).filter_map(|line| {
            line.strip_prefix("  ").filter(|line| !line.starts_with(' '))?.split_whitespace().next()
        });
        left.extend(names.filter(|name| *name != "help").map(|name| format!("{command} {name}")));
    }
    assert!(seen > 1);
    assert_eq!(run(dir.path(), "--version").status.code(), Some(0));
}

#[test]
fn a_key_is_made_once_and_shown_again() {
    let dir = tempfile::tempdir().unwrap();
    let made = run(dir.path(), "keygen alpha.key");
    assert_eq!((made.status.code(), text(&made.stderr)), (Some(0), ""));
    let public = text(&made.stdout).trim();
    assert!(public.len() == 64 && public.bytes().all(|byte| byte.is_ascii_hexdigit()), "{public}");
    assert_eq!(run(dir.path(), "keygen --show alpha.key").stdout, made.stdout);
    assert!(one_line(&run(dir.path(), "keygen alpha.key"), 1).contains("alpha.key is there already"));
    assert!(one_line(&run(dir.path(), "keygen --show beta.key"), 1).contains("beta.key is not there; make"));
    let admin = run(dir.path(), "keygen --admin alpha.key --show");
    assert!(one_line(&admin, 1).contains("alpha.key is not an admin's key file"));
}

#[test]
fn the_configuration_comes_from_the_option_or_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("etc")).unwrap();
    fs::write(dir.path().join("etc/alpha.toml"), HOST).unwrap();
    assert!(one_line(&run(dir.path(), "keygen"), 2).contains("give one with -c FILE or in DISKWIRE_CONFIG"));
    let made = run(dir.path(), "-c etc/alpha.toml keygen");
    assert_eq!(made.status.code(), Some(0), "{made:?}");
    assert!(dir.path().join("etc/alpha.key").exists(), "paths are relative to the configuration");
    let behind = run(dir.path(), "keygen --show -c etc/alpha.toml");
    let mut command = diskwire(dir.path());
    let environment = command.env("DISKWIRE_CONFIG", "etc/alpha.toml").args(["keygen", "--show"]).output();
    assert_eq!((&behind.stdout, &environment.unwrap().stdout), (&made.stdout, &made.stdout));
}

#[test]
fn a_mistake_in_the_configuration_is_one_line_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("alpha.toml");
    for (from, to, said) in [
        ("host = \"alpha\"", "host = alpha", "alpha.toml:1: not TOML"),
        ("state = ", "stat = ", "alpha.toml:3: unknown key `stat`; did you mean `state`?"),
        ("key = \"alpha.key\"\n", "", "alpha.toml:1: key `key` is missing; add it"),
        ("ccddeeff", "ccdd", "alpha.toml:5: `00112233445566778899aabbccdd` is no 32 hex digits; give"),
        ("[\"file:disks/master.img\"]", "7", "alpha.toml:9: integer `7` where a list belongs; put"),
    ] {
        fs::write(&file, HOST.replacen(from, to, 1)).unwrap();
        let output = run(dir.path(), "-c alpha.toml keygen");
        let line = one_line(&output, 2);
        assert!(line.starts_with(said), "{line}");
    }
    let line = run(dir.path(), "-c none.toml keygen");
    assert_eq!(
        one_line(&line, 2),
        "cannot read the configuration none.toml: No such file or directory (os error 2)"
    );
}

#[test]
fn a_reader_that_leaves_is_no_reason_to_complain() {
    let dir = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child =
        diskwire(dir.path()).args(["keygen", "a.key"]).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(1), ""));
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = diskwire(dir.path()).args(["keygen", "--show", "a.key"]).stdout(full).output().unwrap();
    assert!(one_line(&output, 1).starts_with("cannot write to standard output: No space left"));
}
