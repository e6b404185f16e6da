//! Every interleaving of the hand-offs between threads, by loom.
//!
//! ```sh
//! RUSTFLAGS="--cfg loom" cargo test --profile loom -p storage-mapping --test loom --target-dir target/loom -- --nocapture
//! ```
//!
//! What is shown for the types that the product runs: no result is lost and no wake-up is missed; a
//! shutdown while workers are busy ends, and drops each job once; memory is not written while anyone has a
//! handle on it, and goes back to its pool when nobody has. A model that waits for ever fails as a
//! deadlock, memory with an unordered write as a race. Without `--cfg loom` this file is empty.
//! Not here: the channel, the eventfd and the kernel, which are taken at their word.

#![cfg(loom)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use loom::model::Builder;
use loom::thread;
use storage_mapping::hand_off::{jobs, results};
use storage_mapping::{Buffer, BufferPool};

/// The larger models are cut to so many preemptions of each interleaving; one more with DISKWIRE_FULL=1.
fn preemptions() -> usize {
    2 + usize::from(std::env::var_os("DISKWIRE_FULL").is_some_and(|value| value == "1"))
}

/// Runs a model in every interleaving and says how many there are.
fn explore(name: &str, preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let mut builder = Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let bound = preemptions.map_or(String::new(), |bound| format!(", at most {bound} preemptions"));
    println!("loom: {name}: {} interleavings{bound}", count.load(Ordering::Relaxed));
}

/// How often something was dropped; made and read outside of loom's sight.
#[derive(Clone, Default)]
struct Drops(Arc<AtomicUsize>);

struct Counted(Drops);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drops {
    fn item(&self) -> Counted {
        Counted(self.clone())
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

#[test]
fn no_result_is_lost_and_no_wake_up_missed() {
    explore("two threads give, the loop sleeps whenever it finds nothing", Some(preemptions()), || {
        let (giver, mut taker) = results().expect("a bell");
        for number in [1, 2] {
            let giver = giver.clone();
            thread::spawn(move || assert!(giver.give(number)));
        }
        let mut sum = 0;
        loop {
            while let Some(number) = taker.take() {
                sum += number;
            }
            if sum == 3 {
                break;
            }
            taker.wait();
        }
        assert!(taker.take().is_none());
    });
}

#[test]
fn results_of_one_thread_come_in_order() {
    explore("one thread gives three, the loop sleeps whenever it finds nothing", Some(preemptions()), || {
        let (giver, mut taker) = results().expect("a bell");
        let thread = thread::spawn(move || (0..3).for_each(|number| assert!(giver.give(number))));
        let mut found = Vec::new();
        while found.len() < 3 {
            found.extend(std::iter::from_fn(|| taker.take()));
            if found.len() < 3 {
                taker.wait();
            }
        }
        assert_eq!(found, [0, 1, 2]);
        thread.join().expect("it ends");
    });
}

#[test]
fn a_result_for_a_loop_that_goes_is_dropped_once() {
    explore("the loop goes while two threads give", Some(preemptions()), || {
        let drops = Drops::default();
        let (giver, mut taker) = results().expect("a bell");
        let threads = [(); 2].map(|()| {
            let (giver, item) = (giver.clone(), drops.item());
            thread::spawn(move || giver.give(item))
        });
        drop(taker.take());
        drop(taker);
        for thread in threads {
            thread.join().expect("nobody waits for a loop that has gone");
        }
        assert_eq!(drops.count(), 2);
    });
}

/// Two workers, two jobs; the loop takes every result and then goes.
#[test]
fn each_job_is_done_once() {
    explore("two workers, two jobs, then the end", Some(preemptions()), || {
        let (work, source) = jobs();
        let (giver, mut taker) = results().expect("a bell");
        let threads = [(); 2].map(|()| {
            let (source, giver) = (source.clone(), giver.clone());
            thread::spawn(move || source.work(&giver, |job: u32| job * 10))
        });
        assert!(work.give(1) && work.give(2));
        let mut found = Vec::new();
        while found.len() < 2 {
            found.extend(std::iter::from_fn(|| taker.take()));
            if found.len() < 2 {
                taker.wait();
            }
        }
        found.sort_unstable();
        assert_eq!(found, [10, 20]);
        drop(work);
        for thread in threads {
            thread.join().expect("workers end when there will be no more jobs");
        }
        assert!(taker.take().is_none());
    });
}

/// A device that is dropped: nobody waits for it, and what its jobs own is dropped once, after the work.
#[test]
fn a_shutdown_while_workers_are_busy_ends_and_leaks_nothing() {
    explore("two workers, two jobs, the device goes at any instant", Some(preemptions()), || {
        let drops = Drops::default();
        let (work, source) = jobs();
        let (giver, mut taker) = results().expect("a bell");
        let threads = [(); 2].map(|()| {
            let (source, giver, before) = (source.clone(), giver.clone(), drops.clone());
            let busy = move |job: Counted| {
                assert!(before.count() < 2, "the job lives while it is worked on");
                thread::yield_now();
                job
            };
            thread::spawn(move || source.work(&giver, busy))
        });
        drop((source, giver));
        for _ in 0..2 {
            // Refused where a worker has gone already, and dropped here then.
            let _ = work.give(drops.item());
        }
        drop(taker.take());
        drop(taker);
        drop(work);
        for thread in threads {
            thread.join().expect("workers end");
        }
        assert_eq!(drops.count(), 2);
    });
}

/// A write in doubt: one handle is with a device that may still read the memory.
#[test]
fn memory_that_a_device_still_reads_is_not_used_again() {
    explore("a device reads a write buffer while the pool is used", None, || {
        let pool = BufferPool::new();
        let mut buffer = pool.take(4096);
        buffer.fill(1);
        let in_doubt = buffer.freeze();
        let with_the_device = in_doubt.clone();
        let device = thread::spawn(move || {
            assert_eq!(with_the_device[0], 1);
            thread::yield_now();
            assert_eq!(with_the_device[4095], 1, "somebody wrote what a device reads");
        });
        drop(in_doubt);
        pool.take(4096).fill(2);
        device.join().expect("the device ends");
        assert_eq!(pool.take_zeroed(4096)[0], 0);
    });
}

#[test]
fn the_last_of_two_handles_gives_the_memory_back_or_frees_it() {
    let (kept, freed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = (Arc::clone(&kept), Arc::clone(&freed));
    explore("two handles are dropped at once, then the pool is used", None, move || {
        let pool = BufferPool::new();
        let mut buffer = pool.take(4096);
        buffer.fill(1);
        let shared = buffer.freeze();
        let other = shared.clone();
        let thread = thread::spawn(move || drop(other));
        drop(shared);
        thread.join().expect("it ends");
        // New memory is zero.
        let mut buffer = pool.take(4096);
        let which = if buffer[0] == 1 { &seen.0 } else { &seen.1 };
        which.fetch_add(1, Ordering::Relaxed);
        buffer.fill(3);
    });
    let count = |seen: &AtomicUsize| seen.load(Ordering::Relaxed);
    println!("loom: of these, kept by the pool {}, freed {}", count(&kept), count(&freed));
    assert!(count(&kept) > 0);
}

#[test]
fn only_the_last_handle_becomes_writable() {
    explore("a handle asks to write while the other one is dropped", None, || {
        let mut buffer = Buffer::zeroed(4096);
        buffer.fill(1);
        let shared = buffer.freeze();
        let other = shared.clone();
        let thread = thread::spawn(move || assert_eq!(other[0], 1));
        if let Ok(mut buffer) = shared.try_into_buffer() {
            buffer.fill(2);
        }
        thread.join().expect("it ends");
    });
}

/// The whole way: a write goes to a worker and comes back, then the pool gives its memory out again.
#[test]
fn a_buffer_that_went_to_a_worker_comes_back_before_it_is_used_again() {
    explore("a write buffer goes to a worker and back", Some(preemptions()), || {
        let pool = BufferPool::new();
        let written = Arc::new(Mutex::new(Vec::new()));
        let (work, source) = jobs();
        let (giver, mut taker) = results().expect("a bell");
        let disk = Arc::clone(&written);
        let worker = thread::spawn(move || {
            source.work(&giver, |data: storage_mapping::SharedBuffer| {
                disk.lock().expect("no panic").push(data[0]);
                data
            });
        });
        for number in [1, 2] {
            let mut buffer = pool.take(4096);
            buffer.fill(number);
            let data = buffer.freeze();
            assert!(work.give(data.clone()));
            // Re-sent from the same memory if the write fails: the handle is kept until the result.
            let back = loop {
                match taker.take() {
                    Some(back) => break back,
                    None => taker.wait(),
                }
            };
            assert_eq!(back[0], data[0]);
        }
        drop(work);
        worker.join().expect("it ends");
        assert_eq!(*written.lock().expect("no panic"), [1, 2]);
    });
}
