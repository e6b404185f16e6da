//! Waiting for descriptors: the one thing that only the edge of a program may do.
//!
//! Devices name descriptors ([`BlockDevice::wait_on`](crate::BlockDevice::wait_on)); the event loop waits
//! on them here, for as long as no wake-up is due. Not here: what to do then.

use std::cell::Cell;
use std::os::fd::{BorrowedFd, RawFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::prctl::set_timerslack;
use nix::sys::time::TimeSpec;

/// How late a wait may end, in nanoseconds. The kernel takes 50 µs unless told, as long as the shortest pause of a poll.
const SLACK_NS: u64 = 1_000;

thread_local! {
    static IS_PUNCTUAL: Cell<bool> = const { Cell::new(false) };
}

/// Waits until a descriptor is readable or `timeout` has passed; `None` waits without end. A signal ends
/// the wait, too.
#[expect(unsafe_code, reason = "poll takes borrowed descriptors, a device names raw ones")]
pub fn wait(descriptors: &[RawFd], timeout: Option<Duration>) {
    if !IS_PUNCTUAL.replace(true) {
        // Without it waits end later, which costs time and nothing else.
        let _ = set_timerslack(SLACK_NS);
    }
    let mut polled: Vec<PollFd<'_>> = descriptors
        .iter()
        .map(|descriptor| {
            // SAFETY: the descriptors belong to devices that live while this call runs; poll only looks at
            // them, and a closed one makes it return at once.
            let borrowed = unsafe { BorrowedFd::borrow_raw(*descriptor) };
            PollFd::new(borrowed, PollFlags::POLLIN)
        })
        .collect();
    // An error here (EINTR, a closed descriptor) means: look again.
    let _ = ppoll(&mut polled, timeout.map(TimeSpec::from_duration), None);
}
