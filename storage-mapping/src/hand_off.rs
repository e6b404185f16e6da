//! How work goes to threads and comes back to the one loop that waits.
//!
//! ```text
//!  JobGiver ──queue──► JobTaker ┐  work   ┌ Giver ──queue, then bell──► Taker ◄── the loop waits for the bell
//!                      JobTaker ┘ (many)  └ Giver
//! ```
//!
//! What holds, in every interleaving (`tests/loom.rs`):
//!
//! * a result is in the queue before the bell rings, and the bell is cleared before the look that finds
//!   nothing: who was told that there is nothing and then waits is woken by the next result;
//! * the bell is rung once for all results before it is cleared, and a look at an empty queue whose bell was not
//!   rung makes no system call;
//! * each job is done once, or dropped once where the other side has gone; no side waits for one that
//!   has gone;
//! * what a job owns stays with it while it is worked on, whoever else goes.
//!
//! Not here: what the work is, and how many threads do it (`crew`).

pub(crate) mod bell;
pub mod crew;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::sync::PoisonError;

use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, mpsc};
use bell::Bell;

/// The way back for results of many threads.
///
/// # Errors
/// If the system gives no descriptor.
pub fn results<T>() -> io::Result<(Giver<T>, Taker<T>)> {
    let (sender, receiver) = mpsc::channel();
    let alarm = Arc::new(Alarm { is_rung: AtomicBool::new(false), bell: Bell::new()? });
    let giver = Giver { queue: sender, alarm: Arc::clone(&alarm) };
    Ok((giver, Taker { queue: receiver, alarm, is_lent: false }))
}

/// The bell, and whether it has to be rung.
///
/// What holds: the bell is rung, or about to be, only while `is_rung`.
struct Alarm {
    is_rung: AtomicBool,
    bell: Bell,
}

impl Alarm {
    /// To be called after the result is in the queue: who sees that it is rung already also sees that it is cleared
    /// only before another look at the queue.
    fn ring(&self) {
        if !self.is_rung.swap(true, Ordering::AcqRel) {
            self.bell.ring();
        }
    }

    /// Where somebody is about to ring but has not yet, it stays rung: that will wake the loop once more.
    fn clear(&self) {
        if self.bell.clear() {
            self.is_rung.swap(false, Ordering::AcqRel);
        }
    }
}

/// The side of results that a thread has.
pub struct Giver<T> {
    queue: mpsc::Sender<T>,
    alarm: Arc<Alarm>,
}

impl<T> Giver<T> {
    /// Hands a result over and wakes who waits for it; `false` if nobody takes results any more.
    pub fn give(&self, result: T) -> bool {
        let is_taken = self.queue.send(result).is_ok();
        if is_taken {
            self.alarm.ring();
        }
        is_taken
    }
}

impl<T> Clone for Giver<T> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), alarm: Arc::clone(&self.alarm) }
    }
}

/// The side of results that the loop has.
pub struct Taker<T> {
    queue: mpsc::Receiver<T>,
    alarm: Arc<Alarm>,
    /// Others ring the bell, too.
    is_lent: bool,
}

impl<T> Taker<T> {
    /// The next result. Only after `None` may one wait: the bell is cleared then, and not before.
    pub fn take(&mut self) -> Option<T> {
        if let Ok(result) = self.queue.try_recv() {
            return Some(result);
        }
        if !self.is_lent && !self.alarm.is_rung.load(Ordering::Acquire) {
            return None;
        }
        // Cleared only when nothing is left, then looked at once more: what comes after the clearing
        // rings again.
        self.alarm.clear();
        self.queue.try_recv().ok()
    }

    /// The descriptor that is readable when a result came after the last `None`.
    #[must_use]
    pub fn descriptor(&self) -> RawFd {
        self.alarm.bell.descriptor()
    }

    /// The same for somebody else who makes it readable, such as the kernel. From now on each `None` takes a system
    /// call.
    pub fn lend_bell(&mut self) -> RawFd {
        self.is_lent = true;
        self.descriptor()
    }

    /// Waits for the bell, as a loop does with the descriptor.
    #[cfg(loom)]
    pub fn wait(&self) {
        self.alarm.bell.wait();
    }
}

/// The way of jobs to threads.
#[must_use]
pub fn jobs<J>() -> (JobGiver<J>, JobTaker<J>) {
    let queue = Queue { jobs: VecDeque::new(), idle: 0, takers: 1, has_giver: true };
    let shared = Arc::new(Shared { queue: Mutex::new(queue), changed: Condvar::new() });
    (JobGiver(Arc::clone(&shared)), JobTaker(shared))
}

/// Jobs that nobody took yet, and who is there.
struct Queue<J> {
    jobs: VecDeque<J>,
    /// Threads that wait for a job.
    idle: usize,
    takers: usize,
    has_giver: bool,
}

struct Shared<J> {
    queue: Mutex<Queue<J>>,
    /// There is a job more, or there will be none.
    changed: Condvar,
}

impl<J> Shared<J> {
    fn lock(&self) -> MutexGuard<'_, Queue<J>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The side of jobs that the loop has. When it goes, the threads do not wait for more.
pub struct JobGiver<J>(Arc<Shared<J>>);

impl<J> JobGiver<J> {
    /// Hands a job over; `false` if every thread has gone.
    pub fn give(&self, job: J) -> bool {
        let mut queue = self.0.lock();
        if queue.takers == 0 {
            return false;
        }
        queue.jobs.push_back(job);
        let is_awaited = queue.idle > 0;
        drop(queue);
        if is_awaited {
            self.0.changed.notify_one();
        }
        true
    }

    /// Whether one job more would have to wait until a thread is done with another.
    #[must_use]
    pub fn is_short_of_threads(&self) -> bool {
        let queue = self.0.lock();
        queue.jobs.len() >= queue.idle
    }
}

impl<J> Drop for JobGiver<J> {
    fn drop(&mut self) {
        self.0.lock().has_giver = false;
        self.0.changed.notify_all();
    }
}

/// The side of jobs that every thread has.
pub struct JobTaker<J>(Arc<Shared<J>>);

impl<J> JobTaker<J> {
    /// Works until nobody hands out jobs or takes results any more.
    pub fn work<R>(&self, results: &Giver<R>, mut work: impl FnMut(J) -> R) {
        while let Some(job) = self.next() {
            if !results.give(work(job)) {
                return;
            }
        }
    }

    fn next(&self) -> Option<J> {
        let mut queue = self.0.lock();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            if !queue.has_giver {
                return None;
            }
            queue.idle += 1;
            queue = self.0.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
    }
}

impl<J> Clone for JobTaker<J> {
    fn clone(&self) -> Self {
        self.0.lock().takers += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<J> Drop for JobTaker<J> {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.takers -= 1;
        let left = if queue.takers == 0 { std::mem::take(&mut queue.jobs) } else { VecDeque::new() };
        drop(queue);
        drop(left);
    }
}

macro_rules! debug_by_name {
    ($($name:ident)*) => {
        $(impl<T> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        })*
    };
}

debug_by_name!(Giver Taker JobGiver JobTaker);

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{jobs, results};
    use std::thread;

    #[test]
    fn results_of_many_threads_come_once_each() {
        let (giver, mut taker) = results().expect("a descriptor");
        let (work, source) = jobs();
        for _ in 0..4 {
            let (giver, source) = (giver.clone(), source.clone());
            thread::spawn(move || source.work(&giver, |job: usize| job + 1));
        }
        for job in 0..1000 {
            assert!(work.give(job));
        }
        let mut found = Vec::new();
        while found.len() < 1000 {
            found.extend(std::iter::from_fn(|| taker.take()));
            if found.len() < 1000 {
                crate::wait::wait(&[taker.descriptor()], None);
            }
        }
        found.sort_unstable();
        assert!(found.into_iter().eq(1..=1000));
        assert!(taker.take().is_none());
    }

    #[test]
    fn nobody_waits_for_one_that_has_gone() {
        let (giver, taker) = results().expect("a descriptor");
        let (work, source) = jobs();
        assert!(work.give(1) && work.give(2));
        drop(taker);
        // It ends after the first job, since nobody takes the result.
        source.work(&giver, |job| job);
        drop(source);
        assert!(!work.give(3));
    }
}
