//! Ctrl-C and SIGTERM as something to wait for: the first asks to stop in order, the second stops.

use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

/// The signals that came, as a descriptor that becomes readable.
#[derive(Debug)]
pub struct Signals {
    stream: UnixStream,
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
        for signal in [SIGINT, SIGTERM] {
            pipe::register(signal, write.try_clone()?)?;
        }
        Ok(Self { stream, count: 0 })
    }

    /// The descriptor to wait on.
    #[must_use]
    pub fn descriptor(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// How many signals have come so far.
    pub fn count(&mut self) -> usize {
        let mut bytes = [0; 16];
        while let Ok(length @ 1..) = self.stream.read(&mut bytes) {
            self.count += length;
        }
        self.count
    }
}
