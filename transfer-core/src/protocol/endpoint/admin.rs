//! What follows from what the administrator wrote: hosts come and go, a replaced device ends everything.
//!
//! Not here: when to look, and what counts as proof (`admin_watch`).

use std::sync::Arc;

use storage_mapping::{Buffer, Instant};

use super::{Endpoint, Event, IoCommand, Purpose};
use crate::protocol::admin_watch::{AdminRead, DeviceVerdict};
use crate::protocol::startup::StartupFailure;

impl Endpoint {
    /// Reads the next part of the administrator's blocks, if it is time.
    pub(super) fn tend_admin(&mut self, now: Instant) {
        let deep_idle = self.connections.is_empty() && self.bell.is_deep(now);
        if let Some(read) = self.admin.poll(now, &self.layout, deep_idle) {
            let (address, length) = read.place(&self.layout);
            self.out.io.push_back((Purpose::Admin(read), IoCommand::Read { address, length }));
        }
    }

    pub(super) fn handle_admin(&mut self, now: Instant, read: AdminRead, buffer: Option<&Buffer>) {
        self.admin.handle_read();
        let Some(buffer) = buffer else { return };
        match read {
            AdminRead::Masters { device } => {
                let verdict = self.admin.judge_device(now, &self.layout, device, buffer);
                if verdict == DeviceVerdict::Replaced {
                    return self.stop(StartupFailure::DeviceReplaced { device });
                }
            }
            AdminRead::Rows { copy, first, .. } => {
                for (lane, record) in self.admin.judge_rows(&self.layout, (copy, first), buffer) {
                    let Some(place) = Arc::make_mut(&mut self.hosts).get_mut(usize::from(lane)) else {
                        continue;
                    };
                    // Only a newer row replaces one: an old one with its good signature may be a replay.
                    let is_news =
                        place.as_ref().is_none_or(|known| record.header.version > known.header.version);
                    if is_news {
                        let notice = format!("host table: row {lane} is now {}", record.name.as_str());
                        self.out.events.push_back(Event::Notice(notice));
                        *place = Some(record);
                    }
                }
                let own = self.hosts.get(usize::from(self.identity.lane)).and_then(Option::as_ref);
                if own.is_some_and(|own| !own.is_active()) {
                    return self.stop(StartupFailure::Evicted);
                }
            }
        }
        self.tend_admin(now);
    }
}
