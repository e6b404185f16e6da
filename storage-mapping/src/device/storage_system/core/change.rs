//! What a change does: to links, to access states, to disks.
//!
//! Keeps true: a change by command and one by schedule are the same; a name that is none changes nothing.

use std::time::Duration;

use super::loss::Cut;
use super::{Core, Due, LinkPlace};
use crate::block::request::IoTag;
use crate::device::storage_system::SystemError;
use crate::device::storage_system::access_state::AccessState;
use crate::device::storage_system::event_log::What;
use crate::device::storage_system::link::{Carrier, Flap, Link};
use crate::device::storage_system::schedule::{Action, DiskChange, LinkChange};
use crate::device::storage_system::scsi_target::Attention;

fn unknown(kind: &'static str, name: &str, known: String) -> SystemError {
    SystemError::Unknown { kind, name: name.to_owned(), known }
}

fn list<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(String::as_str).collect::<Vec<_>>().join(", ")
}

impl Core {
    pub(in super::super) fn port_named(&self, name: &str) -> Result<usize, SystemError> {
        let found = self.ports.iter().position(|port| port.name == name);
        found.ok_or_else(|| unknown("port", name, list(self.ports.iter().map(|port| &port.name))))
    }

    pub(in super::super) fn volume_named(&self, name: &str) -> Result<usize, SystemError> {
        let found = self.volumes.iter().position(|volume| volume.name == name);
        let known = || list(self.volumes.iter().map(|volume| &volume.name));
        found.ok_or_else(|| unknown("logical volume", name, known()))
    }

    fn group_named(&self, name: &str) -> Result<usize, SystemError> {
        let found = self.groups.iter().position(|(group, _)| group == name);
        found
            .ok_or_else(|| unknown("target port group", name, list(self.groups.iter().map(|(name, _)| name))))
    }

    pub(in super::super) fn disk_named(&self, name: &str) -> Result<usize, SystemError> {
        let found = self.disks.iter().position(|(disk, _)| disk == name);
        found.ok_or_else(|| unknown("physical disk", name, list(self.disks.iter().map(|(name, _)| name))))
    }

    /// Whether all names of an action are those of this system.
    pub(in super::super) fn check(&self, action: &Action) -> Result<(), SystemError> {
        match action {
            Action::Port { port, change } => {
                self.port_named(port)?;
                check_change(change)
            }
            Action::Path { path, change } => {
                self.port_named(&path.port)?;
                self.volume_named(&path.volume)?;
                check_change(change)
            }
            Action::Access { group, volume, .. } => {
                self.group_named(group)?;
                self.volume_named(volume).map(|_| ())
            }
            Action::Disk { disk, .. } => self.disk_named(disk).map(|_| ()),
        }
    }

    /// Does what the action says, at the time that [`advance`](Self::advance) has come to.
    pub(in super::super) fn apply(&mut self, action: &Action) -> Result<(), SystemError> {
        self.check(action)?;
        self.note(0, IoTag(0), What::Changed(action.to_string()));
        match action {
            Action::Port { port, change } => {
                let port = self.port_named(port)?;
                self.change_link(LinkPlace::Port(port), change);
            }
            Action::Path { path, change } => {
                if !self.nexuses.iter().any(|nexus| nexus.name == *path) {
                    let (port, volume) = (self.port_named(&path.port)?, self.volume_named(&path.volume)?);
                    self.nexus_of(path, port, volume, super::new_bell()?);
                }
                for index in 0..self.nexuses.len() {
                    if self.nexuses[index].name == *path {
                        self.change_link(LinkPlace::Nexus(index), change);
                    }
                }
            }
            Action::Access { group, volume, state, after } => {
                let cell = self.access_cell(self.group_named(group)?, self.volume_named(volume)?);
                self.change_access(cell, *state, *after, None);
            }
            Action::Disk { disk, change } => {
                let index = self.disk_named(disk)?;
                let disk = &mut self.disks[index].1;
                let mut service = disk.service();
                match *change {
                    DiskChange::Latency(time) => service.latency = time,
                    DiskChange::Parallel(count) => service.parallel = count,
                    DiskChange::Rate(rate) => service.rate = rate,
                }
                disk.set_service(service);
            }
        }
        Ok(())
    }

    fn link(&mut self, place: LinkPlace) -> &mut Link {
        match place {
            LinkPlace::Port(port) => &mut self.ports[port].link,
            LinkPlace::Nexus(nexus) => &mut self.nexuses[nexus].link,
        }
    }

    fn change_link(&mut self, place: LinkPlace, change: &LinkChange) {
        let now = self.now;
        let link = self.link(place);
        match change {
            LinkChange::Set(condition) => {
                let mut conditions = *link.conditions();
                conditions.set(*condition);
                link.set_conditions(conditions);
            }
            LinkChange::Hang(time) => {
                link.is_hung = true;
                link.hang_generation = link.hang_generation.wrapping_add(1);
                let generation = link.hang_generation;
                if let Some(time) = time {
                    self.wake(now + *time, Due::HangEnd { link: place, generation });
                }
            }
            LinkChange::Resume => self.end_hang(place),
            LinkChange::Down => self.break_link(place, Carrier::Down, Cut::Down),
            LinkChange::Dead => self.break_link(place, Carrier::Dead, Cut::Dead),
            LinkChange::Up => {
                link.stop_flapping();
                self.set_carrier(place, Carrier::Up);
            }
            LinkChange::Flap { up, down, time } => {
                link.stop_flapping();
                link.flap = Some(Flap { up: *up, down: *down, end: time.map(|time| now + time) });
                let generation = link.flap_generation;
                self.set_carrier(place, Carrier::Up);
                self.wake(now + *up, Due::FlapDown { link: place, generation });
            }
            LinkChange::Reset { lands, delay } => {
                self.bounce(place, Cut::Reset { lands: *lands, delay: *delay });
            }
            LinkChange::EndNexus => self.bounce(place, Cut::EndNexus),
            LinkChange::Next(armed) => link.arm(*armed),
            LinkChange::Clear => {
                link.reset();
                self.end_hang(place);
                self.set_carrier(place, Carrier::Up);
            }
        }
    }

    /// Ends a hang and goes on with what it held, in order.
    fn end_hang(&mut self, place: LinkPlace) {
        let link = self.link(place);
        link.is_hung = false;
        link.hang_generation = link.hang_generation.wrapping_add(1);
        for command in std::mem::take(&mut link.held) {
            self.release(command);
        }
    }

    fn break_link(&mut self, place: LinkPlace, carrier: Carrier, cut: Cut) {
        self.link(place).stop_flapping();
        self.set_carrier(place, carrier);
        self.cut_at(place, cut);
    }

    fn cut_at(&mut self, place: LinkPlace, cut: Cut) {
        match place {
            LinkPlace::Port(port) => self.cut(|of, _| of == port, cut),
            LinkPlace::Nexus(nexus) => self.cut(|_, of| of == nexus, cut),
        }
    }

    /// Loses what is in flight; the link is there again at once.
    pub(super) fn bounce(&mut self, place: LinkPlace, cut: Cut) {
        for nexus in 0..self.nexuses.len() {
            let is_over = match place {
                LinkPlace::Port(port) => self.nexuses[nexus].port == port,
                LinkPlace::Nexus(of) => of == nexus,
            };
            if is_over && self.is_up(nexus) {
                self.tell_link(nexus, false);
                self.tell_link(nexus, true);
            }
        }
        self.cut_at(place, cut);
    }

    /// Changes a carrier and tells the paths for which that makes a difference.
    fn set_carrier(&mut self, place: LinkPlace, carrier: Carrier) {
        self.link(place).carrier = carrier;
        for nexus in 0..self.nexuses.len() {
            let is_up = self.is_up(nexus);
            if std::mem::replace(&mut self.nexuses[nexus].was_up, is_up) != is_up {
                self.tell_link(nexus, is_up);
            }
        }
    }

    pub(super) fn handle_hang_end(&mut self, place: LinkPlace, generation: u32) {
        if self.link(place).hang_generation == generation {
            self.end_hang(place);
        }
    }

    pub(super) fn handle_flap_down(&mut self, place: LinkPlace, generation: u32) {
        let now = self.now;
        let link = self.link(place);
        let Some(flap) = link.flap.filter(|_| link.flap_generation == generation) else { return };
        if flap.end.is_some_and(|end| end <= now) {
            link.flap = None;
            return;
        }
        self.set_carrier(place, Carrier::Down);
        self.cut_at(place, Cut::Down);
        self.wake(now + flap.down, Due::FlapUp { link: place, generation });
    }

    pub(super) fn handle_flap_up(&mut self, place: LinkPlace, generation: u32) {
        let now = self.now;
        let link = self.link(place);
        let Some(flap) = link.flap.filter(|_| link.flap_generation == generation) else { return };
        self.set_carrier(place, Carrier::Up);
        self.wake(now + flap.up, Due::FlapDown { link: place, generation });
    }

    /// Changes an access state; `by` is the nexus that asked for it, which needs no news of it.
    pub(super) fn change_access(
        &mut self,
        cell: usize,
        state: AccessState,
        after: Option<Duration>,
        by: Option<usize>,
    ) {
        let now = self.now;
        let access = &mut self.access[cell];
        access.generation = access.generation.wrapping_add(1);
        access.next = state;
        let generation = access.generation;
        match after {
            Some(time) => {
                access.state = AccessState::Transitioning;
                self.wake(now + time, Due::Transition { cell, generation });
            }
            None => self.enter_state(cell, by),
        }
    }

    pub(super) fn handle_transition(&mut self, cell: usize, generation: u32) {
        if self.access[cell].generation == generation {
            self.enter_state(cell, None);
        }
    }

    /// The new state holds: every path through the group is to hear of it once. That a transition began
    /// is said by the answers themselves.
    fn enter_state(&mut self, cell: usize, by: Option<usize>) {
        let access = &mut self.access[cell];
        if std::mem::replace(&mut access.state, access.next) == access.next
            || access.next == AccessState::Transitioning
        {
            return;
        }
        let (group, volume) = (cell / self.volumes.len(), cell % self.volumes.len());
        for nexus in &self.nexuses {
            let concerns = nexus.volume == volume && self.ports[nexus.port].group == group;
            if nexus.is_open && concerns && by != Some(nexus.slot) {
                self.units[volume].attend(nexus.slot, Attention::ACCESS_CHANGED);
            }
        }
    }
}

/// A schedule made by hand may ask for what the text form refuses.
fn check_change(change: &LinkChange) -> Result<(), SystemError> {
    match change {
        LinkChange::Flap { up, down, .. } if (*up).min(*down) < super::super::schedule::FLAP_MIN => {
            Err(SystemError::FlapTooFast)
        }
        _ => Ok(()),
    }
}
