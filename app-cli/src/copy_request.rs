//! What a `cp` command line asks for: a push or a pull, with ends that go together.
//!
//! Decided before anything is opened, so that a mistake costs nothing. Not here: whether the files are
//! there, and how they travel.

use std::path::PathBuf;

use thiserror::Error;

use crate::args::transfer::CpArgs;
use crate::escape;
use crate::name::Name;
use crate::remote_path::{End, RemotePath, RemotePathError};

/// A copy that makes sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyRequest {
    /// Paths of another host come here.
    Pull {
        /// What: at least one, all of one host.
        sources: Vec<RemotePath>,
        /// Where to.
        destination: PullDestination,
    },
    /// Local files and directories go to another host.
    PushFiles {
        /// What: at least one.
        sources: Vec<PathBuf>,
        /// Where to.
        destination: RemotePath,
    },
    /// Standard input becomes a file of another host.
    PushStandardInput {
        /// The file.
        destination: RemotePath,
    },
}

/// Where a pull ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullDestination {
    /// A file or a directory of this host.
    Path(PathBuf),
    /// Standard output: one file.
    StandardOutput,
}

/// Why a command line asks for no copy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CopyRequestError {
    /// One of the ends.
    #[error(transparent)]
    End(#[from] RemotePathError),
    /// `--json` and the data would both go to standard output.
    #[error("--json and the data would mix on standard output; leave out --json or name a file instead of -")]
    JsonOverData,
    /// Neither end is on another host.
    #[error("neither `{path}` nor a source is on another host; write one side as HOST:EXPORT/PATH")]
    NoHost {
        /// The destination.
        path: String,
    },
    /// Standard input together with other sources, or for a directory.
    #[error("- is one stream: give it alone, without -r, and with a file name at the other end{hint}")]
    OneStream {
        /// The destination, where it lacks a file name.
        hint: String,
    },
    /// Sources of both kinds.
    #[error("`{path}` is not on host {host} as the first source is; copy from one place at a time")]
    Scattered {
        /// The source that differs.
        path: String,
        /// The host of the first source.
        host: Name,
    },
    /// Both ends on other hosts.
    #[error(
        "both `{from}` and `{to}` are on other hosts; run the copy on {host}, or copy here first and then on"
    )]
    ThirdHost {
        /// The source.
        from: String,
        /// The destination.
        to: String,
        /// The host that has the source.
        host: Name,
    },
}

impl CopyRequest {
    /// Reads the ends of a copy.
    ///
    /// # Errors
    /// See [`CopyRequestError`].
    pub fn new(args: &CpArgs) -> Result<Self, CopyRequestError> {
        let sources = args.sources.iter().map(|source| End::parse(source));
        let sources = sources.collect::<Result<Vec<_>, _>>()?;
        match End::parse(&args.destination)? {
            End::Remote(destination) => push(args, sources, destination),
            End::Local(path) => {
                let shown = escape::name(&path);
                pull(args, sources, PullDestination::Path(path), shown)
            }
            End::Standard => pull(args, sources, PullDestination::StandardOutput, "-".into()),
        }
    }

    /// The host at the other end.
    #[must_use]
    pub fn host(&self) -> &Name {
        match self {
            Self::Pull { sources, .. } => &sources[0].host,
            Self::PushFiles { destination, .. } | Self::PushStandardInput { destination } => {
                &destination.host
            }
        }
    }
}

fn push(args: &CpArgs, ends: Vec<End>, destination: RemotePath) -> Result<CopyRequest, CopyRequestError> {
    if ends.contains(&End::Standard) {
        let hint = match destination.is_directory {
            true => format!(": {destination}NAME"),
            false => String::new(),
        };
        if ends.len() > 1 || args.recursive || destination.is_directory {
            return Err(CopyRequestError::OneStream { hint });
        }
        return Ok(CopyRequest::PushStandardInput { destination });
    }
    let mut sources = Vec::with_capacity(ends.len());
    for end in ends {
        match end {
            End::Local(path) => sources.push(path),
            End::Remote(from) => {
                let host = from.host.clone();
                let (from, to) = (from.to_string(), destination.to_string());
                return Err(CopyRequestError::ThirdHost { from, to, host });
            }
            End::Standard => unreachable!("handled above"),
        }
    }
    Ok(CopyRequest::PushFiles { sources, destination })
}

fn pull(
    args: &CpArgs,
    ends: Vec<End>,
    destination: PullDestination,
    shown: String,
) -> Result<CopyRequest, CopyRequestError> {
    let Some(host) = ends.iter().find_map(|end| match end {
        End::Remote(path) => Some(path.host.clone()),
        End::Local(_) | End::Standard => None,
    }) else {
        return Err(CopyRequestError::NoHost { path: shown });
    };
    let mut sources = Vec::with_capacity(ends.len());
    for (end, text) in ends.into_iter().zip(&args.sources) {
        match end {
            End::Remote(path) if path.host == host => sources.push(path),
            End::Local(_) | End::Remote(_) | End::Standard => {
                return Err(CopyRequestError::Scattered { path: escape::name(text), host });
            }
        }
    }
    if destination == PullDestination::StandardOutput {
        if args.json {
            return Err(CopyRequestError::JsonOverData);
        }
        if sources.len() > 1 || args.recursive || sources[0].is_directory {
            return Err(CopyRequestError::OneStream { hint: String::new() });
        }
    }
    Ok(CopyRequest::Pull { sources, destination })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(line: &str) -> Result<CopyRequest, String> {
        let mut words: Vec<_> = line.split(' ').collect();
        let flag = |words: &mut Vec<&str>, flag: &str| {
            let found = words.contains(&flag);
            words.retain(|word| *word != flag);
            found
        };
        let args = CpArgs {
            recursive: flag(&mut words, "-r"),
            json: flag(&mut words, "--json"),
            destination: words.pop().unwrap().into(),
            sources: words.into_iter().map(Into::into).collect(),
            ..CpArgs::default()
        };
        CopyRequest::new(&args).map_err(|error| error.to_string())
    }

    #[test]
    fn copies_that_make_sense() {
        assert!(
            matches!(request("a b beta:in"), Ok(CopyRequest::PushFiles { sources, .. }) if sources.len() == 2)
        );
        assert!(matches!(request("- beta:in/x"), Ok(CopyRequest::PushStandardInput { .. })));
        assert!(matches!(request("-r beta:in/x beta:in/y ."), Ok(CopyRequest::Pull { .. })));
        let pulled = request("beta:in/x -").unwrap();
        assert_eq!(pulled.host().as_str(), "beta");
        assert!(matches!(pulled, CopyRequest::Pull { destination: PullDestination::StandardOutput, .. }));
    }

    #[test]
    fn copies_that_make_none() {
        for (line, part) in [
            ("a b", "neither `b`"),
            ("a -", "neither `-`"),
            ("beta:in/x gamma:in/y", "run the copy on beta"),
            ("a beta:in/x .", "`a` is not on host beta"),
            ("beta:in/x gamma:in/y .", "`gamma:in/y` is not on host beta"),
            ("- a beta:in/x", "one stream"),
            ("-r - beta:in/x", "one stream"),
            ("- beta:in", "at the other end: beta:in/NAME"),
            ("beta:in/x beta:in/y -", "one stream"),
            ("beta:in/dir/ -", "one stream"),
            ("--json beta:in/x -", "leave out --json"),
            ("beta:../x .", "is not a name"),
        ] {
            let error = request(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
