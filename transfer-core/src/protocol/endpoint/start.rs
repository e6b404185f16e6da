//! The start of a process, as its endpoint carries it out.
//!
//! Not here: its steps (`startup`).

use storage_mapping::{Buffer, Instant};

use super::{BeaconKeeper, Endpoint, Event, Life, Purpose};
use crate::protocol::startup::{StartupIo, StartupStep};

impl Endpoint {
    pub(super) fn handle_startup_io(
        &mut self,
        now: Instant,
        io: StartupIo,
        success: bool,
        buffer: Option<&Buffer>,
    ) {
        if let Life::Starting(startup) = &mut self.life {
            startup.handle_io(now, &self.layout, &self.owner_key, &self.buffers, io, success, buffer);
        }
        self.pump_startup(now);
    }

    pub(super) fn pump_startup(&mut self, now: Instant) {
        loop {
            let Life::Starting(startup) = &mut self.life else { return };
            match startup.poll() {
                None => return,
                Some(StartupStep::Io(io, command)) => self.out.io.push_back((Purpose::Startup(io), command)),
                Some(StartupStep::Persist(local)) => self.out.events.push_back(Event::Persist(local)),
                Some(StartupStep::Failed(failure)) => {
                    self.life = Life::Stopped;
                    self.out.events.push_back(Event::Stopped(failure));
                }
                Some(StartupStep::Done(identity, slots)) => {
                    self.identity = identity;
                    self.slots = slots.into_iter().map(|slot| (slot.process_id, slot)).collect();
                    self.life = Life::Running;
                    self.in_directory_dirty = self.config.answers;
                    self.beacon = BeaconKeeper::new(now);
                    self.out.events.push_back(Event::Started);
                    return self.handle_timeout(now);
                }
            }
        }
    }
}
