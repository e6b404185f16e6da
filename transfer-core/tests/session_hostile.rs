//! A peer that says anything at any time: no panic, nothing outside the export, bounded memory.

mod pair;

use pair::{World, path};
use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use std::fs;
use std::sync::Arc;
use storage_mapping::Instant;
use transfer_core::payload::{Payload, Segment, SegmentKind};
use transfer_core::transfer::message::{
    CommittedItem, Framed, JobOpen, JobOptions, Message, Reason, Request, RootItem, emit,
};
use transfer_core::transfer::{
    Attributes, DirectoryItem, ErrorCode, LinkItem, LocalFiles, LocalStore, LossReason, RelativePath,
    Session, SessionConfig, TransferId,
};

#[derive(Clone, Debug)]
enum Input {
    Data { request: u64, offset: u64, length: usize, last: bool },
    Pack(Vec<(u32, usize)>),
    Say(u64, Message),
}

fn small_path() -> impl Strategy<Value = RelativePath> {
    prop_oneof![Just("tree"), Just("tree/a"), Just("tree/a/b"), Just("tree/l"), Just("tree/l/x"), Just("")]
        .prop_map(path)
}

fn content(length: usize) -> Vec<u8> {
    vec![7; length]
}

fn request() -> impl Strategy<Value = Message> {
    let size = prop_oneof![Just(None), (0_u64..5).prop_map(|n| Some(n * 8192))];
    (0_u8..4, any::<bool>(), any::<bool>(), size, small_path()).prop_map(
        |(id, permitted, packed, size, path)| {
            let root = size.map(|size| *blake3::hash(&content(size as usize)).as_bytes());
            let packed = packed && size.is_some();
            let attributes = Attributes { mode: 0o7777, ..Attributes::default() };
            Message::Request(Request {
                id: TransferId([id; 16]),
                permitted,
                packed,
                size,
                attributes,
                root,
                path,
            })
        },
    )
}

fn message() -> impl Strategy<Value = Message> {
    let reason = || Reason { code: ErrorCode::Io, text: "\u{1b}[31m".into() };
    let item = |(index, id): (u32, u8)| {
        let root = *blake3::hash(&content(8192)).as_bytes();
        RootItem { index, id: TransferId([id; 16]), root }
    };
    let items = move || vec((0_u32..4, 0_u8..4).prop_map(item), 0..4);
    let end = (0_u64..5).prop_map(|n| Message::EndOfStream {
        length: n * 8192,
        root: *blake3::hash(&content(n as usize * 8192)).as_bytes(),
    });
    let attributes = Attributes { mode: 0o777, ..Attributes::default() };
    prop_oneof![
        4 => request(),
        2 => end,
        2 => items().prop_map(Message::Permit),
        1 => items().prop_map(Message::Ready),
        1 => (0_u8..4).prop_map(move |id| Message::Abort(TransferId([id; 16]), reason())),
        1 => (0_u8..4).prop_map(move |id| Message::Aborted(TransferId([id; 16]), reason())),
        2 => small_path().prop_map(move |path| Message::Directory(DirectoryItem { path, attributes })),
        2 => (small_path(), prop_oneof![Just(".."), Just("../.."), Just("a"), Just("/etc")])
            .prop_map(move |(path, target)| Message::Link(LinkItem { path, attributes, target: target.into() })),
        2 => Just(Message::FlushBatch),
        1 => Just(Message::EndOfJob),
        1 => Just(Message::JobDone),
        1 => (0_u64..4).prop_map(|n| Message::Accept { resume: n * 8192 }),
        1 => (0_u32..4, 0_u8..4).prop_map(|(index, id)| Message::Committed(vec![
            CommittedItem { index, id: TransferId([id; 16]), known: true, present: false }])),
    ]
}

fn input() -> impl Strategy<Value = Input> {
    let data = (0_u64..4, 0_u64..4, 0_usize..3, any::<bool>());
    prop_oneof![
        8 => (0_u64..4, message()).prop_map(|(request, message)| Input::Say(request, message)),
        3 => data.prop_map(|(request, offset, length, last)| {
            Input::Data { request, offset: offset * 16384, length: length * 8192, last }
        }),
        2 => vec((0_u32..4, (0_usize..3).prop_map(|n| n * 8192)), 0..3).prop_map(Input::Pack),
    ]
}

fn segment(world: &World, input: Input) -> Segment {
    let segment = |kind, request, offset, last, bytes: &[u8]| Segment {
        kind,
        request,
        offset,
        last,
        payload: Payload::copy_of(&world.pool, bytes),
    };
    match input {
        Input::Data { request, offset, length, last } => {
            segment(SegmentKind::Data, request, offset, last, &content(length))
        }
        Input::Pack(files) => {
            let mut bytes = Vec::new();
            for (index, length) in files {
                bytes.extend_from_slice(&index.to_le_bytes());
                bytes.extend_from_slice(&(length as u32).to_le_bytes());
                bytes.extend_from_slice(&content(length));
            }
            segment(SegmentKind::Pack, 0, 0, true, &bytes)
        }
        Input::Say(request, message) => {
            let mut bytes = Vec::new();
            emit(&Framed { request, message }, &mut bytes);
            segment(SegmentKind::Command, 0, 0, true, &bytes)
        }
    }
}

fn settle(session: &mut Session, files: &LocalFiles) {
    for _ in 0..100 {
        let mut moved = false;
        while let Some(request) = session.poll_local(Instant::ZERO) {
            session.handle_local(Instant::ZERO, files.execute(request));
            moved = true;
        }
        while session.poll_segment(Instant::ZERO).is_some() {}
        if !moved {
            return;
        }
    }
    panic!("the session asks for ever");
}

fn torment(pull: bool, inputs: Vec<Input>) {
    let world = World::new();
    fs::write(world.folder.path().join("outside"), b"outside").expect("a file");
    fs::create_dir(world.export().join("tree")).expect("a folder");
    fs::write(world.export().join("tree/file"), content(50_000)).expect("a file");
    let mut config = SessionConfig::new(world.pool.clone());
    (config.segment_bytes, config.payloads_max) = (16 << 10, 4);
    let files =
        LocalFiles::serving(world.pool.clone(), config.segment_bytes, Arc::clone(&world.serving(true)));
    let mut session = Session::responder(config);
    let open = JobOpen {
        nonce: [1; 16],
        pull,
        options: JobOptions::RECURSIVE | JobOptions::PRESERVE,
        export: b"box".to_vec(),
        destination: path(""),
        source_count: 1,
        single: Some(b"tree".to_vec()),
        sources: if pull { vec![path("tree")] } else { vec![] },
    };
    let first = Input::Say(0, Message::JobOpen(open));
    for input in std::iter::once(first).chain(inputs) {
        if session.handle_segment(Instant::ZERO, segment(&world, input)).is_err() {
            break;
        }
        settle(&mut session, &files);
        assert!(session.wants_segment());
    }
    session.handle_lost(Instant::ZERO, LossReason::Violation);
    settle(&mut session, &files);
    assert!(session.is_finished());
    assert_eq!(fs::read(world.folder.path().join("outside")).expect("there"), b"outside");
    let names = fs::read_dir(world.folder.path()).expect("a folder").count();
    assert_eq!(names, 4, "nothing new beside the export");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_receiver_survives_anything(inputs in vec(input(), 0..25)) {
        torment(false, inputs);
    }

    #[test]
    fn a_sender_survives_anything(inputs in vec(input(), 0..25)) {
        torment(true, inputs);
    }
}
