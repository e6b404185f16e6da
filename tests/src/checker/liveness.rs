//! With the faults over, everything comes to its end within a bound, and every segment comes back.

use std::time::Duration;

use storage_mapping::Instant;
use transfer_core::node::Node;

use super::Violation;

/// Every job must be done this long after the last fault: two lost connections in a row, each noticed
/// after a minute of silence, with a call between that was not answered for another minute.
pub const DONE_WITHIN: Duration = Duration::from_secs(600);
/// Every segment must be back this long after the last job: a dead peer's minute, the longest that I/O takes
/// (five minutes), then the quarantine of three.
pub const RETURNED_WITHIN: Duration = Duration::from_secs(600);
/// Turns of a process in a second, at most: a hot poll every 50 µs, and twice as much for the rest.
const TURNS_MAX: u32 = 100_000;

/// Whether everything that a node took has come back.
#[must_use]
pub fn is_at_rest(node: &Node) -> bool {
    let endpoint = node.endpoint();
    let (free, total) = endpoint.segments();
    endpoint.connections().count() == 0 && free == total
}

/// The bound has passed: is this process at rest?
///
/// # Errors
/// If not.
pub fn check_rest(at: Instant, name: &str, node: &Node) -> Result<(), Violation> {
    if is_at_rest(node) {
        return Ok(());
    }
    let endpoint = node.endpoint();
    let (free, total) = endpoint.segments();
    let connections = endpoint.connections().count();
    Err(Violation::Segments { at, process: name.to_owned(), free, total, connections })
}

/// Does this process do anything but turn?
///
/// # Errors
/// If not.
pub fn check_turns(at: Instant, name: &str, turns: u32) -> Result<(), Violation> {
    if turns <= TURNS_MAX {
        return Ok(());
    }
    Err(Violation::Spinning { at, process: name.to_owned(), turns })
}
