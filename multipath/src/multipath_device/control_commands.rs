//! Control commands over the paths of the device: the loop between the router and the ports.
//!
//! Keeps true: path state is shared both ways (what a command shows of a path, I/O knows, and the other way round); a path
//! that lacks what the target kept for its nexus carries no I/O before it has it again; a device whose keys another host
//! has taken away answers I/O with RESERVATION CONFLICT; a command never waits for I/O, nor I/O for a command. Not here:
//! decisions (`out_of_band`).

use std::time::Duration;

use storage_mapping::block::time::earliest;
use storage_mapping::control_port::{ControlEvent, ControlRequest};
use storage_mapping::scsi::status::RESERVATION_CONFLICT;
use storage_mapping::{BlockDevice, ErrorSource, Instant, IoError, IoTag, PathIndex, RefusalReason};

use super::MultipathDevice;
use crate::error_class::{Classified, ErrorClass, RequestAction};
use crate::out_of_band::attentions::Attention;
use crate::out_of_band::command_table::CommandTable;
use crate::out_of_band::ledger::Ledger;
use crate::out_of_band::reading::{Event, Reading};
use crate::out_of_band::record::{CommandOutcome, Record};
use crate::out_of_band::replay::{Ended, Replay};
use crate::out_of_band::request::{CommandId, CommandRequest, Origin};
use crate::out_of_band::reservations::{ReservationOperation, ReservationOutcome, Reservations};
use crate::out_of_band::router::{Action, Router, RouterConfig};
use crate::out_of_band::select::PathView;
use crate::path_state::{PathSet, PathState};
use crate::selector::PathSelector;

/// Steps of the router in one go: more is left for the next.
const STEPS_MAX: usize = 1024;

/// What the device keeps for control commands.
pub(super) struct ControlCommands {
    router: Router,
    replay: Replay,
    reservations: Reservations,
    /// Paths whose transport takes control commands.
    ports: PathSet,
    /// Paths that carry no I/O before they have what they lack.
    unready: PathSet,
    /// Paths that are down and may have come back: the next turn puts back what they lack.
    called: PathSet,
    is_fenced: bool,
    ports_wakeup: Option<Instant>,
}

impl ControlCommands {
    pub(super) fn new(ports: PathSet, paths: usize) -> Self {
        Self {
            router: Router::new(paths, CommandTable::default(), RouterConfig::default()),
            replay: Replay::default(),
            reservations: Reservations::default(),
            ports,
            unready: PathSet::EMPTY,
            called: PathSet::EMPTY,
            is_fenced: false,
            ports_wakeup: None,
        }
    }

    /// Whether the path lacks what it had.
    pub(super) fn is_unready(&self, path: PathIndex) -> bool {
        self.unready.contains(path)
    }

    /// What I/O is answered while the device is fenced.
    pub(super) fn fence_error(&self) -> Option<IoError> {
        let (status, host_status, key, asc, ascq, deferred) = (RESERVATION_CONFLICT, 0, 0, 0, 0, false);
        self.is_fenced.then(|| ErrorSource::Scsi { status, host_status, key, asc, ascq, deferred }.into())
    }

    /// Takes over what the ledger says.
    fn refresh(&mut self) {
        self.unready = self.router.ledger().bare();
        self.is_fenced = self.router.ledger().is_fenced();
    }

    fn is_idle(&self) -> bool {
        self.router.is_idle() && self.unready.is_empty() && self.reservations.is_idle()
    }
}

impl<S: PathSelector> MultipathDevice<S> {
    /// Takes a control command. It passes by the queue of blocks; its outcome comes from [`Self::poll_command`].
    pub fn submit_command(&mut self, now: Instant, request: CommandRequest) -> CommandId {
        let views = self.path_views();
        self.control.router.set_paths(views);
        self.control.router.submit(now, request)
    }

    /// Hands out the outcome of one control command, or `None`. To be called until `None`. What wakes the device wakes
    /// this: see `next_wakeup` and `wait_on`.
    pub fn poll_command(&mut self, now: Instant) -> Option<CommandOutcome> {
        self.drive_commands(now);
        self.control.router.poll_outcome(Origin::Caller)
    }

    /// Begins what a caller wants of persistent reservations, over all paths together. Its outcome comes from
    /// [`Self::poll_reservation`], within about `patience`.
    ///
    /// # Panics
    /// For a registration with the base 0, which is no key.
    pub fn submit_reservation(
        &mut self,
        now: Instant,
        operation: ReservationOperation,
        patience: Duration,
    ) -> CommandId {
        let views = self.path_views();
        let takes = |view: &&PathView| view.nexus.is_some();
        let is_up = |view: &&PathView| {
            matches!(view.state, PathState::Active | PathState::Isolated | PathState::Standby)
        };
        let all: PathSet = views.iter().filter(takes).map(|view| view.path).collect();
        let up = views.iter().filter(takes).filter(is_up).map(|view| view.path).collect();
        let ControlCommands { reservations, router, .. } = &mut self.control;
        router.set_paths(views);
        reservations.start(now, router, operation, (up, all), patience)
    }

    /// Hands out the outcome of one operation on reservations, or `None`.
    pub fn poll_reservation(&mut self, now: Instant) -> Option<ReservationOutcome> {
        self.drive_commands(now);
        self.control.reservations.poll()
    }

    /// The next unit attention for a subscriber, whose place is `cursor` (0 at first): each comes to each subscriber once
    /// for the device.
    pub fn poll_attention(&self, cursor: &mut u64) -> Option<Attention> {
        self.control.router.attentions().poll(cursor)
    }

    /// What is known of what the target keeps for each path.
    #[must_use]
    pub fn nexus_ledger(&self) -> &Ledger {
        self.control.router.ledger()
    }

    /// Why control commands took the paths they took, oldest first.
    pub fn command_records(&self) -> impl Iterator<Item = &Record> {
        self.control.router.records()
    }

    /// The table of commands.
    #[must_use]
    pub fn command_table(&self) -> &CommandTable {
        self.control.router.table()
    }

    /// Takes a table with rows of the user.
    pub fn set_command_table(&mut self, table: CommandTable) {
        self.control.router.set_table(table);
    }

    /// Takes other numbers for control commands.
    pub fn set_router_config(&mut self, config: RouterConfig) {
        self.control.router.set_config(config);
    }

    fn path_views(&mut self) -> Vec<PathView> {
        let Self { paths, core, control, .. } = self;
        let view = |path: &mut super::Path| {
            let index = path.status.path;
            PathView {
                path: index,
                state: core.state(index),
                is_suspect: core.is_suspect(index),
                priority: core.path_config(index).priority,
                nexus: path.device.control_port().map(|port| port.nexus()),
                latency: control.router.latency(index),
                has_attention: control.router.attentions().is_expected(index),
            }
        };
        paths.iter_mut().map(view).collect()
    }

    /// Lets control commands go on: takes in what ports have, and hands out what the router wants.
    pub(super) fn drive_commands(&mut self, now: Instant) {
        if self.control.ports.is_empty() && self.control.is_idle() {
            return;
        }
        self.collect_commands(now);
        if self.control.is_idle() {
            return self.note_wakeup();
        }
        for _ in 0..STEPS_MAX {
            let views = self.path_views();
            self.control.router.set_paths(views);
            self.start_replays(now);
            let action = self.control.router.poll_action(now);
            let has_acted = action.is_some();
            if let Some(action) = action {
                self.act(now, action);
            }
            let has_ended = self.take_own_outcomes(now);
            if !has_acted && !has_ended {
                break;
            }
        }
        self.control.refresh();
        self.note_wakeup();
    }

    fn collect_commands(&mut self, now: Instant) {
        for path in self.control.ports.iter() {
            while let Some(event) = self.port(path).and_then(|port| port.poll_control_event(now)) {
                self.handle_control_event(now, path, &event);
            }
            while let Some(done) = self.port(path).and_then(|port| port.poll_control(now)) {
                let tag = done.tag;
                if let Some((path, reading)) = self.control.router.handle_completion(now, &done) {
                    self.learn(now, path, tag, &reading);
                }
            }
        }
    }

    /// A path is up: one that could not be opened at first may have a port by now.
    pub(super) fn note_port(&mut self, path: PathIndex) {
        if self.port(path).is_some() {
            self.control.ports.insert(path);
        }
    }

    fn port(&mut self, path: PathIndex) -> Option<&mut dyn storage_mapping::ControlPort> {
        self.paths[path.0].device.control_port()
    }

    fn handle_control_event(&mut self, now: Instant, path: PathIndex, event: &ControlEvent) {
        let generation = self.port(path).map_or(0, |port| port.nexus().generation);
        self.control.router.handle_event(now, path, event, generation);
        self.control.refresh();
        match event {
            ControlEvent::NexusBegun => {
                self.control.called.insert(path);
                self.core.probe_now(now, path);
            }
            ControlEvent::NexusLost | ControlEvent::Attention { .. } | ControlEvent::Settled(_) => {}
        }
    }

    fn act(&mut self, now: Instant, action: Action) {
        match action {
            Action::Send { path, tag, command } => {
                let request = ControlRequest { tag, command };
                let port = self.port(path);
                let taken = port.map_or(Err(RefusalReason::Closed), |port| port.submit_control(now, request));
                self.control.router.handle_sent(now, tag, taken);
                if taken == Err(RefusalReason::Closed) {
                    self.core.handle_link_down(now, path);
                }
            }
            Action::Cancel { path, tag } => {
                let Some(answer) = self.port(path).map(|port| port.cancel_control(now, tag)) else { return };
                if let Some((path, reading)) = self.control.router.handle_cancelled(now, tag, answer) {
                    self.learn(now, path, tag, &reading);
                }
            }
        }
    }

    /// What a command shows of its path, I/O knows.
    fn learn(&mut self, now: Instant, path: PathIndex, tag: IoTag, reading: &Reading) {
        self.has_changed = true;
        self.control.refresh();
        match (reading.outcome, reading.classified) {
            (Err(error), Some(classified)) => {
                self.core.handle_error(now, path, (tag, now), &classified, error);
            }
            // It answers a command; whether it carries I/O is for a probe to say.
            _ if self.core.state(path) != PathState::Active => self.core.probe_now(now, path),
            _ => {}
        }
    }

    /// What I/O shows of a path, the router knows; a conflict that may come from a lost registration is no answer yet.
    pub(super) fn note_io_error(
        &mut self,
        now: Instant,
        path: PathIndex,
        classified: &mut Classified,
        error: IoError,
    ) {
        if let ErrorSource::Scsi { key: 6, asc, ascq, deferred: false, .. } = error.source_code {
            self.control.router.note_attention(now, path, Event { asc, ascq }, false);
            self.control.refresh();
        }
        let ledger = self.control.router.ledger_mut();
        if classified.class == ErrorClass::Reservation && !ledger.is_fenced() {
            // Where a key is wanted, it may be lost: what is read and put back tells, and then the I/O is tried again.
            ledger.handle_loss(now, path);
            self.control.called.insert(path);
            self.control.refresh();
            if self.control.is_unready(path) {
                classified.request = RequestAction::Again;
            }
        }
    }

    /// I/O that was sent at `sent` ended well: no unit attention of before is pending on the path.
    pub(super) fn note_io_success(&mut self, path: PathIndex, sent: Instant) {
        if !self.control.router.attentions().is_quiet(path) {
            self.control.router.note_no_attention(path, sent);
        }
    }

    /// Begins to put back what returning paths lack.
    fn start_replays(&mut self, now: Instant) {
        let mut due = std::mem::take(&mut self.control.called);
        for path in (0..self.paths.len()).map(PathIndex) {
            if matches!(self.core.state(path), PathState::Active | PathState::Isolated) {
                due.insert(path);
            }
        }
        let due = due.intersection(self.control.router.ledger().bare());
        if self.control.router.ledger().is_fenced() {
            return;
        }
        for path in due.iter() {
            let ControlCommands { replay, router, .. } = &mut self.control;
            replay.start(now, router, path);
        }
    }

    /// Takes in the outcomes of the layer's own commands. Says whether there were any.
    fn take_own_outcomes(&mut self, now: Instant) -> bool {
        let mut has_any = false;
        while let Some(outcome) = self.control.router.poll_outcome(Origin::Layer) {
            has_any = true;
            let ControlCommands { replay, reservations, router, .. } = &mut self.control;
            if reservations.handle_outcome(now, router, &outcome) {
                continue;
            }
            if let Some(Ended { path, is_done }) = replay.handle_outcome(now, router, &outcome) {
                self.has_changed = true;
                if is_done {
                    self.core.probe_now(now, path);
                } else {
                    self.core.handle_link_down(now, path);
                }
            }
        }
        has_any
    }

    /// When control commands go on although nothing comes in.
    pub(super) fn next_command_timeout(&self) -> Option<Instant> {
        // An operation may end while something else is fetched.
        let ended = self.control.reservations.has_ended().then_some(Instant::ZERO);
        earliest(ended, earliest(self.control.router.next_timeout(), self.control.ports_wakeup))
    }

    /// When ports want to be polled although nothing comes in. What else wakes a path wakes its port.
    fn note_wakeup(&mut self) {
        let Self { paths, control, .. } = self;
        let wakeup = |path: PathIndex| paths[path.0].device.control_port()?.next_control_wakeup();
        control.ports_wakeup = control.ports.iter().map(wakeup).fold(None, earliest);
    }
}
