//! What the measurements of one process share: a sign of life, the machine, CPU time and memory.
//!
//! Not here: what is measured, and how it is shown (`report`).

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

use super::super::CommandError;
use super::world::failed;

/// A mebibyte, for rates.
pub(super) const MIB: f64 = 1_048_576.0;

/// Shows what is going on, if somebody looks at a terminal.
pub(super) fn spinner(as_json: bool) -> ProgressBar {
    let is_shown = !as_json && std::io::stderr().is_terminal();
    let spinner = ProgressBar::new_spinner();
    spinner.set_draw_target(if is_shown {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    });
    spinner.enable_steady_tick(Duration::from_millis(200));
    spinner
}

/// The processors, in a line.
pub(super) fn processor() -> String {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{count} x {}", name_of(&cpuinfo()))
}

/// What the processor has for ciphers and hashes, in a line.
pub(super) fn instructions() -> String {
    format!("it has {}", instructions_of(&cpuinfo()))
}

fn cpuinfo() -> String {
    std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default()
}

fn value_of<'a>(cpuinfo: &'a str, name: &str) -> &'a str {
    let line = cpuinfo.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name));
    line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim()).unwrap_or_default()
}

fn name_of(cpuinfo: &str) -> &str {
    match value_of(cpuinfo, "model name") {
        "" => "a processor without a name",
        name => name,
    }
}

fn instructions_of(cpuinfo: &str) -> String {
    const TELLING: [&str; 6] = ["aes", "vaes", "vpclmulqdq", "avx2", "avx512f", "sha_ni"];
    let all = value_of(cpuinfo, "flags").split_whitespace();
    let found: Vec<_> = all.filter(|flag| TELLING.contains(flag)).collect();
    if found.is_empty() { "none for ciphers that are known here".to_owned() } else { found.join(" ") }
}

/// What this process has used.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// User and system time of all threads.
    pub(super) cpu_seconds: f64,
    /// Times that a thread gave up its processor to wait.
    pub(super) waits: f64,
}

impl Usage {
    /// Up to now.
    pub(super) fn now() -> Result<Self, CommandError> {
        let usage = getrusage(UsageWho::RUSAGE_SELF).map_err(failed)?;
        let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        Ok(Self {
            cpu_seconds: seconds(usage.user_time()) + seconds(usage.system_time()),
            waits: usage.voluntary_context_switches() as f64,
        })
    }

    /// Since then.
    pub(super) fn since(&self, before: &Self) -> Self {
        Self { cpu_seconds: self.cpu_seconds - before.cpu_seconds, waits: self.waits - before.waits }
    }
}

/// Begins to look for the peak of resident memory anew, where the kernel allows it (proc(5), `clear_refs`).
pub(super) fn reset_peak_memory() {
    // Where it is not allowed, what is shown is the peak of the whole run: never too little.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The peak of this process's resident memory in MiB, if the kernel says.
pub(super) fn peak_memory_mib() -> Option<f64> {
    peak_of(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn peak_of(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_read_in_mib() {
        assert_eq!(peak_of("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n"), Some(2.0));
        assert_eq!(peak_of("Name:\tx\n"), None);
    }

    #[test]
    fn a_processor_has_a_name_and_instructions() {
        let text = "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu aes sse avx2 vaes\n";
        assert_eq!((name_of(text), instructions_of(text).as_str()), ("Some CPU", "aes avx2 vaes"));
        assert_eq!(name_of(""), "a processor without a name");
        assert!(instructions_of("").starts_with("none"));
    }
}
