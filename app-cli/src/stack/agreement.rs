//! Do the paths of a device lead to one disk?
//!
//! ```text
//!   known to be one disk ───────────────▶ used at once; if its cache is known to be one, a flush over one path is enough
//!   nothing known, and of equal size ───▶ all but the first are compared with it before they carry anything
//!   known to be two disks ──────────────▶ refused
//! ```
//!
//! Keeps true: paths that are known to lead to two disks are never joined; of those that may, none but the first
//! carries anything before a comparison, and none is joined whose size is another; an NBD export is joined with another
//! one only where both servers say that their connections see one another's writes. Without that, what was written
//! over one connection may be missed by a read over another, and no flush helps. Such a device is refused rather than used
//! over one path: its user counts on several.
//! Not here: the comparison (crate `multipath`), and what a path is known by (crate `storage-mapping`).

use storage_mapping::{Identity, PathIndex, Sameness};
use thiserror::Error;

/// What a path is judged by.
pub(super) struct Candidate {
    /// Its place among the paths of its device.
    pub(super) place: PathIndex,
    /// Its address, as it was written.
    pub(super) address: String,
    /// Which disk it leads to.
    pub(super) identity: Identity,
    /// Size of that disk in bytes.
    pub(super) bytes: u64,
}

/// How the paths may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Agreement {
    /// Nothing proves that they lead to one disk.
    pub(super) needs_comparison: bool,
    /// A flush over one covers what was written over all.
    pub(super) cache_is_shared: bool,
}

/// Why paths are not the paths of one device.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Disagreement {
    /// Two disks.
    #[error(
        "path {} `{text}` is another disk than path {} `{other_text}`: list the paths of one disk under one device",
        path.0, other.0
    )]
    OtherDisk {
        /// Place of the path.
        path: PathIndex,
        /// Its address.
        text: String,
        /// Place of one before it.
        other: PathIndex,
        /// The address of that.
        other_text: String,
    },
    /// Two sizes, and nothing that proves them one disk all the same.
    #[error(
        "path {} `{text}` has {bytes} bytes and path {} `{other_text}` has {other_bytes}: they are not the same disk; list the paths of one disk under one device",
        path.0, other.0
    )]
    OtherSize {
        /// Place of the path.
        path: PathIndex,
        /// Its address.
        text: String,
        /// Its size.
        bytes: u64,
        /// Place of one before it.
        other: PathIndex,
        /// The address of that.
        other_text: String,
        /// Its size.
        other_bytes: u64,
    },
    /// An NBD server that allows one connection.
    #[error(
        "paths {} and {} are NBD exports, and the server of `{text}` does not say that several connections see one another's writes (NBD_FLAG_CAN_MULTI_CONN): leave one path, or serve the export so that it does",
        path.0, other.0
    )]
    OneConnection {
        /// Place of a path.
        path: PathIndex,
        /// Place of another one.
        other: PathIndex,
        /// The address of the one that has no such flag.
        text: String,
    },
}

/// Judges a path before the next one is opened: the server of another export may let one client in only.
pub(super) fn join(known: &[Candidate], next: &Candidate) -> Result<(), Disagreement> {
    for one in known {
        let (path, other) = (next.place, one.place);
        let (text, other_text) = (next.address.clone(), one.address.clone());
        if let Some(text) = lacks_multi_conn(one, next) {
            return Err(Disagreement::OneConnection { path: other, other: path, text });
        }
        match next.identity.compare(&one.identity) {
            Sameness::Different => {
                return Err(Disagreement::OtherDisk { path, text, other, other_text });
            }
            Sameness::Unknown if next.bytes != one.bytes => {
                let (bytes, other_bytes) = (next.bytes, one.bytes);
                return Err(Disagreement::OtherSize { path, text, bytes, other, other_text, other_bytes });
            }
            Sameness::Unknown | Sameness::Same => {}
        }
    }
    Ok(())
}

/// Of two exports, the address of the first that must have one connection only.
fn lacks_multi_conn(one: &Candidate, other: &Candidate) -> Option<String> {
    let flag = |candidate: &Candidate| match candidate.identity {
        Identity::Nbd { can_multi_conn, .. } => Some(can_multi_conn),
        _ => None,
    };
    let flags = (flag(one)?, flag(other)?);
    let lacking = if flags.0 { other } else { one };
    (flags != (true, true)).then(|| lacking.address.clone())
}

/// How paths may be used that were joined.
pub(super) fn agreement(paths: &[Candidate]) -> Agreement {
    let mut agreement = Agreement { needs_comparison: false, cache_is_shared: true };
    if let Some((first, others)) = paths.split_first() {
        for other in others {
            agreement.needs_comparison |= first.identity.compare(&other.identity) != Sameness::Same;
            agreement.cache_is_shared &= first.identity.shares_cache_with(&other.identity);
        }
    }
    agreement
}

#[cfg(test)]
mod tests {
    use storage_mapping::device::NbdServer;

    use super::*;

    fn file(inode: u64) -> Identity {
        Identity::File { device: 0x0801, inode, offset: 0 }
    }

    fn nbd(export: &str, can_multi_conn: bool) -> Identity {
        let server = NbdServer::Tcp { host: "server".to_owned(), port: 1 };
        Identity::Nbd { server, export: export.to_owned(), can_multi_conn }
    }

    fn judge(identities: &[(Identity, u64)]) -> Result<Agreement, Disagreement> {
        let mut known = Vec::new();
        for (at, (identity, bytes)) in identities.iter().enumerate() {
            let address = ["a", "b", "c"][at].to_owned();
            let next = Candidate { place: PathIndex(at), address, identity: identity.clone(), bytes: *bytes };
            join(&known, &next)?;
            known.push(next);
        }
        Ok(agreement(&known))
    }

    #[test]
    fn one_disk_by_all_its_names_is_used_at_once() {
        let one = Agreement { needs_comparison: false, cache_is_shared: true };
        assert_eq!(judge(&[(file(1), 9)]), Ok(one));
        assert_eq!(judge(&[(nbd("x", false), 9)]), Ok(one));
        // It grew between two openings.
        assert_eq!(judge(&[(file(1), 9), (file(1), 10)]), Ok(one));
    }

    #[test]
    fn two_disks_are_refused_wherever_they_stand() {
        let error = judge(&[(file(1), 9), (file(1), 9), (file(2), 9)]).unwrap_err();
        let expected =
            "path 2 `c` is another disk than path 0 `a`: list the paths of one disk under one device";
        assert_eq!(error.to_string(), expected);
        assert!(judge(&[(nbd("x", true), 9), (file(1), 9), (file(2), 9)]).is_err());
    }

    #[test]
    fn what_nothing_is_known_of_is_compared_and_must_have_one_size() {
        let compared = |cache_is_shared| Ok(Agreement { needs_comparison: true, cache_is_shared });
        assert_eq!(judge(&[(nbd("x", true), 9), (nbd("x", true), 9)]), compared(true));
        assert_eq!(judge(&[(nbd("x", true), 9), (nbd("y", true), 9)]), compared(false));
        assert_eq!(judge(&[(nbd("x", false), 9), (file(1), 9)]), compared(false));
        let error = judge(&[(nbd("x", true), 9), (nbd("x", true), 8)]).unwrap_err().to_string();
        assert!(error.contains("path 1 `b` has 8 bytes and path 0 `a` has 9"), "{error}");
    }

    #[test]
    fn several_connections_need_the_servers_word() {
        for (flags, lacking) in [((false, false), "`a`"), ((false, true), "`a`"), ((true, false), "`b`")] {
            let error = judge(&[(nbd("x", flags.0), 9), (nbd("x", flags.1), 9)]).unwrap_err().to_string();
            assert!(error.contains(lacking) && error.contains("NBD_FLAG_CAN_MULTI_CONN"), "{error}");
        }
    }
}
