//! A command for every row of the NVMe table, at every point of failure, in every mode, over two controllers that follow a
//! script in virtual time: what must not be repeated arrives once at most, and nothing is reported as executed that was not.
//!
//! The controllers count what arrives and what they execute, and keep one feature and one registration, which is what the
//! verify commands read. Not here: SCSI (`out_of_band_rows`).

use std::os::fd::RawFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use multipath::out_of_band::command_table::{
    Bits, Class, CommandTable, DISK, Lookup, Named, Repeat, Row, Words, shipped,
};
use multipath::out_of_band::{Certainty, CommandOutcome, CommandRequest, Mode, RouterConfig};
use multipath::{FailoverConfig, MultipathDevice};
use storage_mapping::control_port::{
    CommandBytes, CommandSet, ControlCancelled, ControlCommand, ControlCompletion, ControlEvent,
    ControlReply, ControlRequest, NexusId, NvmeFields, Transfer,
};
use storage_mapping::device::MemoryDisk;
use storage_mapping::{
    BlockCount, BlockDevice, BlockSize, BufferPool, Cancelled, ControlPort, CopyFate, DeviceEvent, Effect,
    ErrorSource, Geometry, Instant, IoCompletion, IoRequest, IoTag, PathIndex, RefusalReason, Refused,
};

const PATIENCE: Duration = Duration::from_secs(10);
const LATENCY: Duration = Duration::from_millis(1);

/// What befalls the first command of the row over the first controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// The port has no room.
    Refused,
    /// The port is closed.
    Closed,
    /// The connection is lost before the controller has it.
    Lost,
    /// The controller never gets it.
    Hung,
    /// It is executed, and the connection is lost.
    AnswerLost,
    /// It is executed, and no answer comes.
    AnswerHung,
    /// It is not executed: status code type and status code, and *do not retry*.
    Status(u8, u8, bool),
}

const FAULTS: [Fault; 14] = [
    Fault::None,
    Fault::Refused,
    Fault::Closed,
    Fault::Lost,
    Fault::Hung,
    Fault::AnswerLost,
    Fault::AnswerHung,
    // Invalid opcode; command interrupted; namespace not ready; reservation conflict.
    Fault::Status(0, 0x01, true),
    Fault::Status(0, 0x21, false),
    Fault::Status(0, 0x82, false),
    Fault::Status(0, 0x83, true),
    // Access inaccessible; access in transition; internal path error.
    Fault::Status(3, 0x02, false),
    Fault::Status(3, 0x03, false),
    Fault::Status(3, 0x00, false),
];

/// What both controllers share.
#[derive(Debug)]
struct Subsystem {
    /// The command that is counted, and the fault that awaits its first arrival over the first controller.
    of: NvmeFields,
    fault: Option<Fault>,
    arrived: u32,
    executed: u32,
    feature: u32,
    key: u64,
    is_held: bool,
}

impl Subsystem {
    fn execute(&mut self, command: &ControlCommand) -> ControlReply {
        let CommandBytes::Nvme(fields) = command.bytes else { unreachable!("a command of NVMe") };
        if fields == self.of {
            self.executed += 1;
        }
        let list = match &command.transfer {
            Transfer::Out(list) => list.as_slice(),
            Transfer::None | Transfer::In(_) => &[],
        };
        let key_at =
            |at: usize| list[at..at + 8].iter().rev().fold(0, |key, byte| key << 8 | u64::from(*byte));
        let (mut result, mut data) = (0, Vec::new());
        match (fields.is_io, fields.opcode) {
            (false, 0x09) => self.feature = fields.cdw10[1],
            (false, 0x0a) => result = self.feature.into(),
            (true, 0x0d) => self.key = key_at(8),
            (true, 0x11) => self.is_held = true,
            (true, 0x15) => self.is_held = false,
            (true, 0x0e) => data = self.report(),
            _ => {}
        }
        ControlReply::Nvme { sct: 0, sc: 0, dnr: false, crd: 0, result, data }
    }

    /// The extended Reservation Report of one registrant.
    fn report(&self) -> Vec<u8> {
        let mut data = vec![0; 128];
        data[4] = self.is_held.into();
        data[64 + 2] = self.is_held.into();
        for (at, byte) in data[64 + 8..64 + 16].iter_mut().enumerate() {
            *byte = u8::try_from(self.key >> (8 * at) & 0xff).expect("a byte");
        }
        data
    }
}

/// A path: blocks in memory, and a controller.
struct Path {
    disk: Box<dyn BlockDevice>,
    place: usize,
    subsystem: Arc<Mutex<Subsystem>>,
    answers: Vec<(Instant, ControlCompletion)>,
}

impl Path {
    fn answer(&mut self, at: Instant, tag: IoTag, outcome: Result<ControlReply, ErrorSource>) {
        let (effect, copy) = match outcome {
            Ok(_) => (Effect::Full, CopyFate::Dead),
            Err(_) => (Effect::Unknown, CopyFate::MayLand),
        };
        let outcome = outcome.map_err(Into::into);
        self.answers.push((at, ControlCompletion { tag, outcome, effect, copy }));
    }
}

impl BlockDevice for Path {
    fn geometry(&self) -> Geometry {
        self.disk.geometry()
    }
    fn submit(&mut self, now: Instant, request: IoRequest) -> Result<(), Refused> {
        self.disk.submit(now, request)
    }
    fn poll(&mut self, now: Instant) -> Option<IoCompletion> {
        self.disk.poll(now)
    }
    fn poll_event(&mut self, now: Instant) -> Option<DeviceEvent> {
        self.disk.poll_event(now)
    }
    fn next_wakeup(&self) -> Option<Instant> {
        self.disk.next_wakeup()
    }
    fn cancel(&mut self, now: Instant, tag: IoTag) -> Cancelled {
        self.disk.cancel(now, tag)
    }
    fn attach_pool(&mut self, pool: &BufferPool) {
        self.disk.attach_pool(pool);
    }
    fn wait_on(&self, descriptors: &mut Vec<RawFd>) {
        self.disk.wait_on(descriptors);
    }
    fn control_port(&mut self) -> Option<&mut dyn ControlPort> {
        Some(self)
    }
}

impl ControlPort for Path {
    fn command_set(&self) -> CommandSet {
        CommandSet::Nvme
    }
    fn nexus(&self) -> NexusId {
        NexusId { initiator: "host".to_owned(), target_port: format!("nvme{}", self.place), generation: 1 }
    }
    fn submit_control(&mut self, now: Instant, request: ControlRequest) -> Result<(), RefusalReason> {
        let ControlRequest { tag, command } = request;
        let subsystem = Arc::clone(&self.subsystem);
        let mut subsystem = subsystem.lock().expect("no other thread");
        let is_it = command.bytes == CommandBytes::Nvme(subsystem.of);
        let is_met = is_it && self.place == 0;
        let fault = if is_met { subsystem.fault.take() } else { None }.unwrap_or(Fault::None);
        match fault {
            Fault::Refused => return Err(RefusalReason::Busy),
            Fault::Closed => return Err(RefusalReason::Closed),
            _ => {}
        }
        if is_it {
            subsystem.arrived += 1;
        }
        let at = now + LATENCY;
        let lost = Err(ErrorSource::ConnectionLost { sent: true });
        match fault {
            Fault::Lost => self.answer(at, tag, lost),
            Fault::Hung => {}
            Fault::AnswerLost => {
                subsystem.execute(&command);
                self.answer(at, tag, lost);
            }
            Fault::AnswerHung => drop(subsystem.execute(&command)),
            Fault::Status(sct, sc, dnr) => {
                let reply = ControlReply::Nvme { sct, sc, dnr, crd: 0, result: 0, data: Vec::new() };
                self.answer(at, tag, Ok(reply));
            }
            Fault::None | Fault::Refused | Fault::Closed => {
                let reply = subsystem.execute(&command);
                self.answer(at, tag, Ok(reply));
            }
        }
        Ok(())
    }
    fn poll_control(&mut self, now: Instant) -> Option<ControlCompletion> {
        let at = self.answers.iter().position(|(at, _)| *at <= now)?;
        Some(self.answers.remove(at).1)
    }
    fn poll_control_event(&mut self, _now: Instant) -> Option<ControlEvent> {
        None
    }
    fn cancel_control(&mut self, _now: Instant, _tag: IoTag) -> ControlCancelled {
        ControlCancelled::Requested
    }
    fn next_control_wakeup(&self) -> Option<Instant> {
        self.answers.iter().map(|(at, _)| *at).min()
    }
    fn control_wait_on(&self, _descriptors: &mut Vec<RawFd>) {}
}

/// A command that fits the row.
fn command(row: &Row) -> ControlCommand {
    let opcode = row.opcodes.0;
    let is_io = row.words == Words::NvmeIo;
    let mut fields = NvmeFields { is_io, opcode, namespace: 1, ..NvmeFields::default() };
    for Bits { at, mask, value } in row.bits {
        match (mask, at) {
            (0, _) => {}
            (_, 1) => fields.namespace = value,
            _ => fields.cdw10[usize::from(at) - 10] |= value,
        }
    }
    match row.name.as_ref() {
        "Identify another thing" => fields.cdw10[0] |= 0x7e,
        "Get Log another page, event kept" => fields.cdw10[0] |= 0xd0,
        "Get Log that clears its event" => fields.cdw10[0] |= 0x01,
        _ => {}
    }
    let transfer = match (is_io, opcode) {
        (false, 0x09) => {
            (fields.cdw10[0], fields.cdw10[1]) = (fields.cdw10[0] | 7, 5);
            Transfer::None
        }
        (true, 0x0d) => Transfer::Out([[1, 0, 0, 0, 0, 0, 0, 0], [9, 0, 0, 0, 0, 0, 0, 0]].concat()),
        (true, 0x11 | 0x15) => Transfer::Out([[1, 0, 0, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0, 0, 0]].concat()),
        (true, 0x0e) | (false, 0x02 | 0x06) => Transfer::In(4096),
        _ => Transfer::None,
    };
    ControlCommand { bytes: CommandBytes::Nvme(fields), transfer }
}

struct Run {
    outcome: CommandOutcome,
    took: Duration,
    executed_by_then: u32,
    arrived: u32,
}

fn run(row: &Row, fault: Fault, mode: Mode) -> Run {
    let command = command(row);
    let CommandBytes::Nvme(of) = command.bytes else { unreachable!("a row of NVMe") };
    let subsystem = Subsystem {
        of,
        fault: Some(fault),
        arrived: 0,
        executed: 0,
        feature: 0,
        key: 1,
        // A release has something to release.
        is_held: of.is_io && of.opcode == 0x15,
    };
    let subsystem = Arc::new(Mutex::new(subsystem));
    let disk = MemoryDisk::new(BlockSize::B512, BlockCount(256));
    let path = |place| {
        let (disk, subsystem) = (Box::new(disk.device()), Arc::clone(&subsystem));
        Box::new(Path { disk, place, subsystem, answers: Vec::new() }) as Box<dyn BlockDevice>
    };
    let mut device =
        MultipathDevice::new(vec![path(0), path(1)], FailoverConfig::default()).expect("paths of one disk");
    let is_named = row.named != Named::No;
    let request = CommandRequest::new(command, is_named.then_some(PathIndex(0)), PATIENCE).with_mode(mode);
    let mut now = Instant::ZERO;
    device.submit_command(now, request);
    let mut ended = None;
    let end = Instant::ZERO + PATIENCE * 3;
    while now < end {
        while device.poll(now).is_some() {}
        while device.poll_event(now).is_some() {}
        if let Some(outcome) = device.poll_command(now) {
            ended = Some((
                outcome,
                now.since(Instant::ZERO),
                subsystem.lock().expect("no other thread").executed,
            ));
        }
        now = device.next_wakeup().unwrap_or(end).clamp(now + Duration::from_micros(1), end);
    }
    let (outcome, took, executed_by_then) = ended.expect("every command has an outcome");
    let arrived = subsystem.lock().expect("no other thread").arrived;
    Run { outcome, took, executed_by_then, arrived }
}

#[test]
fn a_command_of_every_row_at_every_point_of_failure() {
    let table = CommandTable::default();
    let (mut rows, mut runs) = (0, 0);
    for row in shipped().filter(|row| matches!(row.words, Words::NvmeAdmin | Words::NvmeIo)) {
        let command = command(row);
        let found = table.row(&Lookup { command: &command, device_type: DISK, is_named: true });
        assert_eq!(found.name, row.name, "{:?}", command.bytes);
        rows += 1;
        for mode in Mode::ALL {
            for fault in FAULTS {
                let Run { outcome, took, executed_by_then, arrived } = run(row, fault, mode);
                let what = || {
                    let (name, word) = (&row.name, mode.word());
                    format!("{name} under {fault:?} in {word}: {arrived} arrived\n{}", outcome.record)
                };
                assert!(row.repeat != Repeat::Never || arrived <= 1, "{}", what());
                let is_executed = |certainty| certainty == Certainty::Executed;
                let reported = outcome.conclusions.iter().filter(|step| is_executed(step.certainty)).count();
                assert!(reported <= executed_by_then as usize, "reported, and not executed: {}", what());
                assert!(took <= PATIENCE, "{took:?}: {}", what());
                let goes_elsewhere =
                    row.class == Class::Portable && row.repeat == Repeat::Yes && !row.needs_fence;
                if fault == Fault::Hung && mode == Mode::Prefer && goes_elsewhere {
                    let bound = RouterConfig::default().attempt_timeout + LATENCY * 12 / 10;
                    assert!(outcome.is_done() && took <= bound, "{took:?}: {}", what());
                }
                assert!(fault != Fault::None || outcome.is_done() || mode == Mode::All, "{}", what());
                runs += 1;
            }
        }
    }
    println!("{rows} rows, {} pairs of row and fault, {runs} runs", rows * FAULTS.len());
    assert!(rows > 60 && runs == rows * FAULTS.len() * 4, "{rows} {runs}");
}
