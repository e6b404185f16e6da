//! The addresses of iSCSI units: the URLs that other programs take, with our options behind them.
//!
//! ```text
//! iscsi://HOST[:PORT]/TARGET/LUN
//! iscsi://[::1]:3261/iqn.2001-04.com.example:disk/1?initiator=iqn.2026-11.diskwire:a&session=cp-1
//! iscsi://10.0.0.7/iqn.2001-04.com.example:disk/0?user=ann&password-file=/etc/diskwire/chap
//! ```
//!
//! Keeps true: understood in every build, whether it can open them or not; a password stands in a file and never in an
//! address. Not here: connecting.

use std::ffi::OsString;
use std::fmt;
use std::net::Ipv6Addr;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::parse::{ParseAddressError, escape, escape_path, unescape, wrong_value};

/// A logical unit behind a portal of an iSCSI target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IscsiAddress {
    /// Name or address of the portal; an IPv6 address stands without brackets.
    pub host: String,
    /// Its port; 3260 by convention.
    pub port: u16,
    /// The target's name.
    pub target: String,
    /// The unit, from 0 to 255.
    pub lun: u8,
    /// The initiator's name; one made of the name of this host where it is left out.
    pub initiator: Option<String>,
    /// Tells this session from others of this host to the same unit over the same portal.
    pub session: Option<String>,
    /// The user for CHAP.
    pub user: Option<String>,
    /// A file with the user's password.
    pub password_file: Option<PathBuf>,
}

/// The port that targets listen on by convention.
const PORT_DEFAULT: u16 = 3260;
/// What an address looks like.
const FORM: &str = "iscsi://HOST:PORT/TARGET/LUN, with a LUN from 0 to 255";
/// The longest name (RFC 7143, 4.2.7.2), and the longest text that libiscsi keeps of others, in bytes.
const NAME_MAX_BYTES: usize = 223;

impl IscsiAddress {
    /// Reads what stands between `iscsi:` and the options.
    pub(crate) fn parse(rest: &str) -> Result<Self, ParseAddressError> {
        let wrong = || ParseAddressError::Iscsi { rest: rest.to_owned(), expected: FORM };
        let (authority, path) =
            rest.strip_prefix("//").and_then(|rest| rest.split_once('/')).ok_or_else(wrong)?;
        let (target, lun) = path.split_once('/').ok_or_else(wrong)?;
        let (host, port) = match authority.strip_prefix('[') {
            Some(bracketed) => {
                let (host, port) = bracketed.split_once(']').ok_or_else(wrong)?;
                (host.parse::<Ipv6Addr>().map_err(|_| wrong())?.to_string(), port)
            }
            None => {
                let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
                let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
                if host.is_empty() || host.len() > 253 || !host.chars().all(is_plain) {
                    return Err(wrong());
                }
                (host.to_owned(), port)
            }
        };
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let port = match port.strip_prefix(':') {
            Some(port) if digits(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?,
            None if port.is_empty() => PORT_DEFAULT,
            _ => return Err(wrong()),
        };
        if !is_name(target) || !digits(lun) {
            return Err(wrong());
        }
        let (target, lun) = (target.to_owned(), lun.parse().map_err(|_| wrong())?);
        let (initiator, session, user, password_file) = (None, None, None, None);
        Ok(Self { host, port, target, lun, initiator, session, user, password_file })
    }

    /// Takes an option, if it is one of its own.
    pub(super) fn apply(&mut self, option: &str, value: &str) -> Result<bool, ParseAddressError> {
        let text = |expected| {
            let wrong = || wrong_value(option, value, expected);
            let text = String::from_utf8(unescape(value)?).map_err(|_| wrong())?;
            let is_fit = !text.is_empty() && text.len() <= NAME_MAX_BYTES && !text.contains('\0');
            if is_fit { Ok(text) } else { Err(wrong()) }
        };
        match option {
            "initiator" => {
                let expected = "the name of an initiator, such as iqn.2026-11.diskwire:host";
                let name = text(expected)?;
                if !is_name(&name) {
                    return Err(wrong_value(option, value, expected));
                }
                self.initiator = Some(name);
            }
            "session" => self.session = Some(text("a name of up to 223 bytes")?),
            "user" => self.user = Some(text("a name of up to 223 bytes")?),
            "password-file" => {
                let path = unescape(value)?;
                if path.is_empty() || path.contains(&0) {
                    return Err(wrong_value(option, value, "the path of a file"));
                }
                self.password_file = Some(PathBuf::from(OsString::from_vec(path)));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Whether anything that is needed was left out.
    pub(super) fn check(&self) -> Result<(), ParseAddressError> {
        match (&self.user, &self.password_file) {
            (Some(_), None) => Err(ParseAddressError::Lacking { option: "user", other: "password-file" }),
            (None, Some(_)) => Err(ParseAddressError::Lacking { option: "password-file", other: "user" }),
            _ => Ok(()),
        }
    }

    /// Its options, as they are written.
    pub(super) fn options(&self) -> Vec<(&'static str, String)> {
        let texts = [("initiator", &self.initiator), ("session", &self.session), ("user", &self.user)];
        let texts =
            texts.into_iter().filter_map(|(name, text)| Some((name, escape(text.as_ref()?.as_bytes()))));
        let file = self.password_file.iter().map(|path| ("password-file", escape_path(path)));
        texts.chain(file).collect()
    }
}

/// Whether it is a name of a target or initiator, as far as matters here (RFC 7143, 4.2.7).
fn is_name(text: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':' | '_');
    !text.is_empty() && text.len() <= NAME_MAX_BYTES && text.chars().all(is_allowed)
}

impl fmt::Display for IscsiAddress {
    /// The part before the options.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, target, lun, .. } = self;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let port = if *port == PORT_DEFAULT { String::new() } else { format!(":{port}") };
        write!(f, "iscsi://{host}{port}/{target}/{lun}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path_address::{PathAddress, Target};

    #[test]
    fn the_urls_of_other_programs_are_understood() {
        for (text, host, port, target, lun) in [
            (
                "iscsi://10.0.0.7/iqn.2001-04.com.example:disk/1",
                "10.0.0.7",
                3260,
                "iqn.2001-04.com.example:disk",
                1,
            ),
            ("iscsi://host:3261/eui.02004567A425678D/0?block=4096", "host", 3261, "eui.02004567A425678D", 0),
            ("iscsi://[0::1]:1/iqn.x/255", "::1", 1, "iqn.x", 255),
        ] {
            let address: PathAddress = text.parse().unwrap();
            let Target::Iscsi(found) = &address.target else { panic!("{address:?}") };
            let found = (found.host.as_str(), found.port, found.target.as_str(), found.lun);
            assert_eq!(found, (host, port, target, lun), "{text}");
            assert_eq!(address.to_string().parse(), Ok(address), "{text}");
        }
        let text =
            "iscsi://h/iqn.x/1?initiator=iqn.y:z&session=cp%26 1&user=ann&password-file=/etc/x%3F&block=512";
        assert_eq!(text.parse::<PathAddress>().unwrap().to_string(), text);
    }

    #[test]
    fn errors_name_the_form() {
        for (text, part) in [
            ("iscsi:host/iqn.x/1", FORM),
            ("iscsi://host/iqn.x", FORM),
            ("iscsi://host/iqn.x/256", FORM),
            ("iscsi://host/iqn.x/+1", FORM),
            ("iscsi://host/iqn.x/1/2", FORM),
            ("iscsi:///iqn.x/1", FORM),
            ("iscsi://host:0/iqn.x/1", FORM),
            ("iscsi://ann%25secret@host/iqn.x/1", FORM),
            ("iscsi://[::1/iqn.x/1", FORM),
            ("iscsi://host/iqn x/1", FORM),
            ("iscsi://host/iqn.x/1?user=ann", "password-file"),
            ("iscsi://host/iqn.x/1?password-file=/x", "user"),
            ("iscsi://host/iqn.x/1?initiator=a b", "iqn.2026-11.diskwire:host"),
            ("iscsi://host/iqn.x/1?session=", "session"),
            ("iscsi://host/iqn.x/1?engine=uring", "initiator, session"),
        ] {
            let error = text.parse::<PathAddress>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
