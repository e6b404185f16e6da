//! The kinds of faults that a run can have, and how many of each there were.
//!
//! Not here: when and where one happens (`plan`, `world`, `disk`).

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A bell is overwritten again and again for a while.
    BellFlood,
    /// A bell is set back to what it was, or cleared.
    BellLost,
    /// The clocks of all hosts jump, by up to a year.
    ClockJump,
    /// A second process with the memory of the first goes on beside it, as in a cloned machine.
    ClonedHost,
    /// A process is killed.
    Crash,
    /// The file system of a host has no room for a while.
    DiskFull,
    /// A request fails with EIO.
    Error,
    /// A read has one bit wrong.
    Flipped,
    /// A path answers nothing for a while.
    Hang,
    /// A write lands once more, later.
    Late,
    /// A write is acknowledged and not done.
    Lost,
    /// A read gets the bytes of another place.
    MisdirectedRead,
    /// A write lands in another place.
    MisdirectedWrite,
    /// A write lands after a younger one to the same block.
    Overtaken,
    /// A path fails every request for a while.
    PathFailure,
    /// A process does not run for a while.
    Pause,
    /// A host loses its power: what its file system had not synced may be gone.
    PowerLoss,
    /// A host goes on from an older state of its memory and files.
    RevertedHost,
    /// A request takes from milliseconds to minutes.
    Slow,
    /// A read sees what was there before the last write.
    Stale,
    /// A process is told to stop, or a job is interrupted.
    Stop,
    /// A sync of a host's file system fails, and what was not synced is given up.
    SyncError,
    /// A part of a write lands, up to a whole block.
    TornAtBlock,
    /// A part of a write lands, up to 512 bytes inside a block.
    TornInBlock,
    /// A table or record on the volume is overwritten with zeros or noise.
    WipedTable,
}

impl Fault {
    /// All of them, in the order of their names.
    pub const ALL: [Self; 25] = [
        Self::BellFlood,
        Self::BellLost,
        Self::ClockJump,
        Self::ClonedHost,
        Self::Crash,
        Self::DiskFull,
        Self::Error,
        Self::Flipped,
        Self::Hang,
        Self::Late,
        Self::Lost,
        Self::MisdirectedRead,
        Self::MisdirectedWrite,
        Self::Overtaken,
        Self::PathFailure,
        Self::Pause,
        Self::PowerLoss,
        Self::RevertedHost,
        Self::Slow,
        Self::Stale,
        Self::Stop,
        Self::SyncError,
        Self::TornAtBlock,
        Self::TornInBlock,
        Self::WipedTable,
    ];

    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BellFlood => "bell flooded",
            Self::BellLost => "bell lost",
            Self::ClockJump => "clocks jump",
            Self::ClonedHost => "second instance of a host",
            Self::Crash => "process killed",
            Self::DiskFull => "file system full",
            Self::Error => "I/O error",
            Self::Flipped => "bit flipped",
            Self::Hang => "path hangs",
            Self::Late => "write lands again later",
            Self::Lost => "write lost",
            Self::MisdirectedRead => "read misdirected",
            Self::MisdirectedWrite => "write misdirected",
            Self::Overtaken => "write lands after a younger one",
            Self::PathFailure => "path fails",
            Self::Pause => "process paused",
            Self::PowerLoss => "host loses power",
            Self::RevertedHost => "host set back to an older state",
            Self::Slow => "I/O slow or hung",
            Self::Stale => "stale read",
            Self::Stop => "process stopped in order",
            Self::SyncError => "sync of a file system fails",
            Self::TornAtBlock => "write torn between blocks",
            Self::TornInBlock => "write torn inside a block",
            Self::WipedTable => "table wiped",
        }
    }
}

/// How many faults of each kind there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounters([u64; Fault::ALL.len()]);

impl FaultCounters {
    /// One more.
    pub fn count(&mut self, fault: Fault) {
        self.0[fault as usize] += 1;
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine += theirs);
    }

    /// How many of one kind.
    #[must_use]
    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    /// All kinds with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (Fault, u64)> + '_ {
        Fault::ALL.into_iter().map(|fault| (fault, self.of(fault)))
    }

    /// All faults.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_own_place() {
        assert!((0..).zip(Fault::ALL).all(|(place, fault)| fault as usize == place));
    }
}
