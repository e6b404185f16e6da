//! Seeds that broke a promise once, each with what was wrong.

use system_tests::plan::Edition;
use system_tests::runner::{replay_command, run_edition};

fn check(edition: Edition, seeds: &[u64]) {
    for seed in seeds {
        if let Err(violation) = run_edition(edition, *seed, false) {
            panic!("edition {edition:?}, seed {seed}: {violation}\n    {}", replay_command(*seed));
        }
    }
}

/// An idle connection's loop turned without end for nine seconds of every ten: the wake-up and the
/// publication did not agree on when the keep-alive is due.
#[test]
fn an_idle_connection_does_not_spin() {
    check(Edition::First, &[10, 16, 23, 44]);
}

/// With a table write under way for long, the keep-alive that could not be published woke the loop at
/// once, again and again.
#[test]
fn a_table_in_flight_does_not_spin() {
    check(Edition::First, &[29, 34, 61]);
}

/// The segment that did not open had to wait for a free one, and all the others waited behind it.
#[test]
fn a_small_pool_does_not_lock_itself() {
    check(Edition::First, &[37, 72, 161]);
}

/// Nobody took the events of a multipath device, which then wanted to be polled at once for ever.
#[test]
fn events_of_a_device_are_taken() {
    check(Edition::First, &[135]);
}

/// A command that ran again at once after it was killed met its own earlier connection, and was told that
/// its files had failed for good; it is told to try again, and keeps its record.
#[test]
fn a_file_that_is_busy_has_not_failed() {
    check(Edition::First, &[1196]);
}

/// A user who interrupted a job, or a connection that broke, after its last file was published: the job was
/// called unfinished although its record was gone, and a second run published every file once more.
#[test]
fn a_job_that_is_done_stays_done() {
    check(Edition::Second, &[879, 885]);
}

/// A path that failed at once made a dirty beacon be read back at full speed; and a process that left waited for
/// the retry of a write that it would not make.
#[test]
fn a_failing_path_does_not_keep_the_loop_busy() {
    check(Edition::Third, &[2072]);
}

/// A clock that jumped made partial files look abandoned; they were removed without a word, and whoever had
/// permitted their publication stayed in doubt for ever.
#[test]
fn what_is_called_old_is_aborted_first() {
    check(Edition::Third, &[3_004_568, 3_094_967]);
}

/// A host lost its power while it forgot a pull that had ended: the journal was gone and the nonce was not, so
/// that the same ids came again, as unknown ones, and their files were published once more.
#[test]
fn a_pull_is_forgotten_nonce_first() {
    check(Edition::Third, &[5_776_959]);
}

/// Ctrl-C in a pull: the file that was announced right after it was refused, and the job ended as failed in place of
/// unfinished.
#[test]
fn an_interrupted_pull_has_not_failed() {
    check(Edition::Third, &[5_663_638]);
}

/// The disk was full when a destination was opened: the journal could not be written and was never opened again, so
/// that nobody could send there any more until the next start.
#[test]
fn a_journal_that_could_not_be_written_is_opened_again() {
    check(Edition::Third, &[5_497_922]);
}
