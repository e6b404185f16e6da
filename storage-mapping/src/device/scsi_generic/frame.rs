//! A command as the kernel takes it (`struct sg_io_hdr`, interface `S`), and what its fields say afterwards.
//!
//! Keeps true: pure, but for the addresses that `ioctl` fills in at the last moment. The host status counts first: with one,
//! no answer came from the target. Then the driver's, then the target's. Counts that the kernel gives are not trusted beyond the
//! buffers. Some adapters count everything as come, and `sg` uses one buffer again and again: behind the length that a reply
//! gives itself may stand bytes of an earlier one. Not here: the calls.

use nix::errno::Errno;
use nix::libc::{c_int, c_uint, c_void};

use super::super::control_node::Ending;
use crate::block::request::{ErrorSource, IoError};
use crate::control_port::{Cdb, CommandBytes, ControlCommand, ControlReply, SENSE_MAX_BYTES, Transfer};
use crate::scsi::sense::{Sense, key};
use crate::scsi::status::{CHECK_CONDITION, GOOD};

/// The time limit that the kernel is given, in milliseconds: an hour.
const TIME_LIMIT_MILLISECONDS: c_uint = 60 * 60 * 1000;

const DIRECTION_NONE: c_int = -1;
const DIRECTION_TO_DEVICE: c_int = -2;
const DIRECTION_FROM_DEVICE: c_int = -3;

/// Host status of Linux: the transport failed without saying how.
const HOST_ERROR: u16 = 0x07;
/// Host status of Linux: no answer in time.
const HOST_TIME_OUT: u16 = 0x03;
/// Host statuses that kernels before 6.1 put beside the status of the target, to steer their own repeats: TARGET_FAILURE,
/// NEXUS_FAILURE, ALLOC_FAILURE, MEDIUM_ERROR.
const HOST_BESIDE_STATUS: std::ops::RangeInclusive<u16> = 0x10..=0x13;

/// Driver status: sense data came.
const DRIVER_SENSE: u16 = 0x08;
/// Driver status: no answer in time.
const DRIVER_TIME_OUT: u16 = 0x06;

/// `struct sg_io_hdr` of `scsi/sg.h`.
#[repr(C)]
pub(super) struct Header {
    interface_id: c_int,
    direction: c_int,
    pub(super) command_length: u8,
    sense_max: u8,
    vector_count: u16,
    pub(super) data_length: c_uint,
    pub(super) data: *mut c_void,
    pub(super) command: *const u8,
    pub(super) sense: *mut u8,
    time_limit: c_uint,
    flags: c_uint,
    pack_id: c_int,
    user_pointer: *mut c_void,
    status: u8,
    masked_status: u8,
    message_status: u8,
    sense_length: u8,
    host_status: u16,
    driver_status: u16,
    residual: c_int,
    duration: c_uint,
    info: c_uint,
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Header>() == 88);

/// A command with the memory that the kernel uses for it, all of it on the heap, so that it can be left behind.
pub(super) struct Frame {
    pub(super) header: Header,
    pub(super) cdb: Cdb,
    pub(super) data: Vec<u8>,
    pub(super) sense: [u8; SENSE_MAX_BYTES],
}

impl Frame {
    /// The frame of a command; `None` where it is no SCSI command, or its data is longer than can be said.
    pub(super) fn new(command: ControlCommand, pack_id: c_int) -> Option<Box<Self>> {
        let CommandBytes::Scsi(cdb) = command.bytes else { return None };
        let (direction, data) = match command.transfer {
            Transfer::None => (DIRECTION_NONE, Vec::new()),
            Transfer::In(length_bytes) => (DIRECTION_FROM_DEVICE, vec![0; length_bytes]),
            Transfer::Out(data) => (DIRECTION_TO_DEVICE, data),
        };
        let header = Header {
            interface_id: c_int::from(b'S'),
            direction: if data.is_empty() { DIRECTION_NONE } else { direction },
            command_length: u8::try_from(cdb.bytes().len()).ok()?,
            sense_max: u8::try_from(SENSE_MAX_BYTES).ok()?,
            vector_count: 0,
            data_length: c_uint::try_from(data.len()).ok()?,
            data: std::ptr::null_mut(),
            command: std::ptr::null(),
            sense: std::ptr::null_mut(),
            time_limit: TIME_LIMIT_MILLISECONDS,
            flags: 0,
            pack_id,
            user_pointer: std::ptr::null_mut(),
            status: 0,
            masked_status: 0,
            message_status: 0,
            sense_length: 0,
            host_status: 0,
            driver_status: 0,
            residual: 0,
            duration: 0,
            info: 0,
        };
        Some(Box::new(Self { header, cdb, data, sense: [0; SENSE_MAX_BYTES] }))
    }

    /// What the kernel says of it after a call that succeeded.
    pub(super) fn ending(mut self: Box<Self>) -> Ending {
        let header = &self.header;
        if let Some(host_status) = transport_failure(header.host_status, header.driver_status, header.status)
        {
            let error = ErrorSource::Scsi {
                status: header.status,
                host_status,
                key: 0,
                asc: 0,
                ascq: 0,
                deferred: false,
            };
            return Ending::in_doubt(error.into());
        }
        let sense = self.sense[..usize::from(header.sense_length).min(SENSE_MAX_BYTES)].to_vec();
        let came = if header.direction == DIRECTION_FROM_DEVICE && brings_data(header.status, &sense) {
            self.data.len().saturating_sub(usize::try_from(header.residual).unwrap_or(0))
        } else {
            0
        };
        self.data.truncate(came);
        Ending::answered(ControlReply::Scsi { status: header.status, sense, data: self.data })
    }
}

/// Whether data came with such an answer: with GOOD, and where the sense says that the command was done all the same (NO SENSE,
/// RECOVERED ERROR). What is counted beside any other status is the buffer as it was.
fn brings_data(status: u8, sense: &[u8]) -> bool {
    let is_of_success = |sense: Sense| !sense.deferred && sense.key <= key::RECOVERED_ERROR;
    status == GOOD || status == CHECK_CONDITION && Sense::parse(sense).is_some_and(is_of_success)
}

/// The host status under which no answer came; `None` where one did.
fn transport_failure(host_status: u16, driver_status: u16, status: u8) -> Option<u8> {
    let is_beside_status = status != 0 && HOST_BESIDE_STATUS.contains(&host_status);
    if host_status != 0 && !is_beside_status {
        return Some(u8::try_from(host_status).unwrap_or(u8::MAX));
    }
    // The upper half is a suggestion for the kernel's own repeats.
    match driver_status & 0x0f {
        0 | DRIVER_SENSE => None,
        DRIVER_TIME_OUT => u8::try_from(HOST_TIME_OUT).ok(),
        _ => u8::try_from(HOST_ERROR).ok(),
    }
}

/// A call of SG_IO that failed: was the command sent?
pub(super) fn failed_call(errno: Errno) -> Ending {
    let error = IoError::errno(errno as i32);
    match errno {
        // Refused for what it is, or for want of something, before it was queued.
        Errno::EPERM
        | Errno::EACCES
        | Errno::EINVAL
        | Errno::ENOTTY
        | Errno::EBADF
        | Errno::EFAULT
        | Errno::ENOMEM
        | Errno::EMSGSIZE
        | Errno::EOPNOTSUPP => Ending::not_sent(error),
        _ => Ending::in_doubt(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::request::{CopyFate, Effect};

    fn frame(transfer: Transfer) -> Box<Frame> {
        let bytes = CommandBytes::Scsi(Cdb::new(&[0x12, 1, 0x83, 0, 0xff, 0]).expect("six bytes"));
        Frame::new(ControlCommand { bytes, transfer }, 7).expect("a SCSI command")
    }

    /// Data and sense of an answer.
    fn answer(frame: Box<Frame>) -> (u8, Vec<u8>, Vec<u8>) {
        let ending = frame.ending();
        assert_eq!((ending.effect, ending.copy), (Effect::Full, CopyFate::Dead));
        match ending.outcome {
            Ok(ControlReply::Scsi { status, sense, data }) => (status, sense, data),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_header_says_what_the_command_is() {
        let Frame { header, data, .. } = *frame(Transfer::In(255));
        assert_eq!((header.interface_id, header.direction), (0x53, -3));
        assert_eq!((header.command_length, header.sense_max, header.pack_id), (6, 252, 7));
        assert_eq!((header.data_length, data.len()), (255, 255));
        assert!(header.time_limit > 30 * 60 * 1000);
        let Frame { header, data, .. } = *frame(Transfer::Out(vec![1, 2, 3]));
        assert_eq!((header.direction, header.data_length, data), (-2, 3, vec![1, 2, 3]));
        for nothing in [Transfer::None, Transfer::In(0), Transfer::Out(Vec::new())] {
            let Frame { header, .. } = *frame(nothing);
            assert_eq!((header.direction, header.data_length), (-1, 0));
        }
        let nvme = ControlCommand { bytes: CommandBytes::Nvme(Default::default()), transfer: Transfer::None };
        assert!(Frame::new(nvme, 0).is_none());
    }

    #[test]
    fn an_answer_is_what_came_and_no_more() {
        let mut good = frame(Transfer::In(255));
        good.header.residual = 200;
        assert_eq!(answer(good), (0, vec![], vec![0; 55]));
        for (residual, came) in [(-1, 255), (i32::MAX, 0), (255, 0), (0, 255)] {
            let mut odd = frame(Transfer::In(255));
            odd.header.residual = residual;
            assert_eq!(answer(odd).2.len(), came, "{residual}");
        }
        // What was sent is not what came.
        assert_eq!(answer(frame(Transfer::Out(vec![9; 24]))).2, []);

        let mut check = frame(Transfer::None);
        check.header.status = 0x02;
        check.header.driver_status = DRIVER_SENSE;
        check.header.sense_length = 18;
        check.sense[..4].copy_from_slice(&[0x70, 0, 6, 0]);
        let (status, sense, _) = answer(check);
        assert_eq!((status, sense.len(), sense[2]), (0x02, 18, 6));
        let mut long = frame(Transfer::None);
        long.header.sense_length = 255;
        assert_eq!(answer(long).1.len(), SENSE_MAX_BYTES);
    }

    #[test]
    fn data_comes_with_what_was_done() {
        let length = |status, sense: &[u8]| {
            let mut frame = frame(Transfer::In(255));
            frame.header.status = status;
            frame.header.sense_length = u8::try_from(sense.len()).unwrap();
            frame.sense[..sense.len()].copy_from_slice(sense);
            answer(frame).2.len()
        };
        assert_eq!(length(0x00, &[]), 255);
        assert_eq!(length(0x18, &[]), 0);
        assert_eq!(length(0x02, &[0x70, 0, 0x05, 0]), 0);
        assert_eq!(length(0x02, &[0x70, 0, 0x21, 0]), 255);
        assert_eq!(length(0x02, &[0x72, 0x01, 0, 0, 0, 0, 0, 0]), 255);
        assert_eq!(length(0x02, &[0x72, 0x05, 0, 0, 0, 0, 0, 0]), 0);
        // Of an earlier command: this one was not done.
        assert_eq!(length(0x02, &[0x71, 0, 0x01, 0]), 0);
        assert_eq!((length(0x02, &[]), length(0x02, &[0x70])), (0, 0));
    }

    #[test]
    fn without_an_answer_nothing_is_known() {
        let failure = |host_status, driver_status, status| {
            let mut frame = frame(Transfer::In(255));
            frame.header.host_status = host_status;
            frame.header.driver_status = driver_status;
            frame.header.status = status;
            let ending = frame.ending();
            match ending.outcome {
                Ok(_) => None,
                Err(IoError { source_code: ErrorSource::Scsi { host_status, .. } }) => {
                    assert_eq!((ending.effect, ending.copy), (Effect::Unknown, CopyFate::MayLand));
                    Some(host_status)
                }
                Err(other) => panic!("{other:?}"),
            }
        };
        for host_status in [0x01, 0x02, 0x03, 0x04, 0x05, 0x07, 0x08, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 0x14] {
            assert_eq!(failure(host_status, 0, 0), u8::try_from(host_status).ok());
            assert_eq!(failure(host_status, 0x08, 0x02), u8::try_from(host_status).ok());
        }
        assert_eq!(failure(0x1234, 0, 0), Some(0xff));
        // A reservation conflict as an older kernel shows it, and the same without a status.
        assert_eq!(failure(0x11, 0, 0x18), None);
        assert_eq!(failure(0x11, 0, 0), Some(0x11));
        assert_eq!(failure(0, 0x06, 0), Some(0x03));
        assert_eq!(failure(0, 0x16, 0), Some(0x03));
        assert_eq!(failure(0, 0x04, 0), Some(0x07));
        assert_eq!(failure(0, 0x28, 0x02), None);
    }

    #[test]
    fn a_call_that_fails_has_sent_or_not() {
        for errno in [Errno::EPERM, Errno::EINVAL, Errno::ENOTTY, Errno::ENOMEM] {
            let ending = failed_call(errno);
            assert_eq!((ending.effect, ending.copy), (Effect::None, CopyFate::Dead), "{errno}");
        }
        for errno in [Errno::EIO, Errno::ENODEV, Errno::ENXIO, Errno::EINTR, Errno::ETIMEDOUT] {
            let ending = failed_call(errno);
            assert_eq!((ending.effect, ending.copy), (Effect::Unknown, CopyFate::MayLand), "{errno}");
            assert_eq!(ending.outcome, Err(IoError::errno(errno as i32)));
        }
    }
}
