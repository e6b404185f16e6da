//! The addresses of NBD exports: the URIs that other NBD programs take, with our options behind them.
//!
//! ```text
//! nbd://HOST[:PORT]/EXPORT?block=512
//! nbd://[::1]:10810/EXPORT
//! nbd+unix:///EXPORT?socket=/run/nbd.sock
//! ```
//!
//! `EXPORT` may be left out: that is the server's default export. A byte that would end it is `%XX`, in the
//! path of the socket, too. Not here: connecting. The URIs:
//! <https://github.com/NetworkBlockDevice/nbd/blob/master/doc/uri.md>.

use std::ffi::OsString;
use std::fmt;
use std::net::Ipv6Addr;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::parse::{ParseAddressError, escape, escape_path, unescape};
use crate::device::nbd::codec::NAME_BYTES_MAX;
use crate::device::{NbdServer, NbdSettings};

/// An export of an NBD server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NbdAddress {
    /// Where the server listens.
    pub server: NbdServer,
    /// The name of the export; empty is the server's default.
    pub export: String,
}

/// What an address may look like.
const OVER_TCP: &str = "nbd://HOST:PORT/EXPORT";
const OVER_UNIX: &str = "nbd+unix:///EXPORT?socket=PATH";

impl NbdAddress {
    /// Reads what stands between `nbd:` and the options.
    pub(super) fn over_tcp(rest: &str) -> Result<Self, ParseAddressError> {
        let wrong = || ParseAddressError::Nbd { rest: rest.to_owned(), expected: OVER_TCP };
        let (authority, export) = after_slashes(rest).ok_or_else(wrong)?;
        let (host, port) = match authority.strip_prefix('[') {
            Some(bracketed) => {
                let (host, port) = bracketed.split_once(']').ok_or_else(wrong)?;
                let address = host.parse::<Ipv6Addr>().map_err(|_| wrong())?;
                (address.to_string(), port)
            }
            None => {
                let end = authority.find(':').unwrap_or(authority.len());
                let (host, port) = authority.split_at(end);
                let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
                if host.is_empty() || host.len() > 253 || !host.chars().all(is_plain) {
                    return Err(wrong());
                }
                (host.to_owned(), port)
            }
        };
        let port = match port.strip_prefix(':') {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?
            }
            None if port.is_empty() => NbdServer::PORT_DEFAULT,
            _ => return Err(wrong()),
        };
        Ok(Self { server: NbdServer::Tcp { host, port }, export: export_name(export)? })
    }

    /// Reads what stands between `nbd+unix:` and the options; the socket is one of them.
    pub(super) fn over_unix(rest: &str) -> Result<Self, ParseAddressError> {
        let wrong = || ParseAddressError::Nbd { rest: rest.to_owned(), expected: OVER_UNIX };
        let (authority, export) = after_slashes(rest).ok_or_else(wrong)?;
        if !authority.is_empty() {
            return Err(wrong());
        }
        Ok(Self { server: NbdServer::Unix(PathBuf::new()), export: export_name(export)? })
    }

    /// Whether anything that is needed was left out.
    pub(super) fn check(&self) -> Result<(), ParseAddressError> {
        match &self.server {
            NbdServer::Unix(path) if path.as_os_str().is_empty() => Err(ParseAddressError::NoSocket),
            NbdServer::Unix(_) | NbdServer::Tcp { .. } => Ok(()),
        }
    }

    /// The value of the option `socket`, as it is written.
    pub(super) fn socket_option(&self) -> Option<String> {
        match &self.server {
            NbdServer::Unix(path) => Some(escape_path(path)),
            NbdServer::Tcp { .. } => None,
        }
    }
}

/// The path of the option `socket`.
pub(super) fn socket_path(value: &str) -> Result<PathBuf, ParseAddressError> {
    Ok(PathBuf::from(OsString::from_vec(unescape(value)?)))
}

/// Splits `//authority/export`, or `//authority`.
fn after_slashes(rest: &str) -> Option<(&str, &str)> {
    let rest = rest.strip_prefix("//")?;
    Some(rest.split_once('/').unwrap_or((rest, "")))
}

fn export_name(text: &str) -> Result<String, ParseAddressError> {
    let wrong = || ParseAddressError::Export { text: text.to_owned() };
    let name = String::from_utf8(unescape(text)?).map_err(|_| wrong())?;
    if name.len() > NAME_BYTES_MAX || name.contains('\0') { Err(wrong()) } else { Ok(name) }
}

impl fmt::Display for NbdAddress {
    /// The part before the options.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let export = escape(self.export.as_bytes());
        match &self.server {
            NbdServer::Tcp { host, port } => {
                let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
                let port = if *port == NbdServer::PORT_DEFAULT { String::new() } else { format!(":{port}") };
                write!(f, "nbd://{host}{port}/{export}")
            }
            NbdServer::Unix(_) => write!(f, "nbd+unix:///{export}"),
        }
    }
}

/// What the address of a path says about its device.
pub(super) fn settings(address: &super::PathAddress) -> NbdSettings {
    NbdSettings { block_size: address.block_size, ..NbdSettings::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path_address::{PathAddress, Target};

    fn parsed(text: &str) -> NbdAddress {
        match text.parse::<PathAddress>().unwrap().target {
            Target::Nbd(address) => address,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_uris_of_other_programs_are_understood() {
        let tcp = |host: &str, port| NbdServer::Tcp { host: host.to_owned(), port };
        for (text, server, export) in [
            ("nbd://localhost", tcp("localhost", 10_809), ""),
            ("nbd://localhost/", tcp("localhost", 10_809), ""),
            ("nbd://10.0.0.7:10810/disk?block=512", tcp("10.0.0.7", 10_810), "disk"),
            ("nbd://[0::1]:1/a/b%3Fc", tcp("::1", 1), "a/b?c"),
            ("nbd://host//slash", tcp("host", 10_809), "/slash"),
            ("nbd+unix:///?socket=/run/x%26y.sock", NbdServer::Unix("/run/x&y.sock".into()), ""),
            ("nbd+unix:///disk?block=4096&socket=x.sock", NbdServer::Unix("x.sock".into()), "disk"),
        ] {
            let expected = NbdAddress { server, export: export.to_owned() };
            assert_eq!(parsed(text), expected, "{text}");
            let again: PathAddress = text.parse().unwrap();
            assert_eq!(again.to_string().parse(), Ok(again), "{text}");
        }
        let text = "nbd+unix:///disk?socket=/run/x.sock&block=512&latency=2ms";
        assert_eq!(text.parse::<PathAddress>().unwrap().to_string(), text);
    }

    #[test]
    fn errors_name_the_form() {
        for (text, part) in [
            ("nbd:host:10809", OVER_TCP),
            ("nbd:///disk", OVER_TCP),
            ("nbd://host:0/disk", OVER_TCP),
            ("nbd://host:+5/disk", OVER_TCP),
            ("nbd://host:70000/disk", OVER_TCP),
            ("nbd://user@host/disk", OVER_TCP),
            ("nbd://[::1/disk", OVER_TCP),
            ("nbd://[::1]5/disk", OVER_TCP),
            ("nbd+unix://host/disk?socket=/x", OVER_UNIX),
            ("nbd+unix:///disk", "socket=PATH"),
            ("nbd+unix:///disk?socket=", "socket"),
            ("nbd://host/disk?socket=/x", "socket"),
            ("nbd://host/%ff", "UTF-8"),
            ("nbd://host/x?engine=uring", "engine"),
            ("nbd+unix:///x?socket=%4", "%25"),
        ] {
            let error = text.parse::<PathAddress>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
