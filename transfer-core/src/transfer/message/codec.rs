//! The bytes of messages: one `emit` and one `parse` for each body.
//!
//! What holds: nothing is read without a length check, and counts are checked before use.

use super::{
    CommittedItem, ENTRIES_MAX, Framed, HEADER_BYTES, ITEMS_MAX, JobOpen, JobOptions, Message, MessageError,
    Reason, Request, RootItem, SOURCES_MAX, TEXT_BYTES_MAX,
};
use crate::transfer::code::ErrorCode;
use crate::transfer::name::{NAME_BYTES_MAX, PATH_BYTES_MAX, RelativePath, name_is_allowed};
use crate::transfer::store::{Attributes, DirectoryItem, LinkItem, ListEntry, ListKind, TransferId};
use byteorder::{ByteOrder, LittleEndian, WriteBytesExt};

/// Length field of a stream, whose length is not known.
const SIZE_UNKNOWN: u64 = u64::MAX;

mod flag {
    pub(super) const REQUEST_PERMITTED: u16 = 1;
    pub(super) const REQUEST_PACKED: u16 = 2;
    pub(super) const REQUEST_ROOT: u16 = 4;
    pub(super) const JOB_PULL: u16 = 1;
    pub(super) const JOB_SINGLE: u16 = 2;
    pub(super) const LIST_LAST: u16 = 1;
    pub(super) const NOTICE_SKIPPED: u16 = 1;
    pub(super) const ITEM_KNOWN: u8 = 1;
    pub(super) const ITEM_PRESENT: u8 = 2;
}

/// Writes into a vector, which cannot fail.
struct Writer<'a>(&'a mut Vec<u8>);

impl Writer<'_> {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }
    fn u16(&mut self, value: u16) {
        self.0.write_u16::<LittleEndian>(value).expect("a vector takes bytes");
    }
    fn u32(&mut self, value: u32) {
        self.0.write_u32::<LittleEndian>(value).expect("a vector takes bytes");
    }
    fn u64(&mut self, value: u64) {
        self.0.write_u64::<LittleEndian>(value).expect("a vector takes bytes");
    }
    fn i64(&mut self, value: i64) {
        self.0.write_i64::<LittleEndian>(value).expect("a vector takes bytes");
    }
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
    /// One byte of length, then the bytes; names are at most 255 long.
    fn short(&mut self, bytes: &[u8]) {
        self.u8(u8::try_from(bytes.len()).expect("a name has at most 255 bytes"));
        self.bytes(bytes);
    }
    fn count(&mut self, count: usize) {
        self.u16(u16::try_from(count).expect("lists are bounded"));
    }
    fn path(&mut self, path: &RelativePath) {
        self.count(path.depth());
        for name in path.components() {
            self.short(name);
        }
    }
    fn attributes(&mut self, a: &Attributes) {
        self.u32(a.mode);
        self.u32(a.user);
        self.u32(a.group);
        self.i64(a.mtime_s);
        self.u32(a.mtime_ns);
    }
    fn reason(&mut self, reason: &Reason) {
        let mut end = reason.text.len().min(TEXT_BYTES_MAX);
        while !reason.text.is_char_boundary(end) {
            end -= 1;
        }
        self.u16(reason.code as u16);
        self.count(end);
        self.bytes(&reason.text.as_bytes()[..end]);
    }
    fn root_items(&mut self, items: &[RootItem]) {
        self.count(items.len());
        for item in items {
            self.u32(item.index);
            self.bytes(&item.id.0);
            self.bytes(&item.root);
        }
    }
}

/// Reads from a slice, or says that it is short.
struct Reader<'a> {
    opcode: u16,
    rest: &'a [u8],
}

type Parsed<T> = Result<T, MessageError>;

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Parsed<&'a [u8]> {
        let (taken, rest) =
            self.rest.split_at_checked(count).ok_or(MessageError::Short { opcode: self.opcode })?;
        self.rest = rest;
        Ok(taken)
    }
    fn u8(&mut self) -> Parsed<u8> {
        Ok(self.bytes(1)?[0])
    }
    fn u16(&mut self) -> Parsed<u16> {
        Ok(LittleEndian::read_u16(self.bytes(2)?))
    }
    fn u32(&mut self) -> Parsed<u32> {
        Ok(LittleEndian::read_u32(self.bytes(4)?))
    }
    fn u64(&mut self) -> Parsed<u64> {
        Ok(LittleEndian::read_u64(self.bytes(8)?))
    }
    fn i64(&mut self) -> Parsed<i64> {
        Ok(LittleEndian::read_i64(self.bytes(8)?))
    }
    fn array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }
    fn wrong<T>(&self) -> Parsed<T> {
        Err(MessageError::Value { opcode: self.opcode })
    }
    fn count(&mut self, max: usize) -> Parsed<usize> {
        let count = usize::from(self.u16()?);
        if count > max { self.wrong() } else { Ok(count) }
    }
    fn short(&mut self) -> Parsed<&'a [u8]> {
        let length = self.u8()?;
        self.bytes(usize::from(length))
    }
    fn name(&mut self) -> Parsed<Vec<u8>> {
        let name = self.short()?;
        if name_is_allowed(name) { Ok(name.to_vec()) } else { self.wrong() }
    }
    fn path(&mut self) -> Parsed<RelativePath> {
        let count = self.count(PATH_BYTES_MAX / 2)?;
        let mut path = RelativePath::root();
        for _ in 0..count {
            let name = self.short()?;
            if path.push(name).is_err() {
                return self.wrong();
            }
        }
        Ok(path)
    }
    fn attributes(&mut self) -> Parsed<Attributes> {
        let attributes = Attributes {
            mode: self.u32()?,
            user: self.u32()?,
            group: self.u32()?,
            mtime_s: self.i64()?,
            mtime_ns: self.u32()?,
        };
        if attributes.mtime_ns >= 1_000_000_000 { self.wrong() } else { Ok(attributes) }
    }
    fn reason(&mut self) -> Parsed<Reason> {
        let number = self.u16()?;
        let length = self.count(TEXT_BYTES_MAX)?;
        let text = std::str::from_utf8(self.bytes(length)?).map(str::to_owned);
        match (ErrorCode::from_number(number), text) {
            (Some(code), Ok(text)) => Ok(Reason { code, text }),
            _ => self.wrong(),
        }
    }
    fn root_items(&mut self) -> Parsed<Vec<RootItem>> {
        let count = self.count(ITEMS_MAX)?;
        (0..count)
            .map(|_| Ok(RootItem { index: self.u32()?, id: TransferId(self.array()?), root: self.array()? }))
            .collect()
    }
    fn end(&self) -> Parsed<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(MessageError::Long { opcode: self.opcode }) }
    }
}

/// Appends one message.
pub fn emit(framed: &Framed, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + HEADER_BYTES, 0);
    let flags = emit_body(&framed.message, &mut Writer(out));
    let length = u32::try_from(out.len() - start - HEADER_BYTES).expect("bodies are bounded");
    let header = &mut out[start..start + HEADER_BYTES];
    LittleEndian::write_u16(&mut header[0..2], framed.message.opcode());
    LittleEndian::write_u16(&mut header[2..4], flags);
    LittleEndian::write_u32(&mut header[4..8], length);
    LittleEndian::write_u64(&mut header[8..16], framed.request);
}

fn emit_body(message: &Message, w: &mut Writer<'_>) -> u16 {
    let mut flags = 0;
    match message {
        Message::Request(request) => flags = emit_request(request, w),
        Message::Accept { resume } => w.u64(*resume),
        Message::Refuse(reason) | Message::JobRefuse(reason) => w.reason(reason),
        Message::Ready(items) | Message::Permit(items) => w.root_items(items),
        Message::Committed(items) => {
            w.count(items.len());
            for item in items {
                w.u32(item.index);
                w.bytes(&item.id.0);
                let known = if item.known { flag::ITEM_KNOWN } else { 0 };
                w.u8(known | if item.present { flag::ITEM_PRESENT } else { 0 });
            }
        }
        Message::Abort(id, reason) | Message::Aborted(id, reason) => {
            w.bytes(&id.0);
            w.reason(reason);
        }
        Message::JobOpen(open) => flags = emit_job_open(open, w),
        Message::JobAccept | Message::FlushBatch | Message::EndOfJob | Message::JobDone => {}
        Message::Directory(item) => {
            w.attributes(&item.attributes);
            w.path(&item.path);
        }
        Message::Link(item) => {
            w.attributes(&item.attributes);
            w.path(&item.path);
            w.count(item.target.len());
            w.bytes(&item.target);
        }
        Message::EndOfStream { length, root } => {
            w.u64(*length);
            w.bytes(root);
        }
        Message::List { export, path } => {
            w.short(export);
            w.path(path);
        }
        Message::ListEntries { last, entries } => {
            flags = if *last { flag::LIST_LAST } else { 0 };
            w.count(entries.len());
            for entry in entries {
                w.u8(entry.kind as u8);
                w.u64(entry.size);
                w.attributes(&entry.attributes);
                w.short(&entry.name);
            }
        }
        Message::ServiceOpen { service } => w.short(service),
        Message::HalfClose { length } => w.u64(*length),
        Message::Notice { skipped, path, reason } => {
            flags = if *skipped { flag::NOTICE_SKIPPED } else { 0 };
            w.path(path);
            w.reason(reason);
        }
    }
    flags
}

fn emit_request(request: &Request, w: &mut Writer<'_>) -> u16 {
    w.bytes(&request.id.0);
    w.u64(request.size.unwrap_or(SIZE_UNKNOWN));
    w.attributes(&request.attributes);
    let mut flags = 0;
    if let Some(root) = &request.root {
        flags |= flag::REQUEST_ROOT;
        w.bytes(root);
    }
    w.path(&request.path);
    flags |= if request.permitted { flag::REQUEST_PERMITTED } else { 0 };
    flags | if request.packed { flag::REQUEST_PACKED } else { 0 }
}

fn emit_job_open(open: &JobOpen, w: &mut Writer<'_>) -> u16 {
    w.bytes(&open.nonce);
    w.u16(open.options.bits());
    w.short(&open.export);
    w.path(&open.destination);
    w.u32(open.source_count);
    let mut flags = if open.pull { flag::JOB_PULL } else { 0 };
    if let Some(single) = &open.single {
        flags |= flag::JOB_SINGLE;
        w.short(single);
    }
    w.count(open.sources.len());
    for source in &open.sources {
        w.path(source);
    }
    flags
}

/// Reads all messages of a Command segment.
///
/// # Errors
/// At the first that is not as it must be.
pub fn parse_all(bytes: &[u8]) -> Result<Vec<Framed>, MessageError> {
    let mut messages = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let mut header = Reader { opcode: 0, rest };
        let opcode = header.u16()?;
        header.opcode = opcode;
        let flags = header.u16()?;
        let length = header.u32()? as usize;
        let request = header.u64()?;
        let body = header.bytes(length)?;
        rest = header.rest;
        let mut reader = Reader { opcode, rest: body };
        let message = parse_body(opcode, flags, &mut reader)?;
        reader.end()?;
        messages.push(Framed { request, message });
    }
    Ok(messages)
}

fn known_flags(opcode: u16) -> u16 {
    match opcode {
        1 => flag::REQUEST_PERMITTED | flag::REQUEST_PACKED | flag::REQUEST_ROOT,
        16 => flag::JOB_PULL | flag::JOB_SINGLE,
        26 => flag::LIST_LAST,
        29 => flag::NOTICE_SKIPPED,
        _ => 0,
    }
}

fn parse_body(opcode: u16, flags: u16, r: &mut Reader<'_>) -> Parsed<Message> {
    if flags & !known_flags(opcode) != 0 {
        return r.wrong();
    }
    Ok(match opcode {
        1 => Message::Request(parse_request(flags, r)?),
        2 => Message::Accept { resume: r.u64()? },
        3 => Message::Refuse(r.reason()?),
        4 => Message::Ready(r.root_items()?),
        5 => Message::Permit(r.root_items()?),
        6 => Message::Committed(parse_committed(r)?),
        7 => Message::Abort(TransferId(r.array()?), r.reason()?),
        8 => Message::Aborted(TransferId(r.array()?), r.reason()?),
        16 => Message::JobOpen(parse_job_open(flags, r)?),
        17 => Message::JobAccept,
        18 => Message::JobRefuse(r.reason()?),
        19 => Message::Directory(DirectoryItem { attributes: r.attributes()?, path: r.path()? }),
        20 => {
            let (attributes, path) = (r.attributes()?, r.path()?);
            let length = r.count(PATH_BYTES_MAX)?;
            Message::Link(LinkItem { path, attributes, target: r.bytes(length)?.to_vec() })
        }
        21 => Message::EndOfStream { length: r.u64()?, root: r.array()? },
        22 => Message::FlushBatch,
        23 => Message::EndOfJob,
        24 => Message::JobDone,
        25 => Message::List { export: r.name()?, path: r.path()? },
        26 => Message::ListEntries { last: flags & flag::LIST_LAST != 0, entries: parse_entries(r)? },
        27 => Message::ServiceOpen { service: r.name()? },
        28 => Message::HalfClose { length: r.u64()? },
        29 => Message::Notice {
            skipped: flags & flag::NOTICE_SKIPPED != 0,
            path: r.path()?,
            reason: r.reason()?,
        },
        _ => return Err(MessageError::Opcode { opcode }),
    })
}

fn parse_request(flags: u16, r: &mut Reader<'_>) -> Parsed<Request> {
    let id = TransferId(r.array()?);
    let size = Some(r.u64()?).filter(|&size| size != SIZE_UNKNOWN);
    let attributes = r.attributes()?;
    let root = if flags & flag::REQUEST_ROOT != 0 { Some(r.array()?) } else { None };
    let path = r.path()?;
    let packed = flags & flag::REQUEST_PACKED != 0;
    if packed && (size.is_none() || root.is_none()) {
        return r.wrong();
    }
    Ok(Request { id, permitted: flags & flag::REQUEST_PERMITTED != 0, packed, size, attributes, root, path })
}

fn parse_committed(r: &mut Reader<'_>) -> Parsed<Vec<CommittedItem>> {
    let count = r.count(ITEMS_MAX)?;
    (0..count)
        .map(|_| {
            let (index, id, bits) = (r.u32()?, TransferId(r.array()?), r.u8()?);
            if bits & !(flag::ITEM_KNOWN | flag::ITEM_PRESENT) != 0 {
                return r.wrong();
            }
            let (known, present) = (bits & flag::ITEM_KNOWN != 0, bits & flag::ITEM_PRESENT != 0);
            Ok(CommittedItem { index, id, known, present })
        })
        .collect()
}

fn parse_job_open(flags: u16, r: &mut Reader<'_>) -> Parsed<JobOpen> {
    let nonce = r.array()?;
    let Some(options) = JobOptions::from_bits(r.u16()?) else { return r.wrong() };
    let (export, destination, source_count) = (r.name()?, r.path()?, r.u32()?);
    let single = if flags & flag::JOB_SINGLE != 0 {
        let name = r.short()?.to_vec();
        if !name.is_empty() && !name_is_allowed(&name) {
            return r.wrong();
        }
        Some(name)
    } else {
        None
    };
    let count = r.count(SOURCES_MAX)?;
    let sources = (0..count).map(|_| r.path()).collect::<Parsed<Vec<_>>>()?;
    let pull = flags & flag::JOB_PULL != 0;
    if pull && (sources.is_empty() || source_count as usize != count) || !pull && count != 0 {
        return r.wrong();
    }
    Ok(JobOpen { nonce, pull, options, export, destination, source_count, single, sources })
}

fn parse_entries(r: &mut Reader<'_>) -> Parsed<Vec<ListEntry>> {
    let count = r.count(ENTRIES_MAX)?;
    (0..count)
        .map(|_| {
            let kind = match r.u8()? {
                0 => ListKind::File,
                1 => ListKind::Directory,
                2 => ListKind::Link,
                3 => ListKind::Other,
                _ => return r.wrong(),
            };
            Ok(ListEntry { kind, size: r.u64()?, attributes: r.attributes()?, name: r.name()? })
        })
        .collect()
}

const _: () = assert!(NAME_BYTES_MAX == u8::MAX as usize);
