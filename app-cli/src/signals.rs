//! Ctrl-C and SIGTERM as something to wait for: the first asks to stop in order, the second stops.

use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::low_level::pipe;

/// The signals that came, as a descriptor that becomes readable.
#[derive(Debug)]
pub struct Signals {
    stream: UnixStream,
    /// There is something to read: it is asked at every event, and a look costs no system call.
    has_come: Arc<AtomicBool>,
    count: usize,
}

impl Signals {
    /// Takes both signals over.
    ///
    /// # Errors
    /// If no pipe can be had.
    pub fn new() -> io::Result<Self> {
        let (stream, write) = UnixStream::pair()?;
        stream.set_nonblocking(true)?;
        let has_come = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: whoever sees the flag finds the byte. Who finds none waits, and is woken by the byte.
            pipe::register(signal, write.try_clone()?)?;
            flag::register(signal, Arc::clone(&has_come))?;
        }
        Ok(Self { stream, has_come, count: 0 })
    }

    /// The descriptor to wait on.
    #[must_use]
    pub fn descriptor(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// How many signals have come so far.
    pub fn count(&mut self) -> usize {
        if !self.has_come.swap(false, Ordering::SeqCst) {
            return self.count;
        }
        let mut bytes = [0; 16];
        while let Ok(length @ 1..) = self.stream.read(&mut bytes) {
            self.count += length;
        }
        self.count
    }
}
