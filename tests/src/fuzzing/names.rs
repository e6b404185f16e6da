//! Names and text: relative paths, targets of links, fixed text fields, path addresses.
//!
//! What holds: whatever is done to a path it never leads out and never grows beyond its limit; a link that
//! is said to stay inside does; what is printed has no control characters, or parses back to the same.
//! Not here: opening anything.

use storage_mapping::path_address::PathAddress;
use transfer_core::transfer::{ErrorCode, PARTIAL_FOLDER, PATH_BYTES_MAX, RelativePath, link_stays_inside};
use volume::record::{Text, Wire};

use super::input::Input;

/// Paths, links and text fields.
///
/// # Panics
/// If a promise is broken.
pub fn names(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.byte() % 4 {
        0 => path_program(&mut input),
        1 => joined(input.rest()),
        2 => link(usize::from(input.byte() % 8), input.rest()),
        _ => text(&mut input),
    }
}

fn check(path: &RelativePath) {
    let bytes = path.as_bytes();
    assert!(bytes.len() <= PATH_BYTES_MAX);
    for name in path.components() {
        let special = name == b"." || name == b".." || name == PARTIAL_FOLDER;
        let wrong = name.is_empty() || name.len() > 255 || name.contains(&b'/') || name.contains(&0);
        assert!(!special && !wrong, "{path} holds a name that is not allowed");
    }
    assert_eq!(path.components().collect::<Vec<_>>().join(&b'/'), bytes);
    assert_eq!(path.depth(), path.components().count());
    assert_eq!(RelativePath::from_joined(bytes).as_ref(), Ok(path));
    assert!(path.to_string().chars().all(|character| !character.is_control()), "it could drive a terminal");
    if let Some((parent, name)) = path.split_last() {
        assert_eq!(parent.child(name).as_ref(), Ok(path));
    }
    if let Some(first) = path.first() {
        let again = RelativePath::of_name(first).and_then(|first| first.join(&path.below_first()));
        assert_eq!(again.as_ref(), Ok(path));
    }
}

fn path_program(input: &mut Input<'_>) {
    let mut path = RelativePath::root();
    for _ in 0..24 {
        if input.is_empty() {
            break;
        }
        let (kind, length) = (input.byte(), usize::from(input.byte()));
        let name = input.take(length % 32);
        let before = path.clone();
        match kind % 5 {
            0 => {
                let pushed = path.push(name);
                assert!(pushed.is_ok() || path == before, "a refused name changed the path");
            }
            1 => path = path.child(&name.repeat(usize::from(kind >> 4) + 1)).unwrap_or(before),
            2 => path = path.join(&before).unwrap_or(before),
            3 => path = path.below_first(),
            _ => {
                let below = RelativePath::from_joined(name).unwrap_or_default();
                path = path.join(&below).unwrap_or(before);
            }
        }
    }
    check(&path);
}

fn joined(bytes: &[u8]) {
    if let Ok(path) = RelativePath::from_joined(bytes) {
        check(&path);
    }
}

/// Follows a target in a tree where every name below the root may be a link back to the root.
fn link(depth: usize, target: &[u8]) {
    if !link_stays_inside(depth, target) {
        return;
    }
    assert!(!target.is_empty() && target[0] != b'/' && !target.contains(&0));
    let (mut level, mut left_real_ground) = (depth, false);
    for name in target.split(|byte| *byte == b'/') {
        assert_ne!(name, PARTIAL_FOLDER);
        match name {
            b"" | b"." => {}
            b".." => {
                assert!(!left_real_ground, "`..` behind a name can leave through a link");
                level = level.checked_sub(1).expect("it stays below the root");
            }
            _ => left_real_ground = true,
        }
    }
}

fn text(input: &mut Input<'_>) {
    let bytes: [u8; 64] = input.array();
    if let Ok(text) = Text::<64>::take(&bytes) {
        let mut again = [0xA5; 64];
        text.put(&mut again);
        assert_eq!(again, bytes);
        assert_eq!(Text::<64>::new(text.as_str()), Some(text.clone()));
        assert!(text.show().chars().all(|character| !character.is_control()));
    }
    if let Ok(written) = std::str::from_utf8(&bytes[..usize::from(input.byte() % 65)])
        && let Some(text) = Text::<64>::new(written)
    {
        let mut emitted = [0; 64];
        text.put(&mut emitted);
        assert_eq!(Text::take(&emitted), Ok(text));
    }
    let number = input.short();
    if let Some(code) = ErrorCode::from_number(number) {
        assert_eq!(code as u16, number);
    }
}

/// Path addresses: what is printed parses back to the same value.
///
/// # Panics
/// If a promise is broken.
pub fn path_address(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match text.parse::<PathAddress>() {
        Ok(address) => {
            let printed = address.to_string();
            assert_eq!(printed.parse::<PathAddress>().as_ref(), Ok(&address), "`{printed}`");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Inputs to begin with.
#[must_use]
pub fn names_seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![
        b"\x00\x00\x01a\x01\x01b\x02\x00\x03\x00\x04\x03x/y".to_vec(),
        b"\x01/a//./b/".to_vec(),
        b"\x01a/../b".to_vec(),
        b"\x01.diskwire-partial/x".to_vec(),
        b"\x02\x02../../a/b".to_vec(),
        b"\x02\x01a/../b".to_vec(),
        b"\x02\x00/etc".to_vec(),
        b"\x01\xff\xfe\x1b[31m\xc2\x9b".to_vec(),
    ];
    seeds.push([&[3][..], &[b'h'; 63], &[0, 20, 3, 0]].concat());
    seeds.push([&[3][..], "näme\u{7f}".as_bytes(), &[0; 60]].concat());
    seeds.push([&[0xF1, 0xF1, 31][..], &[b'n'; 31], &[2, 0, 2, 0, 2, 0, 2, 0]].concat());
    seeds
}

/// Inputs to begin with.
#[must_use]
pub fn path_address_seeds() -> Vec<Vec<u8>> {
    [
        "file:/var/lib/disk.img?block=512&engine=threads",
        "block:/dev/disk/by-id/wwn-0x5000c500a1b2c3d4",
        "mem:lab?size=64MiB&latency=2ms&jitter=1ms&rate=100MiB&error=0.01&hang=after:1000&seed=7",
        "file:/a%3Fb c?torn=0.5&lost=1&stale=0&late=0.01:5s&hang=after:7:5s",
        "file:%ff%00?latency=18446744073709551615ns",
        "mem:x?size=17179869183GiB",
        "file:x?error=1e-300&late=0:1s",
        "nbd://[0::1]:10810/a/b%3Fc?block=512",
        "nbd+unix:///disk?socket=/run/x%26y.sock&latency=1ms",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
