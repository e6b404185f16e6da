//! Claims: who works under a transfer id at a place.
//!
//! What holds: work under an id begins only with a [`Claim`], and at most one connection has one. A small
//! file stays claimed between its pieces of work; then, and only then, a newer connection of the same host
//! may take it over: the older one can do nothing under that id any more, neither publish nor abort. Not
//! here: locks between processes (`target`), the end of an older connection (whoever runs it).

use super::super::code::{ErrorCode, LocalError};
use super::super::store::TransferId;
use super::{Place, lock};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Who receives over one connection.
#[derive(Debug, Default)]
pub(crate) struct Claimant {
    /// The host at its other end; empty where that does not matter.
    peer: String,
    /// A newer connection of the same host asks for one of its files.
    wanted: AtomicBool,
}

impl Claimant {
    pub(crate) fn new(peer: &str) -> Self {
        Self { peer: peer.to_owned(), wanted: AtomicBool::new(false) }
    }

    /// Whether it is to give way.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }
}

/// An id that is claimed.
#[derive(Debug)]
struct Held {
    by: Arc<Claimant>,
    /// Claims that are out.
    claims: usize,
    /// It stays claimed between them.
    is_kept: bool,
}

/// All ids that are claimed at a place.
#[derive(Debug, Default)]
pub(crate) struct Claims(BTreeMap<TransferId, Held>);

impl Claims {
    /// A connection is at its end: what it kept is free.
    pub(crate) fn forget(&mut self, claimant: &Arc<Claimant>) {
        self.0.retain(|_, held| !Arc::ptr_eq(&held.by, claimant));
    }
}

/// The right to work under an id, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Claim {
    place: Arc<Place>,
    id: TransferId,
}

impl Claim {
    /// Claims an id for the content of its file. Where an older connection of the same host has it, that one
    /// is told to give way; it has lost the id if it has no work out under it.
    pub(crate) fn begin(
        place: &Arc<Place>,
        id: TransferId,
        claimant: &Arc<Claimant>,
    ) -> Result<Self, LocalError> {
        let mut shared = lock(&place.shared);
        match shared.claims.0.entry(id) {
            _ if claimant.is_wanted() => return Err(taken()),
            Entry::Vacant(entry) => {
                entry.insert(Held { by: Arc::clone(claimant), claims: 1, is_kept: false });
            }
            Entry::Occupied(mut entry) => {
                let held = entry.get_mut();
                if Arc::ptr_eq(&held.by, claimant) || held.by.peer != claimant.peer {
                    return Err(taken());
                }
                held.by.wanted.store(true, Ordering::Relaxed);
                if held.claims > 0 {
                    return Err(taken());
                }
                *held = Held { by: Arc::clone(claimant), claims: 1, is_kept: false };
            }
        }
        Ok(Self { place: Arc::clone(place), id })
    }

    /// Claims an id that this connection has, or nobody.
    pub(crate) fn go_on(
        place: &Arc<Place>,
        id: TransferId,
        claimant: &Arc<Claimant>,
    ) -> Result<Self, LocalError> {
        let mut shared = lock(&place.shared);
        let vacant = || Held { by: Arc::clone(claimant), claims: 0, is_kept: false };
        let held = shared.claims.0.entry(id).or_insert_with(vacant);
        if !Arc::ptr_eq(&held.by, claimant) {
            return Err(taken());
        }
        held.claims += 1;
        Ok(Self { place: Arc::clone(place), id })
    }

    /// Whether the id stays claimed when this claim has ended.
    pub(crate) fn keep(&self, is_kept: bool) {
        if let Some(held) = lock(&self.place.shared).claims.0.get_mut(&self.id) {
            held.is_kept = is_kept;
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut shared = lock(&self.place.shared);
        if let Entry::Occupied(mut entry) = shared.claims.0.entry(self.id) {
            entry.get_mut().claims -= 1;
            if entry.get().claims == 0 && !entry.get().is_kept {
                entry.remove();
            }
        }
    }
}

fn taken() -> LocalError {
    LocalError::with_text(ErrorCode::Busy, "another connection receives it")
}
