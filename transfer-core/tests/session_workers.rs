//! Two sessions whose local work runs on real threads, several requests at once.
//!
//! `DISKWIRE_FILES=20000` makes it a measurement, which it prints.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use storage_mapping::{BufferPool, Instant};
use transfer_core::export::Export;
use transfer_core::payload::Segment;
use transfer_core::transfer::message::JobOptions;
use transfer_core::transfer::{
    Job, LocalFiles, LocalReply, LocalRequest, LocalStore, LocalWork, LossReason, Outcome, RelativePath,
    ServingFiles, Session, SessionConfig, SessionEvent, SourceOrigin, Verdict,
};

/// Threads of one side.
const WORKERS: usize = 3;
/// Segments that a connection holds.
const WINDOW: usize = 16;
/// Packs that the store may have at a time: more wait for each other, and what comes after them waits, too.
const PACKS_MAX: usize = 2;

enum Event {
    Ended,
    Reply(LocalReply),
    Segment(Segment),
}

/// Drives one session until it is finished, or its peer has ended. Gives the outcome, and how many packs were with the
/// store at once.
fn drive(
    mut session: Session,
    files: Arc<dyn LocalStore>,
    events: &Receiver<Event>,
    own: &Sender<Event>,
    peer: &Sender<Event>,
) -> (Option<Outcome>, usize) {
    let started = std::time::Instant::now();
    let clock = || Instant::ZERO + started.elapsed();
    let (work, queue) = channel::<LocalRequest>();
    let queue = Arc::new(Mutex::new(queue));
    for _ in 0..WORKERS {
        let (queue, files, own) = (Arc::clone(&queue), Arc::clone(&files), own.clone());
        thread::spawn(move || {
            loop {
                let request = queue.lock().expect("not poisoned").recv();
                let Ok(request) = request else { return };
                let _ = own.send(Event::Reply(files.execute(request)));
            }
        });
    }
    let mut outcome = None;
    let mut waiting = std::collections::VecDeque::new();
    let (mut packs, mut packs_max) = (BTreeSet::new(), 0);
    loop {
        for _ in 0..WINDOW {
            let Some(segment) = session.poll_segment(clock()) else { break };
            let _ = peer.send(Event::Segment(segment));
        }
        while let Some(request) = session.poll_local(clock()) {
            if matches!(request.work, LocalWork::StorePack { .. }) {
                packs.insert(request.id);
                packs_max = packs_max.max(packs.len());
            }
            work.send(request).expect("workers live");
        }
        while let Some(event) = session.poll_event() {
            if let SessionEvent::Finished(done) = event {
                outcome = Some(done);
            }
        }
        if session.is_finished() {
            let _ = peer.send(Event::Ended);
            return (outcome, packs_max);
        }
        while session.wants_segment()
            && let Some(segment) = waiting.pop_front()
        {
            session.handle_segment(clock(), segment).expect("no violation");
        }
        match events.recv_timeout(Duration::from_millis(20)) {
            Ok(Event::Reply(reply)) => {
                packs.remove(&reply.id);
                session.handle_local(clock(), reply);
            }
            Ok(Event::Segment(segment)) => waiting.push_back(segment),
            Ok(Event::Ended) => session.handle_lost(clock(), LossReason::Closed),
            Err(_) => session.handle_timeout(clock()),
        }
    }
}

fn push(here: &Path, export: &Path, state: &Path) -> Outcome {
    let pool = BufferPool::new();
    let config = SessionConfig::new(pool.clone());
    let segment = config.segment_bytes;
    let served = vec![Export::open(b"box", export, true).expect("an export")];
    let serving = Arc::new(ServingFiles::new(served, state).expect("state"));
    let serve = Arc::new(LocalFiles::serving(pool.clone(), segment, serving));
    let command = Arc::new(LocalFiles::command(pool, segment, state));
    let job = Job::Push {
        peer: "b".into(),
        origin: SourceOrigin::Local(vec![here.as_os_str().as_encoded_bytes().to_vec()]),
        export: b"box".to_vec(),
        destination: RelativePath::root(),
        options: JobOptions::RECURSIVE,
    };
    let (to_a, from_b) = channel();
    let (to_b, from_a) = channel();
    let (a, b) = (Session::requester(config.clone(), job), Session::responder(config));
    let (own_b, peer_b) = (to_b.clone(), to_a.clone());
    let responder = thread::spawn(move || drive(b, serve, &from_a, &own_b, &peer_b));
    let (outcome, _) = drive(a, command, &from_b, &to_a, &to_b);
    let (_, packs) = responder.join().expect("the responder ends");
    assert!((1..=PACKS_MAX).contains(&packs), "{packs} packs were with the store at once");
    outcome.expect("an outcome")
}

#[test]
fn work_on_several_threads_gives_the_same_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let [here, export, state] = ["here", "export", "state"].map(|name| folder.path().join(name));
    for path in [&here, &export, &state] {
        fs::create_dir(path).expect("a folder");
    }
    let count: usize =
        std::env::var("DISKWIRE_FILES").ok().and_then(|text| text.parse().ok()).unwrap_or(3000);
    for number in 0..count {
        let sub = here.join(format!("{:03}", number / 200));
        fs::create_dir_all(&sub).expect("a folder");
        fs::write(sub.join(number.to_string()), [number as u8; 4096]).expect("a file");
    }
    let large: Vec<u8> = (0..24_000_001_u32).map(|i| (i / 7) as u8).collect();
    fs::write(here.join("large"), &large).expect("a file");
    let started = std::time::Instant::now();
    let outcome = push(&here, &export, &state);
    println!("{count} files and 24 MB in {:?}", started.elapsed());
    assert_eq!((outcome.verdict, outcome.files), (Verdict::Done, count as u64 + 1), "{outcome:?}");
    for number in 0..count {
        let file = export.join("here").join(format!("{:03}", number / 200)).join(number.to_string());
        assert_eq!(fs::read(file).expect("published"), [number as u8; 4096]);
    }
    assert_eq!(fs::read(export.join("here/large")).expect("published"), large);
    assert!(!export.join(".diskwire-partial").exists());
}
