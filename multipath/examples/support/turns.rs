//! `PROGRAM NAME TURNS`: takes so many turns of one hot function, for a tool that counts the instructions within [`take_turns`]
//! (`tests/tests/instruction_counts.rs`). Without arguments it prints the names.
//!
//! Keeps true: a turn does the same as the one before it, in virtual time, without chance, threads and input; as many turns as
//! are counted come before these, so that nothing is warmed up while it counts. Not here: what a turn is, and what it should
//! cost.

use std::error::Error;
use std::ops::Range;

/// One turn, told its number.
pub(crate) type Turn = Box<dyn FnMut(u64)>;

/// A hot function, by its name in the table of counts, and what makes all that it works on.
pub(crate) type HotFunction = (&'static str, fn() -> Turn);

/// The program.
///
/// # Errors
/// For a name that is not among them, and what is no number.
pub(crate) fn run(functions: &[HotFunction]) -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, turns] = arguments.as_slice() else {
        functions.iter().for_each(|(name, _)| println!("{name}"));
        return Ok(());
    };
    let (_, make) = functions.iter().find(|(known, _)| known == name).ok_or("no such name")?;
    let (mut turn, turns) = (make(), turns.parse()?);
    (0..turns).for_each(&mut turn);
    take_turns(&mut turn, turns..turns * 2);
    Ok(())
}

/// What is counted.
#[inline(never)]
fn take_turns(turn: &mut Turn, turns: Range<u64>) {
    turns.for_each(turn);
}
