//! A client of QEMU's helper protocol: sends commands for one disk and prints what came back, one `name: value` a line.
//!
//! ```text
//! pr_client SOCKET NODE STEP...               numbers in hexadecimal
//!   in:ACTION:BYTES                             PERSISTENT RESERVE IN that may bring so many bytes
//!   out:ACTION:TYPE:KEY:OTHER                   PERSISTENT RESERVE OUT with its 24 bytes of parameters
//!   raw:CDB                                     sixteen bytes or fewer, and nothing after them
//! A step that begins with ro- comes with a descriptor that may only read.
//! ```
//!
//! Keeps true: one connection for all steps while it lasts, one command at a time. Not here: what an answer should be.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use byteorder::{BigEndian, ByteOrder};
use diskwire::pr_helper::protocol::{DATA_MAX_BYTES, FEATURES, REQUEST_BYTES, RESPONSE_BYTES};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, node, steps @ ..] = arguments.as_slice() else {
        eprintln!("usage: pr_client SOCKET NODE STEP...");
        return ExitCode::from(2);
    };
    match run(socket, node, steps) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(socket: &str, node: &str, steps: &[String]) -> Result<(), Failure> {
    let mut stream = connect(socket)?;
    let disk = OpenOptions::new().read(true).write(true).open(node)?;
    let disk_to_read = File::open(node)?;
    for step in steps {
        println!("step: {step}");
        let (disk, words) = match step.strip_prefix("ro-") {
            Some(words) => (&disk_to_read, words),
            None => (&disk, step.as_str()),
        };
        let (cdb, parameters) = command_of(words)?;
        match ask(&stream, disk, &cdb, &parameters) {
            Ok(answer) => print(&answer),
            Err(error) => {
                println!("error: {}", error.kind());
                stream = connect(socket)?;
            }
        }
    }
    Ok(())
}

fn connect(socket: &str) -> Result<UnixStream, Failure> {
    let mut stream = UnixStream::connect(socket)?;
    let mut features = [0; 4];
    stream.read_exact(&mut features)?;
    stream.write_all(&FEATURES)?;
    println!("features: {}", hex(&features));
    Ok(stream)
}

/// The bytes of a request, and the parameters that follow them.
fn command_of(step: &str) -> Result<([u8; REQUEST_BYTES], Vec<u8>), Failure> {
    let words: Vec<&str> = step.split(':').collect();
    let number = |place: usize| -> Result<u64, Failure> {
        let word = words.get(place).ok_or_else(|| format!("{step}: word {place} is missing"))?;
        u64::from_str_radix(word, 16).map_err(|error| format!("{step}: {word}: {error}").into())
    };
    let mut cdb = [0; REQUEST_BYTES];
    let mut parameters = Vec::new();
    match words[0] {
        "in" => {
            (cdb[0], cdb[1]) = (0x5e, u8::try_from(number(1)?)?);
            BigEndian::write_u16(&mut cdb[7..9], u16::try_from(number(2)?)?);
        }
        "out" => {
            (cdb[0], cdb[1], cdb[2]) = (0x5f, u8::try_from(number(1)?)?, u8::try_from(number(2)?)?);
            parameters.resize(24, 0);
            BigEndian::write_u32(&mut cdb[5..9], 24);
            BigEndian::write_u64(&mut parameters[..8], number(3)?);
            BigEndian::write_u64(&mut parameters[8..16], number(4)?);
        }
        "raw" => {
            let digits = words.get(1).copied().unwrap_or_default().as_bytes();
            for (byte, pair) in cdb.iter_mut().zip(digits.chunks(2)) {
                *byte = u8::from_str_radix(std::str::from_utf8(pair)?, 16)?;
            }
        }
        _ => return Err(format!("{step}: in, out or raw").into()),
    }
    Ok((cdb, parameters))
}

fn ask(mut stream: &UnixStream, disk: &File, cdb: &[u8], parameters: &[u8]) -> io::Result<Vec<u8>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let disks = [disk.as_fd()];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&disks)), "there is space for one");
    sendmsg(stream, &[IoSlice::new(cdb)], &mut ancillary, SendFlags::empty())?;
    stream.write_all(parameters)?;
    let mut answer = vec![0; RESPONSE_BYTES];
    stream.read_exact(&mut answer)?;
    let size = usize::try_from(BigEndian::read_u32(&answer[4..8])).unwrap_or(usize::MAX);
    if size > DATA_MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "more data than the protocol carries"));
    }
    answer.resize(RESPONSE_BYTES + size, 0);
    stream.read_exact(&mut answer[RESPONSE_BYTES..])?;
    Ok(answer)
}

fn print(answer: &[u8]) {
    println!("status: {:x}", BigEndian::read_u32(&answer[..4]));
    println!("size: {}", BigEndian::read_u32(&answer[4..8]));
    println!("sense: {}", hex(&answer[8..RESPONSE_BYTES]));
    println!("data: {}", hex(&answer[RESPONSE_BYTES..]));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
