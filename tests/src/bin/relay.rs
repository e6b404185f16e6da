//! A relay before a server, told by lines of its input: `relay LISTEN TARGET`, as in
//! `relay unix:/tmp/path-a.sock unix:/tmp/nbd.sock`; then `pause`, `delay 5ms 2ms`, `kill` and so on.
//!
//! Keeps true: what `system_tests::relay::console` says. Not here: what the commands do (`system_tests::relay`).

use std::process::ExitCode;

use system_tests::relay::console::obey;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [listen, target] = &arguments[..] else {
        eprintln!("usage: relay LISTEN TARGET, each tcp:HOST:PORT or unix:PATH; commands come on the input");
        return ExitCode::from(2);
    };
    match obey(listen, target, std::io::stdin().lock(), std::io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("relay: {error}");
            ExitCode::FAILURE
        }
    }
}
