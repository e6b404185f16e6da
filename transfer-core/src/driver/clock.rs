//! The only real clock, and the only real source of randomness.

use storage_mapping::Instant;

use crate::random::Random;

/// Monotonic time since the clock was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: std::time::Instant,
}

impl Clock {
    /// A clock that starts a second after zero, so that "a moment ago" can be told from zero.
    #[must_use]
    pub fn new() -> Self {
        Self { start: std::time::Instant::now() }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant(1_000_000_000 + u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX / 2))
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// The kernel's random source.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsRandom;

impl Random for OsRandom {
    fn fill(&mut self, bytes: &mut [u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            // The source of the kernel cannot fail once the machine has booted; a signal may cut it short.
            let done =
                rustix::rand::getrandom(&mut *rest, rustix::rand::GetRandomFlags::empty()).unwrap_or(0);
            rest = &mut rest[done..];
        }
    }
}
