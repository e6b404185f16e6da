//! libiscsi: our own declarations of what is used of it, and a safe session over them. The one place of `unsafe`.
//!
//! ```text
//!  execute ──▶ Running { task, ticket, data } ──(the library's call-back)──▶ ended ──▶ take_ended: the data comes back
//!                        └── quarantine: libiscsi has their addresses ──┘
//! ```
//!
//! Keeps true:
//!
//! * **no buffer is given back while libiscsi could touch it.** From [`Session::execute`] on the session owns the
//!   buffer, and nobody else reaches it. A read's is given back after its call-back, since the library finds a buffer
//!   for what comes in by the task tag among the tasks that have none yet. A write's is given back after its call-back
//!   *and* when nothing is left to be sent, since data PDUs that are queued go on naming the task (a target may answer
//!   before it took all data). What never has a call-back stays until the context is destroyed;
//! * the call-backs only write down what happened; nothing that changes a session is called from inside one;
//! * the library's time-outs are off, and it never connects again nor sends anything a second time;
//! * nothing blocks: the socket does not, and portals are numeric, so that no name is looked up.
//!
//! Two things that libiscsi leaves open are closed here: a command of more than 16 bytes would be written past the
//! header of its PDU, so there is none; and the place of the sense data in `struct scsi_task` differs between versions,
//! so it is found by asking the library (`response_data_offset`). What is not closed, since it is inside the library
//! (1.19): it reads a few bytes past sense data that are too short, and does not expect a target that asks for data of
//! what is no command. It is for targets that one trusts as much as a local disk.
//!
//! Not here: which commands, when to connect again.
#![expect(unsafe_code, reason = "libiscsi is a C library")]

use std::collections::VecDeque;
use std::ffi::{CStr, c_char, c_int, c_uchar, c_void};
use std::mem::offset_of;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::OnceLock;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::identity::Isid;
use crate::block::buffer::{Buffer, SharedBuffer};
use crate::control_port::SENSE_MAX_BYTES;

/// The longest command that the library can send, in bytes.
pub(super) const COMMAND_MAX_BYTES: usize = 16;

/// `struct iscsi_context`.
#[repr(C)]
struct Context {
    opaque: [u8; 0],
}

/// The beginning of `struct scsi_task`, which is the same in all versions; more follows.
#[repr(C)]
struct TaskHead {
    status: c_int,
    cdb_size: c_int,
    xfer_dir: c_int,
    expxferlen: c_int,
    cdb: [c_uchar; COMMAND_MAX_BYTES],
    residual_status: c_int,
    residual: usize,
}

/// `struct scsi_data`, which stands further behind, then a pointer, then the private pointer.
#[repr(C)]
struct ResponseData {
    size: c_int,
    data: *const c_uchar,
}

/// `struct scsi_iovec`.
#[repr(C)]
struct IoVector {
    base: *mut c_void,
    length: usize,
}

type CallBack =
    unsafe extern "C" fn(context: *mut Context, status: c_int, data: *mut c_void, private: *mut c_void);

const TRANSFER_NONE: c_int = 0;
const TRANSFER_READ: c_int = 1;
const TRANSFER_WRITE: c_int = 2;
const RESIDUAL_UNDERFLOW: c_int = 1;
const SESSION_NORMAL: c_int = 2;
const STATUS_GOOD: c_int = 0;
const STATUS_CHECK_CONDITION: c_int = 2;
const STATUS_REDIRECT: c_int = 0x101;
const STATUS_CANCELLED: c_int = 0x0f00_0000;
/// RFC 7143, 11.6.1: the function was done.
const FUNCTION_COMPLETE: u32 = 0;

#[link(name = "iscsi")]
unsafe extern "C" {
    fn iscsi_create_context(initiator: *const c_char) -> *mut Context;
    fn iscsi_destroy_context(context: *mut Context) -> c_int;
    fn iscsi_set_isid_random(context: *mut Context, number: u32, qualifier: u32) -> c_int;
    fn iscsi_set_targetname(context: *mut Context, name: *const c_char) -> c_int;
    fn iscsi_set_session_type(context: *mut Context, kind: c_int) -> c_int;
    fn iscsi_set_initiator_username_pwd(
        context: *mut Context,
        user: *const c_char,
        password: *const c_char,
    ) -> c_int;
    fn iscsi_set_noautoreconnect(context: *mut Context, state: c_int);
    fn iscsi_set_timeout(context: *mut Context, seconds: c_int) -> c_int;
    fn iscsi_connect_async(
        context: *mut Context,
        portal: *const c_char,
        call_back: CallBack,
        private: *mut c_void,
    ) -> c_int;
    fn iscsi_login_async(context: *mut Context, call_back: CallBack, private: *mut c_void) -> c_int;
    fn iscsi_get_fd(context: *mut Context) -> c_int;
    fn iscsi_which_events(context: *mut Context) -> c_int;
    fn iscsi_service(context: *mut Context, events: c_int) -> c_int;
    fn iscsi_out_queue_length(context: *mut Context) -> c_int;
    fn iscsi_get_error(context: *mut Context) -> *const c_char;
    fn iscsi_get_target_address(context: *mut Context) -> *const c_char;
    fn iscsi_scsi_command_async(
        context: *mut Context,
        lun: c_int,
        task: *mut TaskHead,
        call_back: CallBack,
        data: *mut c_void,
        private: *mut c_void,
    ) -> c_int;
    fn iscsi_scsi_cancel_task(context: *mut Context, task: *mut TaskHead) -> c_int;
    fn iscsi_task_mgmt_abort_task_async(
        context: *mut Context,
        task: *mut TaskHead,
        call_back: CallBack,
        private: *mut c_void,
    ) -> c_int;
    fn scsi_create_task(
        cdb_bytes: c_int,
        cdb: *const c_uchar,
        direction: c_int,
        length: c_int,
    ) -> *mut TaskHead;
    fn scsi_free_scsi_task(task: *mut TaskHead);
    fn scsi_set_task_private_ptr(task: *mut TaskHead, private: *mut c_void);
    fn scsi_task_set_iov_in(task: *mut TaskHead, vectors: *mut IoVector, count: c_int);
    fn scsi_task_set_iov_out(task: *mut TaskHead, vectors: *mut IoVector, count: c_int);
}

/// The data of one command, which the session keeps while the library may touch it.
#[derive(Debug)]
pub(super) enum Data {
    /// None.
    None,
    /// To be filled.
    In(Buffer),
    /// To be sent.
    Out(SharedBuffer),
}

impl Data {
    fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::In(buffer) => buffer.len(),
            Self::Out(data) => data.len(),
        }
    }
}

/// What a target answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// The SCSI status.
    pub(super) status: u8,
    /// Bytes that were asked for and did not move.
    pub(super) missing: usize,
    /// Sense data.
    pub(super) sense: Vec<u8>,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The target answered it.
    Answered(Answer),
    /// The target answered that it aborted it.
    Aborted,
    /// The session is over, or the library does not know.
    Lost,
}

/// A command that is over.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) place: usize,
    pub(super) end: End,
    pub(super) data: Data,
}

/// What a session is begun with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Login<'a> {
    pub(super) initiator: &'a CStr,
    pub(super) isid: Isid,
    pub(super) target: &'a CStr,
    /// Address and port in digits.
    pub(super) portal: &'a CStr,
    pub(super) lun: u8,
    /// User and password.
    pub(super) chap: Option<(&'a CStr, &'a CStr)>,
    /// Commands at once; their places are the numbers below it.
    pub(super) places: usize,
}

/// How far a session has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    LoggingIn,
    Up,
}

/// What call-backs write down.
#[derive(Debug, Default)]
struct News {
    connect: Option<c_int>,
    login: Option<c_int>,
    /// Why one of these failed.
    words: String,
    /// Place and status.
    ended: Vec<(usize, c_int)>,
    /// Number of the command, and whether the target aborted it.
    aborts: Vec<(u64, bool)>,
}

/// What a call-back is given: it lives as long as the library may call.
#[derive(Debug)]
struct Ticket {
    news: NonNull<News>,
    place: usize,
    number: u64,
    vector: IoVector,
}

impl std::fmt::Debug for IoVector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IoVector({} bytes)", self.length)
    }
}

/// A command that the library has.
#[derive(Debug)]
struct Running {
    task: NonNull<TaskHead>,
    ticket: NonNull<Ticket>,
    number: u64,
    data: Data,
    /// Set by its call-back.
    status: Option<c_int>,
    is_aborted: bool,
    has_abort: bool,
}

/// One iSCSI session on one connection.
#[derive(Debug)]
pub(super) struct Session {
    /// `None` after its end.
    context: Option<NonNull<Context>>,
    lun: c_int,
    news: NonNull<News>,
    phase: Phase,
    running: Vec<Option<Running>>,
    /// Places in the order in which their call-backs came.
    ended: VecDeque<usize>,
    /// Of the session itself, and of aborts; freed with the session.
    tickets: Vec<NonNull<Ticket>>,
    number: u64,
}

// SAFETY: a context is not tied to a thread, and all of it is reached through `&mut self` or by functions that only look;
// what the pointers lead to belongs to this session alone.
unsafe impl Send for Session {}

impl Session {
    /// Begins to connect. What goes wrong is said in words.
    pub(super) fn begin(login: &Login<'_>) -> Result<Self, String> {
        response_data_offset().ok_or("this libiscsi is not one of those that are known (1.19, 1.20)")?;
        // SAFETY: a string that ends with NUL, which the library copies.
        let context = unsafe { iscsi_create_context(login.initiator.as_ptr()) };
        let context = NonNull::new(context).ok_or("libiscsi gives no context")?;
        let news = NonNull::from(Box::leak(Box::new(News::default())));
        let mut session = Self {
            context: Some(context),
            lun: c_int::from(login.lun),
            news,
            phase: Phase::Connecting,
            running: Vec::new(),
            ended: VecDeque::new(),
            tickets: Vec::new(),
            number: 0,
        };
        session.running.resize_with(login.places, || None);
        let context = context.as_ptr();
        let ticket = session.new_ticket(0);
        // SAFETY: the context was made above; strings end with NUL and are copied; the ticket lives as long as the
        // session, and no call-back comes after that.
        let status = unsafe {
            iscsi_set_noautoreconnect(context, 1);
            iscsi_set_timeout(context, 0);
            iscsi_set_isid_random(context, login.isid.number(), login.isid.qualifier());
            iscsi_set_session_type(context, SESSION_NORMAL);
            iscsi_set_targetname(context, login.target.as_ptr());
            if let Some((user, password)) = login.chap {
                iscsi_set_initiator_username_pwd(context, user.as_ptr(), password.as_ptr());
            }
            iscsi_connect_async(context, login.portal.as_ptr(), connected, ticket.as_ptr().cast())
        };
        // SAFETY: the context lives.
        if status == 0 { Ok(session) } else { Err(unsafe { words_of(context) }) }
    }

    fn context(&self) -> *mut Context {
        self.context.expect("a session that is over is not used").as_ptr()
    }

    fn new_ticket(&mut self, number: u64) -> NonNull<Ticket> {
        let ticket = make_ticket(self.news, 0, number, IoVector { base: ptr::null_mut(), length: 0 });
        self.tickets.push(ticket);
        ticket
    }

    /// Why the connection ended, as far as the library still says: its last words may be about something older.
    fn loss(&self) -> String {
        // SAFETY: the context lives.
        let words = unsafe { words_of(self.context()) };
        if words.contains("errno") { words } else { "the connection ended".to_owned() }
    }

    /// The socket, while there is one. It is closed with the session.
    pub(super) fn socket(&self) -> Option<BorrowedFd<'_>> {
        // SAFETY: the context lives.
        let descriptor = unsafe { iscsi_get_fd(self.context()) };
        // SAFETY: it belongs to the context, which closes it in no call that does not need `&mut self`.
        (descriptor >= 0).then(|| unsafe { BorrowedFd::borrow_raw(descriptor) })
    }

    /// Whether it wants to know when the socket has room.
    pub(super) fn wants_room(&self) -> bool {
        // SAFETY: the context lives; this only looks.
        let events = unsafe { iscsi_which_events(self.context()) };
        events & c_int::from(PollFlags::POLLOUT.bits()) != 0
    }

    /// Whether nothing is queued or half sent.
    ///
    /// The library keeps what it has not sent in the order of the command numbers, data beside their command. So when
    /// it wants no room although something is queued, that waits for the target's window, is of later commands, and no
    /// data of a command that was sent stand before it.
    pub(super) fn has_sent_all(&self) -> bool {
        // SAFETY: the context lives; this only looks.
        !self.wants_room() && unsafe { iscsi_out_queue_length(self.context()) } == 0
    }

    /// Whether commands can be given to it.
    pub(super) fn is_up(&self) -> bool {
        self.phase == Phase::Up
    }

    /// Moves what can be moved without waiting. After an error the session is over: [`Self::lose`] it.
    pub(super) fn serve(&mut self) -> Result<(), String> {
        let wanted = PollFlags::POLLIN | PollFlags::POLLOUT;
        let ready = if self.phase == Phase::Connecting { self.readiness() } else { wanted };
        if ready.is_empty() {
            return Ok(());
        }
        // SAFETY: the context lives, and so does all that its call-backs are given.
        let status = unsafe { iscsi_service(self.context(), c_int::from(ready.bits())) };
        self.take_news()?;
        if status < 0 { Err(self.loss()) } else { Ok(()) }
    }

    fn readiness(&self) -> PollFlags {
        let Some(socket) = self.socket() else { return PollFlags::POLLERR };
        let mut polled = [PollFd::new(socket, PollFlags::POLLOUT)];
        let found = poll(&mut polled, PollTimeout::ZERO);
        let [socket] = polled;
        if found.is_ok() { socket.revents().unwrap_or(PollFlags::empty()) } else { PollFlags::empty() }
    }

    /// Gives a command to the library, or the data back. It is sent by [`Self::serve`].
    ///
    /// # Panics
    /// If the place is taken, or the command is too long.
    pub(super) fn execute(&mut self, place: usize, command: &[u8], mut data: Data) -> Result<(), Data> {
        assert!(self.running[place].is_none() && command.len() <= COMMAND_MAX_BYTES);
        let length = data.len();
        let (direction, base) = match &mut data {
            Data::None => (TRANSFER_NONE, ptr::null_mut()),
            Data::In(buffer) => (TRANSFER_READ, buffer.as_mut_ptr().cast()),
            Data::Out(bytes) => (TRANSFER_WRITE, bytes.as_ptr().cast_mut().cast()),
        };
        let Ok(expected) = c_int::try_from(length) else { return Err(data) };
        let command_bytes = c_int::try_from(command.len()).expect("at most 16");
        // SAFETY: the command has so many bytes, and they are copied.
        let task = unsafe { scsi_create_task(command_bytes, command.as_ptr(), direction, expected) };
        let Some(task) = NonNull::new(task) else { return Err(data) };
        self.number += 1;
        let ticket = make_ticket(self.news, place, self.number, IoVector { base, length });
        let raw = ticket.as_ptr();
        // SAFETY: `task` was made above and is given to the library once. The vector lies in the ticket, which lives
        // until the task does no more; it names the memory of `data`, which moves into the table below and is not
        // reached by anyone until it comes out: as the module says, no sooner than the library is done with it. A
        // write's memory is only read.
        let status = unsafe {
            let vector = &raw mut (*raw).vector;
            match direction {
                TRANSFER_READ => scsi_task_set_iov_in(task.as_ptr(), vector, 1),
                TRANSFER_WRITE => scsi_task_set_iov_out(task.as_ptr(), vector, 1),
                _ => {}
            }
            let context = self.context();
            iscsi_scsi_command_async(context, self.lun, task.as_ptr(), answered, ptr::null_mut(), raw.cast())
        };
        let (number, is_aborted, has_abort) = (self.number, false, false);
        let running = Running { task, ticket, number, data, status: None, is_aborted, has_abort };
        if status == 0 {
            self.running[place] = Some(running);
            Ok(())
        } else {
            Err(free(running))
        }
    }

    /// Asks the target to abort a command, once.
    pub(super) fn abort(&mut self, place: usize) {
        let Some(running) = &mut self.running[place] else { return };
        if running.status.is_some() || std::mem::replace(&mut running.has_abort, true) {
            return;
        }
        let (task, number) = (running.task, running.number);
        let ticket = self.new_ticket(number);
        // SAFETY: the task is one that the library has; it reads the task's numbers now and does not keep it. The ticket
        // lives as long as the session. Where this fails, nothing was asked.
        unsafe {
            iscsi_task_mgmt_abort_task_async(
                self.context(),
                task.as_ptr(),
                abort_answered,
                ticket.as_ptr().cast(),
            )
        };
    }

    /// Hands out a command that is over.
    pub(super) fn take_ended(&mut self) -> Option<Ended> {
        let first = *self.ended.front()?;
        let is_write =
            |place: &usize| matches!(self.running[*place], Some(Running { data: Data::Out(_), .. }));
        let index = if is_write(&first) && !self.has_sent_all() {
            self.ended.iter().position(|place| !is_write(place))?
        } else {
            0
        };
        let place = self.ended.remove(index).expect("found just now");
        let running = self.running[place].take().expect("what is over was running");
        let end = end_of(&running);
        Some(Ended { place, end, data: free(running) })
    }

    /// Ends the session; every command that it had comes back.
    pub(super) fn lose(mut self) -> Vec<Ended> {
        self.destroy();
        let places = 0..self.running.len();
        let lost = places.filter_map(|place| {
            let running = self.running[place].take()?;
            let end = end_of(&running);
            Some(Ended { place, end, data: free(running) })
        });
        lost.collect()
    }

    /// Acts on what call-backs wrote down.
    fn take_news(&mut self) -> Result<(), String> {
        // SAFETY: no call-back is running, so nobody else reaches it.
        let news = std::mem::take(unsafe { self.news.as_mut() });
        if let Some(status) = news.connect {
            self.log_in(status, &news.words)?;
        }
        if let Some(status) = news.login {
            self.begin_to_work(status, &news.words)?;
        }
        let mut is_lost = self.take_statuses(&news.ended);
        for (number, is_done) in news.aborts {
            is_lost |= is_done && self.forget(number);
        }
        if is_lost { Err(self.loss()) } else { Ok(()) }
    }

    fn log_in(&mut self, status: c_int, words: &str) -> Result<(), String> {
        if status != STATUS_GOOD {
            return Err(words.to_owned());
        }
        self.phase = Phase::LoggingIn;
        let ticket = self.new_ticket(0);
        // SAFETY: the context lives, and the ticket as long as the session.
        let status = unsafe { iscsi_login_async(self.context(), logged_in, ticket.as_ptr().cast()) };
        // SAFETY: the context lives.
        if status == 0 { Ok(()) } else { Err(unsafe { words_of(self.context()) }) }
    }

    fn begin_to_work(&mut self, status: c_int, words: &str) -> Result<(), String> {
        match status {
            STATUS_GOOD => {
                self.phase = Phase::Up;
                Ok(())
            }
            STATUS_REDIRECT => {
                // SAFETY: the context lives; the string lies in it and is copied.
                let to = unsafe { CStr::from_ptr(iscsi_get_target_address(self.context())) };
                Err(format!("the target has moved to {}: write that address", to.to_string_lossy()))
            }
            _ => Err(words.to_owned()),
        }
    }

    /// Notes how commands ended; says whether one was dropped without being aborted.
    fn take_statuses(&mut self, ended: &[(usize, c_int)]) -> bool {
        let mut is_lost = false;
        for (place, status) in ended {
            let running = self.running[*place].as_mut().expect("call-backs come for what is running");
            running.status = Some(*status);
            is_lost |= *status == STATUS_CANCELLED && !running.is_aborted;
            self.ended.push_back(*place);
        }
        is_lost
    }

    /// The target says that it aborted a command: no answer will come. Says whether the session is lost.
    fn forget(&mut self, number: u64) -> bool {
        let context = self.context();
        let is_it = |running: &&mut Running| running.number == number && running.status.is_none();
        let Some(running) = self.running.iter_mut().flatten().find(is_it) else { return false };
        running.is_aborted = true;
        // SAFETY: the library has this task, since its call-back has not come; it comes now, from inside this call.
        unsafe { iscsi_scsi_cancel_task(context, running.task.as_ptr()) };
        // SAFETY: no call-back is running.
        let news = std::mem::take(unsafe { self.news.as_mut() });
        self.take_statuses(&news.ended)
    }

    fn destroy(&mut self) {
        let Some(context) = self.context.take() else { return };
        // SAFETY: the context lives and is not used after this. Call-backs that come from inside this call find their
        // tickets and the news, which are freed later; none comes after it.
        unsafe { iscsi_destroy_context(context.as_ptr()) };
        // SAFETY: no call-back will run any more.
        let news = std::mem::take(unsafe { self.news.as_mut() });
        self.take_statuses(&news.ended);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.destroy();
        self.running.drain(..).flatten().for_each(|running| drop(free(running)));
        for ticket in self.tickets.drain(..) {
            // SAFETY: made by `make_ticket`, freed once, and no call-back comes any more.
            drop(unsafe { Box::from_raw(ticket.as_ptr()) });
        }
        // SAFETY: leaked by `begin`, freed once, and nothing leads there any more.
        drop(unsafe { Box::from_raw(self.news.as_ptr()) });
    }
}

fn make_ticket(news: NonNull<News>, place: usize, number: u64, vector: IoVector) -> NonNull<Ticket> {
    NonNull::from(Box::leak(Box::new(Ticket { news, place, number, vector })))
}

/// Frees what a command had beside its data.
fn free(running: Running) -> Data {
    // SAFETY: the library is done with the task: it never had it, it is over as the module says, or the context is
    // destroyed. Task and ticket were made by `execute` and are freed once.
    unsafe {
        scsi_free_scsi_task(running.task.as_ptr());
        drop(Box::from_raw(running.ticket.as_ptr()));
    }
    running.data
}

fn end_of(running: &Running) -> End {
    let Some(status) = running.status else { return End::Lost };
    if running.is_aborted {
        return End::Aborted;
    }
    // What is no byte is a status of the library and not of the target.
    let Ok(byte) = u8::try_from(status) else { return End::Lost };
    // SAFETY: the task lives until it is freed, and the library is done with it.
    let head = unsafe { running.task.as_ref() };
    let is_short = head.residual_status == RESIDUAL_UNDERFLOW;
    let missing = if is_short { head.residual.min(running.data.len()) } else { 0 };
    let sense = if status == STATUS_CHECK_CONDITION { sense_of(running.task) } else { Vec::new() };
    End::Answered(Answer { status: byte, missing, sense })
}

/// The sense data of a task that ended with CHECK CONDITION: behind two bytes with their length (RFC 7143, 11.4.7.2).
fn sense_of(task: NonNull<TaskHead>) -> Vec<u8> {
    let offset = response_data_offset().expect("looked at before the first session");
    // SAFETY: at this offset of a task the library has its `struct scsi_data`; `data` is null or leads to `size` bytes
    // that belong to the task, and they are copied before it is freed.
    let bytes = unsafe {
        let found = &*task.as_ptr().byte_add(offset).cast::<ResponseData>();
        match usize::try_from(found.size) {
            Ok(size) if !found.data.is_null() => std::slice::from_raw_parts(found.data, size),
            _ => &[],
        }
    };
    let [high, low, rest @ ..] = bytes else { return Vec::new() };
    let length = usize::from(u16::from(*high) << 8 | u16::from(*low));
    rest[..length.min(rest.len()).min(SENSE_MAX_BYTES)].to_vec()
}

/// Where `datain` stands in `struct scsi_task`: before the pointer `mem` and the private pointer, which the library is
/// asked to set. `None` where that is not found, in a library of a shape that is not known.
fn response_data_offset() -> Option<usize> {
    static OFFSET: OnceLock<Option<usize>> = OnceLock::new();
    *OFFSET.get_or_init(|| {
        let mark = 0_u8;
        let mark = (&raw const mark).cast_mut().cast::<c_void>();
        // SAFETY: six zero bytes are TEST UNIT READY; the task is freed below.
        let task = NonNull::new(unsafe { scsi_create_task(6, [0; 6].as_ptr(), TRANSFER_NONE, 0) })?;
        let step = size_of::<*mut c_void>();
        let behind_head = offset_of!(TaskHead, residual) + size_of::<usize>();
        let places = (behind_head..=behind_head + 9 * step).step_by(step);
        // SAFETY: the smallest task that is known is this long: behind the head stand sense (16 bytes), data, two
        // pointers, three numbers and two vectors of four words, and all of it is zeroed memory.
        let is_mark =
            |place: &usize| unsafe { task.as_ptr().byte_add(*place).cast::<*mut c_void>().read() } == mark;
        // SAFETY: the library only keeps the pointer.
        unsafe { scsi_set_task_private_ptr(task.as_ptr(), mark) };
        let found = places.into_iter().find(is_mark);
        // SAFETY: made above, never given to a context.
        unsafe { scsi_free_scsi_task(task.as_ptr()) };
        found?.checked_sub(step + size_of::<ResponseData>()).filter(|offset| *offset >= behind_head)
    })
}

/// What a call-back is to write to, and its ticket.
///
/// # Safety
/// `private` is a ticket that lives, and nobody else looks at the news meanwhile.
unsafe fn note<'a>(private: *mut c_void) -> (&'a mut News, &'a Ticket) {
    // SAFETY: as the caller says. The news are only reached between calls into the library, and by its call-backs.
    unsafe {
        let ticket = &*private.cast::<Ticket>();
        (&mut *ticket.news.as_ptr(), ticket)
    }
}

/// What the library says went wrong last.
///
/// # Safety
/// The context lives.
unsafe fn words_of(context: *mut Context) -> String {
    // SAFETY: the string lies in the context, ends with NUL, and is copied before anything else is called.
    unsafe { CStr::from_ptr(iscsi_get_error(context)) }.to_string_lossy().trim().to_owned()
}

unsafe extern "C" fn connected(context: *mut Context, status: c_int, _: *mut c_void, private: *mut c_void) {
    // SAFETY: `begin` gave its ticket, and the context is the one that calls.
    let (news, words) = unsafe { (note(private).0, words_of(context)) };
    (news.connect, news.words) = (Some(status), words);
}

unsafe extern "C" fn logged_in(context: *mut Context, status: c_int, _: *mut c_void, private: *mut c_void) {
    // SAFETY: `log_in` gave its ticket, and the context is the one that calls.
    let (news, words) = unsafe { (note(private).0, words_of(context)) };
    (news.login, news.words) = (Some(status), words);
}

unsafe extern "C" fn answered(_: *mut Context, status: c_int, _: *mut c_void, private: *mut c_void) {
    // SAFETY: `execute` gave its ticket.
    let (news, ticket) = unsafe { note(private) };
    news.ended.push((ticket.place, status));
}

unsafe extern "C" fn abort_answered(_: *mut Context, status: c_int, data: *mut c_void, private: *mut c_void) {
    // SAFETY: `abort` gave its ticket.
    let (news, ticket) = unsafe { note(private) };
    // SAFETY: with this status the data are the response code, in a number of 32 bits.
    let is_done =
        status == STATUS_GOOD && !data.is_null() && unsafe { data.cast::<u32>().read() } == FUNCTION_COMPLETE;
    news.aborts.push((ticket.number, is_done));
}
