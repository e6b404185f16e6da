//! The bell beside a queue: it stays rung until it is cleared, and can be waited for.
//!
//! An eventfd, so that a loop waits for it beside other descriptors. With `--cfg loom` it is a flag with a
//! condition that keeps the same promise: ringing is seen by a wait that begins before or after it.

#[cfg(not(loom))]
pub(crate) use eventfd::Bell;
#[cfg(loom)]
pub(crate) use flag::Bell;

#[cfg(not(loom))]
mod eventfd {
    use std::io;
    use std::os::fd::{AsRawFd, RawFd};

    use nix::sys::eventfd::{EfdFlags, EventFd};

    #[derive(Debug)]
    pub(crate) struct Bell(EventFd);

    impl Bell {
        pub(crate) fn new() -> io::Result<Self> {
            Ok(Self(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?))
        }

        pub(crate) fn ring(&self) {
            // Fails only when the counter is full, and then the descriptor is readable anyway.
            let _ = self.0.write(1);
        }

        /// Whether it was rung since the last time.
        pub(crate) fn clear(&self) -> bool {
            self.0.read().is_ok()
        }

        pub(crate) fn descriptor(&self) -> RawFd {
            self.0.as_raw_fd()
        }
    }
}

#[cfg(loom)]
mod flag {
    use std::io;
    use std::os::fd::RawFd;
    use std::sync::PoisonError;

    use loom::sync::{Condvar, Mutex};

    pub(crate) struct Bell {
        rung: Mutex<bool>,
        changed: Condvar,
    }

    impl Bell {
        pub(crate) fn new() -> io::Result<Self> {
            Ok(Self { rung: Mutex::new(false), changed: Condvar::new() })
        }

        pub(crate) fn ring(&self) {
            *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
            self.changed.notify_all();
        }

        pub(crate) fn clear(&self) -> bool {
            std::mem::take(&mut *self.rung.lock().unwrap_or_else(PoisonError::into_inner))
        }

        pub(crate) fn descriptor(&self) -> RawFd {
            -1
        }

        pub(crate) fn wait(&self) {
            let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
            while !*rung {
                rung = self.changed.wait(rung).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}
