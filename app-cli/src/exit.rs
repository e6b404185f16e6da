//! Exit codes, and how an error becomes one line.
//!
//! The codes are an interface: scripts branch on them, so they are few and never change. Not here:
//! which error means which code; each command decides that in its own error type.

use std::error::Error;
use std::process::ExitCode;

/// How a run of the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything that was asked for is done.
    Done,
    /// Nothing, or not the one thing that was asked for, was done.
    Failed,
    /// The command line or a configuration file is wrong; nothing was tried.
    Usage,
    /// Some files are done and some failed; a re-run takes up those that failed.
    PartlyDone,
    /// Whether a file was published is not known yet; a re-run finds out.
    InDoubt,
    /// A resource is busy for the moment; the same command may succeed later.
    TryAgain,
}

/// The codes as `--help` shows them.
pub const EXIT_CODES_HELP: &str = "\
Exit codes:
  0   done
  1   failed
  2   wrong usage or configuration; nothing was tried
  3   partly done: the files that failed are listed, a re-run takes them up
  4   in doubt: the other side went silent while publishing; a re-run finds out
  75  busy for the moment: try again";

impl Exit {
    /// The code that the shell sees.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::PartlyDone => 3,
            Self::InDoubt => 4,
            Self::TryAgain => 75,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// An error and what it came from, joined by `: `. A source that the text already has is not said twice.
#[must_use]
pub fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_help() {
        use Exit::{Done, Failed, InDoubt, PartlyDone, TryAgain, Usage};
        let codes: Vec<_> =
            [Done, Failed, Usage, PartlyDone, InDoubt, TryAgain].into_iter().map(Exit::code).collect();
        let shown = EXIT_CODES_HELP.lines().skip(1);
        let shown: Vec<u8> =
            shown.map(|line| line.split_whitespace().next().unwrap().parse().unwrap()).collect();
        assert_eq!(codes, shown);
    }
}
