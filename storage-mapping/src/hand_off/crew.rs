//! Threads that work on the jobs of one queue, started as they are needed.
//!
//! What holds: a thread is started only where a job would have to wait for another one, and there are never more than was
//! said; whoever gives a job never waits; dropping the crew waits for nobody: threads end after the job that they have.
//! A job that panics ends the process: its result would never come, and whoever waits for it would wait for ever.
//! Not here: where results go (`results`).

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread;

use super::{Giver, JobGiver, JobTaker, jobs};
use crate::scheduling::{take_turns_as_usual, wait_for_turns};

/// What a thread does with a job.
type Work<J, R> = dyn Fn(J) -> R + Send + Sync;

/// Threads for jobs `J`, which become results `R`.
pub struct Crew<J, R> {
    name: &'static str,
    threads_max: usize,
    is_patient: bool,
    work: Arc<Work<J, R>>,
    jobs: JobGiver<J>,
    waiting: JobTaker<J>,
    finished: Giver<R>,
    threads: usize,
}

impl<J: Send + 'static, R: Send + 'static> Crew<J, R> {
    /// No thread yet. They will be called `name`, and there will be `threads_max` at most.
    pub fn new(
        name: &'static str,
        threads_max: usize,
        finished: Giver<R>,
        work: impl Fn(J) -> R + Send + Sync + 'static,
    ) -> Self {
        let (jobs, waiting) = jobs();
        Self {
            name,
            threads_max,
            is_patient: false,
            work: Arc::new(work),
            jobs,
            waiting,
            finished,
            threads: 0,
        }
    }

    /// Has threads that are started from now on wait for their turns: for jobs of some size, whose thread loses more when
    /// it is pushed off its processor than they lose by waiting.
    #[must_use]
    pub fn with_patience(self) -> Self {
        Self { is_patient: true, ..self }
    }

    /// One thread more.
    ///
    /// # Errors
    /// Where the system gives none.
    pub fn start_thread(&mut self) -> io::Result<()> {
        let (work, waiting) = (Arc::clone(&self.work), self.waiting.clone());
        let finished = self.finished.clone();
        let is_patient = self.is_patient;
        let begin = move || {
            let _guard = EndsTheProcess;
            if is_patient {
                wait_for_turns();
            } else {
                take_turns_as_usual();
            }
            waiting.work(&finished, |job| work(job));
        };
        thread::Builder::new().name(self.name.to_owned()).spawn(begin)?;
        self.threads += 1;
        Ok(())
    }

    /// Hands a job over.
    ///
    /// # Errors
    /// The job comes back where there is no thread and the system gives none.
    pub fn give(&mut self, job: J) -> Result<(), (J, io::Error)> {
        if self.threads < self.threads_max
            && self.jobs.is_short_of_threads()
            && let Err(error) = self.start_thread()
            && self.threads == 0
        {
            return Err((job, error));
        }
        assert!(self.jobs.give(job), "a side of the queue is here");
        Ok(())
    }
}

impl<J, R> fmt::Debug for Crew<J, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Crew({}, {} of {} threads)", self.name, self.threads, self.threads_max)
    }
}

/// Ends the process when a thread unwinds; the message of the panic has been printed by then.
struct EndsTheProcess;

impl Drop for EndsTheProcess {
    fn drop(&mut self) {
        if thread::panicking() {
            std::process::abort();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::results;
    use super::Crew;
    use crate::scheduling::tests::policy;
    use crate::scheduling::{take_turns_as_usual, wait_for_turns};
    use std::sync::{Arc, Barrier};

    #[test]
    fn threads_start_where_a_job_would_have_to_wait_and_not_beyond_the_limit() {
        let (finished, mut taker) = results().expect("a descriptor");
        let together = Arc::new(Barrier::new(3));
        let meet = Arc::clone(&together);
        let mut crew = Crew::new("crew", 3, finished, move |job: u32| {
            meet.wait();
            job
        });
        // Each waits for two others: with fewer threads none would ever come back.
        (0..9).for_each(|job| crew.give(job).expect("a thread"));
        let mut found = Vec::new();
        while found.len() < 9 {
            found.extend(std::iter::from_fn(|| taker.take()));
            if found.len() < 9 {
                crate::wait::wait(&[taker.descriptor()], None);
            }
        }
        found.sort_unstable();
        assert!(found.into_iter().eq(0..9));
        assert_eq!(crew.threads, 3);
    }

    #[test]
    fn a_crew_is_as_patient_as_was_said_whoever_starts_its_threads() {
        let policy_of = |is_patient: bool| {
            let (finished, mut taker) = results().expect("a descriptor");
            let crew = Crew::new("crew", 1, finished, |()| policy());
            let mut crew = if is_patient { crew.with_patience() } else { crew };
            crew.give(()).expect("a thread");
            loop {
                if let Some(policy) = taker.take() {
                    return policy;
                }
                crate::wait::wait(&[taker.descriptor()], None);
            }
        };
        wait_for_turns();
        assert_eq!((policy_of(false), policy_of(true)), ("0".to_owned(), "3".to_owned()));
        take_turns_as_usual();
        assert_eq!((policy_of(false), policy_of(true)), ("0".to_owned(), "3".to_owned()));
    }

    #[test]
    fn one_job_after_another_needs_one_thread() {
        let (finished, mut taker) = results().expect("a descriptor");
        let mut crew = Crew::new("crew", 8, finished, |job: u32| job);
        for job in 0..100 {
            // It came back, so its thread is idle or about to be: that may take another one.
            crew.give(job).expect("a thread");
            while taker.take().is_none() {
                crate::wait::wait(&[taker.descriptor()], None);
            }
        }
        assert!((1..=8).contains(&crew.threads));
    }
}
