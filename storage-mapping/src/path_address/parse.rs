//! The text form of a path address.
//!
//! Keeps true: every option is checked before anything is opened. Not here: the meaning of the
//! options (parent module).

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use super::nbd::socket_path;
use super::quantity::{QuantityError, parse_byte_size, parse_duration};
use super::{Engine, IscsiAddress, NbdAddress, PathAddress, SimulatedAddress, Target};
use crate::block::address::{BlockSize, ByteSize};
use crate::device::{Hang, NbdServer};

/// Why a path address was not understood.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ParseAddressError {
    /// No kind, or one that is none.
    #[error(
        "`{address}` does not start with file:, block:, mem:, nbd:, nbd+unix:, iscsi: or sim:; a disk image is file:PATH"
    )]
    Kind {
        /// What was written.
        address: String,
    },
    /// Nothing after the kind.
    #[error("`{address}` names nothing: put a path or a name after the colon")]
    NoName {
        /// What was written.
        address: String,
    },
    /// `sim:` with other names than it has.
    #[error("`{rest}` is no simulated path: write sim:NAME/PORT/VOLUME, in letters, digits, and . _ - :")]
    Simulated {
        /// What was written behind the kind.
        rest: String,
    },
    /// Two options that do not go together.
    #[error("option `{option}` contradicts `{other}`: leave one out")]
    Contradiction {
        /// The one.
        option: &'static str,
        /// The other.
        other: &'static str,
    },
    /// An NBD address of another form than its kind has.
    #[error("`{rest}` is no NBD address: write {expected}")]
    Nbd {
        /// What was written behind the kind.
        rest: String,
        /// What would be right.
        expected: &'static str,
    },
    /// A name of an NBD export that is none.
    #[error("`{text}` is no name of an NBD export: it must be UTF-8 without NUL, 4096 bytes at most")]
    Export {
        /// What was written.
        text: String,
    },
    /// An iSCSI address of another form.
    #[error("`{rest}` is no iSCSI address: write {expected}; user and password go into options")]
    Iscsi {
        /// What was written behind the kind.
        rest: String,
        /// What would be right.
        expected: &'static str,
    },
    /// An option that needs another beside it.
    #[error("option `{option}` needs `{other}` beside it")]
    Lacking {
        /// The one.
        option: &'static str,
        /// The other.
        other: &'static str,
    },
    /// `nbd+unix:` without a socket.
    #[error("nbd+unix: needs the path of the server's socket: write socket=PATH")]
    NoSocket,
    /// `%` without two hexadecimal digits.
    #[error("`{text}` has a % without two hexadecimal digits: write %25 for a percent sign")]
    Escape {
        /// What was written.
        text: String,
    },
    /// An option without a value.
    #[error("option `{option}` has no value: write {option}=VALUE")]
    NoValue {
        /// The option.
        option: String,
    },
    /// An option that is none, or does not fit this kind of address.
    #[error("option `{option}` does not fit here; known for {kind}: {known}")]
    Unknown {
        /// The option.
        option: String,
        /// The kind of the address.
        kind: &'static str,
        /// What would fit.
        known: &'static str,
    },
    /// The same option twice.
    #[error("option `{option}` stands twice: leave one out")]
    Twice {
        /// The option.
        option: String,
    },
    /// A size or a time.
    #[error("option `{option}`: {source}")]
    Quantity {
        /// The option.
        option: String,
        /// What is wrong with it.
        source: QuantityError,
    },
    /// Any other value.
    #[error("option `{option}={value}`: expected {expected}")]
    Value {
        /// The option.
        option: String,
        /// What was written.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
}

const FAULT_OPTIONS: [&str; 10] =
    ["latency", "jitter", "rate", "error", "hang", "torn", "lost", "stale", "late", "seed"];

impl FromStr for PathAddress {
    type Err = ParseAddressError;

    fn from_str(address: &str) -> Result<Self, Self::Err> {
        let (kind, rest) =
            address.split_once(':').ok_or_else(|| ParseAddressError::Kind { address: address.to_owned() })?;
        let (name, options) = rest.split_once('?').unwrap_or((rest, ""));
        if name.is_empty() {
            return Err(ParseAddressError::NoName { address: address.to_owned() });
        }
        let bytes = unescape(name)?;
        let target = match kind {
            "block" => Target::Block(PathBuf::from(OsString::from_vec(bytes))),
            "file" => Target::File(PathBuf::from(OsString::from_vec(bytes))),
            "mem" => {
                let name = String::from_utf8(bytes)
                    .map_err(|_| ParseAddressError::Escape { text: name.to_owned() })?;
                Target::Memory { name, size: None }
            }
            "sim" => Target::Simulated(SimulatedAddress::parse(name)?),
            "nbd" => Target::Nbd(NbdAddress::over_tcp(name)?),
            "nbd+unix" => Target::Nbd(NbdAddress::over_unix(name)?),
            "iscsi" => Target::Iscsi(IscsiAddress::parse(name)?),
            _ => return Err(ParseAddressError::Kind { address: address.to_owned() }),
        };
        let mut parsed = Self::new(target);
        let mut seen: Vec<&str> = Vec::new();
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option
                .split_once('=')
                .ok_or_else(|| ParseAddressError::NoValue { option: option.to_owned() })?;
            if seen.contains(&name) {
                return Err(ParseAddressError::Twice { option: name.to_owned() });
            }
            seen.push(name);
            parsed.apply(name, value)?;
        }
        if let Target::Simulated(simulated) = &parsed.target {
            simulated.check(parsed.block_size)?;
        }
        if let Target::Nbd(nbd) = &parsed.target {
            nbd.check()?;
        }
        if let Target::Iscsi(iscsi) = &parsed.target {
            iscsi.check()?;
        }
        Ok(parsed)
    }
}

impl PathAddress {
    fn apply(&mut self, option: &str, value: &str) -> Result<(), ParseAddressError> {
        if FAULT_OPTIONS.contains(&option) {
            return self.apply_fault(option, value);
        }
        let wrong = |expected| wrong_value(option, value, expected);
        if let Target::Simulated(simulated) = &mut self.target
            && simulated.apply(option, value)?
        {
            return Ok(());
        }
        if let Target::Iscsi(iscsi) = &mut self.target
            && iscsi.apply(option, value)?
        {
            return Ok(());
        }
        match (option, &mut self.target) {
            ("size", Target::Memory { size, .. }) => *size = Some(ByteSize(byte_size(option, value)?)),
            ("socket", Target::Nbd(NbdAddress { server: NbdServer::Unix(path), .. })) => {
                *path = socket_path(value)?;
            }
            ("block", target) if !matches!(target, Target::Block(_)) => {
                let bytes = u32::try_from(byte_size(option, value)?).ok();
                let block_size = bytes.and_then(BlockSize::new);
                self.block_size = Some(block_size.ok_or_else(|| wrong("a power of two from 512 to 65536"))?);
            }
            ("engine", Target::File(_) | Target::Block(_)) => {
                self.engine = Some(match value {
                    "threads" => Engine::Threads,
                    "uring" => Engine::Uring,
                    _ => return Err(wrong("uring or threads")),
                });
            }
            (_, target) => {
                let (kind, known) = match target {
                    Target::Block(_) => (
                        "block:",
                        "engine, and the faults latency, jitter, rate, error, hang, torn, lost, stale, late, seed",
                    ),
                    Target::File(_) => (
                        "file:",
                        "block, engine, and the faults latency, jitter, rate, error, hang, torn, lost, stale, late, seed",
                    ),
                    Target::Memory { .. } => (
                        "mem:",
                        "size, block, and the faults latency, jitter, rate, error, hang, torn, lost, stale, late, seed",
                    ),
                    Target::Simulated(_) => (
                        "sim:",
                        "system, initiator, size, ports, block, and the faults latency, jitter, rate, error, hang, torn, lost, stale, late, seed",
                    ),
                    Target::Nbd(_) => (
                        "nbd:",
                        "block, socket (nbd+unix:), and the faults latency, jitter, rate, error, hang, torn, lost, stale, late, seed",
                    ),
                    Target::Iscsi(_) => (
                        "iscsi:",
                        "initiator, session, user, password-file, block, and the faults latency, jitter, rate, error, hang, torn, lost, stale, late, seed",
                    ),
                };
                return Err(ParseAddressError::Unknown { option: option.to_owned(), kind, known });
            }
        }
        Ok(())
    }

    fn apply_fault(&mut self, option: &str, value: &str) -> Result<(), ParseAddressError> {
        let wrong = |expected| wrong_value(option, value, expected);
        let faults = &mut self.faults;
        match option {
            "latency" => faults.latency = duration(option, value)?,
            "jitter" => faults.jitter = duration(option, value)?,
            "rate" => {
                let rate = byte_size(option, value)?;
                faults.rate = Some(rate).filter(|rate| *rate > 0);
                faults.rate.ok_or_else(|| wrong("bytes per second, at least 1"))?;
            }
            "error" => faults.error = probability(option, value)?,
            "torn" => faults.torn = probability(option, value)?,
            "lost" => faults.lost = probability(option, value)?,
            "stale" => faults.stale = probability(option, value)?,
            "late" => {
                let expected = "a probability and a time, such as 0.01:5s";
                let (chance, delay) = value.split_once(':').ok_or_else(|| wrong(expected))?;
                faults.late = probability(option, chance)?;
                faults.late_delay = duration(option, delay)?;
            }
            "hang" => {
                let expected = "after:COUNT or after:COUNT:TIME, such as after:1000:5s";
                let rest = value.strip_prefix("after:").ok_or_else(|| wrong(expected))?;
                let (count, time) = rest.split_once(':').map_or((rest, None), |(c, t)| (c, Some(t)));
                let requests = count.parse().map_err(|_| wrong(expected))?;
                let time = time.map(|time| duration(option, time)).transpose()?;
                faults.hang = Hang::After { requests, duration: time };
            }
            _ => self.seed = value.parse().map_err(|_| wrong("a whole number"))?,
        }
        Ok(())
    }
}

pub(super) fn wrong_value(option: &str, value: &str, expected: &'static str) -> ParseAddressError {
    ParseAddressError::Value { option: option.to_owned(), value: value.to_owned(), expected }
}

pub(super) fn byte_size(option: &str, value: &str) -> Result<u64, ParseAddressError> {
    parse_byte_size(value).map_err(|source| ParseAddressError::Quantity { option: option.to_owned(), source })
}

fn duration(option: &str, value: &str) -> Result<Duration, ParseAddressError> {
    parse_duration(value).map_err(|source| ParseAddressError::Quantity { option: option.to_owned(), source })
}

fn probability(option: &str, value: &str) -> Result<f64, ParseAddressError> {
    let parsed = value.parse::<f64>().ok().filter(|chance| (0.0..=1.0).contains(chance));
    // `+ 0.0` makes a plain zero of `-0`.
    parsed.map(|chance| chance + 0.0).ok_or_else(|| wrong_value(option, value, "a number from 0 to 1"))
}

/// Undoes `%XX`.
pub(super) fn unescape(text: &str) -> Result<Vec<u8>, ParseAddressError> {
    let wrong = || ParseAddressError::Escape { text: text.to_owned() };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2).ok_or_else(wrong)?;
        let digit = |byte: u8| char::from(byte).to_digit(16).ok_or_else(wrong);
        let value = digit(digits[0])? * 16 + digit(digits[1])?;
        bytes.push(u8::try_from(value).expect("two hexadecimal digits are a byte"));
        rest = tail;
    }
    Ok(bytes)
}

/// A path with `%XX` for what would end it, and for bytes that are no UTF-8.
pub(super) fn escape_path(path: &Path) -> String {
    escape(path.as_os_str().as_bytes())
}

/// Bytes with `%XX` for what would end the name, and for bytes that are no UTF-8.
pub(super) fn escape(bytes: &[u8]) -> String {
    let mut escaped = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '?' | '#' | '&' | '%' => escaped.push_str(&format!("%{:02X}", u32::from(c))),
                c => escaped.push(c),
            }
        }
        for byte in chunk.invalid() {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

    use super::*;
    use crate::device::Faults;

    #[test]
    fn a_full_address_is_understood() {
        let address: PathAddress =
            "file:/a%3Fb c?block=512&engine=threads&latency=2ms&rate=100MiB&late=0.01:5s&hang=after:7&seed=7"
                .parse()
                .unwrap();
        assert_eq!(address.target, Target::File(PathBuf::from("/a?b c")));
        assert_eq!(address.block_size, Some(BlockSize::B512));
        assert_eq!(address.engine, Some(Engine::Threads));
        let expected = Faults {
            latency: Duration::from_millis(2),
            rate: Some(100 << 20),
            late: 0.01,
            late_delay: Duration::from_secs(5),
            hang: Hang::After { requests: 7, duration: None },
            ..Faults::default()
        };
        assert_eq!((address.faults, address.seed), (expected, 7));
    }

    #[test]
    fn a_delay_that_is_never_used_is_printed_too() {
        let address: PathAddress = "file:x?late=0:1s".parse().unwrap();
        assert_eq!(address.to_string().parse(), Ok(address));
    }

    #[test]
    fn errors_name_the_option_and_the_remedy() {
        for (address, parts) in [
            ("/dev/sda", ["/dev/sda", "file:PATH"]),
            ("tape:/dev/st0", ["tape:", "block:"]),
            ("file:", ["file:", "path"]),
            ("file:/x%4", ["/x%4", "%25"]),
            ("file:/x?latency", ["latency", "latency=VALUE"]),
            ("file:/x?latenzy=2ms", ["latenzy", "latency"]),
            ("file:/x?size=1M", ["size", "file:"]),
            ("block:/dev/sda?block=512", ["block", "engine"]),
            ("mem:x?engine=uring", ["engine", "size"]),
            ("file:/x?latency=2", ["latency", "ms"]),
            ("file:/x?error=2", ["error=2", "from 0 to 1"]),
            ("file:/x?error=NaN", ["error=NaN", "from 0 to 1"]),
            ("file:/x?hang=5", ["hang=5", "after:1000"]),
            ("file:/x?late=0.5", ["late=0.5", "0.01:5s"]),
            ("file:/x?block=1000", ["block=1000", "power of two"]),
            ("file:/x?rate=0", ["rate=0", "at least 1"]),
            ("file:/x?seed=1&seed=2", ["seed", "twice"]),
        ] {
            let error = address.parse::<PathAddress>().unwrap_err().to_string();
            for part in parts {
                assert!(error.contains(part), "{address}: {error}");
            }
        }
    }

    fn addresses() -> impl Strategy<Value = PathAddress> {
        let path = proptest::collection::vec(1_u8..=255, 1..20)
            .prop_map(|bytes| PathBuf::from(OsString::from_vec(bytes)));
        let names = ("[a-z0-9._:-]{1,8}", "[a-z0-9]{1,3}", "[a-z0-9]{1,3}", "[a-z0-9.:]{1,9}");
        let simulated = (names, proptest::option::of(path.clone()), any::<Option<u64>>(), 1..=64_u32)
            .prop_map(|((system, port, volume, initiator), description, size, ports)| {
                let is_simple = description.is_none();
                Target::Simulated(SimulatedAddress {
                    system,
                    path: crate::device::storage_system::PathName { initiator, port, volume },
                    description,
                    size: size.map(ByteSize).filter(|_| is_simple),
                    ports: Some(ports).filter(|ports| is_simple && ports % 2 == 0),
                })
            });
        let host =
            prop_oneof!["[a-zA-Z0-9._-]{1,9}", any::<std::net::Ipv6Addr>().prop_map(|a| a.to_string())];
        let chap = proptest::option::of(("[^\0]{1,8}", path.clone()));
        let names = (
            "[a-z0-9.:-]{1,9}",
            proptest::option::of("[a-z0-9.:-]{1,9}"),
            proptest::option::of("[^\0]{1,8}"),
        );
        let iscsi = (host.clone(), 1_u16.., names, any::<u8>(), chap).prop_map(
            |(host, port, (target, initiator, session), lun, chap)| {
                let (user, password_file) = chap.unzip();
                Target::Iscsi(IscsiAddress {
                    host,
                    port,
                    target,
                    lun,
                    initiator,
                    session,
                    user,
                    password_file,
                })
            },
        );
        let servers = prop_oneof![
            (host, 1_u16..).prop_map(|(host, port)| NbdServer::Tcp { host, port }),
            path.clone().prop_map(NbdServer::Unix),
        ];
        let target = prop_oneof![
            path.clone().prop_map(Target::File),
            path.clone().prop_map(Target::Block),
            ("[a-z?&=%]{1,8}", any::<Option<u64>>())
                .prop_map(|(name, size)| Target::Memory { name, size: size.map(ByteSize) }),
            simulated,
            (servers, "[^\0]{0,8}").prop_map(|(server, export)| Target::Nbd(NbdAddress { server, export })),
            iscsi,
        ];
        let hang = prop_oneof![
            Just(Hang::Never),
            (any::<u64>(), any::<Option<u64>>()).prop_map(|(requests, time)| Hang::After {
                requests,
                duration: time.map(Duration::from_nanos)
            }),
        ];
        let times = (any::<u64>(), any::<u64>(), 1_u64..u64::MAX, any::<u64>());
        (target, hang, times, 0.0..=1.0_f64, 0.001..=1.0_f64).prop_map(
            |(target, hang, times, error, late)| {
                let faults = Faults {
                    latency: Duration::from_nanos(times.0),
                    jitter: Duration::from_nanos(times.1),
                    rate: Some(times.2),
                    error,
                    hang,
                    torn: error / 2.0,
                    late,
                    late_delay: Duration::from_nanos(times.1),
                    ..Faults::default()
                };
                PathAddress { faults, seed: times.3, ..PathAddress::new(target) }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_back(address in addresses()) {
            assert_eq!(address.to_string().parse::<PathAddress>(), Ok(address));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".*", rest in ".*", options in "(file:x|mem:x|sim:x/p/v)\\?.*") {
            drop(text.parse::<PathAddress>());
            drop(options.parse::<PathAddress>());
            for kind in ["nbd://", "nbd://[", "nbd+unix:///", "iscsi://", "iscsi://[", "iscsi://h/t/1?"] {
                drop(format!("{kind}{rest}").parse::<PathAddress>());
            }
        }
    }
}
