//! A small NBD server inside the test: honest over memory, or playing a script on one connection.
//!
//! It has its own view of the protocol and takes nothing from the crate, so that both sides cannot be wrong
//! alike.

#![expect(clippy::big_endian_bytes, reason = "NBD is big-endian on the wire")]
#![allow(dead_code, reason = "each test file uses its part")]

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use storage_mapping::device::NbdServer;

/// Bits of the transmission flags.
pub(crate) const HAS_FLAGS: u16 = 1;
pub(crate) const READ_ONLY: u16 = 2;
pub(crate) const FLUSH: u16 = 4;
pub(crate) const FUA: u16 = 8;
pub(crate) const MULTI_CONN: u16 = 0x100;

/// What the server tells of its export.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    pub(crate) size: u64,
    pub(crate) flags: u16,
    pub(crate) blocks: Option<[u32; 3]>,
}

impl Told {
    pub(crate) const fn new(size: u64) -> Self {
        Self { size, flags: HAS_FLAGS | FLUSH | FUA | MULTI_CONN, blocks: None }
    }
}

/// One request as it came.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) flags: u16,
    pub(crate) command: u16,
    pub(crate) cookie: u64,
    pub(crate) offset: usize,
    pub(crate) length: usize,
    pub(crate) data: Vec<u8>,
}

/// Negotiates as a server; the name that was asked for.
pub(crate) fn greet(stream: &mut UnixStream, told: Told) -> io::Result<String> {
    stream.write_all(b"NBDMAGICIHAVEOPT\0\x03")?;
    let mut head = [0; 20];
    stream.read_exact(&mut head)?;
    assert_eq!(head[..4], [0, 0, 0, 3], "the flags of the client");
    assert_eq!(&head[4..12], b"IHAVEOPT");
    assert_eq!(head[12..16], [0, 0, 0, 7], "NBD_OPT_GO");
    let mut data = vec![0; u32::from_be_bytes(head[16..20].try_into().unwrap()) as usize];
    stream.read_exact(&mut data)?;
    let name_bytes = u32::from_be_bytes(data[..4].try_into().unwrap()) as usize;
    let name = String::from_utf8(data[4..4 + name_bytes].to_vec()).unwrap();
    let answer = |kind: u32, body: &[u8]| {
        let length = u32::try_from(body.len()).unwrap();
        [
            &0x0003_e889_0455_65a9_u64.to_be_bytes()[..],
            &[0, 0, 0, 7],
            &kind.to_be_bytes(),
            &length.to_be_bytes(),
            body,
        ]
        .concat()
    };
    let export = [&[0, 0][..], &told.size.to_be_bytes(), &told.flags.to_be_bytes()].concat();
    stream.write_all(&answer(3, &export))?;
    if let Some(blocks) = told.blocks {
        stream.write_all(&answer(3, &[&[0, 3][..], &blocks.map(u32::to_be_bytes).concat()].concat()))?;
    }
    stream.write_all(&answer(1, &[]))?;
    Ok(name)
}

/// The next request.
pub(crate) fn next_request(stream: &mut UnixStream) -> io::Result<Asked> {
    let mut head = [0; 28];
    stream.read_exact(&mut head)?;
    assert_eq!(head[..4], [0x25, 0x60, 0x95, 0x13], "the mark of a request");
    let mut asked = Asked {
        flags: u16::from_be_bytes([head[4], head[5]]),
        command: u16::from_be_bytes([head[6], head[7]]),
        cookie: u64::from_be_bytes(head[8..16].try_into().unwrap()),
        offset: usize::try_from(u64::from_be_bytes(head[16..24].try_into().unwrap())).unwrap(),
        length: u32::from_be_bytes(head[24..28].try_into().unwrap()) as usize,
        data: Vec::new(),
    };
    if asked.command == 1 {
        asked.data = vec![0; asked.length];
        stream.read_exact(&mut asked.data)?;
    }
    Ok(asked)
}

/// A reply without a payload.
pub(crate) fn reply_head(error: u32, cookie: u64) -> Vec<u8> {
    [&0x6744_6698_u32.to_be_bytes()[..], &error.to_be_bytes(), &cookie.to_be_bytes()].concat()
}

/// Serves a connection over memory until the client goes.
pub(crate) fn serve(mut stream: UnixStream, told: Told, disk: &Mutex<Vec<u8>>) -> io::Result<()> {
    greet(&mut stream, told)?;
    loop {
        let asked = next_request(&mut stream)?;
        let range = asked.offset..asked.offset + asked.length;
        let mut reply = reply_head(0, asked.cookie);
        match asked.command {
            0 => reply.extend_from_slice(&disk.lock().unwrap()[range]),
            1 => disk.lock().unwrap()[range].copy_from_slice(&asked.data),
            2 => return Ok(()),
            3 => assert_eq!((asked.offset, asked.length), (0, 0), "a flush has neither"),
            other => panic!("command {other} is not negotiated"),
        }
        stream.write_all(&reply)?;
    }
}

/// A listening socket in a folder that goes with it.
pub(crate) struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("nbd.sock")
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn server(&self) -> NbdServer {
        NbdServer::Unix(self.socket())
    }

    /// Listens anew, in the place of a socket that may be there.
    pub(crate) fn listen(&self) -> UnixListener {
        drop(std::fs::remove_file(self.socket()));
        UnixListener::bind(self.socket()).unwrap()
    }
}

/// An honest server in threads, as long as the test runs.
pub(crate) fn honest(place: &Place, told: Told) -> Arc<Mutex<Vec<u8>>> {
    let disk = Arc::new(Mutex::new(vec![0; usize::try_from(told.size).unwrap()]));
    let (listener, shared) = (place.listen(), Arc::clone(&disk));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let disk = Arc::clone(&shared);
            // It ends with the client, whichever way that goes.
            thread::spawn(move || drop(serve(stream, told, &disk)));
        }
    });
    disk
}
