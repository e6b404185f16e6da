//! What a relay is told, and where it stands: as values and as the words of the program `relay`.
//!
//! Keeps true: a command that is not understood names the word and what would be right. Not here: what the
//! commands do (parent module).

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use storage_mapping::{parse_byte_size, parse_duration};
use thiserror::Error;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server: requests.
    ToServer,
    /// From the server to the client: replies.
    ToClient,
}

/// One or both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ways {
    /// One.
    One(Direction),
    /// Both.
    Both,
}

impl Ways {
    /// Whether it is among them.
    #[must_use]
    pub fn include(self, direction: Direction) -> bool {
        self == Self::Both || self == Self::One(direction)
    }
}

/// What a relay can be told. It holds for the connections there are and for those to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Hold everything.
    Pause(Ways),
    /// Let it go.
    Resume(Ways),
    /// Let each byte wait.
    Delay {
        /// Which.
        ways: Ways,
        /// At least so long.
        delay: Duration,
        /// And up to so much longer.
        jitter: Duration,
    },
    /// So many bytes per second at most, or as many as can be.
    Rate(Ways, Option<u64>),
    /// Throw away what comes, or do so no longer.
    Drop(Ways, bool),
    /// End the client's side of every connection there is, and do not tell the server, as a network that
    /// parts or a host that dies does. What is held for the server goes when it may, and the server's side
    /// stays until the relay is killed. (With the end right behind it, a server may drop a whole request:
    /// nbdkit does at times.)
    Cut,
    /// End every connection on both sides, forget what is held, take no new ones.
    Kill,
    /// Take connections again.
    Revive,
}

/// Words that are no command or no place.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{text}` is not understood: write {expected}")]
pub struct NotUnderstood {
    text: String,
    expected: &'static str,
}

const COMMANDS: &str = "pause, resume, delay TIME [JITTER], rate BYTES|off or drop on|off, with to-server or \
                        to-client behind it for one way only; or cut, kill, revive";

impl FromStr for Command {
    type Err = NotUnderstood;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || NotUnderstood { text: text.to_owned(), expected: COMMANDS };
        let mut words: Vec<_> = text.split_whitespace().collect();
        let ways = match words.last() {
            Some(&"to-server") => Ways::One(Direction::ToServer),
            Some(&"to-client") => Ways::One(Direction::ToClient),
            _ => Ways::Both,
        };
        if ways != Ways::Both {
            words.pop();
        }
        let time = |word: &str| parse_duration(word).map_err(|_| wrong());
        match (words[..].split_first().ok_or_else(wrong)?, ways) {
            ((&"pause", []), _) => Ok(Self::Pause(ways)),
            ((&"resume", []), _) => Ok(Self::Resume(ways)),
            ((&"delay", [delay]), _) => Ok(Self::Delay { ways, delay: time(delay)?, jitter: Duration::ZERO }),
            ((&"delay", [delay, jitter]), _) => {
                Ok(Self::Delay { ways, delay: time(delay)?, jitter: time(jitter)? })
            }
            ((&"rate", ["off"]), _) => Ok(Self::Rate(ways, None)),
            ((&"rate", [rate]), _) => {
                let rate = parse_byte_size(rate).ok().filter(|rate| *rate > 0).ok_or_else(wrong)?;
                Ok(Self::Rate(ways, Some(rate)))
            }
            ((&"drop", ["on"]), _) => Ok(Self::Drop(ways, true)),
            ((&"drop", ["off"]), _) => Ok(Self::Drop(ways, false)),
            ((&"cut", []), Ways::Both) => Ok(Self::Cut),
            ((&"kill", []), Ways::Both) => Ok(Self::Kill),
            ((&"revive", []), Ways::Both) => Ok(Self::Revive),
            _ => Err(wrong()),
        }
    }
}

/// Where one listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Host and port, as in `127.0.0.1:10809`; port 0 lets the system choose one to listen on.
    Tcp(String),
    /// A Unix socket.
    Unix(PathBuf),
}

impl FromStr for Endpoint {
    type Err = NotUnderstood;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong =
            || NotUnderstood { text: text.to_owned(), expected: "tcp:HOST:PORT or unix:PATH of a socket" };
        match text.split_once(':').ok_or_else(wrong)? {
            ("tcp", address) if address.contains(':') => Ok(Self::Tcp(address.to_owned())),
            ("unix", path) if !path.is_empty() => Ok(Self::Unix(path.into())),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_commands() {
        let ms = Duration::from_millis;
        for (text, command) in [
            ("pause", Command::Pause(Ways::Both)),
            ("pause to-server", Command::Pause(Ways::One(Direction::ToServer))),
            (" resume  to-client ", Command::Resume(Ways::One(Direction::ToClient))),
            ("delay 5ms", Command::Delay { ways: Ways::Both, delay: ms(5), jitter: ms(0) }),
            (
                "delay 5ms 2ms to-client",
                Command::Delay { ways: Ways::One(Direction::ToClient), delay: ms(5), jitter: ms(2) },
            ),
            ("rate 1MiB", Command::Rate(Ways::Both, Some(1 << 20))),
            ("rate off", Command::Rate(Ways::Both, None)),
            ("drop on to-server", Command::Drop(Ways::One(Direction::ToServer), true)),
            ("cut", Command::Cut),
            ("kill", Command::Kill),
            ("revive", Command::Revive),
        ] {
            assert_eq!(text.parse(), Ok(command), "{text}");
        }
        for text in
            ["", "to-server", "paws", "delay", "delay 5", "rate 0", "drop", "cut to-server", "kill all"]
        {
            let error = text.parse::<Command>().expect_err(text).to_string();
            assert!(error.contains("resume"), "{error}");
        }
    }

    #[test]
    fn places_print_as_they_are_written() {
        for text in ["tcp:127.0.0.1:10809", "tcp:[::1]:0", "unix:/run/x.sock"] {
            assert_eq!(text.parse::<Endpoint>().expect(text).to_string(), text);
        }
        for text in ["/run/x.sock", "tcp:host", "unix:"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }
}
