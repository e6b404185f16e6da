//! A relay that is told what to do by lines, as the process that it is then.
//!
//! Keeps true: a line that is not understood changes nothing and says what would be right; the end of the
//! input ends the relay. Not here: what the commands do (parent module).

use std::io::{BufRead, Write};

use super::Relay;
use super::command::{Command, Endpoint};

/// Relays between the two places, each as [`Endpoint`] is written, and obeys `input` until it ends. For every line
/// there is one of `output`, the first one apart, which says that the relay listens.
///
/// # Errors
/// Where a place is not understood, the relay cannot listen, or the input or output is broken.
pub fn obey(
    listen: &str,
    target: &str,
    input: impl BufRead,
    mut output: impl Write,
) -> Result<(), Box<dyn std::error::Error>> {
    let (listen, target) = (listen.parse::<Endpoint>()?, target.parse::<Endpoint>()?);
    let mut relay = Relay::start(&listen, &target, 0)?;
    writeln!(output, "relaying {} to {target}", relay.endpoint())?;
    for line in input.lines() {
        match line?.parse::<Command>() {
            Ok(command) => {
                relay.command(command)?;
                writeln!(output, "done")?;
            }
            Err(error) => writeln!(output, "{error}")?,
        }
    }
    Ok(())
}
