//! Power or a process is gone after write n, for every n: of a set-up, a start, a transfer, a close.
//!
//! A set-up is cut after each of its blocks, with the last one torn and with the blocks of its last request
//! landing from the end. What opens then must be a whole volume, the old one or the new one, or there is a
//! clear error; and setting up again works. A process is killed before and right after each of its writes;
//! the next one takes the lane, the job is done, and so is another job. Here one write in five is taken for
//! the kills, `DISKWIRE_FULL=1` is all. Not here: other faults (`nth_io`), power of the files (`commit_power`).

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::signature::Ed25519KeyPair;
use storage_mapping::{
    BlockDevice, BufferPool, Cancelled, DeviceEvent, Geometry, Instant, IoCompletion, IoRequest, IoTag,
    Operation, Refused,
};
use system_tests::chance::Chance;
use system_tests::checker::ownership::Monitor;
use system_tests::disk::{Block, Image, PathControl, SharedDisk};
use system_tests::plan::{Edition, Plan};
use system_tests::runner::run_plan;
use system_tests::script::{Script, ScriptLog, ScriptedFault};
use system_tests::trace::Trace;
use transfer_core::enrolment::read_host_table;
use transfer_core::format::host_table::HostRecord;
use volume::create::ExtraBlock;
use volume::layout::{PlannedDevice, VolumePlan};
use volume::record::Text;
use volume::sync::Waiter;
use volume::{Layout, OwnedRanges, create, open};

/// Blocks of each device.
const BLOCKS: [u64; 3] = [9 * 256, 512, 512];
const BLOCK_BYTES: usize = 4096;
/// One write in so many is taken for the kills, in the short form.
const THINNED: u64 = 5;

/// A volume as the administrator wants it.
struct Wanted {
    layout: Layout,
    extra: Vec<ExtraBlock>,
    records: Vec<HostRecord>,
}

impl Wanted {
    fn new(volume_id: [u8; 16], lanes: u16) -> Self {
        let admin = Ed25519KeyPair::from_seed_unchecked(&[9; 32]).expect("32 bytes are a seed");
        let devices = BLOCKS.iter().enumerate().map(|(index, blocks)| {
            PlannedDevice::new(&format!("disk{index}"), *blocks).expect("a short name")
        });
        let plan = VolumePlan {
            devices: devices.collect(),
            lanes,
            connections: 4,
            segment_payload_bytes: 16 << 10,
            volume_id,
            time_id: 1,
            unix_filename: "disk0".into(),
        };
        let layout = plan.layout(&admin).expect("it fits");
        let name = |row: u16| Text::new(&format!("host{row}")).expect("a short name");
        let record = |row: u16| HostRecord::new(&layout, row, name(row), [5; 32], 0, &admin);
        let records: Vec<_> = (0..lanes).map(record).collect();
        let extra = records.iter().flat_map(|record| record.pages(&layout)).collect();
        Self { layout, extra, records }
    }
}

fn disks(images: &[Image]) -> Vec<SharedDisk> {
    let calm = Plan::of_seed(Edition::Third, 1).faults.stopped();
    let disk = |(number, blocks): (u16, &u64)| SharedDisk::new(number, *blocks, calm.clone());
    let disks: Vec<_> = (0..).zip(&BLOCKS).map(disk).collect();
    disks.iter().zip(images).for_each(|(disk, image)| disk.set_image(image));
    disks
}

fn devices(disks: &[SharedDisk]) -> Vec<Box<dyn BlockDevice>> {
    let path = PathControl::default();
    path.set_calm(true);
    let monitor = Monitor::new("admin", OwnedRanges::everything(), None);
    let device = |disk: &SharedDisk| {
        let device = disk.device(&path, monitor.clone(), Chance::new(0), Trace::new(false));
        Box::new(device) as Box<dyn BlockDevice>
    };
    disks.iter().map(device).collect()
}

fn waiter() -> Waiter<'static> {
    Waiter::new(|| Instant(1), |_, _| {})
}

fn set_up(disks: &[SharedDisk], wanted: &Wanted) {
    create::create(&waiter(), devices(disks), &wanted.layout, &wanted.extra).expect("healthy disks");
}

fn images(disks: &[SharedDisk]) -> Vec<Image> {
    disks.iter().map(SharedDisk::to_image).collect()
}

/// What opens: which of the volumes, whole; or an error in words.
fn look(disks: &[SharedDisk], volumes: &[&Wanted]) -> Result<usize, String> {
    let waiter = waiter();
    let opened = open::open(&waiter, devices(disks), None, None).map_err(|error| error.to_string())?;
    let mut volume = opened.volume;
    let layout = volume.layout().clone();
    let is_it = |wanted: &&Wanted| wanted.layout.master.volume_id == layout.master.volume_id;
    let which = volumes.iter().position(is_it);
    let which = which.expect("what opens is the old volume or the new one");
    assert!(layout.table == volumes[which].layout.table, "volume {which} opens with another table");
    let master = volume.device_mut(0).expect("a volume has a master");
    let table = read_host_table(&waiter, master.as_mut(), &layout).map_err(|error| error.to_string())?;
    let rows: Vec<_> = table.rows.into_iter().flatten().collect();
    assert!(rows == volumes[which].records, "volume {which} opens, and its host table is not whole");
    Ok(which)
}

/// One write of a set-up.
struct Write {
    device: usize,
    block: u64,
    bytes: Vec<u8>,
}

type Log = Arc<Mutex<Vec<Write>>>;

/// Passes everything on and keeps what is written.
struct Recorder {
    inner: Box<dyn BlockDevice>,
    device: usize,
    log: Log,
}

impl BlockDevice for Recorder {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn submit(&mut self, now: Instant, request: IoRequest) -> Result<(), Refused> {
        if let Operation::Write { lba, data, fua } = &request.operation {
            assert!(fua, "a set-up waits until a write is durable before the next one");
            let block = lba.0 / (BLOCK_BYTES / 512) as u64;
            let write = Write { device: self.device, block, bytes: data.to_vec() };
            self.log.lock().expect("one thread").push(write);
        }
        self.inner.submit(now, request)
    }

    fn poll(&mut self, now: Instant) -> Option<IoCompletion> {
        self.inner.poll(now)
    }

    fn poll_event(&mut self, now: Instant) -> Option<DeviceEvent> {
        self.inner.poll_event(now)
    }

    fn next_wakeup(&self) -> Option<Instant> {
        self.inner.next_wakeup()
    }

    fn cancel(&mut self, now: Instant, tag: IoTag) -> Cancelled {
        self.inner.cancel(now, tag)
    }

    fn attach_pool(&mut self, pool: &BufferPool) {
        self.inner.attach_pool(pool);
    }

    fn wait_on(&self, descriptors: &mut Vec<RawFd>) {
        self.inner.wait_on(descriptors);
    }
}

/// The writes of a set-up, in their order.
fn record(wanted: &Wanted) -> Vec<Write> {
    let log = Log::default();
    let recorded = devices(&disks(&[])).into_iter().enumerate().map(|(device, inner)| {
        Box::new(Recorder { inner, device, log: Arc::clone(&log) }) as Box<dyn BlockDevice>
    });
    create::create(&waiter(), recorded.collect(), &wanted.layout, &wanted.extra).expect("healthy disks");
    let mut log = log.lock().expect("one thread");
    std::mem::take(&mut *log)
}

/// The disks while a set-up goes over them.
struct SetUp<'a> {
    disks: Vec<SharedDisk>,
    old: &'a Wanted,
    new: &'a Wanted,
    /// How often which volume opened, and how often there was an error.
    whole: [u64; 2],
    errors: u64,
}

impl SetUp<'_> {
    /// Writes a block, or its first bytes; gives what was there.
    fn put(&self, write: &Write, index: usize, length: usize) -> Block {
        let disk = &self.disks[write.device];
        let number = write.block + index as u64;
        let before = disk.block(Instant(1), number);
        let mut block = before;
        let start = index * BLOCK_BYTES;
        block[..length].copy_from_slice(&write.bytes[start..start + length]);
        disk.set_block(Instant(1), number, &block);
        before
    }

    fn restore(&self, write: &Write, index: usize, content: &Block) {
        self.disks[write.device].set_block(Instant(1), write.block + index as u64, content);
    }

    fn look(&mut self) {
        match look(&self.disks, &[self.old, self.new]) {
            Ok(which) => self.whole[which] += 1,
            Err(_) => self.errors += 1,
        }
    }

    /// Every instant of one write: cut after each block, with the next one torn, and from its end.
    fn write(&mut self, write: &Write) {
        let blocks = write.bytes.len() / BLOCK_BYTES;
        let mut befores = Vec::new();
        for index in (0..blocks).rev() {
            befores.push((index, self.put(write, index, BLOCK_BYTES)));
            self.look();
        }
        befores.drain(..).for_each(|(index, before)| self.restore(write, index, &before));
        for index in 0..blocks {
            let before = self.put(write, index, 512 * (1 + index % 7));
            self.look();
            self.restore(write, index, &before);
            self.put(write, index, BLOCK_BYTES);
            self.look();
        }
    }

    fn again(&self) {
        let disks = disks(&images(&self.disks));
        set_up(&disks, self.new);
        assert_eq!(look(&disks, &[self.old, self.new]), Ok(1), "setting up again does not help");
    }
}

/// Found here: over an older volume of the same devices, the copies that it had on the other devices opened
/// it once the new device table stood there, with its regions cleared.
#[test]
fn a_set_up_may_be_cut_after_every_block() {
    let (old, new) = (Wanted::new([7; 16], 6), Wanted::new([3; 16], 4));
    let writes = record(&new);
    let there = disks(&[]);
    set_up(&there, &old);
    let (blank, old_images) = (images(&disks(&[])), images(&there));
    for (name, image) in [("blank disks", blank), ("an older volume", old_images)] {
        let mut run = SetUp { disks: disks(&image), old: &old, new: &new, whole: [0; 2], errors: 0 };
        for write in &writes {
            run.write(write);
            run.again();
        }
        let SetUp { whole: [olds, news], errors, .. } = run;
        let blocks: usize = writes.iter().map(|write| write.bytes.len() / BLOCK_BYTES).sum();
        println!(
            "FIGURE set-up over {name}: {} writes of {blocks} blocks, {} instants: {olds} times the old volume, \
             {news} times the new one, {errors} errors; set up again {} times",
            writes.len(),
            olds + news + errors,
            writes.len()
        );
        assert!(blocks >= 170 && news >= 1, "the set-up writes less than it did");
        assert_eq!(look(&run.disks, &[&old, &new]), Ok(1));
    }
}

/// A process that is killed at one of its requests.
#[derive(Clone, Copy, Debug)]
struct Kill {
    is_pull: bool,
    is_serving: bool,
    nth: u64,
    kind: ScriptedFault,
}

fn run(kill: Kill) -> Result<ScriptLog, String> {
    let mut plan = Plan::of_three_files(kill.is_pull, 1);
    let (host, lane) = if kill.is_serving { (1, 0) } else { (0, 1) };
    plan.script = Some(Script { host, lane, nth: kill.nth, kind: kill.kind });
    run_plan(plan, false)?.script.ok_or_else(|| "there was no script".to_owned())
}

/// All kills of one process, and how many writes its start, its transfer and its close have.
fn kills(is_pull: bool, is_serving: bool) -> (Vec<Kill>, [usize; 3]) {
    let kind = ScriptedFault::KilledBefore;
    let calm = run(Kill { is_pull, is_serving, nth: 0, kind }).expect("without a fault all is well");
    // The connector closes while the next command starts already.
    let end = if is_serving { calm.done[1] } else { calm.gone[0] };
    let (started, done) = (calm.started[0], calm.done[0]);
    let (mut found, mut phases) = (Vec::new(), [0; 3]);
    for (nth, request) in (1..).zip(&calm.requests) {
        let is_of_first = request.at <= end && (is_serving || request.life == 1);
        if request.is_write && is_of_first {
            phases[usize::from(request.at >= started) + usize::from(request.at >= done)] += 1;
            let kinds = [ScriptedFault::KilledBefore, ScriptedFault::KilledAfter];
            found.extend(kinds.map(|kind| Kill { is_pull, is_serving, nth, kind }));
        }
    }
    (found, phases)
}

#[test]
fn a_process_may_be_killed_at_every_write() {
    let start = std::time::Instant::now();
    let is_full = std::env::var("DISKWIRE_FULL").is_ok_and(|value| value == "1");
    let mut all = Vec::new();
    for (is_pull, is_serving) in [(false, false), (false, true), (true, false), (true, true)] {
        let (found, [starting, working, closing]) = kills(is_pull, is_serving);
        println!(
            "FIGURE {}, {}: {starting} writes of the start, {working} of the transfer, {closing} from then on",
            if is_pull { "pull" } else { "push" },
            if is_serving { "connector" } else { "initiator" },
        );
        assert!(starting >= 1 && working >= 5 && closing >= 1, "fewer writes than there were");
        all.extend(found);
    }
    if !is_full {
        all.retain(|kill| kill.nth % THINNED == u64::from(kill.is_pull) || kill.nth < 10);
    }
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(kill) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let failure = match run(*kill) {
                        Ok(log) if log.is_met => continue,
                        Ok(_) => "the request was never made".to_owned(),
                        Err(violation) => violation,
                    };
                    failures.lock().expect("no run panics outside its catch").push((*kill, failure));
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no run panics outside its catch");
    println!(
        "FIGURE {} kills in {:.1} s, {} failed",
        all.len(),
        start.elapsed().as_secs_f64(),
        failures.len()
    );
    failures.iter().take(20).for_each(|failure| println!("{failure:?}"));
    assert!(failures.is_empty(), "{} kills broke a promise", failures.len());
}
