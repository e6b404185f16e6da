//! A control port over system calls that block: a command has a thread to itself until it is answered.
//!
//! Keeps true:
//!
//! * the thread owns the command and its buffers; one that hangs is left behind with them, the other commands go on, and
//!   dropping the port waits for nobody;
//! * a port has at most [`PORT_COMMANDS_MAX`] commands at work, and this process [`PROCESS_COMMANDS_MAX`], with those whose
//!   port is gone: beyond that `submit_control` says `Busy`, and nothing was sent;
//! * no signal reaches the threads: the kernel starts some interrupted calls again, and so would send a command twice.
//!
//! Not here: the system calls (`scsi_generic`, `nvme_admin`), deadlines. Whoever gives up on a command says so with
//! `cancel_control`: no call can be taken back, but it counts as overdue from then on.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fmt, io, thread};

use nix::sys::signal::SigSet;

use crate::block::request::{CopyFate, Effect, IoError, IoTag, RefusalReason};
use crate::block::time::Instant;
use crate::control_port::{
    CommandSet, ControlCancelled, ControlCommand, ControlCompletion, ControlEvent, ControlPort, ControlReply,
    ControlRequest, NexusId, TRANSFER_MAX_BYTES, Transfer,
};
use crate::hand_off::{Giver, JobGiver, JobTaker, Taker, jobs, results};

/// Commands at work on one port, at most: one that is sent, and room for what goes on when some hang.
pub const PORT_COMMANDS_MAX: usize = 4;
/// Commands at work on all ports of this process, at most.
pub const PROCESS_COMMANDS_MAX: usize = 64;

/// Commands that a thread of this process has, whether their port lives or not.
static AT_WORK: AtomicUsize = AtomicUsize::new(0);

/// How many commands the kernel has of this process now, with those that hang and whose port is gone.
#[must_use]
pub fn commands_at_work() -> usize {
    AT_WORK.load(Ordering::Acquire)
}

/// What became of a command.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) outcome: Result<ControlReply, IoError>,
    pub(crate) effect: Effect,
    pub(crate) copy: CopyFate,
}

impl Ending {
    /// The target answered.
    pub(crate) fn answered(reply: ControlReply) -> Self {
        Self { outcome: Ok(reply), effect: Effect::Full, copy: CopyFate::Dead }
    }

    /// It never left.
    pub(crate) fn not_sent(error: IoError) -> Self {
        Self { outcome: Err(error), effect: Effect::None, copy: CopyFate::Dead }
    }

    /// It left, or may have, and no answer came.
    pub(crate) fn in_doubt(error: IoError) -> Self {
        Self { outcome: Err(error), effect: Effect::Unknown, copy: CopyFate::MayLand }
    }
}

/// An open node that takes commands.
pub(crate) trait CommandNode: Send + Sync {
    /// Which words it speaks.
    fn command_set(&self) -> CommandSet;

    /// Whether it can be sent: of this command set, and with data in the direction that it says.
    fn admits(&self, command: &ControlCommand) -> bool;

    /// Sends it once and waits for the answer, however long that takes.
    fn execute(&self, command: ControlCommand) -> Ending;
}

/// A place among the commands at work of this process; it is free again when this goes.
struct Place;

impl Place {
    fn take() -> Option<Self> {
        let more = |count: usize| (count < PROCESS_COMMANDS_MAX).then_some(count + 1);
        AT_WORK.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok().map(|_| Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        AT_WORK.fetch_sub(1, Ordering::AcqRel);
    }
}

struct Job {
    tag: IoTag,
    command: ControlCommand,
    place: Place,
}

/// A command that was accepted and has not completed.
struct Sent {
    tag: IoTag,
    is_overdue: bool,
}

/// A control port over a device node.
pub struct NodePort {
    node: Arc<dyn CommandNode>,
    nexus: NexusId,
    sent: Vec<Sent>,
    thread_count: usize,
    jobs: JobGiver<Job>,
    waiting: JobTaker<Job>,
    finished: Giver<ControlCompletion>,
    results: Taker<ControlCompletion>,
}

impl NodePort {
    /// A port with its first thread.
    pub(crate) fn new(node: Arc<dyn CommandNode>, nexus: NexusId) -> io::Result<Self> {
        let (jobs, waiting) = jobs();
        let (finished, results) = results()?;
        let sent = Vec::with_capacity(PORT_COMMANDS_MAX);
        let mut port = Self { node, nexus, sent, thread_count: 0, jobs, waiting, finished, results };
        port.add_thread()?;
        Ok(port)
    }

    /// Commands that were given up on and have not come back: each holds a thread and its buffers.
    #[must_use]
    pub fn overdue_count(&self) -> usize {
        self.sent.iter().filter(|sent| sent.is_overdue).count()
    }

    fn add_thread(&mut self) -> io::Result<()> {
        let (node, waiting, finished) = (Arc::clone(&self.node), self.waiting.clone(), self.finished.clone());
        let work = move || {
            SigSet::all().thread_block().expect("a mask of signals is valid");
            waiting.work(&finished, |job| carry_out(&*node, job));
        };
        thread::Builder::new().name("control".to_owned()).spawn(work)?;
        self.thread_count += 1;
        Ok(())
    }

    fn find(&self, tag: IoTag) -> Option<usize> {
        self.sent.iter().position(|sent| sent.tag == tag)
    }
}

fn carry_out(node: &dyn CommandNode, job: Job) -> ControlCompletion {
    let Job { tag, command, place } = job;
    let Ending { outcome, effect, copy } = node.execute(command);
    drop(place);
    ControlCompletion { tag, outcome, effect, copy }
}

impl ControlPort for NodePort {
    fn command_set(&self) -> CommandSet {
        self.node.command_set()
    }

    fn nexus(&self) -> NexusId {
        self.nexus.clone()
    }

    fn submit_control(&mut self, _now: Instant, request: ControlRequest) -> Result<(), RefusalReason> {
        let ControlRequest { tag, command } = request;
        let length_bytes = match &command.transfer {
            Transfer::None => 0,
            Transfer::In(length_bytes) => *length_bytes,
            Transfer::Out(data) => data.len(),
        };
        if length_bytes > TRANSFER_MAX_BYTES || !self.node.admits(&command) {
            return Err(RefusalReason::Invalid);
        }
        if self.find(tag).is_some() {
            return Err(RefusalReason::DuplicateTag);
        }
        if self.sent.len() == PORT_COMMANDS_MAX {
            return Err(RefusalReason::Busy);
        }
        let place = Place::take().ok_or(RefusalReason::Busy)?;
        // Every thread may be with a command that hangs: none ever waits for another's.
        if self.sent.len() == self.thread_count && self.add_thread().is_err() {
            return Err(RefusalReason::Busy);
        }
        assert!(self.jobs.give(Job { tag, command, place }), "the port has one end itself");
        self.sent.push(Sent { tag, is_overdue: false });
        Ok(())
    }

    fn poll_control(&mut self, _now: Instant) -> Option<ControlCompletion> {
        let completion = self.results.take()?;
        let index = self.find(completion.tag).expect("a command completes once");
        self.sent.swap_remove(index);
        Some(completion)
    }

    fn poll_control_event(&mut self, _now: Instant) -> Option<ControlEvent> {
        // The kernel keeps the nexus, and tells nobody what becomes of it.
        None
    }

    fn cancel_control(&mut self, _now: Instant, tag: IoTag) -> ControlCancelled {
        let Some(index) = self.find(tag) else { return ControlCancelled::NotHere };
        self.sent[index].is_overdue = true;
        ControlCancelled::Requested
    }

    fn next_control_wakeup(&self) -> Option<Instant> {
        None
    }

    fn control_wait_on(&self, descriptors: &mut Vec<RawFd>) {
        descriptors.push(self.results.descriptor());
    }
}

impl fmt::Debug for NodePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodePort").field("nexus", &self.nexus).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::sync::{Mutex, PoisonError};

    use super::*;
    use crate::control_port::{Cdb, CommandBytes};
    use crate::wait::wait;

    /// Answers TEST UNIT READY at once, and anything else when it is let go.
    struct Gate(Mutex<Receiver<()>>);

    impl CommandNode for Gate {
        fn command_set(&self) -> CommandSet {
            CommandSet::Scsi
        }

        fn admits(&self, command: &ControlCommand) -> bool {
            matches!(command.bytes, CommandBytes::Scsi(_))
        }

        fn execute(&self, command: ControlCommand) -> Ending {
            let CommandBytes::Scsi(cdb) = command.bytes else { unreachable!("not admitted") };
            if cdb.opcode() != 0 {
                let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).recv();
            }
            Ending::answered(ControlReply::Scsi { status: 0, sense: Vec::new(), data: vec![cdb.opcode()] })
        }
    }

    const TEST_UNIT_READY: [u8; 6] = [0; 6];
    const INQUIRY: [u8; 6] = [0x12, 0, 0, 0, 36, 0];

    fn port() -> (NodePort, Sender<()>) {
        let (open, gate) = channel();
        let nexus = NexusId { initiator: "i".to_owned(), target_port: "t".to_owned(), generation: 1 };
        (NodePort::new(Arc::new(Gate(Mutex::new(gate))), nexus).expect("a thread"), open)
    }

    fn submit(port: &mut NodePort, tag: u64, cdb: &[u8], transfer: Transfer) -> Result<(), RefusalReason> {
        let command =
            ControlCommand { bytes: CommandBytes::Scsi(Cdb::new(cdb).expect("six bytes")), transfer };
        port.submit_control(Instant::ZERO, ControlRequest { tag: IoTag(tag), command })
    }

    fn next(port: &mut NodePort) -> ControlCompletion {
        loop {
            if let Some(done) = port.poll_control(Instant::ZERO) {
                return done;
            }
            let mut descriptors = Vec::new();
            port.control_wait_on(&mut descriptors);
            wait(&descriptors, None);
        }
    }

    #[test]
    fn a_command_that_hangs_holds_up_no_other_and_is_counted() {
        let (mut port, open) = port();
        for tag in 1..PORT_COMMANDS_MAX as u64 {
            submit(&mut port, tag, &INQUIRY, Transfer::In(36)).unwrap();
        }
        assert_eq!(submit(&mut port, 1, &INQUIRY, Transfer::None), Err(RefusalReason::DuplicateTag));
        for tag in 10..20 {
            submit(&mut port, tag, &TEST_UNIT_READY, Transfer::None).unwrap();
            assert_eq!(next(&mut port).tag, IoTag(tag));
        }
        submit(&mut port, 20, &INQUIRY, Transfer::In(36)).unwrap();
        assert_eq!(submit(&mut port, 21, &TEST_UNIT_READY, Transfer::None), Err(RefusalReason::Busy));
        assert!(commands_at_work() >= PORT_COMMANDS_MAX);

        assert_eq!(port.cancel_control(Instant::ZERO, IoTag(1)), ControlCancelled::Requested);
        assert_eq!(port.cancel_control(Instant::ZERO, IoTag(99)), ControlCancelled::NotHere);
        assert_eq!(port.overdue_count(), 1);
        // Whoever comes back completes, whether it was given up on or not.
        let mut found: Vec<_> = (0..PORT_COMMANDS_MAX)
            .map(|_| {
                open.send(()).unwrap();
                let done = next(&mut port);
                assert_eq!((done.effect, done.copy), (Effect::Full, CopyFate::Dead));
                done.tag.0
            })
            .collect();
        found.sort_unstable();
        assert_eq!(found, [1, 2, 3, 20]);
        assert_eq!((port.overdue_count(), port.thread_count), (0, PORT_COMMANDS_MAX));
    }

    #[test]
    fn a_port_goes_without_its_commands() {
        let (mut port, open) = port();
        submit(&mut port, 1, &INQUIRY, Transfer::In(36)).unwrap();
        let node = Arc::downgrade(&port.node);
        drop(port);
        assert!(node.upgrade().is_some(), "the thread has what it works with");
        open.send(()).unwrap();
        while node.upgrade().is_some() {
            thread::yield_now();
        }
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        let (mut port, _open) = port();
        let too_much = Transfer::In(TRANSFER_MAX_BYTES + 1);
        assert_eq!(submit(&mut port, 1, &INQUIRY, too_much), Err(RefusalReason::Invalid));
        let command =
            ControlCommand { bytes: CommandBytes::Nvme(Default::default()), transfer: Transfer::None };
        let refused = port.submit_control(Instant::ZERO, ControlRequest { tag: IoTag(1), command });
        assert_eq!(refused, Err(RefusalReason::Invalid));
        assert_eq!(port.poll_control(Instant::ZERO), None);
    }
}
