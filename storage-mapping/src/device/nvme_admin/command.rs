//! A command as the kernel takes it (`struct nvme_passthru_cmd64`), and what its result says.
//!
//! Keeps true: pure, but for the address that `ioctl` fills in at the last moment. A status that the host may have made itself
//! (of type 3, or of an abort) is no answer and proves nothing. Not here: the calls.

use nix::errno::Errno;
use nix::libc::c_int;

use super::super::control_node::Ending;
use crate::block::request::{ErrorSource, IoError};
use crate::control_port::{CommandBytes, ControlCommand, ControlReply, NvmeFields, Transfer};

/// The time limit that the kernel is given, in milliseconds: an hour. When it passes, the kernel resets the controller.
const TIME_LIMIT_MILLISECONDS: u32 = 60 * 60 * 1000;

/// `struct nvme_passthru_cmd64` of `linux/nvme_ioctl.h`.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Raw {
    opcode: u8,
    flags: u8,
    reserved: u16,
    namespace: u32,
    cdw2: [u32; 2],
    metadata: u64,
    pub(super) data: u64,
    metadata_length: u32,
    data_length: u32,
    cdw10: [u32; 6],
    time_limit: u32,
    reserved_2: u32,
    result: u64,
}

const _: () = assert!(size_of::<Raw>() == 80);

/// A command with the memory that the kernel uses for it.
#[derive(Debug)]
pub(super) struct Passthrough {
    pub(super) raw: Raw,
    pub(super) data: Vec<u8>,
    pub(super) is_io: bool,
    is_from_device: bool,
}

impl Passthrough {
    /// `None` where it is no NVMe command, or its data is longer than can be said.
    pub(super) fn new(command: ControlCommand) -> Option<Self> {
        let CommandBytes::Nvme(fields) = command.bytes else { return None };
        let NvmeFields { is_io, opcode, namespace, cdw2, cdw10 } = fields;
        let (data, is_from_device) = match command.transfer {
            Transfer::None => (Vec::new(), false),
            Transfer::In(length_bytes) => (vec![0; length_bytes], true),
            Transfer::Out(data) => (data, false),
        };
        let raw = Raw {
            opcode,
            flags: 0,
            reserved: 0,
            namespace,
            cdw2,
            metadata: 0,
            data: 0,
            metadata_length: 0,
            data_length: u32::try_from(data.len()).ok()?,
            cdw10,
            time_limit: TIME_LIMIT_MILLISECONDS,
            reserved_2: 0,
            result: 0,
        };
        Some(Self { raw, data, is_io, is_from_device })
    }
}

/// Whether an opcode carries data the way the transfer says: its two low bits tell, 1 to the controller, 2 from it (NVMe base
/// specification, opcodes). The kernel goes by them alone.
pub(super) fn has_direction(opcode: u8, transfer: &Transfer) -> bool {
    match transfer {
        Transfer::None => true,
        Transfer::In(_) => opcode & 0b10 != 0,
        Transfer::Out(_) => opcode & 0b01 != 0,
    }
}

/// What became of a command by the result of its call: 0, or the status field without its phase bit, or an errno.
pub(super) fn ending(command: Passthrough, result: Result<c_int, Errno>) -> Ending {
    let field = match result {
        Ok(field) => field,
        Err(errno) => return failed_call(errno),
    };
    let byte = |value: c_int| u8::try_from(value & 0xff).expect("eight bits");
    let (sc, sct, crd) = (byte(field), byte(field >> 8 & 0b111), byte(field >> 11 & 0b11));
    let dnr = field & 0x4000 != 0;
    if is_by_host(sct, sc) {
        return Ending::in_doubt(ErrorSource::Nvme { sct, sc, dnr, crd }.into());
    }
    let came = command.is_from_device && field == 0;
    let data = if came { command.data } else { Vec::new() };
    Ending::answered(ControlReply::Nvme { sct, sc, dnr, crd, result: command.raw.result, data })
}

/// Whether this host may have made the status: pathing errors, and what it aborted itself.
fn is_by_host(sct: u8, sc: u8) -> bool {
    matches!((sct, sc), (3, 0x00 | 0x60..=0xff) | (0, 0x07 | 0x08))
}

fn failed_call(errno: Errno) -> Ending {
    let error = IoError::errno(errno as i32);
    match errno {
        Errno::EPERM
        | Errno::EACCES
        | Errno::EINVAL
        | Errno::ENOTTY
        | Errno::EBADF
        | Errno::EFAULT
        | Errno::ENOMEM
        | Errno::EOPNOTSUPP => Ending::not_sent(error),
        // EINTR stands for a command that the driver cancelled when it reset the controller.
        _ => Ending::in_doubt(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::request::{CopyFate, Effect};

    fn identify() -> Passthrough {
        let fields = NvmeFields {
            opcode: 0x06,
            namespace: 3,
            cdw2: [1, 2],
            cdw10: [10, 11, 12, 13, 14, 15],
            is_io: false,
        };
        let command = ControlCommand { bytes: CommandBytes::Nvme(fields), transfer: Transfer::In(4096) };
        Passthrough::new(command).unwrap()
    }

    #[test]
    fn fields_stand_where_the_kernel_looks() {
        let Passthrough { raw, data, is_io, is_from_device } = identify();
        assert_eq!(
            (raw.opcode, raw.namespace, raw.cdw2, raw.cdw10),
            (6, 3, [1, 2], [10, 11, 12, 13, 14, 15])
        );
        assert_eq!((raw.data_length, data.len(), is_io, is_from_device), (4096, 4096, false, true));
        let places = [
            (std::mem::offset_of!(Raw, namespace), 4),
            (std::mem::offset_of!(Raw, data), 24),
            (std::mem::offset_of!(Raw, data_length), 36),
            (std::mem::offset_of!(Raw, cdw10), 40),
            (std::mem::offset_of!(Raw, time_limit), 64),
            (std::mem::offset_of!(Raw, result), 72),
        ];
        assert!(places.iter().all(|(is, should)| is == should), "{places:?}");
    }

    #[test]
    fn the_opcode_says_where_data_goes() {
        assert!(has_direction(0x06, &Transfer::In(1)) && !has_direction(0x06, &Transfer::Out(vec![0])));
        assert!(has_direction(0x0d, &Transfer::Out(vec![0])) && !has_direction(0x0d, &Transfer::In(1)));
        assert!(has_direction(0x00, &Transfer::None) && !has_direction(0x00, &Transfer::In(1)));
    }

    #[test]
    fn a_status_is_the_answer_unless_the_host_made_it() {
        let answer = |field| match ending(identify(), Ok(field)) {
            Ending { outcome: Ok(ControlReply::Nvme { sct, sc, dnr, crd, data, .. }), effect, copy } => {
                assert_eq!((effect, copy), (Effect::Full, CopyFate::Dead));
                Some((sct, sc, dnr, crd, data.len()))
            }
            Ending { outcome: Err(error), effect, copy } => {
                assert!(matches!(error.source_code, ErrorSource::Nvme { .. }));
                assert_eq!((effect, copy), (Effect::Unknown, CopyFate::MayLand));
                None
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(answer(0), Some((0, 0, false, 0, 4096)));
        assert_eq!(answer(0x4001), Some((0, 1, true, 0, 0)));
        assert_eq!(answer(0x1083), Some((0, 0x83, false, 2, 0)));
        // Access states are the controller's.
        assert_eq!(answer(0x0302), Some((3, 2, false, 0, 0)));
        for by_host in [0x0300, 0x0360, 0x0370, 0x0371, 0x4371, 0x0007, 0x0008] {
            assert_eq!(answer(by_host), None, "{by_host:x}");
        }
    }

    #[test]
    fn a_call_that_fails_has_sent_or_not() {
        let of = |errno| {
            let ending = ending(identify(), Err(errno));
            assert_eq!(ending.outcome, Err(IoError::errno(errno as i32)));
            (ending.effect, ending.copy)
        };
        assert_eq!(of(Errno::EACCES), (Effect::None, CopyFate::Dead));
        assert_eq!(of(Errno::ENOTTY), (Effect::None, CopyFate::Dead));
        assert_eq!(of(Errno::EINTR), (Effect::Unknown, CopyFate::MayLand));
        assert_eq!(of(Errno::ENODEV), (Effect::Unknown, CopyFate::MayLand));
    }
}
