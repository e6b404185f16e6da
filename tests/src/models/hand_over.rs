//! The hand-over of commands from the process id table to the segment pointer tables and back.
//!
//! ```text
//!  A                               A/B pairs on the disk                  B
//!  command n, version v     ---->  ENTRY   (c, v, n)              ---->   takes n if it took n - 1
//!  "entry is at version v"  ---->  TABLE A (c, version, v)        ---->   reads the entry if v is news
//!  next command             <----  TABLE B (c, version, ack n)    <----   command ack
//! ```
//!
//! Every write may leave a late copy, be lost, or stay in doubt and land later while the next version goes
//! to the other block of the pair. A writes an entry again that nobody has acknowledged. A second
//! connection uses the same slot, and so the same pairs.
//!
//! What holds: a reader takes the newest valid page above the last one that it accepted; [`Rules`] are the
//! switches. Not here: what else is in a table (`data_path` has pages of several cells), commands of B,
//! torn pages (they equal lost ones for a reader that ignores them), the handshake between connections.

use super::Model;
use super::late::LateWrites;

/// Late writes that a state can hold.
const LATE_MAX: usize = 2;
/// Present in every page.
const VALID: u32 = 1 << 20;

/// The first block of each pair.
const ENTRY: usize = 0;
const TABLE_A: usize = 2;
const TABLE_B: usize = 4;
const CELLS: usize = 6;

/// The rules of the hand-over, as switches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The next command waits for the acknowledgement of the last.
    pub waits_for_ack: bool,
    /// A command is known by its number; else every new version of the entry is a command.
    pub by_number: bool,
    /// Records are bound to the connection, and versions go on over connections.
    pub bound: bool,
    /// An entry that is not acknowledged is written again.
    pub asserts_again: bool,
}

impl Rules {
    /// The rules as they are.
    pub const FULL: Self = Self { waits_for_ack: true, by_number: true, bound: true, asserts_again: true };
}

/// Rules and bounds of one variant.
#[derive(Clone, Copy, Debug)]
pub struct HandOver {
    /// The rules.
    pub rules: Rules,
    /// Connections, one after another.
    pub connections: u8,
    /// Commands of each.
    pub commands: u8,
    /// Late writes pending at a time.
    pub late: usize,
    /// Late writes in all; 255 for any number.
    pub late_total: u8,
    /// Writes that are acknowledged and never land.
    pub lost: u8,
    /// Versions of a pair.
    pub versions: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Sender {
    conn: u8,
    number: u8,
    acked: u8,
    entry_version: u8,
    table_version: u8,
    accepted: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Taker {
    conn: u8,
    taken: u8,
    wanted: u8,
    accepted_entry: u8,
    accepted_table: u8,
    table_version: u8,
}

/// A state of the hand-over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    cells: [u32; CELLS],
    late: LateWrites<LATE_MAX>,
    late_left: u8,
    lost_left: u8,
    a: Sender,
    b: Taker,
    wrong: Wrong,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Wrong {
    No,
    Skipped,
    Repeated,
    OldConnection,
}

type Steps = Vec<(&'static str, State)>;

/// A page: version, connection, and what it says.
fn page(version: u8, conn: u8, content: u8) -> u32 {
    VALID | u32::from(version) << 8 | u32::from(conn) << 6 | u32::from(content)
}

fn version(page: u32) -> u8 {
    (page >> 8 & 63) as u8
}

fn conn(page: u32) -> u8 {
    (page >> 6 & 3) as u8
}

fn content(page: u32) -> u8 {
    (page & 63) as u8
}

impl HandOver {
    /// The rules as they are: one late write at a time, two connections with two commands each.
    pub const FULL: Self = Self {
        rules: Rules::FULL,
        connections: 2,
        commands: 2,
        late: 1,
        late_total: 255,
        lost: 0,
        versions: 9,
    };

    /// The newest page of a pair above `accepted` that `of` may have written.
    fn newest(&self, state: &State, pair: usize, accepted: u8, of: u8) -> Option<u32> {
        let fits = |page: &u32| {
            page & VALID != 0 && version(*page) > accepted && (conn(*page) == of || !self.rules.bound)
        };
        state.cells[pair..pair + 2].iter().copied().filter(fits).max_by_key(|page| version(*page))
    }

    /// Whether the newest page of a pair says this already.
    fn shows(&self, state: &State, pair: usize, of: u8, says: u8) -> bool {
        self.newest(state, pair, 0, of).is_some_and(|page| conn(page) == of && content(page) == says)
    }

    /// Adds `after` with every fate of its write of a page.
    fn write(&self, names: [&'static str; 4], pair: usize, page: u32, after: State, steps: &mut Steps) {
        let cell = pair + usize::from(version(page) % 2);
        let mut landed = after;
        landed.cells[cell] = page;
        steps.push((names[0], landed));
        if after.lost_left > 0 {
            steps.push((names[1], State { lost_left: after.lost_left - 1, ..after }));
        }
        let late = after.late.with(cell, page, self.late).filter(|_| after.late_left > 0);
        if let Some(late) = late {
            let late_left = after.late_left - u8::from(after.late_left != u8::MAX);
            steps.push((names[2], State { late, late_left, ..landed }));
            steps.push((names[3], State { late, late_left, ..after }));
        }
    }

    fn write_entry(&self, again: bool, mut after: State, steps: &mut Steps) {
        after.a.entry_version += 1;
        let names = if again {
            ["entry again", "entry again (lost)", "entry again (copied)", "entry again (in doubt)"]
        } else {
            [
                "command placed",
                "command placed (lost)",
                "command placed (copied)",
                "command placed (in doubt)",
            ]
        };
        let page = page(after.a.entry_version, after.a.conn, after.a.number);
        self.write(names, ENTRY, page, after, steps);
    }

    fn sender_steps(&self, state: &State, steps: &mut Steps) {
        let a = state.a;
        let free = !self.rules.waits_for_ack || a.acked == a.number;
        if free && a.number < self.commands && a.entry_version < self.versions {
            let mut after = *state;
            after.a.number += 1;
            self.write_entry(false, after, steps);
        }
        if self.rules.asserts_again && a.acked < a.number && a.entry_version < self.versions {
            self.write_entry(true, *state, steps);
        }
        if a.table_version < self.versions
            && a.number > 0
            && !self.shows(state, TABLE_A, a.conn, a.entry_version)
        {
            let mut after = *state;
            after.a.table_version += 1;
            let page = page(after.a.table_version, a.conn, a.entry_version);
            let names = ["table A", "table A (lost)", "table A (copied)", "table A (in doubt)"];
            self.write(names, TABLE_A, page, after, steps);
        }
        if let Some(page) = self.newest(state, TABLE_B, a.accepted, a.conn) {
            let mut after = *state;
            after.a.accepted = version(page);
            if content(page) <= a.number {
                after.a.acked = a.acked.max(content(page));
            }
            steps.push(("A takes the acknowledgement", after));
        }
        if a.conn < self.connections {
            let mut after = *state;
            after.a = Sender { conn: a.conn + 1, ..Sender::default() };
            if self.rules.bound {
                (after.a.entry_version, after.a.table_version) = (a.entry_version, a.table_version);
            }
            steps.push(("A begins the next connection", after));
        }
    }

    fn taker_steps(&self, state: &State, steps: &mut Steps) {
        let b = state.b;
        if b.conn < state.a.conn {
            let mut after = *state;
            after.b = Taker { conn: state.a.conn, ..Taker::default() };
            if self.rules.bound {
                after.b.table_version = b.table_version;
            }
            steps.push(("B meets the next connection", after));
        }
        if let Some(page) = self.newest(state, TABLE_A, b.accepted_table, b.conn) {
            let mut after = *state;
            after.b.accepted_table = version(page);
            after.b.wanted = b.wanted.max(content(page));
            steps.push(("B takes the table", after));
        }
        if b.wanted > b.accepted_entry
            && let Some(page) = self.newest(state, ENTRY, b.accepted_entry, b.conn)
        {
            steps.push(("B reads the entry", self.judge(state, page)));
        }
        if b.taken > 0 && b.table_version < self.versions && !self.shows(state, TABLE_B, b.conn, b.taken) {
            let mut after = *state;
            after.b.table_version += 1;
            let page = page(after.b.table_version, b.conn, b.taken);
            let names = ["table B", "table B (lost)", "table B (copied)", "table B (in doubt)"];
            self.write(names, TABLE_B, page, after, steps);
        }
    }

    /// Rule 28.
    fn judge(&self, state: &State, page: u32) -> State {
        let mut after = *state;
        after.b.accepted_entry = version(page);
        let (number, expected) = (content(page), state.b.taken + 1);
        if number < expected && self.rules.by_number {
            return after;
        }
        after.wrong = if conn(page) != state.b.conn {
            Wrong::OldConnection
        } else if number > expected {
            Wrong::Skipped
        } else if number < expected {
            Wrong::Repeated
        } else {
            after.b.taken += 1;
            Wrong::No
        };
        after
    }
}

impl Model for HandOver {
    type State = State;
    type Action = &'static str;

    fn initial(&self) -> Vec<State> {
        assert!(self.late <= LATE_MAX && self.versions < 64, "bounds fit their bits");
        vec![State {
            cells: [0; CELLS],
            late: LateWrites::NONE,
            late_left: self.late_total,
            lost_left: self.lost,
            a: Sender { conn: 1, ..Sender::default() },
            b: Taker { conn: 1, ..Taker::default() },
            wrong: Wrong::No,
        }]
    }

    fn successors(&self, state: &State, steps: &mut Steps) {
        self.sender_steps(state, steps);
        self.taker_steps(state, steps);
        for (cell, value, late) in state.late.each() {
            let mut after = State { late, ..*state };
            after.cells[cell] = value;
            steps.push(("a late write lands", after));
        }
    }

    fn violation(&self, state: &State) -> Option<&'static str> {
        match state.wrong {
            Wrong::No => None,
            Wrong::Skipped => Some("command skipped"),
            Wrong::Repeated => Some("command repeated"),
            Wrong::OldConnection => Some("command of the old connection taken"),
        }
    }

    fn is_done(&self, state: &State) -> bool {
        // A pair that has used up its versions has met a bound of the model, not of the protocol.
        let versions = [state.a.entry_version, state.a.table_version, state.b.table_version];
        versions.contains(&self.versions)
            || state.a.conn == self.connections && state.a.acked == self.commands
    }
}
