//! Measurements of whole processes: a copy from host to host, beside other programs that copy the same.
//!
//! ```text
//!   source ─▶ diskwire cp ─▶ volume ─▶ diskwire serve ─▶ target
//!   source ─▶ scp, rsync, tar | ssh ─▶ sshd on loopback ─▶ target      in turns, round by round
//!   source ─▶ nbdcopy ─▶ nbdkit ─▶ target
//! ```
//!
//! Keeps true: every copy is compared with its source by BLAKE3, outside of the timed part; a ratio is one of figures of the
//! same round. Not here: measurements within one process.

pub(super) mod file;
pub(super) mod meter;
pub(super) mod small_files;

mod arena;
mod content;
mod contestant;
mod fio;
mod places;
mod ssh;
mod standing;
mod world;

use arena::Arena;
use contestant::Contestant;

use crate::args::bench::CompareArgs;

/// Diskwire, and of the others those that can be measured here; a line for each that cannot.
fn chosen(args: &CompareArgs, others: &[Contestant]) -> (Vec<Contestant>, Vec<String>) {
    let (mut chosen, mut missing) = (vec![Contestant::Diskwire], Vec::new());
    for other in others.iter().filter(|_| args.compare) {
        match other.missing() {
            Some(why) => missing.push(format!("not measured: {other}, {why}")),
            None => chosen.push(*other),
        }
    }
    (chosen, missing)
}

/// What was done and where, in lines for people.
fn described(
    args: &CompareArgs,
    arena: &Arena,
    contestants: &[Contestant],
    rounds: u16,
    what: &str,
) -> Vec<String> {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let mut lines = vec![
        format!("{what}; rounds: {rounds}, CPUs: {count}"),
        arena.places().describe(),
        "CPU: user and system time of all processes of both sides".to_owned(),
    ];
    let over_ssh = contestants.iter().filter(|contestant| contestant.needs_ssh());
    let over_ssh: Vec<String> = over_ssh.map(Contestant::to_string).collect();
    if !over_ssh.is_empty() {
        lines.push(format!("over sshd on loopback, as it is by default: {}", over_ssh.join(", ")));
    }
    if contestants.contains(&Contestant::Nbdcopy) {
        lines.push("nbdcopy: to nbdkit over a Unix socket, nothing encrypted or compared".to_owned());
    }
    if args.sync {
        lines.push("+ sync: until the file system has written everything".to_owned());
    }
    lines
}
