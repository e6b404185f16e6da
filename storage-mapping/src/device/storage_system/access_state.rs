//! How a port lets a logical volume be reached: the asymmetric access states of SPC-5, 5.18.
//!
//! Keeps true: a request that a state refuses was not executed and leaves no copy. Not here: which
//! state holds where (`core`).

use std::fmt;
use std::str::FromStr;

use super::scsi_target::Attention;
use crate::block::request::ErrorSource;

/// Status byte of a command that ended with sense data.
const CHECK_CONDITION: u8 = 0x02;
/// Sense key NOT READY.
const NOT_READY: u8 = 0x2;
/// Sense key UNIT ATTENTION.
const UNIT_ATTENTION: u8 = 0x6;

/// How the ports of a target port group let one logical volume be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AccessState {
    /// At full speed.
    #[default]
    ActiveOptimized,
    /// Through another controller: every request takes longer.
    ActiveNonOptimized,
    /// Not before the group is made active.
    Standby,
    /// Not at all.
    Unavailable,
    /// On the way from one state to another.
    Transitioning,
}

impl AccessState {
    /// Every state, with the word that a description uses for it.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::ActiveOptimized, "optimized"),
        (Self::ActiveNonOptimized, "non-optimized"),
        (Self::Standby, "standby"),
        (Self::Unavailable, "unavailable"),
        (Self::Transitioning, "transitioning"),
    ];

    /// What a read, a write or a flush ends with in this state; `None` where it is executed.
    ///
    /// The codes are 2/04/0A, 2/04/0B and 2/04/0C (SPC-5, table of additional sense codes).
    #[must_use]
    pub fn refusal(self) -> Option<ErrorSource> {
        self.not_ready_qualifier().map(|ascq| sense(NOT_READY, 0x04, ascq))
    }

    /// The qualifier of 2/04 that a command ends with which this state does not let through.
    pub(super) fn not_ready_qualifier(self) -> Option<u8> {
        match self {
            Self::ActiveOptimized | Self::ActiveNonOptimized => None,
            Self::Transitioning => Some(0x0a),
            Self::Standby => Some(0x0b),
            Self::Unavailable => Some(0x0c),
        }
    }

    fn word(self) -> &'static str {
        Self::ALL.iter().find(|(state, _)| *state == self).map_or("", |(_, word)| word)
    }
}

impl fmt::Display for AccessState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for AccessState {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.iter().find(|(_, word)| *word == text).map(|(state, _)| *state).ok_or(())
    }
}

/// A unit attention, such as 6/2A/06 where an access state changed.
pub(super) fn attention(attention: Attention) -> ErrorSource {
    sense(UNIT_ATTENTION, attention.asc, attention.ascq)
}

fn sense(key: u8, asc: u8, ascq: u8) -> ErrorSource {
    ErrorSource::Scsi { status: CHECK_CONDITION, host_status: 0, key, asc, ascq, deferred: false }
}

/// A SCSI status without sense.
pub(super) fn status(status: u8) -> ErrorSource {
    ErrorSource::Scsi { status, host_status: 0, key: 0, asc: 0, ascq: 0, deferred: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back() {
        for (state, word) in AccessState::ALL {
            assert_eq!(state.to_string(), word);
            assert_eq!(word.parse(), Ok(state));
        }
        assert!("active".parse::<AccessState>().is_err());
    }
}
