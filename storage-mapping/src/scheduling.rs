//! How a thread stands in the queue for processors.
//!
//! Bytes go from thread to thread in pieces of about 1 MiB. A thread that is woken for the next piece usually takes the
//! processor at once from the one that works on the last, whose caches are cold when it goes on; most switches of context
//! are of this kind. Who answers small requests, on the other hand, must not wait until the piece of somebody else is done
//! (on processors that are busy: 4 ms instead of 0.07). Not here: which thread does what (`hand_off::crew`, and the loop).

#![allow(unsafe_code)]

use nix::libc::{SCHED_BATCH, SCHED_OTHER, c_int, sched_param, sched_setscheduler};

/// Makes the calling thread one that waits for its turn when it is woken while all processors are busy (`SCHED_BATCH`, see
/// sched(7)). On an idle processor it goes on at once, as before. What it starts from now on inherits it.
///
/// Where the system refuses, the thread stays what it is: that costs speed and nothing else.
pub fn wait_for_turns() {
    set_policy(SCHED_BATCH);
}

/// Takes [`wait_for_turns`] back for the calling thread and for what it starts from now on.
pub fn take_turns_as_usual() {
    set_policy(SCHED_OTHER);
}

fn set_policy(policy: c_int) {
    let parameters = sched_param { sched_priority: 0 };
    // SAFETY: the kernel reads one `sched_param` from a pointer to one, and writes nothing; 0 is the calling thread.
    let _ = unsafe { sched_setscheduler(0, policy, &raw const parameters) };
}

#[cfg(all(test, not(loom)))]
pub(crate) mod tests {
    use super::{take_turns_as_usual, wait_for_turns};

    /// Field 41 of stat(5) of a thread, its policy: 0 as usual, 3 for SCHED_BATCH.
    pub(crate) fn policy() -> String {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("Linux");
        let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
        fields.split_whitespace().nth(38).expect("a policy").to_owned()
    }

    #[test]
    fn a_thread_and_those_that_it_starts_wait_for_their_turns() {
        std::thread::spawn(|| {
            assert_eq!(policy(), "0");
            wait_for_turns();
            assert_eq!(policy(), "3");
            let child = std::thread::spawn(policy);
            assert_eq!(child.join().expect("it ends"), "3");
            take_turns_as_usual();
            assert_eq!(policy(), "0");
        })
        .join()
        .expect("it ends");
    }
}
