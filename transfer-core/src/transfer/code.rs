//! Why something was refused, aborted or left out: stable numbers for the wire, one line for people.
//!
//! Numbers are never used again for something else. Not here: who reports what (`sender`, `receiver`).

use rustix::io::Errno;
use std::fmt;
use thiserror::Error;

macro_rules! error_codes {
    ($($(#[doc = $doc:literal])* $name:ident = $number:literal, $text:literal;)*) => {
        /// Why a job or a file was refused or aborted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum ErrorCode { $($(#[doc = $doc])* $name = $number,)* }

        impl ErrorCode {
            /// Every code, by number.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code of a number from the wire.
            #[must_use]
            pub fn from_number(number: u16) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }

            /// A few words.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

error_codes! {
    /// The journal says that this transfer id was aborted: a new round is needed.
    AlreadyAborted = 1, "was aborted before";
    /// Another connection holds the partial file, or another process the job.
    Busy = 2, "is being transferred by another connection";
    /// The source is not what it was when it was announced.
    Changed = 3, "source changed while it was sent";
    /// The target and the partial folder are on two file systems.
    CrossDevice = 4, "target is on another file system than its export";
    /// The target exists and must not be replaced.
    Exists = 5, "exists already";
    /// No export of that name.
    ExportUnknown = 6, "no such export";
    /// The user stopped the job.
    Interrupted = 7, "interrupted";
    /// An error of the operating system with no code of its own.
    Io = 8, "input or output error";
    /// A directory stands where a file was expected.
    IsADirectory = 9, "is a directory";
    /// A limit of this side was reached.
    Limit = 10, "limit reached";
    /// A symbolic link that is absolute or leads outside.
    LinkOutside = 11, "symbolic link leads outside";
    /// A name that is not allowed.
    NameInvalid = 12, "name is not allowed";
    /// A name too long for the file system.
    NameTooLong = 13, "name is too long";
    /// No space or quota left.
    NoSpace = 14, "no space left";
    /// A file stands where a directory was expected.
    NotADirectory = 15, "is not a directory";
    /// The export is read-only, or does not allow this.
    NotAllowed = 16, "not allowed by the export";
    /// It does not exist.
    NotFound = 17, "not found";
    /// The operating system denies it.
    Permission = 18, "permission denied";
    /// What was written does not have the announced root.
    RootMismatch = 19, "content does not match its root hash";
    /// A device, socket or FIFO.
    SpecialFile = 20, "not a regular file";
    /// A permit was issued for an id that the journal does not know (any more).
    UnknownTransfer = 21, "transfer is not known here any more";
    /// A symbolic link where none is followed.
    IsALink = 22, "is a symbolic link";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// Local work failed: a code for the peer and a line for people.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text}")]
pub struct LocalError {
    /// What the peer is told.
    pub code: ErrorCode,
    /// One line; names no path outside an export.
    pub text: String,
}

impl LocalError {
    /// An error with the code's own words.
    #[must_use]
    pub fn new(code: ErrorCode) -> Self {
        Self { code, text: code.text().to_owned() }
    }

    /// An error with words of its own.
    #[must_use]
    pub fn with_text(code: ErrorCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

impl From<Errno> for LocalError {
    fn from(errno: Errno) -> Self {
        let code = match errno {
            Errno::NOENT => ErrorCode::NotFound,
            Errno::EXIST | Errno::NOTEMPTY => ErrorCode::Exists,
            Errno::ISDIR => ErrorCode::IsADirectory,
            Errno::NOTDIR => ErrorCode::NotADirectory,
            Errno::NOSPC | Errno::DQUOT | Errno::FBIG => ErrorCode::NoSpace,
            Errno::NAMETOOLONG => ErrorCode::NameTooLong,
            Errno::ACCESS | Errno::PERM => ErrorCode::Permission,
            Errno::ROFS => ErrorCode::NotAllowed,
            Errno::XDEV => ErrorCode::CrossDevice,
            Errno::LOOP => ErrorCode::IsALink,
            _ => ErrorCode::Io,
        };
        let text = if code == ErrorCode::Io {
            std::io::Error::from(errno).to_string()
        } else {
            code.text().to_owned()
        };
        Self { code, text }
    }
}

impl From<std::io::Error> for LocalError {
    fn from(error: std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(number) => Errno::from_raw_os_error(number).into(),
            None => Self::with_text(ErrorCode::Io, error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_codes_agree() {
        for &code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_number(code as u16), Some(code));
        }
        assert_eq!(ErrorCode::from_number(0), None);
    }
}
