//! What a lane remembers over its lives: its highest incarnation and its last nonces.
//!
//! Written before anything else is written to the volume, by a new file that replaces the old one, so
//! that it is whole after any crash. A missing file is a lane that never lived.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use transfer_core::protocol::startup::LocalState;

use crate::config::Hex;
use crate::escape;

/// Why the state of a lane cannot be used.
#[derive(Debug, Error)]
pub enum LocalStateError {
    /// It cannot be read or written.
    #[error("the state of lane {lane} in {file}")]
    Io {
        /// The lane.
        lane: u16,
        /// The file.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// It is damaged.
    #[error("the state of lane {lane} in {file} is damaged; remove it if no other process of this host runs")]
    Damaged {
        /// The lane.
        lane: u16,
        /// The file.
        file: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    volume: String,
    incarnation: u64,
    nonces: Vec<String>,
}

/// The file of a lane on one volume.
#[derive(Clone, Debug)]
pub struct LaneState {
    file: PathBuf,
    lane: u16,
    volume: String,
}

impl LaneState {
    /// The file of `lane` on the volume `volume_id` in the state directory `folder`.
    #[must_use]
    pub fn new(folder: &Path, lane: u16, volume_id: &[u8; 16]) -> Self {
        let volume = volume::open::hex(volume_id);
        Self { file: folder.join(format!("lane-{lane}-{}.json", &volume[..8])), lane, volume }
    }

    /// Reads it.
    ///
    /// # Errors
    /// See [`LocalStateError`].
    pub fn load(&self) -> Result<LocalState, LocalStateError> {
        let damaged = || LocalStateError::Damaged { lane: self.lane, file: escape::name(&self.file) };
        let text = match std::fs::read(&self.file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(LocalState::default()),
            Err(source) => return Err(self.failed(source)),
        };
        let stored: Stored = serde_json::from_slice(&text).map_err(|_| damaged())?;
        if stored.version != 1 || stored.volume != self.volume {
            return Err(damaged());
        }
        let nonces = stored.nonces.iter().map(|nonce| nonce.parse::<Hex<16>>().ok().map(|nonce| nonce.0));
        let nonces = nonces.collect::<Option<Vec<_>>>().ok_or_else(damaged)?;
        Ok(LocalState { incarnation: stored.incarnation, nonces })
    }

    /// Writes it, durably.
    ///
    /// # Errors
    /// See [`LocalStateError`].
    pub fn save(&self, state: &LocalState) -> Result<(), LocalStateError> {
        let stored = Stored {
            version: 1,
            volume: self.volume.clone(),
            incarnation: state.incarnation,
            nonces: state.nonces.iter().map(|nonce| Hex(*nonce).to_string()).collect(),
        };
        self.write(&stored).map_err(|source| self.failed(source))
    }

    fn write(&self, stored: &Stored) -> io::Result<()> {
        let new = self.file.with_extension("new");
        let mut file = File::create(&new)?;
        serde_json::to_writer(&mut file, stored)?;
        file.flush()?;
        file.sync_all()?;
        std::fs::rename(&new, &self.file)?;
        let folder = self.file.parent().unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    }

    fn failed(&self, source: io::Error) -> LocalStateError {
        LocalStateError::Io { lane: self.lane, file: escape::name(&self.file), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_comes_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let lane = LaneState::new(folder.path(), 3, &[7; 16]);
        assert_eq!(lane.load().unwrap(), LocalState::default());
        let state = LocalState { incarnation: 9, nonces: vec![[1; 16], [0xAB; 16]] };
        lane.save(&state).unwrap();
        assert_eq!(lane.load().unwrap(), state);
        std::fs::write(folder.path().join("lane-3-07070707.json"), "{}").unwrap();
        assert!(matches!(lane.load(), Err(LocalStateError::Damaged { lane: 3, .. })));
    }
}
