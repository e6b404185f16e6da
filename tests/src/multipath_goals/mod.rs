//! The goals of the multipath layer, measured: each by a scenario that gives figures, which tests and `diskwire bench
//! multipath` both take from here.
//!
//! Read it in this order: [`figure`] (what was measured beside what was aimed at), [`stage`] with [`load`] and [`tally`] (a
//! device over a simulated storage system in virtual time), then the scenarios:
//!
//! | goals | where | time |
//! |---|---|---|
//! | 1, 21 | [`cost`] | processor time |
//! | 2, 3 | [`file_io`] | real |
//! | 4, 5 | [`failover`] | virtual |
//! | 6 | [`fenced`] | virtual |
//! | 7 to 10, 12 | [`shares`] | virtual |
//! | 11, 13, 14 | [`unsteady`] | virtual |
//! | 20, 23 | [`status`] | real |
//! | 22 | [`checkers`] | real |
//!
//! Keeps true: a figure comes from running the product's code, never from a table; in virtual time the same seed gives the
//! same figure on every machine. Not here: goals 15 and 16 (`multipath_swarm`, the example `storage_system_speed`), 24 (the
//! drills of `multipath/tests/drills.rs`), allocations (`multipath/tests/no_allocations.rs`), real paths (`real_paths`).

pub mod checkers;
pub mod cost;
pub mod error;
pub mod failover;
pub mod fenced;
pub mod figure;
pub mod file_io;
pub mod load;
pub mod shares;
pub mod stage;
pub mod status;
pub mod tally;
pub mod unsteady;

use std::path::Path;
use std::time::Duration;

use error::MeasureError;
use figure::Figure;

/// How much is done for a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// Runs in virtual time, a seed each.
    pub seeds: u64,
    /// Rounds in real time.
    pub rounds: usize,
    /// Requests of a round over null paths.
    pub requests: u64,
    /// Slices of a round over a file.
    pub slices: usize,
    /// How long a slice is.
    pub slice: Duration,
    /// Size of the file.
    pub file_bytes: u64,
    /// How long paths are checked.
    pub checking: Duration,
    /// How long a path flaps.
    pub flapping: Duration,
    /// Reads of each run with a grey path.
    pub grey_reads: u64,
}

impl Effort {
    /// What the goals ask for.
    pub const FULL: Self = Self {
        seeds: 20,
        rounds: 9,
        requests: 1_000_000,
        slices: 10,
        slice: millis(100),
        file_bytes: 256 << 20,
        checking: Duration::from_secs(15),
        flapping: Duration::from_secs(600),
        grey_reads: 400_000,
    };

    /// A look at everything in well under a minute: what it shows is not to be quoted.
    pub const QUICK: Self = Self {
        seeds: 2,
        rounds: 3,
        requests: 100_000,
        slices: 3,
        slice: millis(20),
        file_bytes: 16 << 20,
        checking: Duration::from_secs(3),
        flapping: Duration::from_secs(60),
        grey_reads: 50_000,
    };
}

/// What was measured together.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// The figures.
    pub figures: Vec<Figure>,
    /// What is to be known of them.
    pub notices: Vec<String>,
}

impl From<Vec<Figure>> for Measured {
    fn from(figures: Vec<Figure>) -> Self {
        Self { figures, notices: Vec::new() }
    }
}

/// Goals that are measured together.
pub struct Measurement {
    /// Their numbers.
    pub goals: &'static [u8],
    /// What is measured, in few words.
    pub what: &'static str,
    run: Run,
}

impl Measurement {
    /// Measures; what needs a file makes it in `folder`.
    ///
    /// # Errors
    /// See [`MeasureError`].
    pub fn run(&self, effort: &Effort, folder: &Path) -> Result<Measured, MeasureError> {
        (self.run)(effort, folder)
    }
}

type Run = fn(&Effort, &Path) -> Result<Measured, MeasureError>;

const fn measure(goals: &'static [u8], what: &'static str, run: Run) -> Measurement {
    Measurement { goals, what, run }
}

/// Everything that is measured here.
pub const MEASUREMENTS: [Measurement; 16] = [
    // First: memory that something gave back would be used again and not be seen.
    measure(&[23], "memory", |effort, _| Ok(status::goal_23(effort)?.into())),
    measure(&[1, 21], "the layer over null paths", |effort, _| Ok(cost::goals_1_and_21(effort)?.into())),
    measure(&[2, 3], "reads of a file", file_io::goals_2_and_3),
    measure(&[4], "failover on errors", |effort, _| Ok(failover::goal_4(effort.seeds).into())),
    measure(&[5], "failover on hangs", |effort, _| Ok(failover::goal_5(effort.seeds).into())),
    measure(&[6], "the fence", |effort, _| Ok(fenced::goal_6(effort.seeds).into())),
    measure(&[7], "equal throttled paths", |effort, _| Ok(shares::goal_7(effort.seeds).into())),
    measure(&[8], "unequal throttled paths", |effort, _| Ok(shares::goal_8(effort.seeds).into())),
    measure(&[9], "a slow path", |effort, _| Ok(shares::goal_9(effort.seeds).into())),
    measure(&[10], "a path that turns slow", |effort, _| Ok(shares::goal_10(effort.seeds).into())),
    measure(&[11], "a grey path", |effort, _| Ok(unsteady::goal_11(effort.seeds, effort.grey_reads).into())),
    measure(&[12], "equal paths", |effort, _| Ok(shares::goal_12(effort.seeds).into())),
    measure(
        &[13],
        "a flapping path",
        |effort, _| Ok(unsteady::goal_13(effort.seeds, effort.flapping).into()),
    ),
    measure(&[14], "a recovery", |effort, _| Ok(unsteady::goal_14(effort.seeds).into())),
    measure(&[20], "status", |effort, _| Ok(status::goal_20(effort)?.into())),
    measure(&[22], "checkers", |effort, _| Ok(checkers::goal_22(effort)?.into())),
];

/// The one in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

const fn micros(count: u64) -> Duration {
    Duration::from_micros(count)
}

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// In milliseconds.
fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn ratio(part: Duration, whole: Duration) -> f64 {
    part.as_secs_f64() / whole.as_secs_f64()
}
