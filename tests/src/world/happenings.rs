//! What happens to hosts beside crashes: their files fail, they are set back or run twice, and somebody
//! overwrites what is theirs on the volume.
//!
//! Not here: when (`world`), what is written (`damage`).

use std::time::Duration;

use storage_mapping::Instant;

use super::{Happening, World};
use crate::damage;
use crate::fault::Fault;
use crate::lane::{Lane, Life, Stage};

impl World {
    /// A host's own file system has a fault.
    pub(super) fn trouble_files(&mut self, happening: Happening) {
        let now = self.now;
        self.were_files_troubled = true;
        match happening {
            Happening::FailSync => {
                let (host, count) = (self.chance.index(self.plan.hosts), self.chance.range(1, 3));
                self.faults.count(Fault::SyncError);
                self.trace.line(now, "world", &format!("the next {count} syncs of host{host} fail"));
                self.files.host(host).fail_syncs(u32::try_from(count).expect("at most 3"));
            }
            Happening::FillDisk => {
                let host = self.chance.index(self.plan.hosts);
                let (room, is_quota) = (self.chance.below(64 << 10), self.chance.below(3) == 0);
                self.faults.count(Fault::DiskFull);
                self.trace.line(now, "world", &format!("host{host} has room for {room} bytes"));
                self.files.host(host).limit_space(room, is_quota);
                let length = self.chance.duration(Duration::from_millis(10), Duration::from_secs(60));
                self.later(now + length, Happening::EmptyDisk { host });
            }
            Happening::EmptyDisk { host } => {
                self.trace.line(now, "world", &format!("host{host} has room again"));
                self.files.host(host).lift_limit();
            }
            _ => {}
        }
    }

    pub(super) fn take_snapshot(&mut self) {
        let index = self.chance.index(self.lanes.len());
        let lane = &mut self.lanes[index];
        let Some(life) = lane.life.as_mut().filter(|life| life.stage == Stage::Serving) else { return };
        if life.process.has_local_work() {
            return self.later(self.now + Duration::from_millis(1), Happening::TakeSnapshot);
        }
        let Some(snapshot) = life.process.take_snapshot(lane.local.clone()) else { return };
        lane.snapshot = Some(snapshot);
        let name = lane.name();
        self.trace.line(self.now, "world", &format!("a snapshot of {name} is taken"));
        let pause = self.chance.duration(Duration::from_millis(1), Duration::from_secs(90));
        let at = (self.now + pause).min(self.faults_end);
        self.later(at, Happening::GoOnFromSnapshot { lane: index });
    }

    /// A host goes on from an older state, in its own place or as a second instance.
    pub(super) fn go_on_from_snapshot(&mut self, index: usize) {
        let now = self.now;
        let Some(snapshot) = self.lanes[index].snapshot.take() else { return };
        let beside = self.chance.below(2) == 0;
        let (local, connections) = (snapshot.local.clone(), snapshot.connections.clone());
        let lane = if beside {
            Lane::clone_of(&self.lanes[index])
        } else {
            Lane::new(0, self.lanes[index].record.clone())
        };
        let lane = Lane { host: self.lanes[index].host, ..lane };
        let Some(process) = self.site.resume(&lane, snapshot, &mut self.chance, now) else { return };
        let name = lane.name();
        // A second instance has no files: what it takes on stands still until it is switched off.
        let mut life = Life { process, stage: Stage::Serving, serving: None, job: None };
        self.was_set_back = true;
        if beside {
            self.faults.count(Fault::ClonedHost);
            self.trace.line(now, "world", &format!("{name}, a second instance, goes on from the snapshot"));
            self.lanes.push(Lane { local, life: Some(life), ..lane });
        } else {
            self.faults.count(Fault::RevertedHost);
            self.trace.line(now, "world", &format!("{name} is set back to the snapshot"));
            let lane = &mut self.lanes[index];
            lane.life = None;
            match self.files.serving(lane.host) {
                Ok(serving) => life.serving = Some(serving),
                // Its file system fails at this very moment: so does the process.
                Err(_) => return self.start_later(index, Duration::from_secs(5)),
            }
            for connection in connections {
                self.attach_store(&mut life, connection, self.plan.segment_bytes as usize);
            }
            let lane = &mut self.lanes[index];
            lane.lives += 1;
            lane.paused_until = Instant::ZERO;
            lane.local = local;
            lane.life = Some(life);
        }
    }

    /// Overwrites something on the volume past every rule.
    pub(super) fn damage(&mut self, happening: Happening) {
        let now = self.now;
        match happening {
            Happening::FloodBell => {
                let lane = self.any_lane();
                self.faults.count(Fault::BellFlood);
                let length = self.chance.duration(Duration::from_millis(10), Duration::from_secs(30));
                self.trace.line(now, "world", &format!("the bell of lane {lane} is flooded for {length:?}"));
                self.later(now, Happening::FloodBellMore { lane, until: now + length });
            }
            Happening::FloodBellMore { lane, until } => {
                damage::flood_bell(&self.site, &mut self.chance, lane, now);
                let pause = self.chance.duration(Duration::from_millis(1), Duration::from_millis(100));
                if now + pause < until {
                    self.later(now + pause, Happening::FloodBellMore { lane, until });
                }
            }
            Happening::LoseBell => {
                let lane = self.any_lane();
                self.faults.count(Fault::BellLost);
                let old = self.old_bells.get(&lane).map(|old| &**old);
                let was = damage::lose_bell(&self.site, &mut self.chance, lane, old, now);
                self.old_bells.insert(lane, was);
                self.trace.line(now, "world", &format!("the bell of lane {lane} is set back"));
            }
            Happening::WipeTable => {
                let lane = self.any_lane();
                self.faults.count(Fault::WipedTable);
                let what = damage::wipe(&self.site, &mut self.chance, lane, now);
                self.trace.line(now, "world", &what);
            }
            _ => {}
        }
    }
}
