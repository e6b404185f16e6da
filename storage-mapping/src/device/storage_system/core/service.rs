//! What the disks do for a command.
//!
//! Keeps true: bytes move when the service of a piece ends, and at no other time; a disk that is a device of
//! its own gets as much as it takes, and the rest waits. Not here: how long a service takes (`disk`).

use nix::libc;

use super::command::{Command, Piece, Stage};
use super::{Core, Due, Medium};
use crate::block::BlockDevice;
use crate::block::address::{BlockCount, Lba};
use crate::block::request::{
    CopyFate, Effect, IoBuffer, IoCompletion, IoError, IoRequest, IoTag, Operation, RefusalReason, Refused,
};
use crate::device::storage_system::event_log::{RequestKind, What};

impl Core {
    /// Sends the pieces of a command to their disks.
    pub(super) fn dispatch(&mut self, index: u32) {
        if self.refuse_reserved(index) {
            return;
        }
        let now = self.now;
        let Command { nexus, kind, lba, bytes, .. } = self.commands[index as usize];
        let volume = self.nexuses[nexus].volume;
        if kind != RequestKind::Flush {
            self.units[volume].count_bytes(kind == RequestKind::Write, bytes);
        }
        let volume = &self.volumes[volume];
        let mut pieces = std::mem::take(&mut self.commands[index as usize].pieces);
        let mut put = |disk: usize, disk_lba, offset, length| {
            let end = self.disks[disk].1.serve(now, length);
            pieces.push(Piece { disk, disk_lba: Lba(disk_lba), offset, length, end });
        };
        if kind == RequestKind::Flush {
            volume.disks.iter().for_each(|disk| put(*disk, 0, 0, 0));
        } else {
            let size = self.block_size.bytes();
            let in_bytes = |blocks| usize::try_from(blocks).expect("a transfer fits in memory") * size;
            for run in volume.layout.runs(lba, BlockCount((bytes / size) as u64)) {
                put(run.disk, run.disk_lba, in_bytes(run.logical - lba.0), in_bytes(run.count));
            }
        }
        let count = pieces.len();
        let command = self.command(index);
        command.pieces = pieces;
        command.pieces_left = count;
        command.stage = Stage::AtDisks;
        for piece in 0..count {
            let end = self.commands[index as usize].pieces[piece].end;
            let piece = u32::try_from(piece).expect("fewer pieces than blocks of a transfer");
            if end > now {
                self.wake(end, Due::Served { index, piece });
            } else {
                self.handle_served(index, piece);
            }
        }
    }

    /// A disk has served a piece: its bytes move.
    pub(super) fn handle_served(&mut self, index: u32, piece: u32) {
        let block = self.block_size.bytes();
        let command = &mut self.commands[index as usize];
        let Piece { disk, disk_lba, offset, length, .. } = command.pieces[piece as usize];
        let Some(request) = &mut command.request else { return self.piece_done(index) };
        let range = offset..offset + length;
        match &mut self.disks[disk].1.medium {
            Medium::Memory(memory) => {
                let start = usize::try_from(disk_lba.0).expect("memory is addressed") * block;
                match &mut request.operation {
                    Operation::Read { buffer, .. } => {
                        memory
                            .with_bytes(|bytes| buffer[range].copy_from_slice(&bytes[start..start + length]));
                    }
                    Operation::Write { data, .. } => {
                        memory.with_bytes(|bytes| bytes[start..start + length].copy_from_slice(&data[range]));
                    }
                    Operation::Flush => {}
                }
                self.landed(index, piece);
                self.piece_done(index);
            }
            Medium::Device { .. } => {
                let tag = IoTag(u64::from(index) << 32 | u64::from(piece));
                let request = match &request.operation {
                    Operation::Read { .. } => IoRequest::read(tag, disk_lba, self.pool.take(length)),
                    Operation::Write { data, fua, .. } => {
                        let mut part = self.pool.take(length);
                        part.copy_from_slice(&data[range]);
                        IoRequest::write(tag, disk_lba, part.freeze(), *fua)
                    }
                    Operation::Flush => IoRequest::flush(tag),
                };
                self.submit_to_device(disk, request);
                self.drain_device(disk);
            }
        }
    }

    fn landed(&mut self, index: u32, piece: u32) {
        let Command { nexus, tag, kind, lba, has_waiter, ref pieces, .. } = self.commands[index as usize];
        if kind != RequestKind::Write {
            return;
        }
        let Piece { offset, length, .. } = pieces[piece as usize];
        let lba = Lba(lba.0 + (offset / self.block_size.bytes()) as u64);
        self.note(nexus, tag, What::Landed { lba, bytes: length, is_ghost: !has_waiter });
    }

    fn submit_to_device(&mut self, disk: usize, request: IoRequest) {
        let Medium::Device { device, stalled, outstanding, .. } = &mut self.disks[disk].1.medium else {
            return;
        };
        let Err(Refused { reason, request }) = device.submit(self.now, request) else {
            *outstanding += 1;
            return;
        };
        let code = match reason {
            RefusalReason::Busy => return stalled.push_back(request),
            RefusalReason::Invalid | RefusalReason::DuplicateTag => libc::EINVAL,
            RefusalReason::Closed => libc::ENODEV,
        };
        let done = request.complete(Err(IoError::errno(code)), Effect::None, CopyFate::Dead);
        self.handle_device_completion(done);
    }

    pub(super) fn drain_devices(&mut self) {
        for disk in 0..self.disks.len() {
            self.drain_device(disk);
        }
    }

    fn drain_device(&mut self, disk: usize) {
        loop {
            let Medium::Device { device, stalled, outstanding, is_dry } = &mut self.disks[disk].1.medium
            else {
                return;
            };
            if *outstanding == 0 && *is_dry {
                return;
            }
            let Some(done) = device.poll(self.now) else {
                while device.poll_event(self.now).is_some() {}
                *is_dry = true;
                return;
            };
            *outstanding -= 1;
            *is_dry = false;
            let next = stalled.pop_front();
            self.handle_device_completion(done);
            if let Some(request) = next {
                self.submit_to_device(disk, request);
            }
        }
    }

    fn handle_device_completion(&mut self, done: IoCompletion) {
        let index = u32::try_from(done.tag.0 >> 32).expect("32 bits");
        let piece = u32::try_from(done.tag.0 & u64::from(u32::MAX)).expect("32 bits");
        let command = &mut self.commands[index as usize];
        let Piece { offset, length, .. } = command.pieces[piece as usize];
        match done.outcome {
            Ok(()) => {
                if let Some(IoRequest { operation: Operation::Read { buffer, .. }, .. }) =
                    &mut command.request
                    && let IoBuffer::Read(part) = &done.buffer
                {
                    buffer[offset..offset + length].copy_from_slice(part);
                }
                self.landed(index, piece);
            }
            Err(error) => {
                let (_, effect, copy) = command.failure.unwrap_or((error, done.effect, done.copy));
                // Some pieces done and some not is an effect that nobody knows.
                let is_alone = command.pieces.len() == 1;
                let effect = if is_alone { effect } else { Effect::Unknown };
                let may_land = copy == CopyFate::MayLand || done.copy == CopyFate::MayLand;
                let copy = if may_land { CopyFate::MayLand } else { CopyFate::Dead };
                command.failure = Some((error, effect, copy));
            }
        }
        self.piece_done(index);
    }

    fn piece_done(&mut self, index: u32) {
        let command = self.command(index);
        command.pieces_left -= 1;
        if command.pieces_left == 0 {
            self.answer(index);
        }
    }
}
