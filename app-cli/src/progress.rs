//! What a copy tells while it runs and when it is over.
//!
//! A bar is drawn on a terminal only; failures are lines on standard error; with `--json` one object
//! goes to standard output at the end, and nothing else ever does. `--quiet` leaves failures only.
//! Names are escaped. Not here: what the figures come from.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use storage_mapping::ByteSize;

use crate::escape;
use crate::exit::Exit;

/// Version of the JSON result; raised when a field changes its meaning or goes away.
pub const RESULT_VERSION: u32 = 1;
/// Failed files that the result lists by name; all are counted, and all are shown as they happen.
const FAILURES_LISTED_MAX: usize = 10_000;
/// How often the bar is drawn, per second.
const DRAW_RATE_HZ: u8 = 8;

/// How much a command tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verbosity {
    /// Failures only.
    pub quiet: bool,
    /// One JSON object on standard output at the end.
    pub json: bool,
}

/// How a copy as a whole went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All is done.
    Done,
    /// Nothing is done.
    Failed,
    /// Whether something was published is not known.
    InDoubt,
    /// Some files failed.
    PartlyDone,
    /// It did not come to its end; a re-run goes on from where it was.
    TryAgain,
}

impl Outcome {
    /// The exit code that says so.
    #[must_use]
    pub const fn exit(self) -> Exit {
        match self {
            Self::Done => Exit::Done,
            Self::Failed => Exit::Failed,
            Self::InDoubt => Exit::InDoubt,
            Self::PartlyDone => Exit::PartlyDone,
            Self::TryAgain => Exit::TryAgain,
        }
    }
}

/// What a copy came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// How it went.
    pub outcome: Outcome,
    /// The host at the other end.
    pub peer: String,
    /// Files published.
    pub files: u64,
    /// Files that were there already and were left alone.
    pub files_unchanged: u64,
    /// Bytes of the published files.
    pub bytes: u64,
    /// Those of them that an earlier run had carried.
    pub bytes_resumed: u64,
}

/// A file that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileFailure {
    /// Its path, escaped.
    pub path: String,
    /// Why, escaped.
    pub why: String,
}

/// Tells the user how a copy goes.
pub struct Reporter {
    verbosity: Verbosity,
    bar: ProgressBar,
    started_at: Instant,
    failures: Vec<FileFailure>,
    failures_count: u64,
    files: u64,
    files_total: Option<u64>,
}

impl Reporter {
    /// A reporter on standard error, with a bar if that is a terminal.
    #[must_use]
    pub fn new(verbosity: Verbosity) -> Self {
        let draws = !verbosity.quiet && io::stderr().is_terminal();
        let target = if draws {
            ProgressDrawTarget::stderr_with_hz(DRAW_RATE_HZ)
        } else {
            ProgressDrawTarget::hidden()
        };
        Self {
            verbosity,
            bar: ProgressBar::with_draw_target(None, target),
            started_at: Instant::now(),
            failures: Vec::new(),
            failures_count: 0,
            files: 0,
            files_total: None,
        }
    }

    /// The copy begins; what is not known (a stream, a tree still being read) is `None`.
    pub fn started(&mut self, bytes_total: Option<u64>, files_total: Option<u64>) {
        self.started_at = Instant::now();
        self.totals(bytes_total, files_total);
        self.bar.reset();
    }

    /// The totals became known, or grew.
    pub fn totals(&mut self, bytes_total: Option<u64>, files_total: Option<u64>) {
        self.files_total = files_total;
        // Constant templates: `bar_style` is tested.
        self.bar.set_style(bar_style(bytes_total.is_some()));
        match bytes_total {
            Some(total) => self.bar.set_length(total),
            None => self.bar.unset_length(),
        }
        self.show_files();
    }

    /// How far it is: bytes and files in all since the start.
    pub fn progress(&mut self, bytes: u64, files: u64) {
        if files != self.files {
            self.files = files;
            self.show_files();
        }
        self.bar.set_position(bytes);
    }

    /// A file failed; the copy goes on.
    pub fn file_failed(&mut self, path: &[u8], why: &str) {
        use std::os::unix::ffi::OsStrExt;
        let path = escape::name(std::ffi::OsStr::from_bytes(path));
        let failure = FileFailure { path, why: escape::one_line(why) };
        self.say(&format!("diskwire: {}: {}", failure.path, failure.why));
        self.failures_count += 1;
        if self.failures.len() < FAILURES_LISTED_MAX {
            self.failures.push(failure);
        }
    }

    /// The copy as a whole did not work: says why, with `--quiet` too.
    pub fn failed(&mut self, why: &str) {
        self.say(&format!("diskwire: {}", escape::one_line(why)));
    }

    /// A line for the user, above the bar; not with `--quiet`.
    pub fn note(&self, line: &str) {
        if !self.verbosity.quiet {
            self.say(&escape::one_line(line));
        }
    }

    /// The copy is over: shows what it came to.
    ///
    /// # Errors
    /// Those of standard output, with `--json`.
    pub fn finished(&mut self, summary: &Summary) -> io::Result<()> {
        let elapsed = self.started_at.elapsed();
        self.bar.finish_and_clear();
        if self.verbosity.json {
            return self.write_json(&mut io::stdout().lock(), summary, elapsed);
        }
        if !self.verbosity.quiet {
            self.say(&self.sentence(summary, elapsed));
        }
        Ok(())
    }

    /// The work is over, and what it came to is told elsewhere: takes the bar away.
    pub fn ended(&mut self) {
        self.bar.finish_and_clear();
    }

    fn show_files(&self) {
        self.bar.set_message(match self.files_total {
            Some(1) => String::new(),
            Some(total) => format!("{}/{total} files", self.files),
            None if self.files == 0 => String::new(),
            None => format!("{} files", self.files),
        });
    }

    fn say(&self, line: &str) {
        // Nobody reads standard error any more: the copy is what matters.
        self.bar.suspend(|| {
            let _ = writeln!(io::stderr(), "{line}");
        });
    }

    fn write_json(&self, out: &mut impl Write, summary: &Summary, elapsed: Duration) -> io::Result<()> {
        #[derive(Serialize)]
        struct Line<'a> {
            version: u32,
            #[serde(flatten)]
            summary: &'a Summary,
            seconds: f64,
            files_failed: u64,
            failures: &'a [FileFailure],
        }
        let line = Line {
            version: RESULT_VERSION,
            summary,
            seconds: elapsed.as_secs_f64(),
            files_failed: self.failures_count,
            failures: &self.failures,
        };
        serde_json::to_writer(&mut *out, &line)?;
        out.write_all(b"\n")?;
        out.flush()
    }

    fn sentence(&self, summary: &Summary, elapsed: Duration) -> String {
        let carried = ByteSize(summary.bytes.saturating_sub(summary.bytes_resumed));
        let word = match summary.outcome {
            Outcome::Done => "done",
            Outcome::Failed => "failed",
            Outcome::InDoubt => "in doubt",
            Outcome::PartlyDone => "partly done",
            Outcome::TryAgain => "interrupted; the same command goes on from here",
        };
        let mut text = format!("{word}: {}, {}", count(summary.files, "file"), ByteSize(summary.bytes));
        if summary.bytes_resumed > 0 {
            text += &format!(" ({} from an earlier run)", ByteSize(summary.bytes_resumed));
        }
        if summary.files_unchanged > 0 {
            text += &format!(", {} left as they were", summary.files_unchanged);
        }
        if self.failures_count > 0 {
            text += &format!(", {} failed", self.failures_count);
        }
        text += &format!(", {}", duration(elapsed));
        if let Some(rate) = rate(carried, elapsed) {
            text += &format!(", {rate}/s");
        }
        text
    }
}

fn bar_style(bytes_known: bool) -> ProgressStyle {
    let template = if bytes_known {
        "{wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} {msg}"
    } else {
        "{spinner} {bytes} {binary_bytes_per_sec} {elapsed} {msg}"
    };
    ProgressStyle::with_template(template).expect("a template that a test has read")
}

fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn duration(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", elapsed.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

fn rate(bytes: ByteSize, elapsed: Duration) -> Option<ByteSize> {
    let per_second = u128::from(bytes.0) * 1_000_000 / elapsed.as_micros().max(1);
    (bytes.0 > 0).then(|| ByteSize(u64::try_from(per_second).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(outcome: Outcome) -> Summary {
        Summary {
            outcome,
            peer: "beta".into(),
            files: 2,
            files_unchanged: 0,
            bytes: 3 << 20,
            bytes_resumed: 0,
        }
    }

    #[test]
    fn both_bars_can_be_drawn() {
        bar_style(true);
        bar_style(false);
        let mut reporter = Reporter::new(Verbosity::default());
        reporter.started(None, None);
        reporter.progress(10, 1);
        reporter.totals(Some(20), Some(2));
        reporter.progress(20, 2);
        assert_eq!(reporter.bar.message(), "2/2 files");
        assert_eq!((reporter.bar.position(), reporter.bar.length()), (20, Some(20)));
    }

    #[test]
    fn the_json_result_is_one_versioned_line() {
        let mut reporter = Reporter::new(Verbosity { quiet: true, json: true });
        reporter.file_failed(b"a\x1b\xff", "no\nspace");
        let mut line = Vec::new();
        reporter.write_json(&mut line, &summary(Outcome::PartlyDone), Duration::from_millis(1500)).unwrap();
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "{\"version\":1,\"outcome\":\"partly_done\",\"peer\":\"beta\",\"files\":2,\"files_unchanged\":0,\
             \"bytes\":3145728,\"bytes_resumed\":0,\"seconds\":1.5,\"files_failed\":1,\
             \"failures\":[{\"path\":\"a\\\\x1b\\\\xff\",\"why\":\"no\\\\nspace\"}]}\n"
        );
    }

    #[test]
    fn failures_are_all_counted_and_some_listed() {
        let mut reporter = Reporter::new(Verbosity { quiet: true, json: true });
        reporter.failures = vec![FileFailure { path: "x".into(), why: "y".into() }; FAILURES_LISTED_MAX - 1];
        reporter.failures_count = reporter.failures.len() as u64;
        reporter.file_failed(b"last listed", "test");
        reporter.file_failed(b"counted", "test");
        assert_eq!(reporter.failures.len(), FAILURES_LISTED_MAX);
        assert_eq!(reporter.failures_count, FAILURES_LISTED_MAX as u64 + 1);
    }

    #[test]
    fn the_sentence_reads_well() {
        let mut reporter = Reporter::new(Verbosity { quiet: true, json: false });
        let sentence = reporter.sentence(&summary(Outcome::Done), Duration::from_millis(1500));
        assert_eq!(sentence, "done: 2 files, 3 MiB, 1.5 s, 2 MiB/s");
        reporter.failures_count = 1;
        let resumed = Summary { bytes_resumed: 3 << 20, files_unchanged: 4, ..summary(Outcome::PartlyDone) };
        assert_eq!(
            reporter.sentence(&resumed, Duration::from_secs(75)),
            "partly done: 2 files, 3 MiB (3 MiB from an earlier run), 4 left as they were, 1 failed, 1 min 15 s"
        );
    }

    #[test]
    fn outcomes_have_their_exit_codes() {
        let outcomes = [Outcome::Done, Outcome::Failed, Outcome::PartlyDone, Outcome::InDoubt];
        assert_eq!(outcomes.map(|outcome| outcome.exit().code()), [0, 1, 3, 4]);
    }
}
