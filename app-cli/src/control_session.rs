//! A device opened for its operator alone: for control commands where no process has the paths, and for the helper of
//! virtual machines.
//!
//! Keeps true: one thread owns the device and drives it; whoever asks waits for his answer and no longer than he said; the
//! end of a session waits for no path. Not here: what is asked (`multipath::control`).

use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};

use multipath::control::Control;
use storage_mapping::{BlockDevice, Instant, wait};
use thiserror::Error;
use transfer_core::driver::clock::Clock;

use crate::config::DeviceConfig;
use crate::stack::{self, Contents, Origin, StackError};

/// Why there is no session.
#[derive(Debug, Error)]
pub enum SessionError {
    /// The paths do not make a device.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// No thread or descriptor is left.
    #[error("cannot start a thread for device {device}")]
    Start {
        /// Id of the device.
        device: String,
        /// Why.
        source: io::Error,
    },
}

/// A device and the thread that drives it.
pub struct ControlSession {
    control: Control,
    notices: Vec<String>,
    // Its end is what tells the thread to end.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl ControlSession {
    /// Opens the paths of a device of a configuration.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub fn open(origin: &Origin, config: &DeviceConfig) -> Result<Self, SessionError> {
        let stacked = stack::device(origin, config, Contents::Blank)?;
        let control = stacked.controls.into_iter().next().expect("one device has one control");
        let start = |source| SessionError::Start { device: config.id.to_string(), source };
        let (stop, stopped) = UnixStream::pair().map_err(start)?;
        stopped.set_nonblocking(true).map_err(start)?;
        let mut device = stacked.value;
        let builder = thread::Builder::new().name("control".to_owned());
        let thread = builder.spawn(move || drive(&mut device, &stopped)).map_err(start)?;
        Ok(Self { control, notices: stacked.notices, stop: Some(stop), thread: Some(thread) })
    }

    /// The operator's end.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// What was noticed while the paths were opened.
    #[must_use]
    pub fn notices(&self) -> &[String] {
        &self.notices
    }
}

impl Drop for ControlSession {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed where it was; there is nobody else to tell.
            let _ = thread.join();
        }
    }
}

/// Drives a device until the other end of `stopped` is closed.
fn drive(device: &mut dyn BlockDevice, mut stopped: &UnixStream) {
    let clock = Clock::new();
    let mut descriptors = Vec::new();
    loop {
        let now = clock.now();
        while device.poll(now).is_some() {}
        while device.poll_event(now).is_some() {}
        if matches!(stopped.read(&mut [0]), Ok(0)) {
            return;
        }
        descriptors.clear();
        descriptors.push(stopped.as_raw_fd());
        device.wait_on(&mut descriptors);
        let pause = device.next_wakeup().map(|until: Instant| until.since(clock.now()));
        wait::wait(&descriptors, pause);
    }
}
