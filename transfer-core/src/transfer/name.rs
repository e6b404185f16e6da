//! Names and paths that a peer may send: lists of components, bytes, never leading out.
//!
//! What holds for a [`RelativePath`]: each component has 1–255 bytes, no `/`, no NUL, is not `.`, `..`
//! or the partial folder; all together at most [`PATH_BYTES_MAX`] bytes. An empty path is the root
//! itself. Not here: opening (`export`), which also refuses symbolic links on the way.

use std::fmt;
use thiserror::Error;

/// The folder of unfinished files: never named by a peer and never shown.
pub const PARTIAL_FOLDER: &[u8] = b".diskwire-partial";

/// Bytes of a whole path, separators included, at most.
pub const PATH_BYTES_MAX: usize = 4096;

/// Bytes of one component, at most.
pub(crate) const NAME_BYTES_MAX: usize = 255;

/// A name or path that is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// A component is empty, too long, special, or holds a separator or NUL.
    #[error("a name is not allowed")]
    Component,
    /// The path as a whole is too long.
    #[error("a path is longer than {PATH_BYTES_MAX} bytes")]
    TooLong,
}

/// Whether `name` may be one component.
#[must_use]
pub(crate) fn name_is_allowed(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.iter().any(|&byte| byte == b'/' || byte == 0)
        && name != b"."
        && name != b".."
        && name != PARTIAL_FOLDER
}

/// A checked path below some root, kept as its components joined by `/`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelativePath(Vec<u8>);

impl RelativePath {
    /// The root itself.
    #[must_use]
    pub fn root() -> Self {
        Self(Vec::new())
    }

    /// A path of one component.
    ///
    /// # Errors
    /// If the name is not allowed.
    pub fn of_name(name: &[u8]) -> Result<Self, NameError> {
        Self::root().child(name)
    }

    /// A path from text with separators, as a user writes it; empty components and `.` are dropped.
    ///
    /// # Errors
    /// If a component is not allowed or the path is too long.
    pub fn from_joined(path: &[u8]) -> Result<Self, NameError> {
        let mut result = Self::root();
        for name in path.split(|&byte| byte == b'/') {
            if !name.is_empty() && name != b"." {
                result.push(name)?;
            }
        }
        Ok(result)
    }

    /// Adds one component.
    ///
    /// # Errors
    /// If the name is not allowed or the path becomes too long; the path is then unchanged.
    pub fn push(&mut self, name: &[u8]) -> Result<(), NameError> {
        if !name_is_allowed(name) {
            return Err(NameError::Component);
        }
        if self.0.len() + 1 + name.len() > PATH_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        if !self.0.is_empty() {
            self.0.push(b'/');
        }
        self.0.extend_from_slice(name);
        Ok(())
    }

    /// This path with one more component.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn child(&self, name: &[u8]) -> Result<Self, NameError> {
        let mut path = self.clone();
        path.push(name)?;
        Ok(path)
    }

    /// This path, then `below`.
    ///
    /// # Errors
    /// If that is too long.
    pub fn join(&self, below: &Self) -> Result<Self, NameError> {
        if self.is_root() || below.is_root() {
            return Ok(if self.is_root() { below.clone() } else { self.clone() });
        }
        if self.0.len() + 1 + below.0.len() > PATH_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        let mut path = Vec::with_capacity(self.0.len() + 1 + below.0.len());
        path.extend_from_slice(&self.0);
        path.push(b'/');
        path.extend_from_slice(&below.0);
        Ok(Self(path))
    }

    /// Whether it is the root itself.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The components, first to last.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|&byte| byte == b'/').filter(|name| !name.is_empty())
    }

    /// Number of components.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.components().count()
    }

    /// The first component.
    #[must_use]
    pub fn first(&self) -> Option<&[u8]> {
        self.components().next()
    }

    /// The path below its first component.
    #[must_use]
    pub fn below_first(&self) -> Self {
        match self.0.iter().position(|&byte| byte == b'/') {
            Some(at) => Self(self.0[at + 1..].to_vec()),
            None => Self::root(),
        }
    }

    /// The directory it is in, and its last component.
    #[must_use]
    pub fn split_last(&self) -> Option<(Self, &[u8])> {
        if self.is_root() {
            return None;
        }
        match self.0.iter().rposition(|&byte| byte == b'/') {
            Some(at) => Some((Self(self.0[..at].to_vec()), &self.0[at + 1..])),
            None => Some((Self::root(), &self.0)),
        }
    }

    /// The components joined by `/`; empty for the root.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for RelativePath {
    /// Never prints control characters: a name from a peer must not drive a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_str(".");
        }
        for character in String::from_utf8_lossy(&self.0).chars() {
            if character.is_control() {
                write!(f, "{}", character.escape_default())?;
            } else {
                write!(f, "{character}")?;
            }
        }
        Ok(())
    }
}

/// Whether a symbolic link in a directory `depth` below the root may point to `target`.
///
/// It must be relative; `..` may only lead, at most `depth` times: the parent of a link is a real
/// directory, so leading `..` count real levels, while `x/..` could leave through a link `x`.
#[must_use]
pub fn link_stays_inside(depth: usize, target: &[u8]) -> bool {
    if target.is_empty() || target.len() >= PATH_BYTES_MAX || target[0] == b'/' || target.contains(&0) {
        return false;
    }
    let mut ups = 0;
    let mut named = false;
    for name in target.split(|&byte| byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." if named => return false,
            b".." => ups += 1,
            PARTIAL_FOLDER => return false,
            _ => named = true,
        }
    }
    ups <= depth
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_out_are_refused() {
        for bad in [&b"."[..], b"..", b"", b"a/b", b"a\0b", PARTIAL_FOLDER, &[b'x'; 256]] {
            assert!(!name_is_allowed(bad), "{bad:?}");
        }
        for good in [&b"a"[..], b"...", b"\xff\xfe", &[b'x'; 255]] {
            assert!(name_is_allowed(good));
        }
        assert_eq!(RelativePath::from_joined(b"a/../b"), Err(NameError::Component));
        let path = RelativePath::from_joined(b"/a//./b/").expect("allowed");
        assert_eq!(path.as_bytes(), b"a/b");
    }

    #[test]
    fn a_path_has_a_limit() {
        let mut path = RelativePath::root();
        let mut count = 0;
        while path.push(&[b'n'; 100]).is_ok() {
            count += 1;
        }
        assert!(path.as_bytes().len() <= PATH_BYTES_MAX && count == 40);
    }

    #[test]
    fn links_stay_inside() {
        assert!(link_stays_inside(0, b"file"));
        assert!(link_stays_inside(1, b"../file"));
        assert!(link_stays_inside(2, b"../../a/b"));
        for (depth, bad) in [(0, &b"../x"[..]), (1, b"../../x"), (5, b"a/../b"), (5, b"/etc"), (5, b"")] {
            assert!(!link_stays_inside(depth, bad), "{bad:?}");
        }
    }
}
