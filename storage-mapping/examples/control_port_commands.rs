//! Sends control commands over one path and prints what came back, one `name: value` a line.
//!
//! ```text
//! control_port_commands PATH STEP...          PATH: a device node, or a path address such as block:/dev/sda
//!   inquiry | vpd:PAGE | tur | capacity | luns | sense | keys | reservation
//!   register:KEY:NEW | reserve:KEY:TYPE | release:KEY:TYPE | clear:KEY | preempt:KEY:OTHER:TYPE
//!   write:LBA:BYTE | raw:CDB:IN_BYTES                   (SCSI, numbers in hexadecimal)
//!   identify:CNS:NSID | log:PAGE:NSID:BYTES | features:ID | resv-report:NSID        (NVMe)
//! ```
//!
//! Keeps true: each step is one command, sent once; nothing is read into an answer. Not here: choosing a path.

use std::path::Path;
use std::process::ExitCode;

use storage_mapping::control_port::{
    Cdb, CommandBytes, ControlCommand, ControlCompletion, ControlReply, ControlRequest, NvmeFields, Transfer,
};
use storage_mapping::device::control_node::explain_refusal;
use storage_mapping::device::open_control_port;
use storage_mapping::{ControlPort, Instant, IoTag, path_address, wait};

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((path, steps)) = arguments.split_first() else {
        eprintln!("usage: control_port_commands PATH STEP...");
        return ExitCode::from(2);
    };
    match run(path, steps) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(path: &str, steps: &[String]) -> Result<(), Failure> {
    if path.starts_with('/') {
        return send(path, &mut open_control_port(Path::new(path))?, steps);
    }
    let mut opened = path_address::open(&path.parse()?)?;
    for notice in &opened.notices {
        println!("notice: {notice}");
    }
    send(path, opened.device.control_port().ok_or("this path takes no control commands")?, steps)
}

fn send(path: &str, port: &mut dyn ControlPort, steps: &[String]) -> Result<(), Failure> {
    let nexus = port.nexus();
    println!("path: {path}\ninitiator: {}\ntarget: {}", nexus.initiator, nexus.target_port);
    for (tag, step) in (1..).zip(steps) {
        let command = command_of(step)?;
        println!("step: {step}");
        match command.bytes {
            CommandBytes::Scsi(cdb) => println!("command: {cdb}"),
            CommandBytes::Nvme(fields) => {
                println!("command: {:02x} namespace {}", fields.opcode, fields.namespace)
            }
        }
        let bytes = command.bytes;
        port.submit_control(Instant::ZERO, ControlRequest { tag: IoTag(tag), command })?;
        print(&bytes, &next(port));
    }
    Ok(())
}

fn next(port: &mut dyn ControlPort) -> ControlCompletion {
    loop {
        if let Some(done) = port.poll_control(Instant::ZERO) {
            return done;
        }
        let mut descriptors = Vec::new();
        port.control_wait_on(&mut descriptors);
        wait::wait(&descriptors, None);
    }
}

fn print(bytes: &CommandBytes, done: &ControlCompletion) {
    match &done.outcome {
        Ok(ControlReply::Scsi { status, sense, data }) => {
            println!("status: {status:02x}\nsense: {}\ndata: {}", hex(sense), hex(data));
        }
        Ok(ControlReply::Nvme { sct, sc, dnr, result, data, .. }) => {
            println!(
                "status: {sct:x}/{sc:02x}\ndo not retry: {dnr}\nresult: {result:x}\ndata: {}",
                hex(data)
            );
        }
        Err(error) => {
            println!("error: {error}");
            if let Some(line) = explain_refusal(bytes, *error) {
                println!("remedy: {line}");
            }
        }
    }
    println!("effect: {:?}\ncopy: {:?}", done.effect, done.copy);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The command that a step stands for.
fn command_of(step: &str) -> Result<ControlCommand, Failure> {
    let mut words = step.split(':');
    let name = words.next().unwrap_or_default();
    let words: Vec<&str> = words.collect();
    let number = |place: usize| -> Result<u64, Failure> {
        let word = words.get(place).ok_or_else(|| format!("{step}: number {} is missing", place + 1))?;
        u64::from_str_radix(word, 16).map_err(|error| format!("{step}: {word}: {error}").into())
    };
    let byte = |place: usize| -> Result<u8, Failure> { Ok(u8::try_from(number(place)?)?) };
    let read_in = |cdb: &[u8], length_bytes: usize| scsi(cdb, Transfer::In(length_bytes));
    let reserve_out = |action: u8, kind: u8, key: u64, other: u64| {
        let mut parameters = bytes_of(key).to_vec();
        parameters.extend_from_slice(&bytes_of(other));
        parameters.resize(24, 0);
        scsi(&[0x5f, action, kind, 0, 0, 0, 0, 0, 24, 0], Transfer::Out(parameters))
    };
    match name {
        "inquiry" => read_in(&[0x12, 0, 0, 0, 0xff, 0], 255),
        "vpd" => read_in(&[0x12, 1, byte(0)?, 0, 0xff, 0], 255),
        "tur" => scsi(&[0; 6], Transfer::None),
        "capacity" => read_in(&[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], 32),
        "luns" => read_in(&[0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], 256),
        "sense" => read_in(&[0x03, 0, 0, 0, 252, 0], 252),
        "keys" => read_in(&[0x5e, 0, 0, 0, 0, 0, 0, 1, 0, 0], 256),
        "reservation" => read_in(&[0x5e, 1, 0, 0, 0, 0, 0, 1, 0, 0], 256),
        "register" => reserve_out(0, 0, number(0)?, number(1)?),
        "reserve" => reserve_out(1, byte(1)?, number(0)?, 0),
        "release" => reserve_out(2, byte(1)?, number(0)?, 0),
        "clear" => reserve_out(3, 0, number(0)?, 0),
        "preempt" => reserve_out(4, byte(2)?, number(0)?, number(1)?),
        "write" => {
            let [.., a, b, c, d] = bytes_of(number(0)?);
            scsi(&[0x2a, 0, a, b, c, d, 0, 0, 1, 0], Transfer::Out(vec![byte(1)?; 512]))
        }
        "raw" => {
            let text = words.first().copied().unwrap_or_default();
            let pair = |place| u8::from_str_radix(text.get(place..place + 2).unwrap_or_default(), 16);
            let cdb: Result<Vec<u8>, _> = (0..text.len()).step_by(2).map(pair).collect();
            read_in(&cdb?, usize::try_from(number(1)?)?)
        }
        "identify" => nvme(false, 0x06, u32::try_from(number(1)?)?, [u32::from(byte(0)?), 0], 4096),
        "log" => {
            let length_bytes = usize::try_from(number(2)?)?;
            let dwords = u32::try_from(length_bytes / 4)?.checked_sub(1).ok_or("a log has a length")?;
            nvme(
                false,
                0x02,
                u32::try_from(number(1)?)?,
                [dwords << 16 | u32::from(byte(0)?), 0],
                length_bytes,
            )
        }
        "features" => nvme(false, 0x0a, 0, [u32::from(byte(0)?), 0], 8),
        "resv-report" => nvme(true, 0x0e, u32::try_from(number(0)?)?, [1023, 0], 4096),
        _ => Err(format!("{step}: no such step").into()),
    }
}

fn scsi(cdb: &[u8], transfer: Transfer) -> Result<ControlCommand, Failure> {
    Ok(ControlCommand { bytes: CommandBytes::Scsi(Cdb::new(cdb)?), transfer })
}

#[expect(clippy::unnecessary_wraps, reason = "as its sibling")]
fn nvme(
    is_io: bool,
    opcode: u8,
    namespace: u32,
    cdw10: [u32; 2],
    length_bytes: usize,
) -> Result<ControlCommand, Failure> {
    let cdw10 = [cdw10[0], cdw10[1], 0, 0, 0, 0];
    let fields = NvmeFields { is_io, opcode, namespace, cdw2: [0; 2], cdw10 };
    Ok(ControlCommand { bytes: CommandBytes::Nvme(fields), transfer: Transfer::In(length_bytes) })
}

/// As SCSI writes numbers: the high byte first.
fn bytes_of(number: u64) -> [u8; 8] {
    std::array::from_fn(|place| u8::try_from(number >> (56 - 8 * place) & 0xff).expect("eight bits"))
}
