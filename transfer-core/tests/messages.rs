//! The bytes of messages: golden, inverse, and safe against anything.

use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use std::fmt::Write;
use transfer_core::transfer::message::{
    CommittedItem, Framed, JobOpen, JobOptions, Message, MessageError, Reason, Request, RootItem, emit,
    parse_all,
};
use transfer_core::transfer::{
    Attributes, DirectoryItem, ErrorCode, LinkItem, ListEntry, ListKind, RelativePath, TransferId,
};

const ATTRIBUTES: Attributes =
    Attributes { mode: 0o644, user: 1000, group: 100, mtime_s: 1_700_000_000, mtime_ns: 123_456_789 };

fn path(text: &str) -> RelativePath {
    RelativePath::from_joined(text.as_bytes()).expect("a path")
}

fn examples() -> Vec<(&'static str, Message)> {
    let id = TransferId(*b"0123456789abcdef");
    let reason = || Reason { code: ErrorCode::NoSpace, text: "no space left".into() };
    let items =
        || vec![RootItem { index: 7, id, root: [0xab; 32] }, RootItem { index: 9, id, root: [0xcd; 32] }];
    let request = Request {
        id,
        permitted: true,
        packed: true,
        size: Some(4096),
        attributes: ATTRIBUTES,
        root: Some([0x11; 32]),
        path: path("tree/file"),
    };
    let stream = Request {
        permitted: false,
        packed: false,
        size: None,
        root: None,
        path: path(""),
        ..request.clone()
    };
    let open = JobOpen {
        nonce: [0x5a; 16],
        pull: false,
        options: JobOptions::RECURSIVE | JobOptions::PRESERVE,
        export: b"inbox".to_vec(),
        destination: path("a/b"),
        source_count: 1,
        single: Some(b"tree".to_vec()),
        sources: vec![],
    };
    let pull = JobOpen {
        pull: true,
        source_count: 2,
        single: None,
        destination: path(""),
        sources: vec![path("x"), path("y/z")],
        ..open.clone()
    };
    let entry = ListEntry { name: b"file".to_vec(), kind: ListKind::File, size: 5, attributes: ATTRIBUTES };
    let link = LinkItem { path: path("tree/link"), attributes: ATTRIBUTES, target: b"../file".to_vec() };
    vec![
        ("request, packed", Message::Request(request)),
        ("request, stream", Message::Request(stream)),
        ("accept", Message::Accept { resume: 1 << 20 }),
        ("refuse", Message::Refuse(reason())),
        ("ready", Message::Ready(items())),
        ("permit", Message::Permit(items())),
        ("committed", Message::Committed(vec![CommittedItem { index: 7, id, known: true, present: true }])),
        ("abort", Message::Abort(id, reason())),
        ("aborted", Message::Aborted(id, reason())),
        ("job open, push", Message::JobOpen(open)),
        ("job open, pull", Message::JobOpen(pull)),
        ("job accept", Message::JobAccept),
        ("job refuse", Message::JobRefuse(reason())),
        ("directory", Message::Directory(DirectoryItem { path: path("tree"), attributes: ATTRIBUTES })),
        ("link", Message::Link(link)),
        ("end of stream", Message::EndOfStream { length: 12345, root: [0x22; 32] }),
        ("flush batch", Message::FlushBatch),
        ("end of job", Message::EndOfJob),
        ("job done", Message::JobDone),
        ("list", Message::List { export: b"inbox".to_vec(), path: path("a") }),
        ("list entries", Message::ListEntries { last: true, entries: vec![entry.clone()] }),
        ("list entries, kinds", Message::ListEntries { last: false, entries: kinds(&entry) }),
        ("service open", Message::ServiceOpen { service: b"ssh".to_vec() }),
        ("half close", Message::HalfClose { length: 99 }),
        ("notice", Message::Notice { skipped: true, path: path("tree/fifo"), reason: reason() }),
    ]
}

/// An entry of each kind.
fn kinds(entry: &ListEntry) -> Vec<ListEntry> {
    let kinds = [ListKind::File, ListKind::Directory, ListKind::Link, ListKind::Other];
    kinds.map(|kind| ListEntry { kind, ..entry.clone() }).into()
}

#[test]
fn bytes_are_golden() {
    let mut text = String::new();
    for (name, message) in examples() {
        let framed = Framed { request: 0x0102_0304, message };
        let mut bytes = Vec::new();
        emit(&framed, &mut bytes);
        assert_eq!(parse_all(&bytes).expect("readable"), [framed]);
        let hex = bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        writeln!(text, "{name}: {hex}").expect("a string takes text");
    }
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/messages.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(file, &text).expect("writable");
    }
    assert_eq!(std::fs::read_to_string(file).expect("readable"), text, "UPDATE_GOLDEN=1 rewrites");
}

#[test]
fn every_cut_and_every_long_body_is_an_error() {
    for (name, message) in examples() {
        let mut bytes = Vec::new();
        emit(&Framed { request: 1, message }, &mut bytes);
        for cut in 1..bytes.len() {
            assert!(parse_all(&bytes[..cut]).is_err(), "{name} cut at {cut}");
        }
        bytes.push(0);
        let longer = u32::try_from(bytes.len() - 16).expect("short").to_le_bytes();
        bytes[4..8].copy_from_slice(&longer);
        assert!(parse_all(&bytes).is_err(), "{name} with a byte more");
    }
}

#[test]
fn names_that_lead_out_do_not_parse() {
    for bad in [&b".."[..], b".", b"a/b", b"", b"\0", b".diskwire-partial"] {
        let mut bytes = Vec::new();
        let message = Message::Directory(DirectoryItem { path: path("x"), attributes: ATTRIBUTES });
        emit(&Framed { request: 0, message }, &mut bytes);
        bytes.truncate(bytes.len() - 2);
        bytes.push(u8::try_from(bad.len()).expect("short"));
        bytes.extend_from_slice(bad);
        let length = u32::try_from(bytes.len() - 16).expect("short").to_le_bytes();
        bytes[4..8].copy_from_slice(&length);
        assert!(parse_all(&bytes).is_err(), "{bad:?}");
    }
}

/// A pull names its sources and counts them; a push has its own.
#[test]
fn a_job_with_sources_that_are_not_its_own_does_not_parse() {
    let open = |pull: bool, source_count: u32, sources: &[&str]| {
        let sources = sources.iter().map(|text| path(text)).collect();
        let (_, message) = examples().into_iter().nth(9).expect("an example");
        let Message::JobOpen(open) = message else { panic!("{message:?}") };
        let message = Message::JobOpen(JobOpen { pull, source_count, sources, ..open });
        let mut bytes = Vec::new();
        emit(&Framed { request: 1, message }, &mut bytes);
        parse_all(&bytes).map(drop)
    };
    let wrong = Err(MessageError::Value { opcode: 16 });
    assert_eq!(open(true, 2, &["x", "y"]), Ok(()));
    assert_eq!(open(true, 0, &[]), wrong, "nothing to pull");
    for source_count in [1, 3, 0x1_0002] {
        assert_eq!(open(true, source_count, &["x", "y"]), wrong, "{source_count} of two");
    }
    assert_eq!(open(false, 5, &[]), Ok(()));
    assert_eq!(open(false, 1, &["x"]), wrong, "a push of a file of the other side");
}

/// A reason that is too long is cut between two letters, wherever they lie.
#[test]
fn a_long_reason_is_cut_to_what_the_other_side_takes() {
    let said = |text: String| {
        let message = Message::JobRefuse(Reason { code: ErrorCode::NoSpace, text });
        let mut bytes = Vec::new();
        emit(&Framed { request: 1, message }, &mut bytes);
        match parse_all(&bytes).expect("readable").remove(0).message {
            Message::JobRefuse(reason) => reason.text,
            other => panic!("{other:?}"),
        }
    };
    let longest = said("x".repeat(100_000)).len();
    assert!((1..100_000).contains(&longest));
    for ahead in 0..4 {
        let text = "x".repeat(ahead) + &"𝄞".repeat(longest);
        let cut = said(text.clone());
        assert!(text.starts_with(&cut) && cut.len() <= longest && cut.len() + 4 > longest, "{ahead} ahead");
    }
}

/// Counts are checked before use: one that no path can have is not looped over.
#[test]
fn a_path_of_more_names_than_fit_is_refused_before_they_are_read() {
    let message = Message::Directory(DirectoryItem { path: path(""), attributes: ATTRIBUTES });
    let mut bytes = Vec::new();
    emit(&Framed { request: 1, message }, &mut bytes);
    let end = bytes.len();
    for (count, error) in
        [(2048u16, MessageError::Short { opcode: 19 }), (2049, MessageError::Value { opcode: 19 })]
    {
        bytes[end - 2..].copy_from_slice(&count.to_le_bytes());
        assert_eq!(parse_all(&bytes), Err(error), "{count} names");
    }
}

fn any_path() -> impl Strategy<Value = RelativePath> {
    vec(vec(any::<u8>(), 1..20), 0..5).prop_filter_map("a path", |names| {
        let mut path = RelativePath::root();
        names.iter().try_for_each(|name| path.push(name)).ok().map(|()| path)
    })
}

fn any_attributes() -> impl Strategy<Value = Attributes> {
    (any::<u32>(), any::<u32>(), any::<u32>(), any::<i64>(), 0_u32..1_000_000_000).prop_map(
        |(mode, user, group, mtime_s, mtime_ns)| Attributes { mode, user, group, mtime_s, mtime_ns },
    )
}

fn any_reason() -> impl Strategy<Value = Reason> {
    (0..ErrorCode::ALL.len(), ".{0,40}").prop_map(|(at, text)| Reason { code: ErrorCode::ALL[at], text })
}

fn any_items() -> impl Strategy<Value = Vec<RootItem>> {
    let item = (any::<u32>(), any::<[u8; 16]>(), any::<[u8; 32]>());
    vec(item.prop_map(|(index, id, root)| RootItem { index, id: TransferId(id), root }), 0..20)
}

fn any_request() -> impl Strategy<Value = Message> {
    let ids = (any::<[u8; 16]>(), any::<bool>(), any::<bool>(), 0..u64::MAX, any::<bool>());
    (ids, any_attributes(), any::<Option<[u8; 32]>>(), any_path()).prop_map(
        |(ids, attributes, root, path)| {
            let (id, permitted, packed, size, known) = ids;
            let packed = packed && known && root.is_some();
            let size = known.then_some(size);
            Message::Request(Request { id: TransferId(id), permitted, packed, size, attributes, root, path })
        },
    )
}

fn any_message() -> impl Strategy<Value = Message> {
    let committed = (any::<u32>(), any::<[u8; 16]>(), any::<bool>(), any::<bool>())
        .prop_map(|(index, id, known, present)| CommittedItem { index, id: TransferId(id), known, present });
    let entry =
        (any_path(), any::<u64>(), any_attributes()).prop_filter_map("a name", |(path, size, attributes)| {
            let name = path.first()?.to_vec();
            Some(ListEntry { name, kind: ListKind::Directory, size, attributes })
        });
    prop_oneof![
        any_request(),
        any::<u64>().prop_map(|resume| Message::Accept { resume }),
        any_reason().prop_map(Message::Refuse),
        any_items().prop_map(Message::Ready),
        any_items().prop_map(Message::Permit),
        vec(committed, 0..20).prop_map(Message::Committed),
        (any::<[u8; 16]>(), any_reason()).prop_map(|(id, reason)| Message::Abort(TransferId(id), reason)),
        (any_path(), any_attributes())
            .prop_map(|(path, attributes)| Message::Directory(DirectoryItem { path, attributes })),
        (any_path(), any_attributes(), vec(any::<u8>(), 0..300))
            .prop_map(|(path, attributes, target)| Message::Link(LinkItem { path, attributes, target })),
        (any::<bool>(), vec(entry, 0..20)).prop_map(|(last, entries)| Message::ListEntries { last, entries }),
        (any::<bool>(), any_path(), any_reason()).prop_map(|(skipped, path, reason)| Message::Notice {
            skipped,
            path,
            reason
        }),
        Just(Message::EndOfJob),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_emitted_is_parsed(messages in vec((any::<u64>(), any_message()), 0..8)) {
        let framed: Vec<Framed> =
            messages.into_iter().map(|(request, message)| Framed { request, message }).collect();
        let mut bytes = Vec::new();
        framed.iter().for_each(|one| emit(one, &mut bytes));
        assert_eq!(parse_all(&bytes), Ok(framed));
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in vec(any::<u8>(), 0..300)) {
        let _ = parse_all(&bytes);
    }

    #[test]
    fn any_body_is_read_without_panic(opcode in 0_u16..32, flags in 0_u16..8, body in vec(any::<u8>(), 0..300)) {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&opcode.to_le_bytes());
        bytes.extend_from_slice(&flags.to_le_bytes());
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&body);
        if let Ok(messages) = parse_all(&bytes) {
            let mut again = Vec::new();
            messages.iter().for_each(|one| emit(one, &mut again));
            assert_eq!(again, bytes);
        }
    }
}
