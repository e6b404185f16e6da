//! A relay before a server, told by lines of its input: `relay LISTEN TARGET`, as in
//! `relay unix:/tmp/path-a.sock unix:/tmp/nbd.sock`; then `pause`, `delay 5ms 2ms`, `kill` and so on.
//!
//! Keeps true: a line that is not understood changes nothing and says what would be right; the end of the
//! input ends the relay. Not here: what the commands do (`system_tests::relay`).

use std::io::BufRead;
use std::process::ExitCode;

use system_tests::relay::Relay;
use system_tests::relay::command::{Command, Endpoint};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [listen, target] = &arguments[..] else {
        eprintln!("usage: relay LISTEN TARGET, each tcp:HOST:PORT or unix:PATH; commands come on the input");
        return ExitCode::from(2);
    };
    match run(listen, target) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("relay: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(listen: &str, target: &str) -> Result<(), Box<dyn std::error::Error>> {
    let (listen, target) = (listen.parse::<Endpoint>()?, target.parse::<Endpoint>()?);
    let mut relay = Relay::start(&listen, &target, 0)?;
    println!("relaying {} to {target}", relay.endpoint());
    for line in std::io::stdin().lock().lines() {
        match line?.parse::<Command>() {
            Ok(command) => {
                relay.command(command)?;
                println!("done");
            }
            Err(error) => println!("{error}"),
        }
    }
    Ok(())
}
