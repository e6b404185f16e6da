//! What happened in a run, a line per event, and one number that stands for all of it.
//!
//! Keeps true: the number depends on every event and on nothing else, whether lines are printed or not;
//! the same seed gives the same number. Lines are made only when somebody reads them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use storage_mapping::Instant;

#[derive(Debug)]
struct Log {
    hash: u64,
    events: u64,
    printed: bool,
}

/// The log of a run; a clone is the same log.
#[derive(Clone, Debug)]
pub struct Trace {
    log: Arc<Mutex<Log>>,
}

impl Trace {
    /// An empty log; `printed` shows its lines on stdout.
    #[must_use]
    pub fn new(printed: bool) -> Self {
        Self { log: Arc::new(Mutex::new(Log { hash: 0xcbf2_9ce4_8422_2325, events: 0, printed })) }
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An event that is told in words.
    pub fn line(&self, now: Instant, who: &str, what: &str) {
        let mut log = self.lock();
        log.mix(now.0);
        for byte in who.bytes().chain(what.bytes()) {
            log.mix(byte.into());
        }
        log.events += 1;
        if log.printed {
            println!("{now} {who:<10} {what}");
        }
    }

    /// An event that happens often: only its `numbers` count, and `words` are asked for when lines are
    /// printed.
    pub fn numbers(&self, now: Instant, who: &str, numbers: &[u64], words: impl FnOnce() -> String) {
        let mut log = self.lock();
        log.mix(now.0);
        for number in numbers {
            log.mix(*number);
        }
        log.events += 1;
        if log.printed {
            println!("{now} {who:<10} {}", words());
        }
    }

    /// The number that stands for all events.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.lock().hash
    }

    /// Number of events.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.lock().events
    }
}

impl Log {
    fn mix(&mut self, number: u64) {
        self.hash = (self.hash ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
}
