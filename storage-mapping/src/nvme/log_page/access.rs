//! The Asymmetric Namespace Access log (base specification 2.1, 5.1.12.1.13): how this controller reaches the namespaces.
//!
//! Keeps true: a group that did not come whole is left out. Not here: what a state means for a path (`multipath`).

use crate::nvme::number::{push, put, u16_at, u32_at, u64_at};

/// Bytes of the head.
const HEAD_BYTES: usize = 16;
/// Bytes of a group without its namespaces.
const GROUP_BYTES: usize = 32;

/// How a controller reaches the namespaces of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AsymmetricState {
    /// 1: at full speed.
    Optimized,
    /// 2: slower.
    NonOptimized,
    /// 3: not now.
    Inaccessible,
    /// 4: never again.
    PersistentLoss,
    /// Fh: on the way to another state.
    Change,
    /// Reserved, 4 bits.
    Other(u8),
}

impl AsymmetricState {
    /// The state of a number.
    #[must_use]
    pub fn of(number: u8) -> Self {
        match number & 0xf {
            1 => Self::Optimized,
            2 => Self::NonOptimized,
            3 => Self::Inaccessible,
            4 => Self::PersistentLoss,
            0xf => Self::Change,
            other => Self::Other(other),
        }
    }

    /// Its number.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Optimized => 1,
            Self::NonOptimized => 2,
            Self::Inaccessible => 3,
            Self::PersistentLoss => 4,
            Self::Change => 0xf,
            Self::Other(number) => number & 0xf,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Optimized => "optimized",
            Self::NonOptimized => "non-optimized",
            Self::Inaccessible => "inaccessible",
            Self::PersistentLoss => "persistent loss",
            Self::Change => "change",
            Self::Other(_) => "reserved state",
        }
    }
}

/// A group of namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AccessGroup {
    /// Its number.
    pub group: u32,
    /// Counts changes of the group.
    pub change_count: u64,
    /// Its state.
    pub state: AsymmetricState,
    /// Its namespaces; none where only groups were asked for.
    pub namespaces: Vec<u32>,
}

/// The log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AccessLog {
    /// Counts changes of the log.
    pub change_count: u64,
    /// The groups.
    pub groups: Vec<AccessGroup>,
    /// Whether all came.
    pub is_whole: bool,
}

impl AccessLog {
    /// Reads it; `None` where count and number of groups did not come.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (change_count, count) = (u64_at(bytes, 0)?, usize::from(u16_at(bytes, 8)?));
        let mut rest = bytes.get(HEAD_BYTES..).unwrap_or_default();
        let mut groups = Vec::new();
        while groups.len() < count {
            let Some((group, length)) = AccessGroup::parse(rest) else { break };
            groups.push(group);
            rest = &rest[length..];
        }
        let is_whole = bytes.len() >= HEAD_BYTES && groups.len() == count;
        Some(Self { change_count, groups, is_whole })
    }

    /// Its bytes.
    ///
    /// # Panics
    /// If there are more than 65,535 groups.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEAD_BYTES];
        put(&mut bytes, 0, 8, self.change_count);
        put(&mut bytes, 8, 2, u16::try_from(self.groups.len()).expect("a count of 16 bits"));
        self.groups.iter().for_each(|group| group.emit(&mut bytes));
        bytes
    }

    /// How a namespace is reached, if the log names it.
    #[must_use]
    pub fn of_namespace(&self, namespace: u32) -> Option<AsymmetricState> {
        self.groups.iter().find(|group| group.namespaces.contains(&namespace)).map(|group| group.state)
    }
}

impl AccessGroup {
    /// The group at the beginning of `bytes` and its length; `None` where it did not come whole.
    fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let fixed: &[u8; GROUP_BYTES] = bytes.first_chunk()?;
        let length = usize::try_from(u32_at(fixed, 4)?).ok()?.checked_mul(4)?.checked_add(GROUP_BYTES)?;
        let namespaces = bytes.get(GROUP_BYTES..length)?.chunks_exact(4);
        let group = Self {
            group: u32_at(fixed, 0)?,
            change_count: u64_at(fixed, 8)?,
            state: AsymmetricState::of(fixed[16]),
            namespaces: namespaces.filter_map(|number| u32_at(number, 0)).collect(),
        };
        Some((group, length))
    }

    fn emit(&self, bytes: &mut Vec<u8>) {
        let at = bytes.len();
        bytes.resize(at + GROUP_BYTES, 0);
        put(bytes, at, 4, self.group);
        put(bytes, at + 4, 4, u32::try_from(self.namespaces.len()).expect("a count of 32 bits"));
        put(bytes, at + 8, 8, self.change_count);
        bytes[at + 16] = self.state.number();
        self.namespaces.iter().for_each(|number| push(bytes, 4, *number));
    }
}
