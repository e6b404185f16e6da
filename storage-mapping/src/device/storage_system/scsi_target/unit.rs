//! A logical unit: its nexuses, its reservations, and how a command goes through the rules.
//!
//! Keeps true: a unit attention is told once to each nexus that it concerns, by the first command that reports one; what a
//! ghost (a command that nobody waits for any more) does is judged by the login that sent it, and it eats no attention.
//!
//! Not here: what single commands do (`identity`, `reserve`), the rules as data (`command_set`).

use std::collections::BTreeMap;

use super::answer::{Answer, Step};
use super::attention::{Attention, Attentions};
use super::command_set::{self, Row, Touch, Unknown};
use super::pages::{Counters, SharedPages, nexus_page};
use super::reservations::{News, Registrant, Reservations};
use crate::block::address::{BlockCount, BlockSize};
use crate::device::storage_system::access_state::AccessState;
use crate::scsi::mode::ModePage;
use crate::scsi::opcode;
use crate::scsi::sense::{Sense, key};

/// How often a command came to a logical unit, and what came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Executions {
    /// It came.
    pub arrived: u64,
    /// It was executed: its status is GOOD, whether the answer reached anyone or not.
    pub good: u64,
    /// It was executed and changed something: a RELEASE by one that holds nothing is GOOD and no effect.
    pub effective: u64,
}

/// What a logical unit is called, and what it lies behind.
#[derive(Clone, Debug)]
pub(in super::super) struct UnitName {
    pub(in super::super) volume: String,
    /// Tells units of different systems apart.
    pub(in super::super) seed: u64,
    pub(in super::super) block_size: BlockSize,
    pub(in super::super) block_count: BlockCount,
    /// The most that one command reads or writes.
    pub(in super::super) transfer_max_bytes: usize,
    /// The target port group of each port, by index.
    pub(in super::super) ports: Vec<usize>,
    /// Whether each group is preferred.
    pub(in super::super) groups: Vec<bool>,
    /// How many units the target has.
    pub(in super::super) units: u16,
    /// Whether registrations outlive logins.
    pub(in super::super) keeps_registrations: bool,
}

/// What the unit keeps for a nexus.
#[derive(Clone, Debug)]
pub(super) struct NexusState {
    pub(super) initiator: String,
    /// Index of the port.
    pub(super) port: usize,
    pub(super) login: u64,
    pub(super) attentions: Attentions,
    pub(super) deferred: Option<Sense>,
    pub(super) prevents_removal: bool,
    /// The page of settings that each nexus has its own of.
    pub(super) page: ModePage,
}

/// One command for the unit.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Call<'a> {
    /// Which nexus, as [`LogicalUnit::add_nexus`] numbered it.
    pub(in super::super) nexus: usize,
    /// The login that sent it.
    pub(in super::super) login: u64,
    pub(in super::super) is_ghost: bool,
    pub(in super::super) cdb: &'a [u8],
    /// Data to the unit.
    pub(in super::super) data: &'a [u8],
    /// The access state of each group.
    pub(in super::super) access: &'a [AccessState],
}

/// What a command comes to.
#[derive(Clone, Debug)]
pub(in super::super) struct Done {
    pub(in super::super) step: Step,
    /// Whether it was executed with an effect.
    pub(in super::super) changed: bool,
    /// Nexuses, with logins, whose commands are to be aborted.
    pub(in super::super) aborted: Vec<usize>,
    /// New access states of groups.
    pub(in super::super) access: Vec<(usize, AccessState)>,
}

impl Done {
    /// Answered, nothing changed.
    pub(super) fn answer(answer: Answer) -> Self {
        Self { step: answer.into(), changed: false, aborted: Vec::new(), access: Vec::new() }
    }

    /// GOOD.
    pub(super) fn good(changed: bool) -> Self {
        Self { changed, ..Self::answer(Answer::good()) }
    }
}

/// A logical unit.
#[derive(Clone, Debug)]
pub(in super::super) struct LogicalUnit {
    pub(super) name: UnitName,
    pub(super) nexuses: Vec<NexusState>,
    pub(super) reservations: Reservations,
    /// Who holds a RESERVE of SPC-2.
    pub(super) reserved_by: Option<usize>,
    pub(super) shared: SharedPages,
    pub(super) counters: Counters,
    vendor_count: u64,
    executions: BTreeMap<(u8, Option<u8>), Executions>,
}

impl LogicalUnit {
    pub(in super::super) fn new(name: UnitName) -> Self {
        Self {
            name,
            nexuses: Vec::new(),
            reservations: Reservations::default(),
            reserved_by: None,
            shared: SharedPages::default(),
            counters: Counters::default(),
            vendor_count: 0,
            executions: BTreeMap::new(),
        }
    }

    /// A place for a nexus of this initiator port, which has not logged in yet.
    pub(in super::super) fn add_nexus(&mut self, initiator: String, port: usize) -> usize {
        self.nexuses.push(NexusState {
            initiator,
            port,
            login: 0,
            attentions: Attentions::default(),
            deferred: None,
            prevents_removal: false,
            page: nexus_page(),
        });
        self.nexuses.len() - 1
    }

    /// A login: the nexus is new.
    pub(in super::super) fn begin_nexus(&mut self, nexus: usize) {
        let state = &mut self.nexuses[nexus];
        state.login += 1;
        state.attentions.begin();
    }

    /// The nexus is lost, and what the unit kept for it.
    pub(in super::super) fn end_nexus(&mut self, nexus: usize) {
        let state = &mut self.nexuses[nexus];
        state.attentions.clear();
        state.deferred = None;
        state.prevents_removal = false;
        state.page = nexus_page();
        if self.reserved_by == Some(nexus) {
            self.reserved_by = None;
        }
    }

    /// Logins of a nexus so far.
    pub(in super::super) fn login(&self, nexus: usize) -> u64 {
        self.nexuses[nexus].login
    }

    pub(in super::super) fn initiator(&self, nexus: usize) -> &str {
        &self.nexuses[nexus].initiator
    }

    /// News for a nexus.
    pub(in super::super) fn attend(&mut self, nexus: usize, attention: Attention) {
        self.nexuses[nexus].attentions.add(attention);
    }

    /// News for all nexuses but one.
    pub(in super::super) fn attend_others(&mut self, except: Option<usize>, attention: Attention) {
        for (index, nexus) in self.nexuses.iter_mut().enumerate() {
            if Some(index) != except && nexus.login > 0 {
                nexus.attentions.add(attention);
            }
        }
    }

    /// The news that a read or a write of blocks reports: all of it, or changes of the access state alone.
    pub(in super::super) fn take_attention(&mut self, nexus: usize, meets_all: bool) -> Option<Attention> {
        let attentions = &mut self.nexuses[nexus].attentions;
        if meets_all {
            return attentions.take();
        }
        let changed = Attention::ACCESS_CHANGED;
        attentions.take_this(changed).then_some(changed)
    }

    /// Attentions that wait for a nexus.
    pub(in super::super) fn attentions(&self, nexus: usize) -> Vec<Attention> {
        self.nexuses[nexus].attentions.waiting().collect()
    }

    /// Has the next command of a nexus meet deferred sense: MEDIUM ERROR of an earlier command.
    pub(in super::super) fn defer(&mut self, nexus: usize, codes: Attention) {
        let sense = Sense { deferred: true, ..Sense::new(key::MEDIUM_ERROR, codes.asc, codes.ascq) };
        self.nexuses[nexus].deferred = Some(sense);
    }

    pub(in super::super) fn executions(&self) -> &BTreeMap<(u8, Option<u8>), Executions> {
        &self.executions
    }

    /// Who a command of this login is, to the registrations.
    pub(super) fn registrant(&self, nexus: usize, login: u64) -> Registrant {
        let NexusState { initiator, port, .. } = &self.nexuses[nexus];
        Registrant {
            initiator: initiator.clone(),
            port: relative_port(*port),
            login: if self.name.keeps_registrations { 0 } else { login },
        }
    }

    /// The nexus of a registrant, where that login of it stands.
    fn nexus_of(&self, who: &Registrant) -> Option<usize> {
        (0..self.nexuses.len()).find(|nexus| self.registrant(*nexus, self.login(*nexus)) == *who)
    }

    /// Whether a reservation keeps a nexus from reading or changing blocks.
    pub(in super::super) fn refuses_blocks(&self, nexus: usize, login: u64, changes: bool) -> bool {
        if self.reserved_by.is_none() && self.reservations.reservation.is_none() {
            return false;
        }
        let touch = if changes { Touch::Changes } else { Touch::Reads };
        self.reserved_by.is_some_and(|holder| holder != nexus)
            || self.is_reserved_against(nexus, login, touch)
    }

    fn is_reserved_against(&self, nexus: usize, login: u64, touch: Touch) -> bool {
        let Some(held) = &self.reservations.reservation else { return false };
        let who = self.registrant(nexus, login);
        if self.reservations.is_holder(&who) {
            return false;
        }
        command_set::conflicts(held.kind, self.reservations.key_of(&who).is_some(), touch)
    }

    /// Puts a command through the rules and does it.
    pub(in super::super) fn execute(&mut self, call: Call<'_>) -> Done {
        let name = (call.cdb[0], command_set::action_of(call.cdb));
        self.executions.entry(name).or_default().arrived += 1;
        let done = match self.refusal(&call) {
            Err(answer) => Done::answer(answer),
            Ok(row) => self.perform(row, &call),
        };
        let is_good = match &done.step {
            Step::Answer(answer) => answer.status == crate::scsi::status::GOOD,
            Step::Blocks(_) => true,
        };
        let counts = self.executions.entry(name).or_default();
        counts.good += u64::from(is_good);
        counts.effective += u64::from(is_good && done.changed);
        done
    }

    /// Why the command is not to be done, if it is not.
    fn refusal(&mut self, call: &Call<'_>) -> Result<&'static Row, Answer> {
        let row = command_set::find(call.cdb);
        let state = &mut self.nexuses[call.nexus];
        if !call.is_ghost && row.is_ok_and(|row| row.meets_attentions()) {
            if let Some(sense) = state.deferred.take() {
                return Err(Answer::check(sense));
            }
            if let Some(attention) = state.attentions.take() {
                return Err(Answer::attention(attention));
            }
        }
        let row = row.map_err(|unknown| match unknown {
            Unknown::Opcode => Answer::illegal(0x20, 0x00),
            Unknown::Action => Answer::wrong_field(1),
        })?;
        let access = call.access[self.name.ports[state.port]];
        if !row.is_answered_in(access) {
            let ascq = access.not_ready_qualifier().unwrap_or_default();
            return Err(Answer::check(Sense::new(key::NOT_READY, 0x04, ascq)));
        }
        if self.conflicts(row, call) {
            return Err(Answer::conflict());
        }
        Ok(row)
    }

    fn conflicts(&self, row: &Row, call: &Call<'_>) -> bool {
        let is_persistent =
            matches!(row.opcode, opcode::PERSISTENT_RESERVE_IN | opcode::PERSISTENT_RESERVE_OUT);
        match self.reserved_by {
            Some(_) if is_persistent => return true,
            Some(holder) if holder != call.nexus && !row.passes_reserve_of_another(call.cdb) => return true,
            _ => {}
        }
        match row.touch_of(call.cdb) {
            Touch::Legacy => !self.reservations.registrations.is_empty(),
            touch => self.is_reserved_against(call.nexus, call.login, touch),
        }
    }

    fn perform(&mut self, row: &Row, call: &Call<'_>) -> Done {
        match row.opcode {
            opcode::TEST_UNIT_READY => Done::good(false),
            opcode::REQUEST_SENSE => Done::answer(self.request_sense(call)),
            opcode::START_STOP_UNIT => Done::good(true),
            opcode::PREVENT_ALLOW_MEDIUM_REMOVAL => self.prevent_removal(call),
            opcode::INQUIRY => Done::answer(self.inquiry(call)),
            opcode::MODE_SENSE_6 | opcode::MODE_SENSE_10 => Done::answer(self.mode_sense(call)),
            opcode::MODE_SELECT_6 | opcode::MODE_SELECT_10 => self.mode_select(call),
            opcode::LOG_SENSE => Done::answer(self.log_sense(call)),
            opcode::LOG_SELECT => self.log_select(call),
            opcode::READ_CAPACITY_10 | opcode::SERVICE_ACTION_IN_16 => Done::answer(self.read_capacity(call)),
            opcode::REPORT_LUNS => Done::answer(self.report_luns(call)),
            opcode::MAINTENANCE_IN if row.action == Some(command_set::SUPPORTED_OPCODES) => {
                Done::answer(self.report_opcodes(call))
            }
            opcode::MAINTENANCE_IN => Done::answer(self.report_groups(call)),
            opcode::MAINTENANCE_OUT => self.set_groups(call),
            opcode::RESERVE_6 | opcode::RESERVE_10 => self.reserve(call.nexus),
            opcode::RELEASE_6 | opcode::RELEASE_10 => self.release(call.nexus),
            opcode::PERSISTENT_RESERVE_IN => Done::answer(self.persistent_in(call)),
            opcode::PERSISTENT_RESERVE_OUT => self.persistent_out(call),
            opcode::READ_10
            | opcode::READ_16
            | opcode::WRITE_10
            | opcode::WRITE_16
            | opcode::SYNCHRONIZE_CACHE_10
            | opcode::SYNCHRONIZE_CACHE_16 => self.blocks(call),
            command_set::VENDOR => self.vendor(),
            _ => Done::answer(Answer::illegal(0x20, 0x00)),
        }
    }

    /// What waits for the nexus, as data: it is told then.
    fn request_sense(&mut self, call: &Call<'_>) -> Answer {
        let state = &mut self.nexuses[call.nexus];
        let deferred = state.deferred.take();
        let attention = if deferred.is_none() { state.attentions.take() } else { None };
        let attention = attention.map(|of| Sense::new(key::UNIT_ATTENTION, of.asc, of.ascq));
        let sense = deferred.or(attention).unwrap_or_else(|| Sense::new(key::NO_SENSE, 0, 0));
        let sense = if call.cdb[1] & 1 == 1 { sense.as_descriptors() } else { sense };
        let mut data = sense.emit();
        data.truncate(call.cdb[4].into());
        Answer::data(data)
    }

    fn prevent_removal(&mut self, call: &Call<'_>) -> Done {
        let prevents = call.cdb[4] & 1 == 1;
        let before = std::mem::replace(&mut self.nexuses[call.nexus].prevents_removal, prevents);
        Done::good(before != prevents)
    }

    /// C0h: counts, and tells how often.
    fn vendor(&mut self) -> Done {
        self.vendor_count += 1;
        let data = (0..8).rev().map(|place| (self.vendor_count >> (8 * place) & 0xff) as u8).collect();
        Done { changed: true, ..Done::answer(Answer::data(data)) }
    }

    /// Gives out what a command does to others; the nexuses whose commands are aborted.
    pub(super) fn spread(&mut self, news: News) -> Vec<usize> {
        for (who, attention) in news.attentions {
            if let Some(nexus) = self.nexus_of(&who) {
                self.attend(nexus, attention);
            }
        }
        news.aborted.iter().filter_map(|who| self.nexus_of(who)).collect()
    }
}

/// Relative target port identifier of the port of this index.
pub(super) fn relative_port(index: usize) -> u16 {
    u16::try_from(index + 1).unwrap_or(u16::MAX)
}
