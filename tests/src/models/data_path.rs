//! The data path: segments, their entries, the acknowledgement, over two lives of both sides.
//!
//! ```text
//!  producer                     blocks on the disk                      consumer
//!  start: life p          ---->  REQ     p                       ---->  answer: c = (p, a)
//!  takes c = (p, a)       <----  ANS     p a                     <----
//!  segment i of c         ---->  DATA 0, DATA 1  (c, i, attempt) ---->  opens it, delivers number i
//!  its entry              ---->  ENTRIES (c, i, block, attempt)  ---->  hold: where to read i
//!  frees, or sends again  <----  ACK     (c, received, nack)     <----
//! ```
//!
//! Three segments, two entries, two data blocks that are used again at once. Every write may leave a late
//! copy, be lost or torn, stay in doubt (the copy lands later, the writer goes on), or be the last thing
//! before its writer dies. Both sides may give up at every step. Entries and ACK are single cells, each
//! with its own late copies, or whole pages in A/B pairs with versions, where a late write brings several
//! cells back at once.
//!
//! What holds: only [`Binding`], the budgets and [`Tables`] differ between variants. Not here: seals that
//! break, connection ids that repeat, the handshake's own steps (REQ and ANS carry p and c as if they were
//! authentic), reading ahead of order, credits, more than one device.

use super::Model;
use super::late::LateWrites;

/// Segments of one message.
const SEGMENTS: u8 = 3;
/// Late writes that a state can hold.
const LATE_MAX: usize = 2;
/// A cell that does not open.
const TORN: u32 = 0;
/// Present in every value that was written whole.
const VALID: u32 = 1 << 23;

/// Cells, as late writes name them.
const REQ: usize = 0;
const ANS: usize = 1;
const DATA: usize = 2;
const ENTRY: usize = 4;
const ACK: usize = 6;
const CELLS: usize = 8;

/// What is compared with what is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// A segment opens only under its connection and attempt.
    pub data: bool,
    /// An entry is read only if it is of this connection.
    pub entry: bool,
    /// An acknowledgement counts only if it is of this connection.
    pub ack: bool,
}

impl Binding {
    /// The rules as they are.
    pub const FULL: Self = Self { data: true, entry: true, ack: true };
}

/// How entries and acknowledgements lie on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tables {
    /// Each entry and the acknowledgement a cell of its own.
    Cells,
    /// One page of all of them in an A/B pair; versions up to so many.
    Pages(u8),
}

/// Rules and bounds of one variant.
#[derive(Clone, Copy, Debug)]
pub struct DataPath {
    /// What is compared.
    pub binding: Binding,
    /// How the tables lie.
    pub tables: Tables,
    /// Late writes pending at a time.
    pub late: usize,
    /// Late writes in all; 255 for any number.
    pub late_total: u8,
    /// Writes that are acknowledged and never land.
    pub lost: u8,
    /// Writes that land as something that does not open.
    pub torn: u8,
    /// Attempts of a segment.
    pub attempts: u8,
    /// Lives of the producer, and answers of the consumer; with one each nobody gives up.
    pub lives: u8,
}

/// The producer's part of a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Producer {
    phase: Phase,
    life: u8,
    conn: u8,
    base: u8,
    /// By sequence number mod 2.
    slots: [Slot; 2],
    version: u8,
    accepted: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Phase {
    #[default]
    Down,
    Calling,
    Connected,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Slot {
    stage: Stage,
    block: u8,
    attempt: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Stage {
    #[default]
    Free,
    ToWrite,
    Written,
    Published,
}

/// The consumer's part of a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Consumer {
    conn: u8,
    answers: u8,
    received: u8,
    /// Block and attempt, plus 8; 0 is nothing. By sequence number mod 2.
    hold: [u8; 2],
    /// Attempt plus one of the next number; 0 is none.
    nack: u8,
    version: u8,
    accepted: u8,
}

/// A state of the data path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    cells: [u32; CELLS],
    late: LateWrites<LATE_MAX>,
    producer: Producer,
    consumer: Consumer,
    late_left: u8,
    faults: Faults,
    /// What was delivered under each connection, two bits each.
    delivered: u8,
    wrong: Wrong,
}

/// Lost and torn writes that are left, in one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Faults(u8);

impl Faults {
    fn without_lost(self) -> Option<Self> {
        (self.0 >> 4 > 0).then(|| Self(self.0 - 16))
    }

    fn without_torn(self) -> Option<Self> {
        (self.0 & 15 > 0).then(|| Self(self.0 - 1))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Wrong {
    No,
    Data,
    Acknowledged,
}

/// What becomes of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It lands, once; or the step writes nothing.
    Good,
    /// It lands, and a copy of it later.
    Copied,
    /// It is acknowledged and never lands.
    Lost,
    /// It lands as something that does not open.
    Torn,
    /// It is not acknowledged, and lands later.
    Doubt,
    /// Its writer dies, and it lands later.
    WriterDies,
}

/// A step: what, and what becomes of its write.
#[derive(Clone, Copy)]
pub struct Action(&'static str, Fate);

impl std::fmt::Debug for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.1 {
            Fate::Good => f.write_str(self.0),
            fate => write!(f, "{} ({fate:?})", self.0),
        }
    }
}

type Steps = Vec<(Action, State)>;

fn conn_index(conn: u8) -> u32 {
    u32::from((conn >> 2) - 1) * 2 + u32::from((conn & 3) - 1)
}

/// A segment: connection, number, attempt.
fn data_value(conn: u8, seq: u8, attempt: u8) -> u32 {
    VALID | u32::from(conn) << 5 | u32::from(seq) << 3 | u32::from(attempt)
}

fn entry_value(conn: u8, seq: u8, slot: Slot) -> u32 {
    VALID | u32::from(conn) << 6 | u32::from(seq) << 4 | u32::from(slot.block) << 3 | u32::from(slot.attempt)
}

fn ack_value(conn: u8, received: u8, nack: u8, version: u8) -> u32 {
    VALID | u32::from(version) << 10 | u32::from(conn) << 6 | u32::from(received) << 4 | u32::from(nack)
}

/// A page: version 4 bits, connection 4, base 2, two entries of 5 (present, block, attempt).
fn page_value(conn: u8, producer: &Producer, version: u8) -> u32 {
    let mut value = VALID | u32::from(version) << 16 | u32::from(conn) << 12 | u32::from(producer.base) << 10;
    for offset in 0..2_u8 {
        let slot = producer.slots[usize::from((producer.base + offset) % 2)];
        if matches!(slot.stage, Stage::Written | Stage::Published) {
            let entry = 1 << 4 | u32::from(slot.block) << 3 | u32::from(slot.attempt);
            value |= entry << (5 * offset);
        }
    }
    value
}

fn bits(value: u32, shift: u32, count: u32) -> u8 {
    (value >> shift & ((1 << count) - 1)) as u8
}

impl DataPath {
    /// The rules as they are, with cells.
    pub const FULL: Self = Self {
        binding: Binding::FULL,
        tables: Tables::Cells,
        late: 1,
        late_total: 255,
        lost: 0,
        torn: 0,
        attempts: 2,
        lives: 2,
    };

    /// Adds `after` with every fate of its write of `value` to `cell`. `doubt` is what the writer does
    /// when the write stays in doubt, `dead` what remains when it dies.
    fn write(
        &self,
        name: &'static str,
        (cell, value): (usize, u32),
        before: &State,
        after: State,
        doubt: Option<State>,
        steps: &mut Steps,
    ) {
        let landed = |mut state: State, value| {
            state.cells[cell] = value;
            state
        };
        let copied = |mut state: State| {
            if state.late_left == 0 {
                return None;
            }
            state.late = state.late.with(cell, value, self.late)?;
            state.late_left -= u8::from(state.late_left != u8::MAX);
            Some(state)
        };
        let mut push = |fate, state| steps.push((Action(name, fate), state));
        push(Fate::Good, landed(after, value));
        if let Some(state) = copied(landed(after, value)) {
            push(Fate::Copied, state);
        }
        if let Some(faults) = after.faults.without_lost() {
            push(Fate::Lost, State { faults, ..after });
        }
        if let Some(faults) = after.faults.without_torn() {
            push(Fate::Torn, landed(State { faults, ..after }, TORN));
        }
        if let Some(state) = doubt.and_then(copied) {
            push(Fate::Doubt, state);
        }
        if self.lives > 1
            && let Some(state) = copied(*before)
        {
            let of_producer = matches!(cell, REQ | DATA..ACK);
            push(Fate::WriterDies, if of_producer { producer_dead(state) } else { consumer_dead(state) });
        }
    }

    fn producer_steps(&self, state: &State, steps: &mut Steps) {
        let producer = state.producer;
        match producer.phase {
            Phase::Down if producer.life < self.lives => {
                let mut after = *state;
                after.producer.phase = Phase::Calling;
                after.producer.life += 1;
                let value = VALID | u32::from(after.producer.life);
                self.write("request", (REQ, value), &after, after, Some(after), steps);
            }
            Phase::Down => {}
            Phase::Calling => {
                let value = VALID | u32::from(producer.life);
                if state.cells[REQ] != value {
                    self.write("request again", (REQ, value), state, *state, None, steps);
                }
                let answer = state.cells[ANS];
                if answer & VALID != 0 && bits(answer, 2, 2) == producer.life {
                    let mut after = *state;
                    after.producer.phase = Phase::Connected;
                    after.producer.conn = bits(answer, 0, 4);
                    steps.push((Action("take the answer", Fate::Good), after));
                }
            }
            Phase::Connected => {
                self.send_steps(state, steps);
                self.publish_steps(state, steps);
                self.take_ack(state, steps);
            }
        }
        if self.lives > 1 && producer.phase != Phase::Down {
            steps.push((Action("producer gives up", Fate::Good), producer_dead(*state)));
        }
    }

    /// Writes segments: new ones, and those that are to be sent again.
    fn send_steps(&self, state: &State, steps: &mut Steps) {
        let producer = state.producer;
        for seq in producer.base..(producer.base + 2).min(SEGMENTS) {
            let slot = producer.slots[usize::from(seq % 2)];
            let in_order =
                seq == producer.base || producer.slots[usize::from((seq - 1) % 2)].stage != Stage::Free;
            if !matches!(slot.stage, Stage::Free | Stage::ToWrite) || !in_order {
                continue;
            }
            let other = producer.slots[usize::from((seq + 1) % 2)];
            for block in 0..2_u8 {
                let taken = matches!(other.stage, Stage::Written | Stage::Published) && other.block == block;
                if taken {
                    continue;
                }
                let mut after = *state;
                after.producer.slots[usize::from(seq % 2)] =
                    Slot { stage: Stage::Written, block, attempt: slot.attempt };
                let value = data_value(producer.conn, seq, slot.attempt);
                let doubt = (slot.attempt + 1 < self.attempts).then(|| {
                    let mut doubt = *state;
                    doubt.producer.slots[usize::from(seq % 2)] =
                        Slot { stage: Stage::ToWrite, block: 0, attempt: slot.attempt + 1 };
                    doubt
                });
                let name = if slot.attempt == 0 { "write a segment" } else { "write a segment again" };
                self.write(name, (DATA + usize::from(block), value), state, after, doubt, steps);
            }
        }
    }

    fn publish_steps(&self, state: &State, steps: &mut Steps) {
        let producer = state.producer;
        let mut published = *state;
        for slot in &mut published.producer.slots {
            if slot.stage == Stage::Written {
                slot.stage = Stage::Published;
            }
        }
        match self.tables {
            Tables::Cells => {
                for (at, slot) in producer.slots.into_iter().enumerate() {
                    let seq = producer.base + (producer.base + at as u8) % 2;
                    let value = entry_value(producer.conn, seq, slot);
                    let again = slot.stage == Stage::Published && state.cells[ENTRY + at] != value;
                    if slot.stage == Stage::Written || again {
                        let mut after = *state;
                        after.producer.slots[at].stage = Stage::Published;
                        self.write("publish an entry", (ENTRY + at, value), state, after, None, steps);
                    }
                }
            }
            Tables::Pages(versions) => {
                let value = page_value(producer.conn, &published.producer, producer.version + 1);
                let newest = newest(&state.cells[ENTRY..ENTRY + 2], 16, 0, |_| true);
                let shown = newest.is_some_and(|page| page & 0xffff == value & 0xffff);
                if producer.version < versions && !shown {
                    let mut after = published;
                    after.producer.version += 1;
                    let cell = ENTRY + usize::from(after.producer.version % 2);
                    self.write("publish the table", (cell, value), state, after, Some(after), steps);
                }
            }
        }
    }

    /// The producer reads the consumer's acknowledgement.
    fn take_ack(&self, state: &State, steps: &mut Steps) {
        let producer = state.producer;
        let fits = |ack: u32| !self.binding.ack || bits(ack, 6, 4) == producer.conn;
        let mut after = *state;
        let ack = match self.tables {
            Tables::Cells => Some(state.cells[ACK]).filter(|ack| ack & VALID != 0 && fits(*ack)),
            Tables::Pages(_) => newest(&state.cells[ACK..ACK + 2], 10, producer.accepted, fits),
        };
        let Some(ack) = ack else { return };
        if let Tables::Pages(_) = self.tables {
            after.producer.accepted = bits(ack, 10, 4);
        }
        let (received, nack) = (bits(ack, 4, 2), bits(ack, 0, 4));
        let assigned = producer.slots.iter().filter(|slot| slot.stage != Stage::Free).count() as u8;
        if received > producer.base + assigned {
            // Acknowledged what was never sent: the connection is broken.
            steps.push((Action("impossible acknowledgement", Fate::Good), producer_dead(*state)));
            return;
        }
        if received > state.delivered >> (2 * conn_index(producer.conn)) & 3 {
            after.wrong = Wrong::Acknowledged;
        }
        for seq in producer.base..received.max(producer.base) {
            after.producer.slots[usize::from(seq % 2)] = Slot::default();
        }
        after.producer.base = producer.base.max(received);
        let slot = &mut after.producer.slots[usize::from(received % 2)];
        let sent = matches!(slot.stage, Stage::Written | Stage::Published);
        if received >= producer.base && nack == slot.attempt + 1 && sent {
            if slot.attempt + 1 < self.attempts {
                *slot = Slot { stage: Stage::ToWrite, block: 0, attempt: slot.attempt + 1 };
            } else if self.lives > 1 {
                after = producer_dead(after);
            }
        }
        if after != *state {
            steps.push((Action("take the acknowledgement", Fate::Good), after));
        }
    }

    fn consumer_steps(&self, state: &State, steps: &mut Steps) {
        let consumer = state.consumer;
        if consumer.conn == 0 {
            let request = state.cells[REQ];
            if request & VALID != 0 && consumer.answers < self.lives {
                let mut after = *state;
                after.consumer.answers += 1;
                after.consumer.conn = bits(request, 0, 2) << 2 | after.consumer.answers;
                let value = VALID | u32::from(after.consumer.conn);
                self.write("answer", (ANS, value), &after, after, Some(after), steps);
            }
            return;
        }
        let value = VALID | u32::from(consumer.conn);
        if state.cells[ANS] != value {
            self.write("answer again", (ANS, value), state, *state, None, steps);
        }
        match self.tables {
            Tables::Cells => self.take_entry(state, steps),
            Tables::Pages(_) => self.take_page(state, steps),
        }
        self.read_data(state, steps);
        self.acknowledge(state, steps);
        if self.lives > 1 {
            steps.push((Action("consumer gives up", Fate::Good), consumer_dead(*state)));
        }
    }

    fn take_entry(&self, state: &State, steps: &mut Steps) {
        let consumer = state.consumer;
        let entry = state.cells[ENTRY + usize::from(consumer.received % 2)];
        let fits = entry & VALID != 0
            && consumer.received < SEGMENTS
            && bits(entry, 4, 2) == consumer.received
            && (!self.binding.entry || bits(entry, 6, 4) == consumer.conn);
        if fits {
            let mut after = *state;
            after.consumer.hold(consumer.received, bits(entry, 0, 4));
            if after != *state {
                steps.push((Action("take an entry", Fate::Good), after));
            }
        }
    }

    fn take_page(&self, state: &State, steps: &mut Steps) {
        let consumer = state.consumer;
        let fits = |page: u32| !self.binding.entry || bits(page, 12, 4) == consumer.conn;
        let Some(page) = newest(&state.cells[ENTRY..ENTRY + 2], 16, consumer.accepted, fits) else { return };
        let mut after = *state;
        after.consumer.accepted = bits(page, 16, 4);
        for offset in 0..2 {
            let seq = bits(page, 10, 2) + offset;
            let entry = bits(page, 5 * u32::from(offset), 5);
            if entry & 16 != 0 && (consumer.received..consumer.received + 2).contains(&seq) {
                after.consumer.hold(seq, entry & 15);
            }
        }
        steps.push((Action("take the table", Fate::Good), after));
    }

    fn read_data(&self, state: &State, steps: &mut Steps) {
        let consumer = state.consumer;
        let at = usize::from(consumer.received % 2);
        let hold = consumer.hold[at];
        if hold == 0 {
            return;
        }
        let (block, attempt) = (usize::from((hold - 1) >> 3), (hold - 1) & 7);
        let data = state.cells[DATA + block];
        let (conn, seq) = (bits(data, 5, 4), bits(data, 3, 2));
        let bound = conn == consumer.conn && bits(data, 0, 3) == attempt;
        let opens = data & VALID != 0 && seq == consumer.received && (bound || !self.binding.data);
        let mut after = *state;
        after.consumer.hold[at] = 0;
        if opens {
            after.consumer.received += 1;
            after.consumer.nack = 0;
            after.delivered += 1 << (2 * conn_index(consumer.conn));
            if conn != consumer.conn {
                after.wrong = Wrong::Data;
            }
            steps.push((Action("deliver", Fate::Good), after));
        } else {
            after.consumer.nack = attempt + 1;
            steps.push((Action("does not open", Fate::Good), after));
        }
    }

    fn acknowledge(&self, state: &State, steps: &mut Steps) {
        let consumer = state.consumer;
        match self.tables {
            Tables::Cells => {
                let value = ack_value(consumer.conn, consumer.received, consumer.nack, 0);
                if state.cells[ACK] != value {
                    self.write("acknowledge", (ACK, value), state, *state, None, steps);
                }
            }
            Tables::Pages(versions) => {
                let value = ack_value(consumer.conn, consumer.received, consumer.nack, consumer.version + 1);
                let newest = newest(&state.cells[ACK..ACK + 2], 10, 0, |_| true);
                let shown = newest.is_some_and(|page| page & 0x3ff == value & 0x3ff);
                if consumer.version < versions && !shown {
                    let mut after = *state;
                    after.consumer.version += 1;
                    let cell = ACK + usize::from(after.consumer.version % 2);
                    self.write("acknowledge", (cell, value), state, after, Some(after), steps);
                }
            }
        }
    }
}

impl Consumer {
    /// Notes where a number is, if that is news.
    fn hold(&mut self, seq: u8, entry: u8) {
        let held = &mut self.hold[usize::from(seq % 2)];
        let (attempt, before) = (entry & 7, held.checked_sub(1).map(|held| held & 7));
        let refused = seq == self.received && attempt < self.nack;
        if before.is_none_or(|before| before < attempt) && !refused {
            *held = entry + 1;
        }
    }
}

/// The valid page of a pair with the highest version above `accepted`; versions are at `shift`.
fn newest(pair: &[u32], shift: u32, accepted: u8, fits: impl Fn(u32) -> bool) -> Option<u32> {
    let newer = |page: &u32| page & VALID != 0 && bits(*page, shift, 4) > accepted && fits(*page);
    pair.iter().copied().filter(newer).max_by_key(|page| bits(*page, shift, 4))
}

/// The versions go on: a new life has a higher incarnation.
fn producer_dead(mut state: State) -> State {
    let Producer { life, version, .. } = state.producer;
    state.producer = Producer { life, version, ..Producer::default() };
    state
}

fn consumer_dead(mut state: State) -> State {
    let Consumer { answers, version, .. } = state.consumer;
    state.consumer = Consumer { answers, version, ..Consumer::default() };
    state
}

impl Model for DataPath {
    type State = State;
    type Action = Action;

    fn initial(&self) -> Vec<State> {
        assert!(self.late <= LATE_MAX && self.attempts <= 8 && self.lives <= 2, "bounds fit their bits");
        vec![State {
            cells: [TORN; CELLS],
            late: LateWrites::NONE,
            producer: Producer::default(),
            consumer: Consumer::default(),
            late_left: self.late_total,
            faults: Faults(self.lost << 4 | self.torn),
            delivered: 0,
            wrong: Wrong::No,
        }]
    }

    fn successors(&self, state: &State, steps: &mut Steps) {
        self.producer_steps(state, steps);
        self.consumer_steps(state, steps);
        for (cell, value, rest) in state.late.each() {
            let mut after = *state;
            after.cells[cell] = value;
            after.late = rest;
            steps.push((Action("a late write lands", Fate::Good), after));
        }
    }

    fn violation(&self, state: &State) -> Option<&'static str> {
        match state.wrong {
            Wrong::No => None,
            Wrong::Data => Some("wrong data delivered"),
            Wrong::Acknowledged => Some("taken as acknowledged, never delivered"),
        }
    }

    fn is_done(&self, state: &State) -> bool {
        // A pair that has used up its versions has met a bound of the model, not of the protocol.
        let used_up = match self.tables {
            Tables::Cells => false,
            Tables::Pages(versions) => {
                state.producer.version == versions || state.consumer.version == versions
            }
        };
        used_up || state.producer.phase == Phase::Connected && state.producer.base == SEGMENTS
    }
}
