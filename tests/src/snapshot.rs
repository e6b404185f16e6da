//! The memory of a process as it was at a moment, to go on from later: a machine that is set back, or that
//! runs twice.
//!
//! A node cannot be copied, but it is deterministic: a twin that gets everything that the node gets is the
//! same node. So a process that may be set back has a twin from its first moment; a snapshot takes the twin
//! away. What was under way comes back to it as a machine's requests do when it is restored: writes may
//! or may not have landed, reads failed. Its random numbers are new ones, as a kernel's are after a restore
//! (a kernel that repeats them would repeat nonces). Keeps true: twin and node ask for the same things in
//! the same order, or the run ends. Not here: when it happens (`world`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use storage_mapping::{
    Buffer, BufferPool, CopyFate, Effect, IoBuffer, IoCompletion, IoError, IoRequest, IoTag, Operation,
    SharedBuffer,
};
use transfer_core::node::Node;
use transfer_core::protocol::connection::ConnectionId;
use transfer_core::protocol::endpoint::WorkTag;
use transfer_core::protocol::seal::SealDone;
use transfer_core::protocol::startup::LocalState;
use transfer_core::random::{Random, SeededRandom};
use transfer_core::transfer::LocalReply;

use crate::chance::Chance;

/// EIO.
const EIO: i32 = 5;

/// Random numbers that can be changed under the node that draws them.
#[derive(Clone, Debug)]
pub struct HostRandom(Arc<Mutex<SeededRandom>>);

impl HostRandom {
    /// The numbers of `seed`.
    #[must_use]
    pub fn new(seed: &[u8; 32]) -> Self {
        Self(Arc::new(Mutex::new(SeededRandom::new(seed))))
    }

    /// Other numbers from now on.
    pub fn reseed(&self, seed: &[u8; 32]) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = SeededRandom::new(seed);
    }
}

impl Random for HostRandom {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill(bytes);
    }
}

/// A second node that gets everything that the first gets.
pub struct Twin {
    /// The node.
    pub node: Node,
    /// Its buffers.
    pub pool: BufferPool,
    /// Its random numbers.
    pub random: HostRandom,
    /// What is under way.
    flying: BTreeMap<u64, (u16, Flying)>,
}

#[derive(Debug)]
enum Flying {
    Read { length: usize },
    Write(SharedBuffer),
    Flush,
}

impl std::fmt::Debug for Twin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Twin({:?})", self.node)
    }
}

impl Twin {
    /// A twin of a node that was made from the same numbers.
    #[must_use]
    pub fn new(node: Node, pool: BufferPool, random: HostRandom) -> Self {
        Self { node, pool, random, flying: BTreeMap::new() }
    }

    /// The node has asked for I/O: the twin must ask for the same.
    ///
    /// # Panics
    /// If it does not.
    pub fn follow_io(&mut self, device: u16, request: &IoRequest) {
        let (own_device, own) = self.node.poll_io().expect("the twin asks for what the node asks for");
        assert!(own_device == device && own.tag == request.tag, "the twin asks for something else");
        let flying = match own.operation {
            Operation::Read { buffer, .. } => Flying::Read { length: buffer.len() },
            Operation::Write { data, .. } => Flying::Write(data),
            Operation::Flush => Flying::Flush,
        };
        self.flying.insert(own.tag.0, (device, flying));
    }

    /// What came back to the node comes back to the twin.
    pub fn copy_completion(&mut self, done: &IoCompletion) -> IoCompletion {
        let own = self.flying.remove(&done.tag.0);
        let buffer = match (&done.buffer, own) {
            (IoBuffer::Read(bytes), _) => IoBuffer::Read(Buffer::copy_of(bytes)),
            (_, Some((_, Flying::Write(data)))) => IoBuffer::Write(data),
            _ => IoBuffer::None,
        };
        IoCompletion { tag: done.tag, outcome: done.outcome, effect: done.effect, copy: done.copy, buffer }
    }
}

/// Sealing and answers of local work that come back to a process that goes on.
pub type UnderWay = (Vec<(WorkTag, SealDone)>, Vec<(ConnectionId, LocalReply)>);

/// A process as it was.
#[derive(Debug)]
pub struct Snapshot {
    /// Its node and memory.
    pub twin: Twin,
    /// Sealing that was under way.
    pub sealed: Vec<(WorkTag, SealDone)>,
    /// Answers of local work that were under way.
    pub answers: Vec<(ConnectionId, LocalReply)>,
    /// Its connections that had files.
    pub connections: Vec<ConnectionId>,
    /// What its host remembered then.
    pub local: LocalState,
}

impl Snapshot {
    /// How what was under way ends for the process that goes on.
    pub fn returned(&mut self, chance: &mut Chance) -> Vec<IoCompletion> {
        let pool = self.twin.pool.clone();
        let flying = std::mem::take(&mut self.twin.flying);
        let failed = || Err(IoError::errno(EIO));
        flying
            .into_iter()
            .map(|(tag, (_, flying))| {
                let (outcome, buffer) = match flying {
                    Flying::Read { length } => (failed(), IoBuffer::Read(pool.take(length))),
                    Flying::Write(data) if chance.below(2) == 0 => (Ok(()), IoBuffer::Write(data)),
                    Flying::Write(data) => (failed(), IoBuffer::Write(data)),
                    Flying::Flush => (Ok(()), IoBuffer::None),
                };
                let (effect, copy) = match &outcome {
                    Ok(()) => (Effect::Full, CopyFate::Dead),
                    Err(_) => (Effect::Unknown, CopyFate::MayLand),
                };
                IoCompletion { tag: IoTag(tag), outcome, effect, copy, buffer }
            })
            .collect()
    }
}
