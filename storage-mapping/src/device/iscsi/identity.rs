//! Who a session is to its target: the initiator's name, the session id (ISID), and that nobody else has both.
//!
//! Keeps true: the same host, lane and path always give the same ISID, since registrations and reservations belong to
//! it; two sessions of one host never have it at once, since a login with it ends the other's session (RFC 7143, 6.3.5:
//! session reinstatement). Not here: logging in.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::path_address::IscsiAddress;

/// What the default name of an initiator begins with; the name of the host follows.
const NAME_BEGINS: &str = "iqn.2026-11.diskwire:";
/// The longest name of an initiator or target, in bytes (RFC 7143, 4.2.7.2).
pub(crate) const NAME_MAX_BYTES: usize = 223;

/// A session id of the initiator: the 40 bits that follow its type (RFC 7143, 11.12.5; type 10b, "random").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Isid(u64);

impl Isid {
    /// That of a path: initiator (which names the host), lane, and where the path leads.
    #[must_use]
    pub fn of(initiator: &str, address: &IscsiAddress) -> Self {
        let lane = address.session.as_deref().unwrap_or_default();
        let IscsiAddress { host, port, target, lun, .. } = address;
        let hash = hash(&format!("{initiator}\n{lane}\n{host}:{port}/{target}/{lun}"));
        Self((hash ^ (hash >> 40)) & 0xff_ffff_ffff)
    }

    /// The upper 24 bits.
    pub(super) fn number(self) -> u32 {
        u32::try_from(self.0 >> 16).expect("24 bits")
    }

    /// The lower 16 bits.
    pub(super) fn qualifier(self) -> u32 {
        u32::try_from(self.0 & 0xffff).expect("16 bits")
    }
}

impl fmt::Display for Isid {
    /// As in the name of an initiator port (SPC-5, 7.6.4.5): six bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x80{:010x}", self.0)
    }
}

/// FNV-1a with 64 bits: it must only be the same everywhere and for ever.
fn hash(text: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

/// The initiator's name where the address has none: our prefix and the name of the host.
#[must_use]
pub fn default_initiator() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let is_allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    let host: String = host.chars().filter(is_allowed).collect::<String>().to_ascii_lowercase();
    let host = if host.is_empty() { "host" } else { host.as_str() };
    format!("{NAME_BEGINS}{host}").chars().take(NAME_MAX_BYTES).collect()
}

/// Text for the library. What an address holds has no NUL.
pub(super) fn c_text(text: &str) -> CString {
    CString::new(text.split('\0').next().unwrap_or_default()).expect("nothing behind the first NUL is left")
}

/// Held as long as a session may be used: no other on this host has the same name and ISID to the same target.
#[derive(Debug)]
pub(super) struct NexusLock(#[expect(dead_code, reason = "it is held, not used")] UnixDatagram);

impl NexusLock {
    /// Takes it: a name of the kernel's own, which goes with the process however that ends.
    pub(super) fn take(initiator: &str, isid: Isid, target: &str) -> io::Result<Self> {
        let name = format!("diskwire-iscsi-{:016x}", hash(&format!("{initiator}\n{isid}\n{target}")));
        Ok(Self(UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IscsiAddress {
        IscsiAddress::parse(text).unwrap()
    }

    #[test]
    fn a_session_id_is_that_of_host_lane_and_path() {
        let here = address("//10.0.0.7/iqn.2001-04.com.example:disk/1");
        let isid = Isid::of("iqn.2026-11.diskwire:a", &here);
        // Registrations outlive this program: it may never change.
        assert_eq!(isid.to_string(), "0x802d20944fc2");
        assert_eq!(u64::from(isid.number()) << 16 | u64::from(isid.qualifier()), isid.0);
        let mut lane = here.clone();
        lane.session = Some("cp-1".to_owned());
        let others = [
            Isid::of("iqn.2026-11.diskwire:b", &here),
            Isid::of("iqn.2026-11.diskwire:a", &lane),
            Isid::of("iqn.2026-11.diskwire:a", &address("//10.0.0.8/iqn.2001-04.com.example:disk/1")),
            Isid::of("iqn.2026-11.diskwire:a", &address("//10.0.0.7/iqn.2001-04.com.example:disk/2")),
        ];
        assert!(others.iter().all(|other| *other != isid), "{isid}, {others:?}");
    }

    #[test]
    fn nobody_else_has_a_nexus_that_is_held() {
        let isid = Isid(5);
        let held = NexusLock::take("iqn.a", isid, "iqn.lock-test").unwrap();
        assert!(NexusLock::take("iqn.a", isid, "iqn.lock-test").is_err());
        assert!(NexusLock::take("iqn.b", isid, "iqn.lock-test").is_ok());
        drop(held);
        assert!(NexusLock::take("iqn.a", isid, "iqn.lock-test").is_ok());
    }

    #[test]
    fn the_default_name_is_one() {
        let name = default_initiator();
        assert!(name.starts_with(NAME_BEGINS) && name.len() > NAME_BEGINS.len(), "{name}");
    }
}
