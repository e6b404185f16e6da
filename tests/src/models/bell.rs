//! The bell: several callers, one who is called, and rings that land late.
//!
//! ```text
//!  caller i                               who is called
//!  beacon i := request n                  polls BELL: another value than the remembered one?
//!  BELL := a new token        ------->      remembers it, then scans beacon 0, beacon 1, ...
//!  waits until it is found    <-------    a request not known yet is found
//! ```
//!
//! The scan reads one beacon after another, and the bell may be polled while it runs. A ring may leave a
//! late copy, which brings an old token back. Nobody rings twice for one request.
//!
//! What holds: a request that can no longer be found is a stuck state; [`Rules`] are the switches. Not
//! here: beacons that do not verify, the token bucket of scans, repeated rings (rule 19), time.

use super::Model;
use super::late::LateWrites;

/// Callers at most.
const CALLERS_MAX: usize = 3;
/// Late rings that a state can hold.
const LATE_MAX: usize = 2;
const BELL: usize = 0;

/// When the new value of the bell is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remember {
    /// Before the scan.
    BeforeScan,
    /// When the scan is over, as it is then.
    AfterScan,
}

/// What becomes of a ring that is noticed while a scan runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DuringScan {
    /// Another scan follows.
    ScansAgain,
    /// The end of the running scan answers it.
    Forgotten,
}

/// The rules, as switches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The beacon is written before the ring.
    pub beacon_first: bool,
    /// When the bell is remembered.
    pub remember: Remember,
    /// Rings noticed while a scan runs.
    pub during_scan: DuringScan,
    /// A scan starts from time to time without a ring.
    pub fallback: bool,
}

impl Rules {
    /// The rules as they are.
    pub const FULL: Self = Self {
        beacon_first: true,
        remember: Remember::BeforeScan,
        during_scan: DuringScan::ScansAgain,
        fallback: true,
    };
}

/// Rules and bounds of one variant.
#[derive(Clone, Copy, Debug)]
pub struct Bell {
    /// The rules.
    pub rules: Rules,
    /// Callers.
    pub callers: u8,
    /// Requests of each.
    pub requests: u8,
    /// Late rings in all.
    pub late: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Calling {
    #[default]
    Idle,
    /// The first of the two writes is done.
    Half,
    Rung,
}

/// A state of the bell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    beacons: [u8; CALLERS_MAX],
    callers: [(Calling, u8); CALLERS_MAX],
    bell: u8,
    tokens: u8,
    late: LateWrites<LATE_MAX>,
    late_left: u8,
    remembered: u8,
    scan_due: bool,
    /// The next beacon of the running scan.
    scanning: Option<u8>,
    known: [u8; CALLERS_MAX],
}

type Steps = Vec<(&'static str, State)>;

impl Bell {
    /// The rules as they are: two callers with two requests each, two late rings.
    pub const FULL: Self = Self { rules: Rules::FULL, callers: 2, requests: 2, late: 2 };

    fn caller_steps(&self, state: &State, at: usize, steps: &mut Steps) {
        let (calling, request) = state.callers[at];
        let ring_now = self.rules.beacon_first == (calling == Calling::Half);
        let mut after = *state;
        match calling {
            Calling::Rung => {
                if state.known[at] == request {
                    after.callers[at].0 = Calling::Idle;
                    steps.push(("the caller is found", after));
                }
                return;
            }
            Calling::Idle if request == self.requests => return,
            Calling::Idle => after.callers[at] = (Calling::Half, request + 1),
            Calling::Half => after.callers[at].0 = Calling::Rung,
        }
        if !ring_now {
            after.beacons[at] = after.callers[at].1;
            steps.push(("a caller writes its beacon", after));
            return;
        }
        after.tokens += 1;
        after.bell = after.tokens;
        steps.push(("a caller rings", after));
        let late = after.late.with(BELL, after.tokens.into(), LATE_MAX);
        if let Some(late) = late.filter(|_| after.late_left > 0) {
            steps.push((
                "a caller rings, a copy comes later",
                State { late, late_left: after.late_left - 1, ..after },
            ));
        }
    }

    fn called_steps(&self, state: &State, steps: &mut Steps) {
        if state.bell != state.remembered && !(state.scan_due && self.rules.remember == Remember::AfterScan) {
            let mut after = State { scan_due: true, ..*state };
            if self.rules.remember == Remember::BeforeScan {
                after.remembered = state.bell;
            }
            steps.push(("the bell has changed", after));
        }
        match state.scanning {
            None if state.scan_due => {
                steps.push(("a scan begins", State { scan_due: false, scanning: Some(0), ..*state }));
            }
            None if self.rules.fallback => {
                steps.push(("a scan begins by itself", State { scanning: Some(0), ..*state }));
            }
            None => {}
            Some(at) if at == self.callers => {
                let mut after = State { scanning: None, ..*state };
                if self.rules.during_scan == DuringScan::Forgotten {
                    after.scan_due = false;
                }
                if self.rules.remember == Remember::AfterScan {
                    after.remembered = state.bell;
                    after.scan_due = false;
                }
                steps.push(("the scan ends", after));
            }
            Some(at) => {
                let mut after = State { scanning: Some(at + 1), ..*state };
                after.known[usize::from(at)] = state.beacons[usize::from(at)];
                steps.push(("a beacon is read", after));
            }
        }
    }
}

impl Model for Bell {
    type State = State;
    type Action = &'static str;

    fn initial(&self) -> Vec<State> {
        assert!(usize::from(self.callers) <= CALLERS_MAX, "bounds fit the state");
        vec![State {
            beacons: [0; CALLERS_MAX],
            callers: Default::default(),
            bell: 0,
            tokens: 0,
            late: LateWrites::NONE,
            late_left: self.late,
            remembered: 0,
            scan_due: false,
            scanning: None,
            known: [0; CALLERS_MAX],
        }]
    }

    fn successors(&self, state: &State, steps: &mut Steps) {
        for at in 0..usize::from(self.callers) {
            self.caller_steps(state, at, steps);
        }
        self.called_steps(state, steps);
        for (_, value, late) in state.late.each() {
            let bell = u8::try_from(value).expect("few tokens");
            steps.push(("a late ring lands", State { bell, late, ..*state }));
        }
    }

    fn violation(&self, _: &State) -> Option<&'static str> {
        None
    }

    fn is_done(&self, state: &State) -> bool {
        let found = |known: &u8| *known == self.requests;
        state.known[..usize::from(self.callers)].iter().all(found)
    }
}
