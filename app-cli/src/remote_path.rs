//! The two ends of a copy as the user names them: `HOST:EXPORT/PATH`, a local path, or `-`.
//!
//! A colon before the first `/` makes a path remote, as in scp; `./a:b` is the local file `a:b`. The
//! parts of a remote path never contain `..`, so nothing that is sent to a peer even asks to leave its
//! export. Not here: which ends go together (`copy_request`), what is found there.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use thiserror::Error;

use crate::escape;
use crate::name::{Name, NotAName};

/// The longest part of a remote path, in bytes: what Linux file systems hold.
pub const PART_MAX_BYTES: usize = 255;
/// The longest remote path behind the export, in bytes: what a system call takes.
pub const PATH_MAX_BYTES: usize = 4095;

/// One end of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// A path on this host.
    Local(PathBuf),
    /// A path on another host.
    Remote(RemotePath),
    /// `-`: standard input or output.
    Standard,
}

/// A place inside an export of another host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemotePath {
    /// The host.
    pub host: Name,
    /// The export, as the host's configuration names it.
    pub export: Name,
    /// The parts of the path inside it; none is the export itself.
    pub parts: Vec<OsString>,
    /// Whether the path ended in `/`: it names a directory.
    pub is_directory: bool,
}

/// Why a text names no end of a copy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RemotePathError {
    /// No export after the colon.
    #[error("`{path}` names no export of host {host}; write {host}:EXPORT/PATH, as in {host}:inbox/file")]
    Export {
        /// What was given.
        path: String,
        /// The host in it.
        host: Name,
    },
    /// Nothing at all.
    #[error("an empty path; write a file name, HOST:EXPORT/PATH, or - for standard input or output")]
    Empty,
    /// A local path where only a remote one can be.
    #[error("`{path}` is not on another host; write HOST:EXPORT/PATH, as in beta:inbox/file")]
    Local {
        /// What was given.
        path: String,
    },
    /// A part or the whole is too long.
    #[error(
        "`{path}` is too long; a part may have {PART_MAX_BYTES} bytes, all behind the export {PATH_MAX_BYTES}"
    )]
    Long {
        /// What was given.
        path: String,
    },
    /// Host or export is not a name.
    #[error("`{path}`: {source}, or write ./{path} for the local file")]
    Name {
        /// What was given.
        path: String,
        /// What is wrong with the name.
        source: NotAName,
    },
    /// A `..` in a remote path.
    #[error("`{path}` contains `..`; name the place from the export's top")]
    Parent {
        /// What was given.
        path: String,
    },
}

impl End {
    /// Reads one end of a copy.
    ///
    /// # Errors
    /// See [`RemotePathError`].
    pub fn parse(text: &OsStr) -> Result<Self, RemotePathError> {
        let bytes = text.as_bytes();
        if bytes.is_empty() {
            return Err(RemotePathError::Empty);
        }
        if bytes == b"-" {
            return Ok(Self::Standard);
        }
        match bytes.iter().position(|byte| b":/".contains(byte)) {
            Some(colon) if bytes[colon] == b':' => {
                RemotePath::split(text, &bytes[..colon], &bytes[colon + 1..]).map(Self::Remote)
            }
            _ => Ok(Self::Local(PathBuf::from(text))),
        }
    }
}

impl RemotePath {
    /// Reads a path that must be remote.
    ///
    /// # Errors
    /// See [`RemotePathError`].
    pub fn parse(text: &OsStr) -> Result<Self, RemotePathError> {
        match End::parse(text)? {
            End::Remote(path) => Ok(path),
            End::Local(_) | End::Standard => Err(RemotePathError::Local { path: escape::name(text) }),
        }
    }

    /// The last part, or the export's name where the path is the export itself.
    #[must_use]
    pub fn last(&self) -> &OsStr {
        self.parts.last().map_or(OsStr::new(self.export.as_str()), OsString::as_os_str)
    }

    fn split(text: &OsStr, host: &[u8], rest: &[u8]) -> Result<Self, RemotePathError> {
        let path = || escape::name(text);
        let to_name = |bytes: &[u8]| {
            let name = String::from_utf8_lossy(bytes).parse::<Name>();
            name.map_err(|source| RemotePathError::Name { path: path(), source })
        };
        let host = to_name(host)?;
        let mut parts = rest.split(|byte| *byte == b'/');
        let export = match parts.next() {
            None | Some(b"") => return Err(RemotePathError::Export { path: path(), host }),
            Some(export) => to_name(export)?,
        };
        let parts: Vec<&[u8]> = parts.filter(|part| !part.is_empty() && *part != b".").collect();
        if parts.contains(&b"..".as_slice()) {
            return Err(RemotePathError::Parent { path: path() });
        }
        let length: usize = parts.iter().map(|part| part.len() + 1).sum();
        if length > PATH_MAX_BYTES || parts.iter().any(|part| part.len() > PART_MAX_BYTES) {
            return Err(RemotePathError::Long { path: path() });
        }
        let is_directory = parts.is_empty() || rest.ends_with(b"/") || rest.ends_with(b"/.");
        let parts = parts.into_iter().map(|part| OsStr::from_bytes(part).to_owned()).collect();
        Ok(Self { host, export, parts, is_directory })
    }
}

impl fmt::Display for RemotePath {
    /// As it may be shown: escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.export)?;
        for part in &self.parts {
            write!(f, "/{}", escape::name(part))?;
        }
        if self.is_directory { f.write_str("/") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<String, String> {
        match End::parse(OsStr::new(text)) {
            Ok(End::Local(path)) => Ok(format!("local {}", path.display())),
            Ok(End::Remote(path)) => Ok(format!("remote {path}")),
            Ok(End::Standard) => Ok("standard".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn ends_are_told_apart_as_scp_does() {
        for (text, expected) in [
            ("-", "standard"),
            ("./-", "local ./-"),
            ("file", "local file"),
            ("/a:b", "local /a:b"),
            ("./a:b", "local ./a:b"),
            ("dir/a:b", "local dir/a:b"),
            ("beta:inbox", "remote beta:inbox/"),
            ("beta:inbox/", "remote beta:inbox/"),
            ("beta:inbox/x", "remote beta:inbox/x"),
            ("beta:inbox//x/./y/", "remote beta:inbox/x/y/"),
            ("beta:inbox/x/.", "remote beta:inbox/x/"),
            ("beta:inbox/a:b", "remote beta:inbox/a:b"),
            ("beta:inbox/...", "remote beta:inbox/..."),
        ] {
            assert_eq!(shown(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_mistake_names_the_thing_and_the_remedy() {
        let long = format!("beta:inbox/{}", "x".repeat(256));
        let deep = format!("beta:inbox{}", "/abc".repeat(1024));
        for (text, parts) in [
            ("", &["empty path", "write a file name"][..]),
            ("beta:", &["`beta:` names no export of host beta", "beta:EXPORT/PATH"]),
            ("beta:/etc/passwd", &["names no export", "beta:EXPORT/PATH"]),
            (":inbox/x", &["`` is not a name", "./:inbox/x"]),
            ("a b:inbox", &["`a b` is not a name", "write ./a b:inbox"]),
            ("beta:in box/x", &["`in box` is not a name"]),
            ("beta:inbox/../x", &["contains `..`", "from the export's top"]),
            ("be\x1bta:inbox/x", &["`be\\x1bta` is not a name"]),
            (&long, &["too long", "255"]),
            (&deep, &["too long", "4095"]),
        ] {
            let error = shown(text).unwrap_err();
            for part in parts {
                assert!(error.contains(part), "{text}: {error}");
            }
        }
    }

    #[test]
    fn any_bytes_may_stand_behind_the_export() {
        let path = RemotePath::parse(OsStr::from_bytes(b"beta:inbox/\xff\n")).unwrap();
        assert_eq!(path.parts[0].as_bytes(), b"\xff\n");
        assert_eq!(path.to_string(), "beta:inbox/\\xff\\n");
        assert_eq!(path.last().as_bytes(), b"\xff\n");
        assert_eq!(RemotePath::parse(OsStr::new("beta:inbox")).unwrap().last(), "inbox");
        assert!(RemotePath::parse(OsStr::new("./x")).is_err());
    }
}
