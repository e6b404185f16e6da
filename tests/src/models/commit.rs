//! The commit of one file: sender, receiver, one transfer id, and what crashes leave on the disk.
//!
//! ```text
//!  sender                                   receiver
//!  REQUEST (permit bit)        ------->     journal? partial file? else a new one     ACCEPT, REFUSE,
//!  data, root                  ------->     write, fsync, fsync of the folder         COMMITTED, ABORTED
//!  journal "permit", PERMIT    <-READY-     INTENT, rename, fsync of the target's folder, COMMITTED
//!  ABORT                       ------->     ABORTED, unless INTENT exists
//!  result: COMMITTED, ABORTED, IN-DOUBT     at start: INTENT is finished before anything else
//! ```
//!
//! Both sides crash at every step: a killed process keeps what is visible, a power loss keeps what was
//! synced, and may keep more. The sender connects again as often as it likes; words of its older
//! connection may still be on the way then, and work that they caused may still be under way. A rename may
//! be one that can never succeed.
//!
//! What holds: every part of the rules is a switch of [`Rules`]. Not here: batches, resume offsets,
//! directories, a user who moves the target away, an fsync that lies, a rename that leaves both names.

use super::Model;

/// What becomes of a rename that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedRename {
    /// ABORTED is journalled; the partial file goes.
    Aborts,
    /// It is reported as done.
    TakenAsDone,
    /// It may only be tried again.
    TriedAgain,
}

/// The rules of the commit, as switches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The receiver publishes only when permitted, else as soon as it has everything.
    pub permit: bool,
    /// The receiver journals INTENT, COMMITTED and ABORTED.
    pub journal: bool,
    /// A sender without an answer after its permit is in doubt; else it says that it failed.
    pub in_doubt: bool,
    /// The folder of the partial files is synced before READY.
    pub sync_partial: bool,
    /// The folder of the target is synced before COMMITTED.
    pub sync_target: bool,
    /// REQUEST says whether a permit was ever issued.
    pub permit_bit: bool,
    /// After its permit the sender takes its own ABORT as final.
    pub abort_is_final: bool,
    /// What a failed rename leads to.
    pub failed_rename: FailedRename,
    /// A receiver opens a file only when no work of an older connection is under way for it.
    pub exclusive: bool,
    /// REFUSE leaves a permit standing: the sender stays in doubt, and says so again.
    pub refuse_keeps_permit: bool,
}

impl Rules {
    /// The rules as they are.
    pub const FULL: Self = Self {
        permit: true,
        journal: true,
        in_doubt: true,
        sync_partial: true,
        sync_target: true,
        permit_bit: true,
        abort_is_final: false,
        failed_rename: FailedRename::Aborts,
        exclusive: true,
        refuse_keeps_permit: true,
    };
}

/// Rules and bounds of one variant.
#[derive(Clone, Copy, Debug)]
pub struct Commit {
    /// The rules.
    pub rules: Rules,
    /// Crashes of the receiver.
    pub crashes: u8,
    /// Whether COMMITTED and ABORTED may be forgotten.
    pub prune: bool,
    /// Whether a receiver may refuse for a passing reason (it stops, it has no room).
    pub refusals: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Sender {
    /// No process, or one without a connection.
    Away,
    /// REQUEST said.
    Asked,
    /// Everything sent.
    Sent,
    /// The permit is journalled, not said.
    Permitting,
    /// PERMIT said.
    Permitted,
    /// ABORT said.
    Aborting,
    /// It has its last word.
    Ended,
}

/// One connection's work on the file, at the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Work {
    None,
    Accepted,
    Written,
    DataSynced,
    Ready,
    /// PERMIT was taken; INTENT is about to be journalled.
    Publishing,
    Intent,
    Renamed,
    RenameFailed,
    TargetSynced,
    Aborting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Journal {
    Empty,
    Intent,
    Committed,
    Aborted,
}

/// The last word on its way to the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Word {
    None,
    Accept,
    Ready,
    Committed,
    Aborted,
    Refused,
}

/// Where a content is, and how well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Content {
    Absent,
    /// Not complete, or lost by a crash.
    Broken,
    /// Complete, not synced.
    Cached,
    Durable,
}

/// The two names: what is seen, and what a power loss leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Names {
    partial: Content,
    target: Content,
}

/// What the sender told its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Told {
    Nothing,
    Committed,
    Aborted,
    /// The receiver does not know the id any more: in doubt for good.
    InDoubt,
}

/// A state of the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    sender: Sender,
    /// "Permit issued" in the sender's journal.
    permit: bool,
    told: Told,
    /// REQUEST waits for the receiver, with its permit bit.
    request: Option<bool>,
    /// Words of the connection that the receiver works on.
    permit_said: bool,
    abort_said: bool,
    /// Whether that connection is still the sender's.
    live: bool,
    word: Word,
    work: Work,
    /// Work of an older connection that goes on.
    old_work: Work,
    journal: Journal,
    seen: Names,
    durable: Names,
    /// The rename can never succeed.
    blocked: bool,
    crashes_left: u8,
    twice: bool,
}

type Steps = Vec<(&'static str, State)>;

impl Commit {
    /// The rules as they are, with three crashes and a journal that forgets.
    pub const FULL: Self = Self { rules: Rules::FULL, crashes: 3, prune: true, refusals: true };

    fn sender_steps(&self, state: &State, steps: &mut Steps) {
        let rules = self.rules;
        let mut push = |name, after: State| steps.push((name, after));
        let with = |sender| State { sender, ..*state };
        match state.sender {
            Sender::Ended => return,
            Sender::Away => {
                let request = Some(state.permit && rules.permit_bit);
                push(
                    "sender connects",
                    State { request, live: false, word: Word::None, ..with(Sender::Asked) },
                );
            }
            Sender::Asked if state.word == Word::Accept => {
                push("sender sends everything", State { word: Word::None, ..with(Sender::Sent) });
            }
            Sender::Sent if state.word == Word::Ready => {
                push(
                    "sender journals the permit",
                    State { permit: true, word: Word::None, ..with(Sender::Permitting) },
                );
            }
            Sender::Permitting => push("PERMIT", State { permit_said: true, ..with(Sender::Permitted) }),
            _ => {}
        }
        if matches!(state.sender, Sender::Asked | Sender::Sent) && state.live {
            push("ABORT", State { abort_said: true, ..with(Sender::Aborting) });
        }
        if state.sender == Sender::Permitted && rules.abort_is_final {
            push(
                "ABORT after PERMIT",
                State { abort_said: true, told: Told::Aborted, ..with(Sender::Ended) },
            );
        }
        if state.sender != Sender::Ended {
            self.last_words(state, steps);
        }
        if !matches!(state.sender, Sender::Away | Sender::Ended) {
            let away = State { live: false, word: Word::None, ..with(Sender::Away) };
            steps.push(("sender loses its connection", away));
            let may_say_aborted = !state.permit || !rules.in_doubt;
            if may_say_aborted {
                // For good: no later run takes up this id.
                steps.push((
                    "sender gives up and says ABORTED",
                    State { told: Told::Aborted, sender: Sender::Ended, ..away },
                ));
            }
        }
    }

    fn last_words(&self, state: &State, steps: &mut Steps) {
        let end = |told| State { told, sender: Sender::Ended, word: Word::None, ..*state };
        match state.word {
            Word::Committed => steps.push(("sender hears COMMITTED", end(Told::Committed))),
            Word::Aborted => steps.push(("sender hears ABORTED", end(Told::Aborted))),
            Word::Refused if !state.permit => steps.push(("sender hears REFUSE", end(Told::Aborted))),
            Word::Refused if self.rules.refuse_keeps_permit => {
                steps.push((
                    "sender hears REFUSE and stays in doubt",
                    State { sender: Sender::Away, word: Word::None, live: false, ..*state },
                ));
                steps.push(("sender hears REFUSE and rests in doubt", end(Told::InDoubt)));
            }
            Word::Refused => {
                let forgot =
                    State { permit: false, sender: Sender::Away, word: Word::None, live: false, ..*state };
                steps.push(("sender hears REFUSE and forgets its permit", forgot));
            }
            _ => {}
        }
    }

    /// The receiver takes a REQUEST.
    fn open_steps(&self, state: &State, steps: &mut Steps) {
        let Some(permitted) = state.request else { return };
        // A dying older connection ends here; work that is under way goes on.
        let under_way = |work| !matches!(work, Work::None | Work::Accepted | Work::Ready);
        let free = State { request: None, permit_said: false, abort_said: false, live: true, ..*state };
        if self.refusals_possible(state) {
            steps.push((
                "receiver refuses for now",
                State { word: Word::Refused, ..State { request: None, ..*state } },
            ));
        }
        if state.old_work != Work::None || under_way(state.work) && self.rules.exclusive {
            return;
        }
        let mut open = State { work: Work::None, ..free };
        if under_way(state.work) {
            open.old_work = state.work;
        }
        let after = match state.journal {
            Journal::Committed => State { word: Word::Committed, ..open },
            Journal::Aborted => State { word: Word::Aborted, ..open },
            Journal::Intent => return,
            Journal::Empty if state.seen.partial == Content::Absent && permitted => {
                State { word: Word::Refused, ..open }
            }
            Journal::Empty => {
                if state.seen.partial == Content::Absent {
                    open.seen.partial = Content::Broken;
                }
                State { word: Word::Accept, work: Work::Accepted, ..open }
            }
        };
        steps.push(("receiver takes REQUEST", after));
    }

    fn refusals_possible(&self, state: &State) -> bool {
        self.refusals && state.sender == Sender::Asked
    }

    /// The connection's own work, and what the receiver says in it.
    fn receiver_steps(&self, state: &State, steps: &mut Steps) {
        let rules = self.rules;
        let say = |mut after: State, word| {
            if after.live {
                after.word = word;
            }
            after
        };
        let mut push = |name, after: State| steps.push((name, after));
        match state.work {
            Work::Accepted if state.seen.partial == Content::Absent => {
                push(
                    "receiver misses the file it opened",
                    say(State { work: Work::None, ..*state }, Word::Refused),
                );
            }
            Work::Accepted if state.live && state.sender == Sender::Sent => {
                // The content is the same whoever writes it; it is not durable any more.
                let mut after = State { work: Work::Written, ..*state };
                after.seen.partial = Content::Cached;
                after.durable.partial = match after.durable.partial {
                    Content::Absent => Content::Absent,
                    _ => Content::Broken,
                };
                push("receiver writes", after);
            }
            Work::Written if state.seen.partial == Content::Absent => {
                push("receiver misses the file", State { work: Work::Aborting, ..*state });
            }
            Work::Written => {
                let mut after = State { work: Work::DataSynced, ..*state };
                after.seen.partial = Content::Durable;
                if after.durable.partial != Content::Absent {
                    after.durable.partial = Content::Durable;
                }
                push("receiver syncs the data", after);
            }
            Work::DataSynced => {
                let mut after = State { work: Work::Ready, ..*state };
                if rules.sync_partial {
                    after.durable.partial = after.seen.partial;
                }
                if rules.permit {
                    push("READY", say(after, Word::Ready));
                } else {
                    push("receiver publishes at LAST", State { work: Work::Publishing, ..after });
                }
            }
            Work::Ready if state.permit_said => {
                push("receiver takes PERMIT", State { work: Work::Publishing, ..*state });
            }
            Work::Aborting => {
                let mut after = State { work: Work::None, ..*state };
                if rules.journal {
                    after.journal = Journal::Aborted;
                }
                // Discarded, not synced: a power loss may bring it back.
                after.seen.partial = Content::Absent;
                push("receiver journals ABORTED", say(after, Word::Aborted));
            }
            _ => {}
        }
        if state.abort_said
            && matches!(state.work, Work::Accepted | Work::Written | Work::DataSynced | Work::Ready)
        {
            push("receiver takes ABORT", State { work: Work::Aborting, ..*state });
        }
    }

    /// Publishing: by the connection's work, by that of an older one, or after a start.
    fn publish_steps(&self, state: &State, old: bool, steps: &mut Steps) {
        let rules = self.rules;
        let work = if old { state.old_work } else { state.work };
        let with = |mut after: State, work| {
            *(if old { &mut after.old_work } else { &mut after.work }) = work;
            after
        };
        let say = |mut after: State, word| {
            if after.live && !old {
                after.word = word;
            }
            after
        };
        let abort = |mut after: State| {
            after.journal = if rules.journal { Journal::Aborted } else { after.journal };
            after.seen.partial = Content::Absent;
            after
        };
        match work {
            Work::Publishing => {
                let journal = if rules.journal { Journal::Intent } else { state.journal };
                steps.push(("INTENT", with(State { journal, ..*state }, Work::Intent)));
            }
            Work::Intent if state.blocked || state.seen.partial == Content::Absent => {
                steps.push(("rename fails", with(*state, Work::RenameFailed)));
            }
            Work::Intent => {
                let mut after = with(*state, Work::Renamed);
                after.twice |= state.seen.target != Content::Absent;
                after.seen = Names { partial: Content::Absent, target: state.seen.partial };
                steps.push(("rename", after));
            }
            Work::RenameFailed => match rules.failed_rename {
                FailedRename::Aborts => steps
                    .push(("ABORTED after the rename", say(with(abort(*state), Work::None), Word::Aborted))),
                FailedRename::TakenAsDone => {
                    steps.push(("failed rename taken as done", with(*state, Work::Renamed)))
                }
                FailedRename::TriedAgain => steps.push(("rename again", with(*state, Work::Intent))),
            },
            Work::Renamed => {
                let mut after = with(*state, Work::TargetSynced);
                if rules.sync_target {
                    after.durable.target = state.seen.target;
                    after.durable.partial = state.seen.partial;
                }
                steps.push(("receiver syncs the target's folder", after));
            }
            Work::TargetSynced => {
                let journal = if rules.journal { Journal::Committed } else { state.journal };
                steps
                    .push(("COMMITTED", say(with(State { journal, ..*state }, Work::None), Word::Committed)));
            }
            _ => {}
        }
    }

    fn crash_steps(&self, state: &State, steps: &mut Steps) {
        if self.prune
            && matches!(state.journal, Journal::Committed | Journal::Aborted)
            && (state.work, state.old_work) == (Work::None, Work::None)
        {
            steps.push(("the journal forgets", State { journal: Journal::Empty, ..*state }));
        }
        if state.crashes_left == 0 {
            return;
        }
        let mut down = State {
            work: Work::None,
            old_work: Work::None,
            live: false,
            permit_said: false,
            abort_said: false,
            crashes_left: state.crashes_left - 1,
            ..*state
        };
        // What is under way is finished or aborted before anything else is done.
        let recovered = |mut down: State| {
            if down.journal == Journal::Intent {
                down.work = if down.seen.partial == Content::Absent { Work::Renamed } else { Work::Intent };
            }
            down
        };
        steps.push(("receiver is killed", recovered(down)));
        let lost = |content| if content == Content::Cached { Content::Broken } else { content };
        let kept = Names { partial: lost(state.seen.partial), target: lost(state.seen.target) };
        for (name, names) in [("power loss", state.durable), ("power loss, names kept", kept)] {
            (down.seen, down.durable) = (names, names);
            steps.push((name, recovered(down)));
        }
    }
}

impl Model for Commit {
    type State = State;
    type Action = &'static str;

    fn initial(&self) -> Vec<State> {
        let nothing = Names { partial: Content::Absent, target: Content::Absent };
        let begin = |blocked| State {
            sender: Sender::Away,
            permit: false,
            told: Told::Nothing,
            request: None,
            permit_said: false,
            abort_said: false,
            live: false,
            word: Word::None,
            work: Work::None,
            old_work: Work::None,
            journal: Journal::Empty,
            seen: nothing,
            durable: nothing,
            blocked,
            crashes_left: self.crashes,
            twice: false,
        };
        vec![begin(false), begin(true)]
    }

    fn successors(&self, state: &State, steps: &mut Steps) {
        self.sender_steps(state, steps);
        self.open_steps(state, steps);
        self.receiver_steps(state, steps);
        self.publish_steps(state, false, steps);
        self.publish_steps(state, true, steps);
        self.crash_steps(state, steps);
    }

    fn violation(&self, state: &State) -> Option<&'static str> {
        let published = state.seen.target != Content::Absent;
        match state.told {
            Told::Committed if !published => Some("COMMITTED without a file"),
            Told::Committed if state.seen.target == Content::Broken => Some("COMMITTED without its content"),
            Told::Aborted if published => Some("said to have failed, but published"),
            _ if state.twice => Some("published twice"),
            _ => None,
        }
    }

    fn is_done(&self, state: &State) -> bool {
        state.sender == Sender::Ended
    }
}
