//! Breadth-first search over every state of a model.
//!
//! ```text
//!  states   [ s0 | s1 | s2 | ... ]     in the order in which they were found, each once
//!  parents  [  - |  0 |  0 | ... ]     by which the shortest trace is walked back
//!  index    open addressing: half a hash and a number for each state
//!  edges    only for liveness: where each state leads; walked backwards from the done states
//! ```
//!
//! What holds: two states are taken as one only if they are equal, so nothing is missed by a hash; the
//! first violation found has the shortest trace; the same model gives the same figures. At its limit of
//! states a search ends and says that it is not exhaustive. Not here: what a model means.

use super::Model;
use std::hash::{Hash, Hasher};

/// The largest state of a model, in bytes.
const STATE_BYTES_MAX: usize = 64;
/// Slots of the index at the beginning.
const INDEX_SLOTS_MIN: usize = 1 << 10;
/// Marks a state that has no parent.
const NO_PARENT: u32 = u32::MAX;

/// How far to search, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// States that are found at most.
    pub states_max: usize,
    /// Whether to look for states from which no done state can be reached.
    pub liveness: bool,
}

/// A step of a trace: its name, and the state after it.
#[derive(Clone, Debug)]
pub struct Step {
    /// What was done.
    pub action: String,
    /// What it led to.
    pub state: String,
}

/// What a search found.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Different states.
    pub states: usize,
    /// Steps between them, those to known states included.
    pub transitions: u64,
    /// The longest of the shortest ways from the beginning.
    pub depth: u32,
    /// Whether every state within the bounds was visited.
    pub exhaustive: bool,
    /// What must not be and was found.
    pub violation: Option<&'static str>,
    /// States from which no done state can be reached; `None` if that was not looked for.
    pub stuck: Option<usize>,
    /// The shortest way to the violation, or to the nearest stuck state.
    pub trace: Vec<Step>,
}

impl Outcome {
    /// The trace as numbered lines.
    #[must_use]
    pub fn trace_lines(&self) -> String {
        let line =
            |(number, step): (usize, &Step)| format!("{number:4}. {}\n      {}\n", step.action, step.state);
        (1..).zip(&self.trace).map(line).collect()
    }
}

/// A hash of a few multiplications: the states are small and nobody chooses them.
#[derive(Default)]
struct Mixer(u64);

impl Mixer {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.mix(value.into());
    }

    fn write_u16(&mut self, value: u16) {
        self.mix(value.into());
    }

    fn write_u32(&mut self, value: u32) {
        self.mix(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.mix(value as u64);
    }

    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ self.0 >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
        mixed ^ mixed >> 32
    }
}

fn hash_of(state: &impl Hash) -> u64 {
    let mut mixer = Mixer::default();
    state.hash(&mut mixer);
    mixer.finish()
}

/// Every state found, each once.
struct Found<S> {
    states: Vec<S>,
    parents: Vec<u32>,
    /// Upper half of the hash, then the state's number plus one; 0 is free.
    slots: Vec<u64>,
}

impl<S: Copy + Eq + Hash> Found<S> {
    fn new() -> Self {
        const { assert!(size_of::<S>() <= STATE_BYTES_MAX, "a state is small") };
        Self { states: Vec::new(), parents: Vec::new(), slots: vec![0; INDEX_SLOTS_MIN] }
    }

    /// The number of a state, and whether it is new.
    fn insert(&mut self, state: S, parent: u32) -> (u32, bool) {
        let hash = hash_of(&state);
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while self.slots[at] != 0 {
            let number = self.slots[at] as u32 - 1;
            if self.slots[at] >> 32 == hash >> 32 && self.states[number as usize] == state {
                return (number, false);
            }
            at = (at + 1) & mask;
        }
        let number = u32::try_from(self.states.len()).expect("fewer states than 2^32");
        self.slots[at] = hash >> 32 << 32 | u64::from(number + 1);
        self.states.push(state);
        self.parents.push(parent);
        if self.states.len() * 3 > self.slots.len() * 2 {
            self.grow();
        }
        (number, true)
    }

    fn grow(&mut self) {
        let mask = self.slots.len() * 2 - 1;
        let mut slots = vec![0; mask + 1];
        for (number, state) in (1_u64..).zip(&self.states) {
            let hash = hash_of(state);
            let mut at = hash as usize & mask;
            while slots[at] != 0 {
                at = (at + 1) & mask;
            }
            slots[at] = hash >> 32 << 32 | number;
        }
        self.slots = slots;
    }

    /// The numbers of the states on the way to `number`, the first one first.
    fn way_to(&self, number: u32) -> Vec<u32> {
        let parent = |at: &u32| Some(self.parents[*at as usize]).filter(|parent| *parent != NO_PARENT);
        let mut way: Vec<u32> = std::iter::successors(Some(number), parent).collect();
        way.reverse();
        way
    }
}

/// Where each state leads: the targets of state n are those from `starts[n]` to `starts[n + 1]`.
#[derive(Default)]
struct Edges {
    starts: Vec<usize>,
    targets: Vec<u32>,
}

impl Edges {
    /// Numbers of the states from which none of `done` can be reached.
    fn stuck(&self, done: Vec<u32>, states: usize) -> Vec<u32> {
        let mut starts = vec![0_usize; states + 1];
        for &target in &self.targets {
            starts[target as usize + 1] += 1;
        }
        for at in 0..states {
            starts[at + 1] += starts[at];
        }
        let mut next = starts.clone();
        let mut sources = vec![0_u32; self.targets.len()];
        for (source, range) in (0_u32..).zip(self.starts.windows(2)) {
            for &target in &self.targets[range[0]..range[1]] {
                sources[next[target as usize]] = source;
                next[target as usize] += 1;
            }
        }
        let mut reaches = vec![false; states];
        let mut open = done;
        open.iter().for_each(|number| reaches[*number as usize] = true);
        while let Some(number) = open.pop() {
            let number = number as usize;
            for &source in &sources[starts[number]..starts[number + 1]] {
                if !std::mem::replace(&mut reaches[source as usize], true) {
                    open.push(source);
                }
            }
        }
        (0_u32..).zip(reaches).filter(|(_, reaches)| !reaches).map(|(number, _)| number).collect()
    }
}

/// Visits the states of `model`, nearest first, until a violation or the limit.
pub fn search<M: Model>(model: &M, limits: Limits) -> Outcome {
    let mut found = Found::new();
    let mut edges = Edges::default();
    let mut steps = Vec::new();
    let (mut transitions, mut depth, mut level_end) = (0_u64, 0, 0);
    let mut outcome = None;
    for state in model.initial() {
        let (number, new) = found.insert(state, NO_PARENT);
        if let Some(what) = model.violation(&state).filter(|_| new) {
            outcome.get_or_insert((what, number));
        }
    }
    let mut at = 0;
    level_end = level_end.max(found.states.len());
    while at < found.states.len() && found.states.len() < limits.states_max && outcome.is_none() {
        if at == level_end {
            depth += 1;
            level_end = found.states.len();
        }
        steps.clear();
        model.successors(&found.states[at], &mut steps);
        transitions += steps.len() as u64;
        edges.starts.extend(limits.liveness.then_some(edges.targets.len()));
        for (_, state) in &steps {
            let (number, new) = found.insert(*state, u32::try_from(at).expect("few states"));
            edges.targets.extend(limits.liveness.then_some(number));
            if let Some(what) = new.then(|| model.violation(state)).flatten() {
                outcome.get_or_insert((what, number));
                break;
            }
        }
        at += 1;
    }
    let exhaustive = at == found.states.len();
    let mut result = Outcome {
        states: found.states.len(),
        transitions,
        depth,
        exhaustive,
        violation: outcome.map(|(what, _)| what),
        stuck: None,
        trace: Vec::new(),
    };
    let mut end = outcome.map(|(_, number)| number);
    if limits.liveness && exhaustive && end.is_none() {
        edges.starts.push(edges.targets.len());
        let numbers = (0_u32..).zip(&found.states);
        let done = numbers.filter(|(_, state)| model.is_done(state)).map(|(number, _)| number).collect();
        let stuck = edges.stuck(done, found.states.len());
        result.stuck = Some(stuck.len());
        // States were found nearest first.
        end = stuck.first().copied();
    }
    result.trace = end.map_or_else(Vec::new, |number| trace(model, &found, number));
    if result.violation.is_some() {
        result.depth = u32::try_from(result.trace.len()).expect("a short trace");
    }
    result
}

/// The steps to a state, named by doing them again.
fn trace<M: Model>(model: &M, found: &Found<M::State>, number: u32) -> Vec<Step> {
    let way: Vec<M::State> =
        found.way_to(number).into_iter().map(|number| found.states[number as usize]).collect();
    let mut steps = Vec::new();
    let mut named = Vec::new();
    for pair in way.windows(2) {
        steps.clear();
        model.successors(&pair[0], &mut steps);
        let (action, state) = steps
            .iter()
            .find(|(_, state)| *state == pair[1])
            .expect("the step that led there is still possible");
        named.push(Step { action: format!("{action:?}"), state: format!("{state:?}") });
    }
    named
}

#[cfg(test)]
mod tests {
    use super::{Limits, Model, search};

    /// A counter that goes up by one or two, up to `last`, and may fall into a pit.
    struct Counter {
        last: u8,
        wrong: u8,
        pit: Option<u8>,
    }

    impl Model for Counter {
        type State = u8;
        type Action = &'static str;

        fn initial(&self) -> Vec<u8> {
            vec![0]
        }

        fn successors(&self, state: &u8, steps: &mut Vec<(&'static str, u8)>) {
            if self.pit == Some(*state) {
                steps.push(("fall", 255));
            }
            if *state < self.last {
                steps.push(("one", state + 1));
                steps.push(("two", (state + 2).min(self.last)));
            }
        }

        fn violation(&self, state: &u8) -> Option<&'static str> {
            (*state == self.wrong).then_some("wrong")
        }

        fn is_done(&self, state: &u8) -> bool {
            *state == self.last
        }
    }

    const ALL: Limits = Limits { states_max: 1000, liveness: true };

    #[test]
    fn every_state_is_visited_once() {
        let outcome = search(&Counter { last: 20, wrong: 99, pit: None }, ALL);
        assert_eq!((outcome.states, outcome.transitions, outcome.depth), (21, 40, 10));
        assert_eq!((outcome.violation, outcome.stuck, outcome.exhaustive), (None, Some(0), true));
    }

    #[test]
    fn the_trace_is_the_shortest() {
        let outcome = search(&Counter { last: 20, wrong: 7, pit: None }, ALL);
        assert_eq!((outcome.violation, outcome.trace.len()), (Some("wrong"), 4));
    }

    #[test]
    fn a_state_without_a_way_out_is_stuck() {
        let outcome = search(&Counter { last: 20, wrong: 99, pit: Some(5) }, ALL);
        assert_eq!((outcome.stuck, outcome.trace.len()), (Some(1), 4));
        assert_eq!(outcome.trace.last().map(|step| step.action.as_str()), Some("\"fall\""));
    }

    #[test]
    fn a_search_that_meets_its_limit_says_so() {
        let limits = Limits { states_max: 10, liveness: true };
        let outcome = search(&Counter { last: 200, wrong: 255, pit: None }, limits);
        assert!(!outcome.exhaustive && outcome.stuck.is_none());
    }
}
